"""Matches: what is found, by how many looks, and what becomes of it when segments go."""

from pathlib import Path

import pytest

from zeventfs.event import Event
from zeventfs.filter import Expression, Kind
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.matches import Matches, record_of
from zeventfs.journal.store import Store
from zeventfs.nvlist import Type
from zeventfs.render import Renderer

RENDERER = Renderer("epoch", None)


def journal_of(retain: int = 4000, segment: int = 700, store: Store | None = None) -> Journal:
    return Journal("epoch", RENDERER, Limits(retain, segment), lambda: 1, store)


def post(journal: Journal, name: str = "a", n: int = 0, source: str = "zfs") -> None:
    journal.append(Event.make(source, name, 1, [("n", Type.INT32, n)]))


def matches_of(journal: Journal, expression: str) -> Matches:
    return Matches(journal, Expression.parse(expression))


def search_all(matches: Matches) -> int:
    """Search in small steps; how many it took."""
    steps = 1
    while not matches.search(3):
        steps += 1
    return steps


def places(matches: Matches, journal: Journal) -> list[list[int]]:
    return [list(matches.found_in(each).places) for each in journal.segments]


@pytest.mark.parametrize("expression", ["class=a", "class=[ac],n>=0", "n<=9,n!=8"])
def test_what_matches_is_found_in_steps(expression: str) -> None:
    journal = journal_of(segment=1 << 20)
    for n in range(10):
        post(journal, "a" if n % 2 else "b", n if n % 2 else 8)
    matches = matches_of(journal, expression)
    assert search_all(matches) > 3
    assert places(matches, journal) == [[1, 3, 5, 7, 9]]


def test_a_segment_in_which_no_kind_can_match_takes_one_look() -> None:
    journal = journal_of(segment=1 << 20)
    for n in range(1000):
        post(journal, "a", n)
    matches = matches_of(journal, "class=b,n>=0")
    assert search_all(matches) == 1
    post(journal, "b")
    assert search_all(matches) == 1
    assert places(matches, journal) == [[1000]]


def test_while_held_only_what_is_added_is_found_and_nothing_twice() -> None:
    journal = journal_of()
    matches = matches_of(journal, "class=a")
    post(journal)
    search_all(matches)
    matches.hold()
    matches.hold()
    post(journal)
    matches.add_newest()
    post(journal, "b")
    assert matches.search(1)
    assert matches.found_in(journal.current).complete
    matches.release()
    assert matches.held == 1
    matches.release()
    search_all(matches)
    assert places(matches, journal) == [[0, 1]]
    post(journal)
    search_all(matches)
    assert places(matches, journal) == [[0, 1, 3]]


def test_what_a_line_was_damaged_to_matches_no_condition_and_raises_nothing(
    tmp_path: Path,
) -> None:
    written = journal_of(1 << 20, 1 << 16, Store(tmp_path))
    for n in range(5):
        post(written, "a", n, "tapdisk")
    for seq, damage in ((1, b"\xff" * 9), (2, b'["list"]   '), (3, b"["), (4, b'{"payload":1}')):
        start = written.lines.columns[0].start_of(seq)
        length = written.lines.columns[0].start_of(seq + 1) - start - 1
        written.current.lines.buffer[start : start + length] = damage.ljust(length)
    journal = journal_of(1 << 20, 1 << 16, Store(tmp_path))
    for expression in ("n!=9", "n>=0", "x!=1"):
        matches = matches_of(journal, expression)
        search_all(matches)
        assert places(matches, journal) == [[4]]


def test_a_source_that_was_damaged_to_bytes_that_are_no_text_is_one_all_the_same(
    tmp_path: Path,
) -> None:
    written = journal_of(1 << 20, 1 << 16, Store(tmp_path))
    post(written)
    at = bytes(written.current.lines.buffer[:200]).index(b'"zfs"') + 1
    written.current.lines.buffer[at : at + 1] = b"\xff"
    journal = journal_of(1 << 20, 1 << 16, Store(tmp_path))
    assert journal.current.kinds.table == [Kind("\udcfffs", "a", None)]


def test_kinds_and_sources_are_recovered(tmp_path: Path) -> None:
    written = journal_of(1 << 20, 1 << 16, Store(tmp_path))
    post(written, "a")
    post(written, "b", 1, "tapdisk")
    post(written, "c")
    written.current.nvlists.buffer[written.current.nvlists.ends[1] + 4] = 0xFF  # no encoding
    journal = journal_of(1 << 20, 1 << 16, Store(tmp_path))
    assert [each.source for each in journal.current.kinds.table] == ["zfs", "tapdisk", "zfs"]
    for expression, found in (("class=b", [1]), ("source=zfs", [0, 2]), ("class=c", [])):
        matches = matches_of(journal, expression)
        search_all(matches)
        assert places(matches, journal) == [found]


def test_what_is_evicted_is_forgotten_but_for_what_is_held() -> None:
    journal = journal_of()
    matches = matches_of(journal, "n>=0")
    post(journal)
    first = journal.current
    while len(journal.segments) == 1:
        post(journal)
    second = journal.segments[1]
    search_all(matches)
    journal.hold(first)
    journal.hold(second)
    count = len(first.kinds)
    while first in journal.segments or second in journal.segments:
        post(journal)
    search_all(matches)
    journal.release(second)
    assert list(matches.found_in(first).places) == list(range(count))
    while not first.stale and len(journal.segments) < 3:
        post(journal)
    matches = matches_of(journal, "n>=0")
    found = matches.found_in(first)
    assert found.complete, "nobody else looks through what is evicted"
    assert list(found.places) == list(range(count))
    matches.hold()
    assert matches.found_in(first) is found
    journal.release(first)
    assert first.stale
    post(journal)
    while journal.current.identity.serial < 9:
        post(journal)
        matches.add_newest()
    assert matches.found_in(first) is not found
    assert not matches.found_in(first).places
    assert record_of(first, 0) is None


def test_an_evicted_segment_that_was_searched_in_part_is_searched_to_its_end() -> None:
    journal = journal_of(retain=2500, segment=1000)
    post(journal)
    first = journal.current
    matches = matches_of(journal, "n>=0")
    while len(journal.segments) == 1:
        post(journal)
    matches.search(1)
    assert not matches.found_in(first).complete
    journal.hold(first)
    while first in journal.segments:
        post(journal)
    assert len(matches.found_in(first).places) == len(first.kinds)
