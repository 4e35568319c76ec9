"""A recording is fed at its pace, bad ends included, and nobody has to wait for its file."""

import base64
import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from zeventfs.nvlist import NVList, Type, encode
from zeventfs.sources import player
from zeventfs.sources.player import play
from zeventfs.sources.replay import ReplayDevice


def line(eid: int) -> bytes:
    native = encode(NVList.of([("eid", Type.UINT64, eid)]))
    return json.dumps({"native": base64.b64encode(native).decode()}).encode() + b"\n"


class Fed(list[float]):
    """When each event was fed."""


def device(path: Path, rate: float = 0) -> tuple[ReplayDevice, Fed]:
    made, fed = ReplayDevice(path, rate), Fed()
    made.subscribe(lambda: fed.append(trio.current_time()))
    return made, fed


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return tmp_path / "recording"


def write(recording: Path, *pieces: bytes) -> None:
    recording.write_bytes(b"".join(pieces))


@pytest.mark.parametrize("count", [0, 1, 256, 257, 1000])
async def test_all_events_are_fed(recording: Path, count: int) -> None:
    write(recording, *map(line, range(count)))
    made, fed = device(recording)
    assert await play(made) == "end of the recording"
    assert len(fed) == count


async def test_large_events_are_read_a_few_at_a_time(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "_AHEAD_BYTES", 1)
    write(recording, *map(line, range(5)))
    made, fed = device(recording)
    await play(made)
    assert len(fed) == 5


async def test_the_pace_is_the_rate(
    recording: Path, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    write(recording, *map(line, range(5)))
    made, fed = device(recording, rate=2)
    await play(made)
    assert [at - fed[0] for at in fed] == pytest.approx([0, 0.5, 1, 1.5, 2])


async def test_what_came_before_a_bad_line_is_fed(
    recording: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(recording, line(1), line(2), b"nonsense\n", line(3))
    made, fed = device(recording)
    assert "Line 3" in await play(made)
    assert len(fed) == 2
    assert "ends early" in caplog.text


async def test_a_file_that_is_gone_is_the_end(
    recording: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = device(recording)
    assert "No such file" in await play(made)
    assert len(caplog.records) == 1


async def test_a_fifo_that_nobody_writes_blocks_nobody(recording: Path) -> None:
    os.mkfifo(recording)
    made, fed = device(recording)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play, made)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert fed == []
    os.close(os.open(recording, os.O_WRONLY))  # let the thread go


async def test_others_have_their_turn_while_a_burst_is_fed(recording: Path) -> None:
    write(recording, *map(line, range(1000)))
    made, fed = device(recording)
    seen = [0]

    async def watch() -> None:
        while len(fed) < 1000:
            seen.append(len(fed))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(play, made)
    assert max(later - sooner for sooner, later in pairwise([*seen, 1000])) <= 64
