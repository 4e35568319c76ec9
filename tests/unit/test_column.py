"""Columns: where each event's bytes are, and how many whole ones fit."""

import pytest

from zeventfs.journal.column import Column


@pytest.fixture
def column() -> Column:
    """Give events 5, 6 and 7 at 100 to 103, 103 to 107 and 107 to 109."""
    made = Column(100, 5, memoryview(bytearray(12)))
    for each in (b"abc", b"defg", b"hi"):
        made.append(each)
    return made


def test_bytes_stand_back_to_back(column: Column) -> None:
    assert bytes(column.buffer[: column.length]) == b"abcdefghi"
    assert column.end == 109
    assert column.next_seq == 8


def test_an_event_without_room_is_refused_and_leaves_nothing(column: Column) -> None:
    with pytest.raises(ValueError, match="different"):
        column.append(b"toolong")
    assert (column.end, column.next_seq) == (109, 8)


def test_each_byte_belongs_to_its_event(column: Column) -> None:
    assert [column.seq_at(at) for at in range(100, 110)] == [5, 5, 5, 6, 6, 6, 6, 7, 7, 8]


def test_an_event_begins_where_the_one_before_it_ends(column: Column) -> None:
    assert [column.start_of(seq) for seq in range(5, 9)] == [100, 103, 107, 109]


@pytest.mark.parametrize(
    ("start", "size", "stop", "following"),
    [
        (0, 100, 9, 8),
        (0, 9, 9, 8),
        (0, 8, 7, 7),
        (0, 7, 7, 7),
        (0, 3, 3, 6),
        (0, 2, 0, 5),
        (1, 2, 3, 6),
        (1, 1, 1, 5),
        (3, 3, 3, 6),
        (5, 4, 9, 8),
        (5, 2, 7, 7),
    ],
)
def test_whole_events_that_fit(
    column: Column, start: int, size: int, stop: int, following: int
) -> None:
    assert column.whole(start, size) == (stop, following)


def test_an_event_ends_behind_each_of_its_bytes(column: Column) -> None:
    assert [column.end_of(start) for start in range(9)] == [3, 3, 3, 7, 7, 7, 7, 9, 9]


def test_what_is_dropped_still_knows_its_events_and_slices_stay(column: Column) -> None:
    kept = column.buffer[3:7]
    column.drop()
    assert not column.buffer
    assert bytes(kept) == b"defg"
    assert column.seq_at(104) == 6
    assert column.end == 109
