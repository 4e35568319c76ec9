"""Readers: what an offset means, and that each event is read or counted in a gap."""

import pytest

from zeventfs.journal.column import Column
from zeventfs.journal.reader import Gap, Reader, ReaderState
from zeventfs.journal.rendition import Losses, Rendition

NOW = 1234


def encode_gap(dropped: int, first_seq: int, last_seq: int, cause: str, time_ns: int) -> bytes:
    assert dropped == last_seq - first_seq + 1
    return b"<%d-%d %s %d>" % (first_seq, last_seq, cause.encode(), time_ns)


class Lines(Rendition):
    """Events of four bytes, "001\\n" and so on, four to a column."""

    def __init__(self) -> None:
        super().__init__(column(0, 1), encode_gap, Losses())

    def post(self, count: int) -> None:
        for _ in range(count):
            if len(self.columns[-1].ends) == 4:
                self.rotate()
            last = self.columns[-1]
            last.append(b"%03d\n" % last.next_seq)

    def rotate(self) -> None:
        self.add(column(self.end, self.columns[-1].next_seq))

    def clear(self) -> None:
        self.rotate()
        self.clear_before(self.columns[-1])

    def evict_oldest(self) -> None:
        self.evict().drop()


def column(base: int, first_seq: int) -> Column:
    return Column(base, first_seq, memoryview(bytearray(16)))


def reader_of(lines: Rendition) -> Reader:
    return Reader(lines, lambda: NOW)


def read(reader: Reader, offset: int, size: int = 1000) -> bytes | None:
    answer = reader.read(offset, size)
    return None if answer is None else bytes(answer)


def lines_of(*seqs: int) -> bytes:
    return b"".join(b"%03d\n" % seq for seq in seqs)


@pytest.fixture
def lines() -> Lines:
    """Give events 1 to 10 in three columns."""
    made = Lines()
    made.post(10)
    return made


def test_a_reader_begins_at_the_oldest_event_kept_with_offset_0(lines: Lines) -> None:
    lines.evict_oldest()
    reader = reader_of(lines)
    assert reader.seq == 5
    assert read(reader, 0) == lines_of(5, 6, 7, 8, 9, 10)
    assert reader.state() == ReaderState(16, 0, 24, 11, None)


def test_a_read_gives_whole_lines_and_the_next_one_goes_on(lines: Lines) -> None:
    reader = reader_of(lines)
    assert read(reader, 0, 11) == lines_of(1, 2)
    assert read(reader, 8, 11) == lines_of(3, 4)
    assert reader.seq == 5


def test_at_the_end_there_is_nothing_until_something_is_posted(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0)
    before = reader.state()
    assert not reader.ready()
    assert read(reader, 40) is None
    assert reader.state() == before
    lines.post(1)
    assert reader.ready()
    assert read(reader, 40) == lines_of(11)


def test_a_buffer_smaller_than_a_line_gets_it_in_parts(lines: Lines) -> None:
    reader = reader_of(lines)
    assert [read(reader, at, 3) for at in (0, 3, 4)] == [b"001", b"\n", b"002"]
    assert read(reader, 7, 1000) == b"\n"
    assert read(reader, 8, 1000) == lines_of(*range(3, 11))


def test_the_rest_of_a_line_is_given_even_when_the_line_is_gone(lines: Lines) -> None:
    reader = reader_of(lines)
    assert read(reader, 0, 2) == b"00"
    lines.evict_oldest()
    assert reader.ready()
    assert [read(reader, at, 1) for at in (2, 3)] == [b"1", b"\n"]
    assert read(reader, 4) == b"<2-4 evicted 1234>"


def test_a_step_back_within_the_last_answer_continues_it(lines: Lines) -> None:
    lines.evict_oldest()
    reader = reader_of(lines)
    read(reader, 0)
    assert read(reader, 8) == lines_of(7, 8, 9, 10)
    assert read(reader, 8) == lines_of(7, 8, 9, 10)
    assert reader.skew == 16


def test_a_step_back_to_what_is_gone_counts_from_there(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0)
    lines.evict_oldest()
    lines.evict_oldest()
    assert read(reader, 20) == b"<6-8 evicted 1234>"
    assert read(reader, 38) == lines_of(9, 10)


@pytest.mark.parametrize(("offset", "first"), [(0, 1), (12, 4), (16, 5)])
def test_a_step_back_over_columns_finds_the_event(lines: Lines, offset: int, first: int) -> None:
    reader = reader_of(lines)
    read(reader, 0, 24)
    lines.evict_oldest()
    lines.evict_oldest()
    assert read(reader, offset) == b"<%d-8 evicted 1234>" % first


def test_a_reader_that_was_overtaken_gets_one_gap_and_then_the_oldest(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0, 8)
    lines.evict_oldest()
    lines.evict_oldest()
    gap = b"<3-8 evicted 1234>"
    assert reader.ready()
    assert read(reader, 8) == gap
    assert reader.state().gap == Gap(8, 6, 3, 8, "evicted", NOW)
    assert read(reader, 8 + len(gap)) == lines_of(9, 10)
    assert reader.state().gap is None
    assert lines.losses.events == {"evicted": 6}
    assert lines.losses.gaps == {"evicted": 1}


def test_a_gap_is_read_in_parts_and_again(lines: Lines) -> None:
    reader = reader_of(lines)
    lines.clear()
    gap = b"<1-10 cleared 1234>"
    parts = [read(reader, at, 5) for at in range(0, len(gap), 5)]
    assert b"".join(part or b"" for part in parts) == gap
    assert read(reader, len(gap) - 2, 5) == gap[-2:]
    assert not reader.ready()
    assert read(reader, len(gap)) is None
    assert lines.losses.gaps == {"cleared": 1}


def test_a_gap_read_in_part_makes_a_reader_ready(lines: Lines) -> None:
    reader = reader_of(lines)
    lines.clear()
    read(reader, 0, 5)
    assert reader.ready()


def test_a_clear_and_an_eviction_after_it_are_two_gaps(lines: Lines) -> None:
    reader = reader_of(lines)
    lines.clear()
    lines.post(6)
    for _ in range(4):
        lines.evict_oldest()
    first = b"<1-10 cleared 1234>"
    assert read(reader, 0) == first
    assert read(reader, len(first)) == b"<11-14 evicted 1234>"
    assert reader.seq == 15


def test_a_clear_is_no_gap_for_who_has_read_all(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0)
    lines.clear()
    assert read(reader, 40) is None
    lines.post(1)
    assert read(reader, 40) == lines_of(11)


def test_any_other_offset_is_a_seek_to_a_position(lines: Lines) -> None:
    lines.evict_oldest()
    reader = reader_of(lines)
    assert read(reader, 32, 4) == lines_of(9)
    assert reader.state() == ReaderState(0, 32, 36, 10, None)
    assert read(reader, 18, 6) == b"5\n" + lines_of(6)
    assert reader.seq == 7


def test_a_seek_below_the_oldest_begins_there(lines: Lines) -> None:
    lines.evict_oldest()
    reader = reader_of(lines)
    read(reader, 32, 4)
    assert read(reader, 3, 4) == lines_of(5)
    assert reader.state() == ReaderState(13, 3, 7, 6, None)


def test_a_seek_beyond_the_end_is_the_end(lines: Lines) -> None:
    reader = reader_of(lines)
    assert read(reader, 1000) is None
    assert reader.seq == 11
    lines.post(1)
    assert read(reader, 1000) == lines_of(11)


def test_a_seek_forgets_the_rest_of_a_line_and_a_gap(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0, 2)
    assert read(reader, 20, 4) == lines_of(6)
    assert read(reader, 24, 4) == lines_of(7)
    lines.clear()
    read(reader, 28, 3)
    assert read(reader, 900) is None
    assert reader.gap is None


def test_after_a_seek_to_the_end_it_is_ready_for_what_comes_then(lines: Lines) -> None:
    reader = reader_of(lines)
    assert reader.ready()
    reader.seek_to_end()
    assert not reader.ready()
    lines.post(1)
    assert reader.ready()
    assert read(reader, 40) == lines_of(11)
    assert not reader.ready()


def test_who_asked_for_the_end_waits_at_it(lines: Lines) -> None:
    reader = reader_of(lines)
    reader.seek_to_end()
    assert read(reader, 40) is None


def test_who_asked_for_the_end_waits_for_nothing_that_the_size_counts(lines: Lines) -> None:
    """As tail does after a clear: the size says 40 bytes, and none of them is kept."""
    lines.clear()
    reader = reader_of(lines)
    reader.seek_to_end()
    assert read(reader, 0, 40) == b""
    assert read(reader, 0, 40) == b""
    lines.post(1)
    assert read(reader, 0, 44) == lines_of(11)
    assert read(reader, 4, 40) == b""


def restored(lines: Rendition, reader: Reader) -> Reader:
    again = reader_of(lines)
    again.restore(reader.state())
    return again


def test_a_restored_reader_goes_on(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0, 24)
    again = restored(lines, reader)
    assert again.state() == reader.state()
    assert read(again, 20, 4) == lines_of(6)


def test_a_restored_reader_goes_on_within_a_gap(lines: Lines) -> None:
    reader = reader_of(lines)
    lines.clear()
    lines.post(1)
    read(reader, 0, 5)
    again = restored(lines, reader)
    assert read(again, 5) == b" cleared 1234>"
    assert read(again, 19) == lines_of(11)


def test_a_restored_reader_still_has_the_rest_of_a_line_and_its_ends(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0, 2)
    again = restored(lines, reader)
    lines.evict_oldest()
    assert read(again, 2) == b"1\n"
    other = reader_of(lines)
    read(other, 0, 12)
    other = restored(lines, other)
    lines.evict_oldest()
    assert read(other, 4) == b"<6-8 evicted 1234>"


def test_a_restored_reader_has_the_rest_of_a_line_that_was_cleared(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0, 2)
    lines.clear()
    again = restored(lines, reader)
    assert read(again, 2) == b"1\n"
    assert read(again, 4) == b"<2-10 cleared 1234>"


def test_a_restored_reader_cannot_step_back_to_what_was_gone_before(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0, 24)
    lines.evict_oldest()
    again = restored(lines, reader)
    assert (again.start, again.end) == (16, 24)
    assert read(again, 20, 4) == lines_of(6)
    lines.evict_oldest()
    late = restored(lines, reader)
    assert (late.start, late.end) == (24, 24)
    assert read(late, 24) == b"<7-8 evicted 1234>"


def test_a_restored_reader_counts_a_clear(lines: Lines) -> None:
    reader = reader_of(lines)
    read(reader, 0, 24)
    lines.clear()
    assert read(restored(lines, reader), 20) == b"<6-10 cleared 1234>"
