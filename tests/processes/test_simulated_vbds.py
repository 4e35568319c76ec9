"""The simulator's VBDs: what can be told, the story, and that nothing is left of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from tapdisk_sources import Posted, until

from zeventfs.errors import Exists, Invalid
from zeventfs.simulator import vbds as module
from zeventfs.simulator.vbds import SimulatedVbds
from zeventfs.vbd.counters import Queue
from zeventfs.vbd.observed import RUNNING
from zeventfs.vbd.shown import ShownVbd
from zeventfs.vbd.states import Channel, Request, Vbd


@asynccontextmanager
async def simulated(
    place: Path, posted: Posted, rate: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[SimulatedVbds]:
    vbds = SimulatedVbds(place, posted.post, time.time_ns, 0, rate)
    async with trio.open_nursery() as nursery:
        answers = trio.Event()
        answers.set()
        await nursery.start(vbds.run, answers)
        await trio.testing.wait_all_tasks_blocked()
        yield vbds
        nursery.cancel_scope.cancel()
    assert not _exists(place)
    for event in posted.of("tapdisk.channel"):
        if "pid" in event:
            assert not _exists(Path(f"/proc/{event['pid']}"))


def get(vbds: SimulatedVbds, vbd: str) -> ShownVbd:
    shown = vbds.vbds.get(vbd)
    assert shown is not None
    return shown


async def until_some(count: Callable[[Queue], int | None], shown: ShownVbd) -> None:
    with trio.fail_after(10):
        while not count(await shown.queue()):  # noqa: ASYNC110 - of processes
            await trio.sleep(0.05)


async def is_running(vbds: SimulatedVbds, vbd: str) -> ShownVbd:
    await until(lambda: get(vbds, vbd).status().states == RUNNING)
    return get(vbds, vbd)


async def test_at_rate_0_there_is_none_and_one_can_be_added(tmp_path: Path) -> None:
    async with simulated(tmp_path / "vbds", Posted()) as vbds:
        assert list(vbds.vbds) == []
        await vbds.act(b"# a VBD\nadd 7\n\n")
        shown = await is_running(vbds, "7")
        chain = await shown.chain()
        assert chain is not None
        assert not chain.problems
        with pytest.raises(Exists):
            await vbds.act(b"add 7")
        await vbds.act(b"remove 7")
        assert list(vbds.vbds) == []
        with pytest.raises(Invalid, match="there is no VBD"):
            await vbds.act(b"remove 7")


async def test_a_place_with_a_long_name_will_do(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 200)
    async with simulated(place, Posted()) as vbds:
        await vbds.act(b"add 0\n")
        shown = await is_running(vbds, "0")
        os.kill(shown.status().pid or 0, signal.SIGKILL)
        await until(lambda: shown.status().states.vbd is Vbd.BROKEN)


async def test_a_tapdisk_can_be_told_anything(tmp_path: Path) -> None:
    posted = Posted()
    async with simulated(tmp_path / "vbds", posted) as vbds:
        await vbds.act(b"add 0\nadd 1 ram:/x\nadd 2\nadd 3\nadd 4\n")
        for vbd in "01234":
            await is_running(vbds, vbd)
        await vbds.act(b"kill 0\nkill 1 TERM\nexit 2 3\npause:refuse 3 EIO no disk\nstop 4\n")
        get(vbds, "3").ask(Request.PAUSE)
        for vbd in "0123":
            await until(lambda: get(vbds, vbd).status().states.vbd is Vbd.BROKEN)  # noqa: B023 - called here
        reasons = [get(vbds, vbd).status().reason for vbd in "012"]
        assert reasons == ["killed by SIGKILL", "killed by SIGTERM", "exited with status 3"]
        assert posted.of("tapdisk.error", "3")[0]["reason"] == "PAUSE: EIO: no disk"
        await vbds.act(b"kill 4 18")  # it goes on


@pytest.mark.parametrize(
    "line",
    [
        b"add",
        b"add x",
        b"add 1 nonsense",
        b"add 1 2 3",
        b"remove 0 0",
        b"kill 0 NONE",
        b"kill 0 999",
        b"kill 0 9 9",
        b"nonsense",
        b"nonsense 0",
        b"exit 0 x",
        b"\xff\xfe 0",
    ],
)
async def test_what_cannot_be_done_is_refused(tmp_path: Path, line: bytes) -> None:
    async with simulated(tmp_path / "vbds", Posted()) as vbds:
        await vbds.act(b"add 0")
        await is_running(vbds, "0")
        with pytest.raises(Invalid):
            await vbds.act(line)
        assert list(vbds.vbds) == ["0"]


async def test_requests_and_notifications_are_counted(tmp_path: Path) -> None:
    async with simulated(tmp_path / "vbds", Posted()) as vbds:
        await vbds.act(b"add 0")
        shown = await is_running(vbds, "0")
        await vbds.act(b"rate 0 1000")
        await until_some(lambda queue: queue.completed, shown)
        kicks = await shown.kicks()
        assert kicks is not None
        assert kicks.incoming
        assert kicks.outgoing
        assert None not in await shown.queue()
        await vbds.act(b"io 0 stick\n")
        await until_some(lambda queue: queue.pending, shown)


async def test_the_story_has_all_that_can_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RATE_MOST", 400.0)
    posted = Posted()
    rate = 1000.0
    async with simulated(tmp_path / "vbds", posted, lambda: rate) as vbds:
        await until(lambda: list(vbds.vbds) == ["0", "1", "2"])
        everything = {"PAUSING", "PAUSED", "UNPAUSED", "BROKEN", "DEAD"}
        await until(lambda: everything == {each["to"] for each in posted.of("tapdisk.vbd")})
        errors = {"killed by SIGKILL", "RESUME: ENOENT: the SR is away"}
        await until(lambda: errors <= {each["reason"] for each in posted.of("tapdisk.error")})
        await until(lambda: "DOWN" in {each["to"] for each in posted.of("tapdisk.shutdown")})
        rate = 0.0


DAEMON = """
import sys, time, trio
from pathlib import Path
from zeventfs.simulator.vbds import SimulatedVbds
from zeventfs.vbd.states import Channel

async def main():
    simulated = SimulatedVbds(Path(sys.argv[1]), lambda _: None, time.time_ns, 0, lambda: 1.0)
    async with trio.open_nursery() as nursery:
        answers = trio.Event()
        answers.set()
        await nursery.start(simulated.run, answers)
        vbds = simulated.vbds
        while [vbds.get(vbd).status().states.channel for vbd in vbds] != [Channel.RUNNING] * 3:
            await trio.sleep(0.01)
        await simulated.act(b"stop 1")
        print(*[vbds.get(vbd).status().pid for vbd in vbds], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_none_outlives_a_daemon_that_is_killed(tmp_path: Path) -> None:
    daemon = subprocess.Popen(  # noqa: ASYNC220 - a short wait
        [sys.executable, "-c", DAEMON, str(tmp_path / "vbds")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert daemon.stdout is not None
    with daemon.stdout:
        try:
            line = await trio.to_thread.run_sync(daemon.stdout.readline)
        finally:
            daemon.kill()
            daemon.wait()
    pids = [int(pid) for pid in line.split()]
    assert len(pids) == 3
    await until(lambda: not any(_lives(pid) for pid in pids))
    async with simulated(tmp_path / "vbds", Posted()) as vbds:  # what was left is no harm
        assert list(vbds.vbds) == []
        await vbds.act(b"add 0")
        assert (await is_running(vbds, "0")).status().states.channel is Channel.RUNNING


def _exists(path: Path) -> bool:
    return path.exists()


def _lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
