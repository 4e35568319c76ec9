"""A view's run of bytes: where it goes on, whatever comes, goes or is never rendered meanwhile."""

import pytest

from zeventfs.event import Event
from zeventfs.filter import Expression
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.matches import Matches
from zeventfs.journal.reader import Reader
from zeventfs.journal.view import ViewRendition
from zeventfs.nvlist import Type, decode
from zeventfs.render import Renderer

RENDERER = Renderer("epoch", None)


class World:
    """A journal and one view of it, in one format."""

    def __init__(
        self, expression: str, style: str = "json", retain: int = 4000, segment: int = 700
    ) -> None:
        self.rendered = 0
        self.now = 0
        self.journal = Journal("epoch", RENDERER, Limits(retain, segment), lambda: self.now)
        self.matches = Matches(self.journal, Expression.parse(expression))
        if style == "json":
            whole = self.journal.lines
            self.view = ViewRendition(self.journal, self.matches, whole, lambda each: each.lines)
        else:
            text = self.journal.text(self.text)
            self.view = ViewRendition(self.journal, self.matches, text, text.column_of)

    def text(self, packed: bytes) -> bytes:
        self.rendered += 1
        return RENDERER.text(decode(packed))

    def post(self, name: str = "a", size: int = 0, time: int | None = None) -> None:
        self.now += 1
        time_ns = self.now if time is None else time
        pairs = [("filler", Type.STRING, "." * size)]
        self.journal.append(Event.make("zfs", name, time_ns, pairs))

    def search(self) -> None:
        while not self.matches.search(1000):
            pass

    def catch_up(self) -> None:
        self.search()
        while not self.view.catch_up(100):
            pass

    def reader(self) -> Reader:
        return Reader(self.view, lambda: 1)


def lines(reader: Reader) -> int:
    got = b""
    while answer := reader.read(len(got), 10_000):
        got += answer
    return got.count(b"\n")


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_dormant_view_goes_on_whatever_came_and_went(style: str) -> None:
    world = World("class=a", style)
    world.post()
    world.catch_up()
    shown = world.view.end
    for _ in range(100):
        world.post()
    world.catch_up()
    assert world.view.end > shown
    oldest = world.view.columns[0]
    assert oldest.first_seq == world.journal.segments[0].lines.first_seq
    while world.journal.segments[0].lines.first_seq == oldest.first_seq:
        world.post()
    world.catch_up()
    assert oldest not in world.view.columns
    kept = sum(len(each.kinds) for each in world.journal.segments)
    if style == "json":
        assert lines(world.reader()) == kept


def test_a_dormant_view_of_which_a_part_was_known_counts_the_rest_as_a_byte() -> None:
    world = World("class=a")
    world.post()
    world.catch_up()
    shown = world.view.end
    world.post()
    world.journal.clear()
    world.view.follow()
    world.search()
    world.catch_up()
    assert world.view.end == shown + 1
    assert world.view.oldest.position == shown + 1


def test_a_view_steps_over_segments_in_which_nothing_matches_in_one_read() -> None:
    world = World("class=a", retain=1 << 20)
    for _ in range(5):
        world.post("a")
        for _ in range(20):
            world.post("b")
    world.catch_up()
    answer = world.reader().read(0, 1 << 17)
    assert answer is not None
    assert bytes(answer).count(b"\n") == 5
    assert len(world.view.columns) == len(world.journal.segments) > 20


@pytest.mark.parametrize("known", ["followed", "unknown", "alone"])
def test_a_segment_that_was_discarded_empty_is_replaced(known: str) -> None:
    world = World("class=a", retain=1 << 20)
    if known != "alone":
        world.post()
        world.journal.clear()
    if known == "followed":
        world.catch_up()
    empty = world.journal.current
    assert not empty.used
    world.post(size=3000)  # more than the segment was made for
    assert empty.sealed
    assert world.journal.current is not empty
    world.catch_up()
    assert lines(world.reader()) == 1
    world.post()
    world.catch_up()
    assert lines(world.reader()) == 2


def test_a_discarded_segment_that_the_view_has_still_to_come_to_is_replaced() -> None:
    world = World("class=a", retain=1 << 20)
    world.post()
    world.journal.clear()
    world.view = ViewRendition(
        world.journal, world.matches, world.journal.lines, lambda each: each.lines
    )
    world.post(size=3000)
    world.catch_up()
    assert [each.first_seq for each in world.view.columns] == [1, 2]
    assert lines(world.reader()) == 1


def test_where_a_time_or_a_seq_begins() -> None:
    world = World("class=a", retain=1 << 20)
    for time in (10, 30, 20, 40):
        world.post("a", time=time)
        world.post("b", size=400, time=time)
    world.catch_up()
    view = world.view
    assert [view.since_time(each).seq for each in (0, 11, 31, 41)] == [1, 3, 7, 9]
    assert [view.since_seq(each).seq for each in (0, 1, 2, 7, 8, 9, 99)] == [1, 1, 3, 7, 9, 9, 9]
    assert view.since_time(41).position == view.end
    world.journal.clear()
    world.post("a", time=50)
    world.catch_up()
    assert view.since_time(0).seq == view.since_seq(0).seq == 9
    assert view.since_time(51).number == 5


def test_a_part_of_a_view_is_the_same_bytes_as_its_whole() -> None:
    world = World("class!=b", segment=1 << 16, retain=1 << 20)
    for name in "aabbabaaabba":
        world.post(name)
    world.catch_up()
    column = world.view.columns[0]
    whole = bytes(column.slice(0, column.length))
    assert whole.count(b"\n") == 7
    for start in range(0, len(whole), 37):
        for stop in range(start, len(whole) + 1, 41):
            assert bytes(column.slice(start, stop)) == whole[start:stop]
    assert column.ahead(0, 100) == b""
    column.drop()
    assert column.length == len(whole), "nothing is the view's own"


def test_what_is_found_and_not_yet_taken_in_is_ahead() -> None:
    world = World("class=a")
    for _ in range(10):
        world.post()
    world.search()
    world.view.follow()
    ahead = world.view.found_ahead
    assert ahead == 10
    while not world.view.catch_up(3):
        assert world.view.found_ahead < ahead
        ahead = world.view.found_ahead
    assert world.view.found_ahead == 0


def test_a_segment_in_which_all_is_taken_in_may_end_a_turn() -> None:
    world = World("class=a", retain=1 << 20)
    world.post()
    first = len(world.journal.current.kinds)
    while len(world.journal.segments) == 1:
        world.post()
        first = len(world.journal.segments[0].kinds)
    world.search()
    assert not world.view.catch_up(first)
    assert len(world.view.columns) == 1
    assert world.view.catch_up(1)


def test_a_view_made_where_the_journal_was_cleared_begins_there() -> None:
    world = World("class=a", retain=1 << 20)
    world.journal.clear()
    world.catch_up()
    world.post()
    world.journal.clear()
    world.post()
    world.catch_up()
    assert lines(world.reader()) == 1


def test_text_is_rendered_as_it_comes_though_nothing_matches() -> None:
    world = World("class=z", "text")
    world.catch_up()
    world.matches.hold()
    for count in range(1, 40):
        world.post("b")
        world.view.follow()
        world.view.keep_up(4)
        assert count - world.rendered <= 4 * len(world.journal.segments)
    assert world.rendered >= 30
    json = World("class=z")
    json.post("b")
    json.view.keep_up(1)
    assert json.rendered == 0


def test_a_view_read_in_pieces_has_each_byte_once_and_each_seq_due() -> None:
    world = World("class=a", retain=1 << 20)
    for name in "aabbabaaabba":
        world.post(name)
    world.catch_up()
    whole = world.reader().read(0, 1 << 17)
    assert whole is not None
    reader = world.reader()
    got = b""
    due = {1}
    while answer := reader.read(len(got), 50):
        got += answer
        due.add(reader.seq)
    assert got == bytes(whole)
    assert due == {1, 2, 3, 6, 8, 9, 10, 13}
    assert reader.lag == 0
    reader.read(100, 50)
    assert reader.lag > 0
    assert world.view.seq_at(world.view.end) == 13


def test_text_that_was_evicted_before_anybody_rendered_it_is_none() -> None:
    world = World("class=a", "text", retain=3000, segment=1000)
    world.post()
    column = world.view.column_of(world.journal.current)
    while not column.found.segment.stale:
        world.post()
    column.found.places.append(0)
    assert column.extend(5) == 0
    column.settle()
    assert not column.ends
