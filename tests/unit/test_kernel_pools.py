"""The kernel asked about its pools: by stand-ins for zpool, and kstats in a directory."""

import logging
import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from pool_events import BEGIN, event

from zeventfs.event import NS
from zeventfs.pools.pool import Pool
from zeventfs.pools.pools import Pools
from zeventfs.pools.tables import state_text, vdevs_text
from zeventfs.sources import kernel_pools as module
from zeventfs.sources.kernel_pools import KernelPools

JSON = (
    '{"pools": {"tank": {"name": "tank", "state": "DEGRADED", "pool_guid": 7, "vdevs": {"tank": '
    '{"name": "tank", "vdev_type": "root", "guid": 7, "vdevs": {"sda": {"name": "sda", "guid": 1, '
    '"vdev_type": "disk", "path": "/dev/sda1", "state": "FAULTED"}}}}}}}'
)


class Host:
    """A host's kstats and zpool, in *directory*; `asked` are the arguments of each zpool."""

    def __init__(self, directory: Path) -> None:
        self.kstats = directory / "kstats"
        self.log = directory / "asked"
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.pools = Pools()
        self.now = BEGIN * NS

    def pool(self, name: str, **kstats: str) -> None:
        (self.kstats / name).mkdir(parents=True, exist_ok=True)
        for kstat, said in kstats.items():
            (self.kstats / name / kstat).write_text(said + "\n")

    def zpool(self, script: str) -> None:
        """Have a zpool that runs *script*, a shell's, with $* its arguments."""
        program = self.bin / "zpool"
        program.write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(self.log))}\n{script}\n')
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def shown(self) -> dict[str, Pool]:
        return dict(self.pools.current(0))

    def kernel(self, *, alone: bool = True) -> KernelPools:
        return KernelPools(
            self.pools, lambda: self.now, alone=alone, kstats=self.kstats, path=str(self.bin)
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@asynccontextmanager
async def running(kernel: KernelPools) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.run)
        yield
        nursery.cancel_scope.cancel()


def prints(name: str) -> str:
    """A shell's script that prints what is recorded, as a zpool without JSON."""
    directory = shlex.quote(str(Path(__file__).parent.parent / "corpus" / "zpool"))
    return (
        f'cd {directory}\ncase "$*" in *-j*) echo "invalid option" >&2; exit 2;; '
        f"list*) cat {name}.list;; *-g*) cat {name}.guids;; *-P*) cat {name}.paths;; esac"
    )


def read(file: Path) -> str:
    return file.read_text().strip()


def lives(pid: str) -> bool:
    return Path("/proc", pid).exists()


def word(pool: Pool, key: str) -> str:
    return dict(line.split("=", 1) for line in state_text(pool).decode().splitlines())[key]


async def test_without_the_module_nothing_is_asked(host: Host) -> None:
    host.zpool(f"echo {shlex.quote(JSON)}")
    await host.kernel()._look()
    assert host.asked == []
    assert host.shown() == {}


async def test_json_is_asked_for_in_one(host: Host) -> None:
    host.pool("tank", state="DEGRADED", guid="7")
    host.zpool(f"echo {shlex.quote(JSON)}")
    await host.kernel()._look()
    tank = host.shown()["tank"]
    assert (tank.guid, tank.health) == (7, "DEGRADED")
    assert b"/dev/sda1  FAULTED" in vdevs_text(tank)
    assert host.asked == ["status -j --json-int -p -P -s"]


async def test_a_zpool_without_json_is_asked_for_text_and_that_is_remembered(host: Host) -> None:
    host.pool("rz", state="DEGRADED")
    host.zpool(prints("checksums"))
    kernel = host.kernel()
    await kernel._look()
    assert b"/vd/d9" in vdevs_text(host.shown()["rz"])
    text = ["list -H -p -o name,guid,health", "status -g -p -s", "status -P -p -s"]
    assert host.asked == ["status -j --json-int -p -P -s", *text]
    await kernel._look()
    assert host.asked[4:] == text


async def test_a_host_without_pools_has_none(host: Host) -> None:
    host.kstats.mkdir()
    (host.kstats / "arcstats").write_text("")
    host.pools.take(event("sysevent.config_sync"), 1)
    host.now += NS
    host.zpool(prints("none"))
    await host.kernel()._look()
    assert word(host.shown()["tank"], "STATE") == "ABSENT"
    assert len(host.asked) == 2


async def test_other_sources_pools_are_left_as_they_are(host: Host) -> None:
    host.kstats.mkdir()
    host.pools.take(event("sysevent.pool_import"), 1)
    host.now += NS
    host.zpool(prints("none"))
    await host.kernel(alone=False)._look()
    assert word(host.shown()["tank"], "STATE") == "ACTIVE"


async def test_without_zpool_the_kstats_tell_what_they_can(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.pool("my pool", state="SUSPENDED")
    host.pool("tank", state="ONLINE", guid="7")
    host.pool("passing")
    kernel = host.kernel()
    await kernel._look()
    await kernel._look()
    shown = host.shown()
    assert word(shown["my pool"], "SUSPENDED") == "yes"
    assert (shown["tank"].guid, shown["tank"].health) == (7, "ONLINE")
    assert shown["passing"].health == ""
    assert [record.message for record in caplog.records] == [
        "what pools/ shows is from events and kstats alone: there is no zpool program"
    ], "said once"


async def test_where_no_program_may_be_started_none_is_sought(host: Host) -> None:
    host.pool("tank", state="ONLINE")
    host.zpool(f"echo {shlex.quote(JSON)}")
    await KernelPools(host.pools, lambda: 5, alone=True, kstats=host.kstats, path=None)._look()
    assert host.shown()["tank"].health == "ONLINE"
    assert host.asked == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'internal error: out of luck' >&2; exit 1", "zpool: internal error: out of luck"),
        ("exit 1", "zpool: exit status 1"),
        ("echo '{'", "zpool status -j: "),
        ("case $2 in -j) exit 2;; *) echo x;; esac", "zpool list: not a pool's line: 'x'"),
        ("kill -9 $$", "zpool: exit status -9"),
    ],
)
async def test_a_zpool_that_fails_is_logged_and_leaves_the_kstats(
    host: Host, script: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    host.pool("tank", state="ONLINE")
    host.zpool(script)
    await host.kernel()._look()
    assert host.shown()["tank"].health == "ONLINE"
    (record,) = caplog.records
    assert reason in record.message


async def test_a_zpool_that_cannot_be_started_is_logged(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.pool("tank", state="ONLINE")
    (host.bin / "zpool").write_bytes(b"\x7fELF no program")
    (host.bin / "zpool").chmod(0o755)
    await host.kernel()._look()
    assert "Exec format error" in caplog.records[0].message


async def test_what_no_one_thought_of_is_logged_and_ends_nothing(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.pool("tank", state="ONLINE")
    monkeypatch.setattr(Pools, "seed", lambda *_: 1 / 0)
    await host.kernel()._look()
    assert caplog.records[0].levelno == logging.ERROR


async def test_what_changes_while_it_is_asked_is_asked_again(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host.pool("tank", state="ONLINE")
    count = shlex.quote(str(tmp_path / "count"))
    host.zpool(f"echo >> {count}; [ $(wc -l < {count}) = 2 ] && echo {shlex.quote(JSON)}; exit 0")
    await host.kernel()._look()
    assert host.shown()["tank"].health == "DEGRADED"
    assert len(host.asked) == 2
    (tmp_path / "count").write_text("\n" * 9)
    await host.kernel()._look()
    assert len(host.asked) == 5, "but not without end"
    assert len(caplog.records) == 1


# One that hangs


async def test_a_zpool_that_hangs_is_killed_and_reaped(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_LIMIT_S", 0.2)
    host.pool("tank", state="ONLINE")
    host.zpool(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    kernel = host.kernel()
    await kernel._look()
    assert "zpool status gave no answer in 0.2 s" in caplog.records[0].message
    assert not lives(read(tmp_path / "pid"))
    host.zpool(f"echo {shlex.quote(JSON)}")
    await kernel._look()
    assert host.shown()["tank"].health == "DEGRADED"


async def test_a_zpool_that_prints_without_end_is_killed(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LIMIT_S", 0.2)
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    host.pool("tank", state="ONLINE")
    host.zpool("exec yes")
    await host.kernel()._look()
    assert "gave no answer" in caplog.records[0].message


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[trio.Process]:
    """The processes started, none of which ends when it is killed: as in state D."""
    monkeypatch.setattr(module, "_LIMIT_S", 0.2)
    monkeypatch.setattr(module, "_REAP_S", 0)
    started: list[trio.Process] = []
    opens = trio.lowlevel.open_process

    async def open_process(*arguments: Any, **options: Any) -> trio.Process:
        process = await opens(*arguments, **options)
        monkeypatch.setattr(process, "kill", lambda: None)
        started.append(process)
        return process

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    return started


async def test_one_that_the_kernel_keeps_is_left_and_no_other_is_started(
    host: Host, kept: list[trio.Process], caplog: pytest.LogCaptureFixture
) -> None:
    host.pool("tank", state="ONLINE")
    host.zpool("exec sleep 1000")
    kernel = host.kernel()
    await kernel._look()
    await kernel._look()
    (process,) = kept
    assert f"zpool, process {process.pid}, hangs in the kernel" in caplog.records[1].message
    process.terminate()
    await process.wait()
    host.zpool(f"echo {shlex.quote(JSON)}")
    await kernel._look()
    assert host.shown()["tank"].health == "DEGRADED"


async def test_the_kernel_is_asked_again_when_it_lets_one_go(
    host: Host, kept: list[trio.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("_PAUSE_S", "_SHARE", "_TOGETHER_S"):
        monkeypatch.setattr(module, pause, 0)
    looked = [trio.Event(), trio.Event()]
    look = KernelPools._look

    async def looks(kernel: KernelPools) -> None:
        await look(kernel)
        looked[len(kept) - 1].set()

    monkeypatch.setattr(KernelPools, "_look", looks)
    host.pool("tank", state="ONLINE")
    host.zpool("exec sleep 1000")
    async with running(host.kernel()):
        await looked[0].wait()
        host.zpool(f"echo {shlex.quote(JSON)}")
        kept[0].terminate()
        await looked[1].wait()
    assert host.shown()["tank"].health == "DEGRADED"


async def test_the_end_of_the_daemon_ends_zpool(host: Host, tmp_path: Path) -> None:
    host.pool("tank", state="ONLINE")
    os.mkfifo(tmp_path / "pid")
    host.zpool(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    async with running(host.kernel()):
        pid = await trio.to_thread.run_sync(read, tmp_path / "pid")
        assert lives(pid)
    assert not lives(pid)


# When it is asked


@pytest.fixture
def looks(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the kernel was asked, in seconds since the test began; each takes a second."""
    times: list[float] = []

    async def look(_: KernelPools) -> None:
        times.append(trio.current_time())
        await trio.sleep(1)

    monkeypatch.setattr(KernelPools, "_look", look)
    assert host
    return times


async def test_the_kernel_is_asked_at_once_and_then_only_when_events_come(
    host: Host, looks: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.rate == 0
    begun = trio.current_time()
    async with running(host.kernel()):
        await trio.sleep(1000)
        host.pools.take(event("sysevent.history_event"), 1)
        await trio.sleep(1000)
        assert looks == [begun]
        host.pools.take(event("resource.statechange"), 2)
        await trio.sleep(1000)
    assert looks == [begun, begun + 2001], "when what belongs together has happened"


async def test_many_events_have_it_asked_now_and_then(
    host: Host, looks: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.rate == 0
    begun = trio.current_time()
    async with running(host.kernel()):
        for seq in range(100):
            await trio.sleep(1)
            host.pools.take(event("ereport.checksum"), seq)
        await trio.sleep(1000)
    assert looks == [begun + second for second in range(0, 111, 11)]
