"""The ZFS sources of a mount: which there are, how recordings end, how lines are injected."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from zeventfs import zfs_events
from zeventfs.config import parse
from zeventfs.event import Event
from zeventfs.simulator.inject import MAX_BYTES
from zeventfs.zfs_events import ZfsEvents, _Loop, _pieces

CORPUS = Path(__file__).parents[1] / "corpus" / "zevents.jsonl"


def test_lines_are_taken_in_pieces_that_the_simulator_takes() -> None:
    assert _pieces(b"a\nb\n") == (b"a\nb\n",)
    begun = b"a" * (MAX_BYTES // 2) + b"\n"
    rest = b"b\n" * (MAX_BYTES // 2 - 1)
    assert _pieces(begun + rest) == (begun, b"\n" + rest)
    assert all(len(piece) <= MAX_BYTES for piece in _pieces(begun + rest))
    endless = b"a" * (MAX_BYTES + 1)
    assert _pieces(endless) == (endless,)


def made(tmp_path: Path, source: str, posted: list[Event]) -> ZfsEvents:
    def post(event: Event) -> int:
        posted.append(event)
        return len(posted)

    return ZfsEvents(parse(source, tmp_path, ["sim.rate=0"]), post, lambda: 10**18, ExitStack())


def _some_ready(sources: ZfsEvents) -> bool:
    return any(status().state.value == "ready" for status in sources.statuses().values())


async def run(sources: ZfsEvents) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sources.run)
        with trio.fail_after(10):
            while _some_ready(sources):  # noqa: ASYNC110 - how it stands is no event of trio
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_the_end_of_a_replay_is_an_event(tmp_path: Path) -> None:
    posted: list[Event] = []
    copy = tmp_path / "copy"
    copy.write_bytes(CORPUS.read_bytes())
    replaying = made(tmp_path, f"replay:{CORPUS}+replay:{copy}", posted)
    assert replaying.simulated is None
    assert replaying.rate() == 0
    await run(replaying)
    statuses = [status() for status in replaying.statuses().values()]
    assert list(replaying.statuses()) == ["replay", "replay.2"]
    assert [each.state.value for each in statuses] == ["ended", "ended"]
    assert [each.reason for each in statuses] == ["end of the recording"] * 2
    assert statuses[0].events == statuses[1].events > 200
    ends = [event for event in posted if event.name == "zeventfs.source.end"]
    assert {event.payload.get("replay") for event in ends} == {str(CORPUS), str(copy)}
    assert posted[-1] is ends[-1]


async def test_a_bug_in_a_replay_is_not_the_end_of_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    posted: list[Event] = []
    replaying = made(tmp_path, f"replay:{CORPUS}", posted)

    async def fail(_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(zfs_events, "play", fail)
    await run(replaying)
    assert [event.name for event in posted] == ["zeventfs.source.end"]
    assert len(caplog.records) == 1


async def test_nothing_more_begins_in_a_loop_that_is_over() -> None:
    loop = _Loop()
    called: list[str] = []
    loop.later(0, lambda: called.append("early"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        with trio.fail_after(5):
            while not called:  # noqa: ASYNC110 - what is called is no event of trio
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    loop.later(0, lambda: called.append("late"))
    await trio.sleep(0.05)
    assert called == ["early"]
