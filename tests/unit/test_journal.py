"""The journal: seqs without holes, whole segments evicted, and nothing lost to a full disk."""

import errno
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import tmpfs

from zeventfs.event import Event
from zeventfs.journal import journal as journal_module
from zeventfs.journal.journal import GAP, Journal, Limits, gap_event
from zeventfs.journal.reader import Reader
from zeventfs.journal.store import Store
from zeventfs.nvlist import NVList, Type

EPOCH = "0123456789abcdef"
LIMITS = Limits(retain=1000, segment=100)
EMPTY = NVList.of([])


class PlainEncoder:
    """Lines of exactly the length of the event's packed form."""

    def json_line(self, event: Event, seq: int | None) -> bytes:
        if event.name == GAP and seq is None:
            names = ("dropped", "first_seq", "last_seq", "cause")
            return json.dumps({name: event.payload.get(name) for name in names}).encode() + b"\n"
        return (b"%d:" % (seq or 0)).ljust(len(event.packed) - 1, b"x") + b"\n"


def journal_in(directory: Path | None, limits: Limits = LIMITS) -> Journal:
    ticks = itertools.count(1)
    return Journal(EPOCH, PlainEncoder(), limits, lambda: next(ticks), Store(directory))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return journal_in(tmp_path)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system with room for one small segment and hardly more."""
    with tmpfs(tmp_path, "600k") as disk:
        yield disk


def post(journal: Journal, count: int = 1, size: int = 40) -> None:
    """Post events that take *size* bytes each in both forms, and 4 more."""
    for _ in range(count):
        journal.append(Event("zfs", bytes(size), EMPTY, "a.class", 0, None, None))


def serials(journal: Journal) -> list[int]:
    return [each.identity.serial for each in journal.segments]


def seqs_of(reader: Reader, size: int = 90) -> list[int]:
    """Read all there is; a gap gives its first and last seq, negative."""
    got = b""
    while (answer := reader.read(len(got), size)) is not None:
        got += answer
    seqs: list[int] = []
    for line in got.splitlines():
        if line.startswith(b"{"):
            gap = json.loads(line)
            seqs += [-gap["first_seq"], -gap["last_seq"]]
        else:
            seqs.append(int(line.split(b":")[0]))
    return seqs


def test_seqs_begin_at_1_and_have_no_holes_across_segments(journal: Journal) -> None:
    post(journal, 7)
    assert serials(journal) == [1, 2, 3, 4]
    assert seqs_of(Reader(journal.lines, lambda: 0)) == [1, 2, 3, 4, 5, 6, 7]
    assert journal.current.lines.next_seq == 8


def test_subscribers_are_called_after_each_event(journal: Journal) -> None:
    seen: list[int] = []
    journal.subscribe(lambda: seen.append(journal.statistics().last_seq))
    post(journal, 3)
    assert seen == [1, 2, 3]


def test_statistics_count_what_a_new_reader_would_get(journal: Journal) -> None:
    assert journal.statistics() == (0, 0, 1, 0, 0, 1, 0)
    post(journal, 3)
    assert journal.statistics() == (3, 120, 1, 3, 3 * 84, 2, 0)
    journal.clear()
    assert journal.statistics() == (0, 0, 4, 3, 3 * 84, 3, 0)


def test_whole_segments_are_evicted_oldest_first(journal: Journal, tmp_path: Path) -> None:
    reader = Reader(journal.lines, lambda: 0)
    post(journal, 13)
    assert serials(journal) == [2, 3, 4, 5, 6, 7]
    assert journal.kept == 11 * 84 <= LIMITS.retain
    assert seqs_of(reader) == [-1, -2, *range(3, 14)]
    assert len(list(tmp_path.iterdir())) == 6
    assert journal.losses.events == {"evicted": 2}


def test_the_growing_segment_is_kept_whatever_its_size(journal: Journal) -> None:
    post(journal, 1, 5000)
    assert serials(journal) == [2]
    assert journal.kept == 10_004
    post(journal)
    assert seqs_of(Reader(journal.lines, lambda: 0)) == [2]


def test_segments_with_little_in_them_are_not_kept_without_end(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_MOST_SEGMENTS", 3)
    reader = Reader(journal.lines, lambda: 0)
    for _ in range(5):
        post(journal)
        journal.clear()
    assert serials(journal) == [4, 5, 6]
    assert seqs_of(reader) == [-1, -5]


def test_a_clear_puts_all_before_it_out_of_reach_and_keeps_it_for_logs(journal: Journal) -> None:
    reader = Reader(journal.lines, lambda: 0)
    post(journal, 3)
    journal.clear()
    post(journal)
    assert seqs_of(reader) == [-1, -3, 4]
    assert seqs_of(Reader(journal.lines, lambda: 0)) == [4]
    assert serials(journal) == [1, 2, 3]
    assert bytes(journal.segments[0].lines.buffer[:2]) == b"1:"


def test_a_clear_of_nothing_makes_no_segment(journal: Journal) -> None:
    journal.clear()
    journal.clear()
    assert serials(journal) == [1]
    post(journal)
    journal.clear()
    journal.clear()
    assert serials(journal) == [1, 2]


def test_the_mtime_is_that_of_the_last_event_or_rotation(journal: Journal) -> None:
    first = journal.current.mtime_ns
    post(journal)
    second = journal.current.mtime_ns
    journal.clear()
    assert 0 < first < second < journal.current.mtime_ns


def test_a_segment_held_is_readable_after_its_eviction_until_it_is_released(
    journal: Journal,
) -> None:
    post(journal, 2)
    segment = journal.segments[0]
    journal.hold(segment)
    journal.hold(segment)
    post(journal, 12)
    assert segment not in journal.segments
    assert bytes(segment.lines.buffer[:2]) == b"1:"
    journal.release(segment)
    assert not segment.stale
    journal.release(segment)
    assert segment.stale


def test_releasing_a_segment_that_is_kept_changes_nothing(journal: Journal) -> None:
    journal.hold(journal.current)
    journal.release(journal.current)
    assert not journal.current.stale


def test_what_is_held_is_stale_when_it_is_more_than_may_be_kept_once_more(
    journal: Journal,
) -> None:
    held = []
    for _ in range(20):
        post(journal, 2)
        journal.hold(journal.current)
        held.append(journal.current)
    stale = [each.stale for each in held]
    assert stale == sorted(stale, reverse=True)
    assert sum(each.used for each in held if not each.stale) <= 2 * LIMITS.retain
    assert 0 < sum(stale) < 20 - len(journal.segments)
    journal.release(held[0])


def test_a_sources_gaps_are_counted(journal: Journal) -> None:
    for pairs in ([("dropped", Type.UINT64, 7)], []):
        journal.append(Event("zfs", b"packed", NVList.of(pairs), GAP, 0, None, None))
    assert journal.losses.events == {"source": 7}
    assert journal.losses.gaps == {"source": 2}


def test_a_gap_event_says_what_was_lost() -> None:
    event = gap_event(7, 3, 9, "evicted", 1_500_000_000)
    names = ("dropped", "first_seq", "last_seq", "cause")
    assert [event.payload.get(name) for name in names] == [7, 3, 9, "evicted"]
    assert (event.source, event.name, event.time_ns) == ("zeventfs", GAP, 1_500_000_000)


def test_a_journal_without_a_store_is_in_memory() -> None:
    journal = Journal(EPOCH, PlainEncoder(), LIMITS, lambda: 0)
    post(journal, 5)
    assert journal.statistics().in_memory == 3


def test_a_recovered_journal_goes_on_where_the_last_one_ended(
    journal: Journal, tmp_path: Path
) -> None:
    post(journal, 5)
    reader = Reader(journal.lines, lambda: 0)
    reader.read(0, 120)
    again = journal_in(tmp_path)
    assert again.statistics() == journal.statistics()
    post(again, 3)
    later = Reader(again.lines, lambda: 0)
    later.restore(reader.state())
    answer = later.read(120, 1000)
    assert answer is not None
    assert bytes(answer)[::40] == b"45678"


def test_a_clear_is_not_undone_by_a_recovery(journal: Journal, tmp_path: Path) -> None:
    post(journal, 3)
    journal.clear()
    assert journal_in(tmp_path).statistics().queued == 0
    post(journal, 3)
    assert seqs_of(Reader(journal_in(tmp_path).lines, lambda: 0)) == [4, 5, 6]


def test_a_clear_is_not_undone_when_its_segment_is_replaced(
    journal: Journal, tmp_path: Path
) -> None:
    post(journal, 3)
    journal.clear()
    post(journal, 1, 300)
    assert serials(journal) == [1, 2, 4]
    assert seqs_of(Reader(journal_in(tmp_path).lines, lambda: 0)) == [4]


def test_a_recovery_with_a_lower_limit_keeps_less(journal: Journal, tmp_path: Path) -> None:
    post(journal, 8)
    assert journal_in(tmp_path, Limits(400, 100)).kept <= 400


def text_of(packed: bytes) -> bytes:
    return b"%d bytes\n" % len(packed)


def read_text(journal: Journal) -> bytes:
    text = journal.text(text_of)
    while not text.catch_up(1):
        pass
    answer = Reader(text, lambda: 0).read(0, 10_000)
    return b"" if answer is None else bytes(answer)


def test_text_has_what_the_lines_have(journal: Journal) -> None:
    post(journal, 3)
    assert read_text(journal) == b"40 bytes\n" * 3
    post(journal, 13)
    assert read_text(journal) == b"40 bytes\n" * journal.statistics().queued
    journal.clear()
    assert read_text(journal) == b""
    post(journal, 1, 400)
    assert read_text(journal) == b"400 bytes\n"
    assert journal.text(text_of) is journal.text(text_of)


def test_text_asked_for_after_a_clear_has_all_since_then(journal: Journal) -> None:
    post(journal, 3)
    journal.clear()
    post(journal, 5)
    assert read_text(journal) == b"40 bytes\n" * 5


def test_text_that_lags_survives_a_clear_and_evictions(journal: Journal) -> None:
    reader = Reader(journal.text(text_of), lambda: 0)
    post(journal, 7)
    journal.clear()
    post(journal, 14)
    assert read_text(journal) == b"40 bytes\n" * journal.statistics().queued
    assert bytes(reader.read(0, 100) or b"") == b"dropped 7 events\n"


def test_an_event_larger_than_a_segment_gets_one_of_its_own_size(journal: Journal) -> None:
    post(journal, 1)
    post(journal, 1, 300)
    post(journal, 1)
    assert serials(journal) == [1, 2, 3]
    assert seqs_of(Reader(journal.lines, lambda: 0)) == [1, 2, 3]


def test_a_disk_that_gets_full_within_a_segment_costs_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = journal_in(tmp_path, Limits(1 << 24, 1 << 20))
    post(journal, 1)
    allocate = os.posix_fallocate
    calls: list[int] = []

    def full(_fd: int, start: int, _length: int) -> None:
        calls.append(start)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    post(journal, 10, 100_000)
    assert journal.statistics().in_memory == 1
    assert calls
    assert "No space left" in caplog.text
    assert journal_in(tmp_path).statistics().last_seq == 0
    monkeypatch.setattr(os, "posix_fallocate", allocate)
    post(journal, 10, 100_000)
    assert seqs_of(Reader(journal.lines, lambda: 0), 1 << 20) == list(range(1, 22))


def test_a_new_segment_that_gets_no_room_for_a_large_event_is_made_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = journal_in(tmp_path, Limits(1 << 24, 1 << 20))
    allocate = os.posix_fallocate

    def only_little(fd: int, start: int, length: int) -> None:
        if length > 1 << 18:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(fd, start, length)

    monkeypatch.setattr(os, "posix_fallocate", only_little)
    post(journal, 1, 600_000)
    assert journal.current.in_memory
    assert seqs_of(Reader(journal.lines, lambda: 0), 1 << 20) == [1]
    assert "No space left" in caplog.text


def test_a_disk_that_is_really_full_costs_no_event(
    full_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = journal_in(full_disk, Limits(1 << 24, 1 << 20))
    post(journal, 60, 20_000)
    assert [each.in_memory for each in journal.segments] == [False, True]
    assert seqs_of(Reader(journal.lines, lambda: 0), 1 << 20) == list(range(1, 61))
    assert "No space left" in caplog.text
