"""Renditions: positions over several columns, of which the oldest go."""

from collections.abc import Sequence

import pytest

from zeventfs.journal.column import Column, Mark
from zeventfs.journal.rendition import Losses, Rendition


def encode_gap(dropped: int, first_seq: int, last_seq: int, cause: str, time_ns: int) -> bytes:
    assert dropped == last_seq - first_seq + 1
    return b"gap %d %d %s %d\n" % (first_seq, last_seq, cause.encode(), time_ns)


def column(base: int, first_seq: int, events: Sequence[bytes] = ()) -> Column:
    made = Column(base, first_seq, memoryview(bytearray(100)))
    for each in events:
        made.append(each)
    return made


@pytest.fixture
def rendition() -> Rendition:
    """Give "aa" "bbb" | "c" "dddd" | "" as events 1 to 4, at positions 0 to 10."""
    made = Rendition(column(0, 1, [b"aa", b"bbb"]), encode_gap, Losses())
    made.add(column(5, 3, [b"c", b"dddd"]))
    made.add(column(10, 5))
    return made


def test_it_begins_at_the_oldest_column_and_ends_behind_the_newest_byte(
    rendition: Rendition,
) -> None:
    assert rendition.oldest == Mark(0, 1, 1)
    assert (rendition.begin, rendition.end) == (0, 10)
    rendition.columns[-1].append(b"eee")
    assert rendition.end == 13


def test_an_evicted_column_is_forgotten(rendition: Rendition) -> None:
    assert rendition.evict().first_seq == 1
    assert rendition.oldest == Mark(5, 3, 3)
    assert rendition.begin == 5
    assert rendition.end == 10
    assert rendition.index_of(5) == 0


def test_after_a_clear_it_begins_there_until_later_columns_are_evicted_too(
    rendition: Rendition,
) -> None:
    rendition.clear_before(rendition.columns[1])
    assert rendition.oldest == Mark(5, 3, 3)
    rendition.evict()
    assert rendition.oldest == Mark(5, 3, 3)
    rendition.evict()
    assert rendition.oldest == Mark(10, 5, 5)
    assert rendition.begin == 10


def test_an_empty_column_can_be_replaced(rendition: Rendition) -> None:
    other = column(10, 5, [b"e"])
    rendition.replace_last(other)
    assert rendition.columns[-1] is other
    assert bytes(rendition.cut(10, 5).buffer) == b"e"


def test_each_position_belongs_to_an_event(rendition: Rendition) -> None:
    assert [rendition.seq_at(at) for at in range(11)] == [1, 1, 2, 2, 2, 3, 4, 4, 4, 4, 5]


@pytest.mark.parametrize(
    ("position", "size", "expected", "seq", "rest"),
    [
        (0, 4, b"aa", 2, b""),
        (0, 5, b"aabbb", 3, b""),
        (0, 6, b"aabbbc", 4, b""),
        (0, 9, b"aabbbc", 4, b""),
        (0, 10, b"aabbbcdddd", 5, b""),
        (0, 99, b"aabbbcdddd", 5, b""),
        (2, 3, b"bbb", 3, b""),
        (3, 99, b"bbcdddd", 5, b""),
        (0, 1, b"a", 2, b"a"),
        (7, 2, b"dd", 5, b"d"),
        (6, 4, b"dddd", 5, b""),
    ],
)
def test_a_cut_has_the_whole_events_that_fit_or_a_part_of_one(  # noqa: PLR0917 - a table's columns
    rendition: Rendition, position: int, size: int, expected: bytes, seq: int, rest: bytes
) -> None:
    cut = rendition.cut(position, size)
    assert (bytes(cut.buffer), cut.seq, cut.rest) == (expected, seq, rest)
    ends = [cut.columns[0].base, cut.columns[-1].end]
    assert ends[0] <= position
    assert position + len(expected) <= ends[1]


def test_a_cut_over_columns_goes_on_while_they_are_whole(rendition: Rendition) -> None:
    rendition.columns[-1].append(b"ee")
    cut = rendition.cut(0, 12)
    assert bytes(cut.buffer) == b"aabbbcddddee"
    assert len(cut.columns) == 3
    assert bytes(rendition.cut(0, 11).buffer) == b"aabbbcdddd"


def test_a_cut_within_one_column_copies_nothing(rendition: Rendition) -> None:
    assert isinstance(rendition.cut(0, 4).buffer, memoryview)


def test_what_is_left_of_an_event_is_nothing_at_its_beginning(rendition: Rendition) -> None:
    assert [rendition.rest_at(at) for at in (0, 1, 2, 3, 5, 7, 10)] == [
        b"",
        b"a",
        b"",
        b"bb",
        b"",
        b"ddd",
        b"",
    ]


def test_columns_between_positions_are_those_that_are_kept(rendition: Rendition) -> None:
    first, second, third = rendition.columns
    assert rendition.columns_between(1, 4) == [first]
    assert rendition.columns_between(4, 7) == [first, second]
    assert rendition.columns_between(7, 10) == [second, third]
    rendition.evict()
    assert rendition.columns_between(1, 4) == []


def test_losses_are_counted_by_cause() -> None:
    losses = Losses()
    losses.count("evicted", 3)
    losses.count("evicted", 4)
    losses.count("cleared", 1)
    assert losses.gaps == {"evicted": 2, "cleared": 1}
    assert losses.events == {"evicted": 7, "cleared": 1}
