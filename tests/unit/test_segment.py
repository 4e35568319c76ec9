"""Segments: what was committed is read back, whatever the file looks like otherwise."""

import errno
import os
import struct
from pathlib import Path

import pytest
from descriptors import descriptors_of

from zeventfs.errors import DamagedState
from zeventfs.journal.column import Column
from zeventfs.journal.segment import Identity, Segment

IDENTITY = Identity("0123456789abcdef", 7, 100, 5000)
SIZE = 300
EVENTS = [(b"%d\n" % number, b"packed %d" % number) for number in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "segment"


@pytest.fixture
def segment(path: Path) -> Segment:
    """Give one with three events."""
    made = Segment.create(path, IDENTITY, SIZE)
    for number, (line, packed) in enumerate(EVENTS):
        assert made.room_for(line, packed)
        made.append(line, packed, 1000 + number)
    return made


def patch_file(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.mark.parametrize("in_memory", [True, False])
def test_events_are_there_in_both_forms(path: Path, in_memory: bool) -> None:  # noqa: FBT001 - parameter
    segment = Segment.create(None if in_memory else path, IDENTITY, SIZE)
    assert segment.in_memory == in_memory
    for line, packed in EVENTS:
        segment.append(line, packed, 1)
    assert [segment.packed(100 + number) for number in range(3)] == [each[1] for each in EVENTS]
    assert bytes(segment.lines.buffer[: segment.lines.length]) == b"0\n1\n2\n"
    assert segment.used == 6 + 3 * (4 + 8)


def test_a_recovered_segment_is_what_it_was_and_goes_on(path: Path, segment: Segment) -> None:
    segment.mark_cleared()
    for _ in range(2):
        again = Segment.recover(path)
        assert again.identity == IDENTITY
        assert again.mtime_ns == segment.mtime_ns
        assert again.after_clear
        assert not again.sealed
        assert again.lines.ends == segment.lines.ends
        assert again.lines.end == 5000 + segment.lines.length
        assert again.packed(102) == segment.packed(102)
        for each in (segment, again):
            assert each.room_for(b"more\n", b"more")
            each.append(b"more\n", b"more", 2000)


def test_a_sealed_segment_is_recovered_too_and_needs_little_room(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "large", IDENTITY, 1 << 20)
    segment.append(b"line\n", b"packed", 1)
    before = (tmp_path / "large").stat().st_blocks * 512
    assert before >= 2 * 256 * 1024
    segment.seal()
    assert (tmp_path / "large").stat().st_blocks * 512 <= before
    assert Segment.recover(tmp_path / "large").packed(100) == b"packed"


def test_marks_are_kept_in_the_file(path: Path, segment: Segment) -> None:
    assert not Segment.recover(path).after_clear
    segment.seal()
    assert Segment.recover(path).sealed
    assert not Segment.recover(path).after_clear


def test_a_short_epoch_is_recovered_as_it_is(path: Path) -> None:
    identity = Identity("short", 1, 1, 0)
    Segment.create(path, identity, SIZE)
    assert Segment.recover(path).identity == identity


@pytest.mark.parametrize("cut", ["lines", "nvlists", "in a line", "in an nvlist", "in a length"])
def test_an_event_of_which_a_part_was_committed_is_left_out(
    path: Path, segment: Segment, cut: str
) -> None:
    lines, nvlists = segment.lines.length, segment.nvlists.length
    shorter = {
        "lines": (lines - 2, nvlists),
        "nvlists": (lines, nvlists - 12),
        "in a line": (lines - 1, nvlists),
        "in an nvlist": (lines, nvlists - 1),
        "in a length": (lines, nvlists - 10),
    }[cut]
    patch_file(path, 128, struct.pack("<QQ", *shorter))
    again = Segment.recover(path)
    assert again.lines.next_seq == again.nvlists.next_seq == 102
    assert (again.lines.length, again.nvlists.length) == (4, 24)


def test_a_segment_without_events_is_recovered_empty(path: Path) -> None:
    Segment.create(path, IDENTITY, SIZE)
    assert Segment.recover(path).used == 0


@pytest.mark.parametrize(
    ("at", "content"),
    [
        (0, b"ZEVSEG9\0"),
        (48, struct.pack("<Q", SIZE + 1)),
        (48, struct.pack("<Q", (1 << 64) - 1)),
        (128, struct.pack("<Q", SIZE + 1)),
        (136, struct.pack("<Q", 2 * SIZE + 1)),
    ],
)
def test_a_damaged_header_is_refused_and_costs_no_descriptor(
    path: Path, segment: Segment, at: int, content: bytes
) -> None:
    segment.seal()
    patch_file(path, at, content)
    with pytest.raises(DamagedState):
        Segment.recover(path)
    assert descriptors_of(path) == 1  # that of the writer


@pytest.mark.parametrize("content", [b"", b"short", bytes(10_000)])
def test_a_file_that_was_never_begun_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedState):
        Segment.recover(path)


def test_there_is_no_room_when_either_form_is_full(path: Path) -> None:
    segment = Segment.create(path, IDENTITY, SIZE)
    assert segment.room_for(bytes(SIZE), bytes(2 * SIZE - 4))
    assert not segment.room_for(bytes(SIZE + 1), b"")
    assert not segment.room_for(b"", bytes(2 * SIZE - 3))


def test_room_is_reserved_as_it_is_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment.create(path, IDENTITY, 1 << 20)
    step = 256 * 1024
    reserved: list[int] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _fd, start, _length: reserved.append(start))
    assert segment.room_for(bytes(1000), bytes(1000))
    assert reserved == []
    assert segment.room_for(bytes(step + 1), b"")
    assert reserved == [4096 + step]
    assert segment.room_for(b"", bytes(step))
    assert reserved == [4096 + step, 4096 + (1 << 20) + step]


def test_a_full_disk_is_an_error_before_anything_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment.create(path, IDENTITY, 1 << 20)

    def full(_fd: int, _start: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert segment.room_for(bytes(1000), bytes(1000))
    with pytest.raises(OSError, match="space"):
        segment.room_for(bytes(1 << 19), b"")
    with pytest.raises(OSError, match="space"):
        Segment.create(path.with_name("other"), IDENTITY, SIZE)
    assert not path.with_name("other").exists()


def test_a_dropped_segment_is_stale_and_its_memory_and_file_are_gone(
    path: Path, segment: Segment
) -> None:
    segment.text = Column(0, 100, memoryview(bytearray(10)))
    segment.seal()
    segment.drop()
    assert segment.stale
    for column in (segment.lines, segment.nvlists, segment.text):
        assert not column.buffer
    assert segment.used == 6 + 3 * 12
    assert not path.exists()
    assert descriptors_of(path) == 0


def test_a_discarded_segment_is_read_as_empty(path: Path) -> None:
    segment = Segment.create(path, IDENTITY, SIZE)
    segment.discard()
    assert not path.exists()
    assert not segment.stale
    assert bytes(segment.lines.buffer[: segment.lines.length]) == b""
