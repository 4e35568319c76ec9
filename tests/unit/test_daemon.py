"""The runtime directory: whose it is, and when what is in it goes; no mount is made here."""

import dataclasses
import fcntl
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from kernel_client import CONTEXT
from tree_client import Client

from zeventfs import daemon
from zeventfs.config import parse
from zeventfs.daemon import _Daemon, _runtime, run
from zeventfs.errors import Invalid, MountFailed
from zeventfs.fuse.ending import EndSignals
from zeventfs.nodes.base import Directory, File
from zeventfs.simulator.scenario import builtin


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    return tmp_path / "base" / "runtime"


def fill(path: Path) -> None:
    for name in ("handles", "segment-0000000001", "segment-0000000002"):
        (path / name).write_bytes(b"x")


def names(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


def test_it_says_who_lives_there(runtime: Path) -> None:
    with _runtime(runtime) as path:
        assert path == runtime
        assert (path / "pid").read_text() == f"{os.getpid()}\n"
        assert path.stat().st_mode & 0o777 == 0o700


def test_after_an_orderly_end_only_what_is_not_ours_is_left(runtime: Path) -> None:
    with _runtime(runtime) as path:
        fill(path)
        (path / "log").write_text("somebody's")
    assert names(runtime) == {"log"}


def test_after_a_crash_it_stays(runtime: Path) -> None:
    with pytest.raises(ZeroDivisionError), _runtime(runtime) as path:  # noqa: PT012 - it is inside
        fill(path)
        raise ZeroDivisionError
    assert len(names(runtime)) == 4
    with _runtime(runtime):
        pass
    assert names(runtime) == set()


def test_a_mount_that_never_was_leaves_nothing(runtime: Path) -> None:
    with pytest.raises(MountFailed, match="why"), _runtime(runtime) as path:  # noqa: PT012 - inside
        fill(path)
        raise MountFailed("why")
    assert names(runtime) == set()


def test_a_failed_mount_keeps_what_an_earlier_daemon_left(runtime: Path) -> None:
    runtime.mkdir(parents=True)
    fill(runtime)
    with pytest.raises(MountFailed, match="why"), _runtime(runtime):
        raise MountFailed("why")
    assert {"segment-0000000001", "segment-0000000002"} <= names(runtime)


def test_two_daemons_never_share_it(runtime: Path) -> None:
    with _runtime(runtime):
        with pytest.raises(MountFailed, match="lives in"), _runtime(runtime):
            pytest.fail("both live")
        assert names(runtime) == {"pid"}


def test_a_place_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountFailed, match=r"can't use .*file"), _runtime(tmp_path / "file"):
        pytest.fail("no directory")


def test_a_file_system_without_locks_or_room_is_a_sentence(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with pytest.raises(MountFailed, match="No space left"), _runtime(runtime):
            pytest.fail("not locked")


def test_a_state_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    config = parse("sim", tmp_path)
    assert config.runtime.is_relative_to(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(daemon, "HandleTable", refuse)
    with pytest.raises(MountFailed, match="Input/output error"):
        run(config, lambda: pytest.fail("ready"))
    assert names(config.runtime) == set()


LINE = b'{"class":"sysevent.fs.zfs.config_sync","pool":"tank"}\n'
CORPUS = Path(__file__).parents[1] / "corpus" / "zevents.jsonl"


def made(tmp_path: Path, source: str, *options: str) -> _Daemon:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    config = dataclasses.replace(parse(source, tmp_path, options), runtime=runtime)
    return _Daemon(config, runtime, ExitStack())


async def inject(simulated: _Daemon, lines: bytes) -> None:
    assert simulated._zfs.simulated is not None
    await simulated._zfs.simulated.inject(lines)


async def test_injected_lines_are_in_the_journal_when_the_write_returns(tmp_path: Path) -> None:
    simulated = made(tmp_path, "sim", "sim.rate=0")
    await inject(simulated, LINE * 100)
    assert simulated._journal.statistics().queued == 100
    with pytest.raises(Invalid, match="Line 41"):
        await inject(simulated, LINE * 40 + b"nonsense\n" + LINE)
    assert simulated._journal.statistics().queued == 100


async def test_a_clear_reaches_device_and_journal(tmp_path: Path) -> None:
    simulated = made(tmp_path, "sim", "sim.rate=0")
    await inject(simulated, LINE * 3)
    simulated._clear()
    assert simulated._journal.statistics().queued == 0
    assert simulated._zfs.simulated is not None
    assert len(simulated._zfs.simulated.device) == 0


async def test_the_files_of_the_simulator_steer_its_story(tmp_path: Path) -> None:
    simulated = made(tmp_path, "sim", "sim.rate=0.5", "sim.seed=7")
    client = Client(simulated._tree())
    assert client.names("simulator") == ["inject", "scenario", "seed", "rate", "vbd", "dm"]
    assert await client.content("simulator/seed") == b"7\n"
    assert await client.content("simulator/rate") == b"0.5\n"
    await client.write("simulator/seed", b"18446744073709551615\n")
    await client.write("simulator/rate", b" 1000000 \n")
    await client.write("simulator/scenario", b"storm\n")
    assert await client.content("simulator/seed") == b"18446744073709551615\n"
    assert await client.content("simulator/rate") == b"1000000\n"
    assert (await client.content("simulator/scenario")).startswith(b"scenario=storm\n")
    for name in ("seed", "rate", "scenario"):
        with pytest.raises(Invalid):
            await client.write(f"simulator/{name}", b"\xffquux\n")


def test_a_scenario_that_changed_since_it_was_checked_is_a_sentence(tmp_path: Path) -> None:
    story = tmp_path / "story.json"
    story.write_bytes(builtin()["tank"])
    config = dataclasses.replace(
        parse("sim", tmp_path, [f"sim.scenario={story}"]), runtime=tmp_path / "runtime"
    )
    story.write_text("{}")
    with pytest.raises(MountFailed, match=r"story.json: .*pools"):
        run(config, lambda: pytest.fail("ready"))


async def test_a_signal_before_the_mount_makes_none(tmp_path: Path) -> None:
    simulated = made(tmp_path, "sim")
    with EndSignals() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(MountFailed, match="SIGTERM"):
            await simulated.serve(lambda: pytest.fail("ready"), asked)


async def test_every_source_stands_in_the_tree_under_its_name(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(CORPUS.read_bytes())
    mixed = made(tmp_path, f"sim+replay:{CORPUS}+replay:{copy}", "sim.rate=0")
    sources = mixed._tree().lookup("sources")
    assert isinstance(sources, Directory)
    assert [name for name, _ in sources.entries()] == ["sim", "replay", "replay.2"]


async def test_a_lost_device_is_an_event_of_the_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simulated = made(tmp_path, "sim", "sim.rate=0")
    assert simulated._zfs.simulated is not None
    simulated._zfs.simulated.device.shutdown()
    line = bytes(simulated._journal.current.lines.buffer)[: simulated._journal.lines.end]
    assert b'"class":"zeventfs.source.lost"' in line
    assert b'"payload":{"class":"zeventfs.source.lost","source":"sim","reason":"' in line
    simulated._clear()
    assert len(caplog.records) == 1


async def test_the_latest_requests_are_in_the_tree(tmp_path: Path) -> None:
    simulated = made(tmp_path, "sim", "sim.rate=0")
    await simulated._operations.statfs(CONTEXT)
    debug = simulated._tree().lookup("debug")
    assert isinstance(debug, Directory)
    requests = debug.lookup("requests")
    assert isinstance(requests, File)
    opened = await requests.open(1)
    assert b"statfs / pid=0 " in bytes(opened.read(0, 4096) or b"")
