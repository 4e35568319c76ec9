"""The journal as packed nvlists: the bytes that segments keep, at positions of their own."""

from io import BytesIO
from pathlib import Path

import pytest

from zeventfs.decode import unpack
from zeventfs.event import Event
from zeventfs.journal.journal import Journal, Limits, gap_event
from zeventfs.journal.nvlists import with_length
from zeventfs.journal.reader import Reader
from zeventfs.journal.store import Store
from zeventfs.nvlist import Type
from zeventfs.render import Renderer

EPOCH = "0123456789abcdef"


def journal_in(directory: Path | None) -> Journal:
    limits = Limits(retain=4000, segment=1000)
    return Journal(EPOCH, Renderer(EPOCH, None), limits, lambda: 7, Store(directory))


@pytest.fixture
def journal() -> Journal:
    return journal_in(None)


def post(journal: Journal, count: int) -> bytes:
    """Post events; give what a reader of all of them would get."""
    posted = b""
    for number in range(count):
        event = Event.make("zfs", "a.class", number, [("label", Type.STRING, f"{number}")])
        journal.append(event)
        posted += len(event.packed).to_bytes(4, "little") + event.packed
    return posted


def drain(reader: Reader, size: int = 1 << 17) -> bytes:
    got = b""
    while (answer := reader.read(len(got), size)) is not None:
        got += answer
    return got


def test_each_nvlist_stands_after_its_length(journal: Journal) -> None:
    posted = post(journal, 3)
    got = drain(Reader(journal.nvlists(), lambda: 7))
    assert got == posted
    assert [each.get("label") for each in unpack(BytesIO(got))] == ["0", "1", "2"]


def test_positions_count_from_the_oldest_segment_kept_at_the_first_look(journal: Journal) -> None:
    post(journal, 40)
    assert journal.segments[0].identity.first_seq > 1
    kept = sum(each.nvlists.length for each in journal.segments)
    assert journal.nvlists().begin == 0
    assert journal.nvlists().end == kept
    more = post(journal, 40)
    assert journal.nvlists() is journal.nvlists()
    assert journal.nvlists().begin > 0
    assert journal.nvlists().end == kept + len(more)


def test_what_was_cleared_before_the_first_look_is_out_of_reach(journal: Journal) -> None:
    post(journal, 3)
    journal.clear()
    posted = post(journal, 2)
    assert journal.nvlists().begin > 0
    assert drain(Reader(journal.nvlists(), lambda: 7)) == posted


@pytest.mark.parametrize("cause", ["evicted", "cleared"])
def test_a_gap_is_an_nvlist_of_its_own(journal: Journal, cause: str) -> None:
    reader = Reader(journal.nvlists(), lambda: 7)
    if cause == "cleared":
        post(journal, 4)
        journal.clear()
        rest = post(journal, 1)
    else:
        rest = post(journal, 40)[-(journal.nvlists().end - journal.nvlists().begin) :]
    lost = journal.statistics().first_seq - 1
    gap = with_length(gap_event(lost, 1, lost, cause, 7))
    assert drain(reader) == gap + rest
    assert reader.gap is None


def test_a_gap_and_an_event_larger_than_the_buffer_come_in_parts(journal: Journal) -> None:
    reader = Reader(journal.nvlists(), lambda: 7)
    post(journal, 4)
    journal.clear()
    rest = post(journal, 2)
    assert drain(reader, 10) == with_length(gap_event(4, 1, 4, "cleared", 7)) + rest


def test_a_read_is_a_slice_of_the_segment_and_no_copy(journal: Journal) -> None:
    post(journal, 2)
    answer = Reader(journal.nvlists(), lambda: 7).read(0, 4096)
    assert isinstance(answer, memoryview)
    assert answer.obj is journal.current.nvlists.buffer.obj


def test_an_empty_segment_that_is_replaced_leaves_no_trace(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    reader = Reader(journal.nvlists(), lambda: 7)
    posted = post(journal, 1)
    assert drain(reader) == posted
    journal.clear()
    large = Event.make("zfs", "a.class", 0, [("label", Type.STRING, "x" * 3000)])
    journal.append(large)
    assert reader.read(len(posted), 1 << 17) == with_length(large)


def test_after_a_recovery_positions_begin_anew(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    post(journal, 40)
    journal.nvlists()
    post(journal, 40)
    old = drain(Reader(journal.nvlists(), lambda: 7))
    recovered = journal_in(tmp_path)
    assert recovered.nvlists().begin == 0
    assert drain(Reader(recovered.nvlists(), lambda: 7)) == old
