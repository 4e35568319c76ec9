"""Those events of a rendition that match an expression, as a run of bytes of their own.

A view copies nothing: its columns know which events of a segment's column are theirs, and where in
the view each of them ends. Its positions count from the oldest segment that was kept when the view
was made; its events are numbered from 0 there, so that a reader's gap can say how many were lost.

Invariant: the columns are those of the oldest segments kept, at least one, up to the one to which
the run of bytes has come. It comes to a segment when all that matches in those before it is known
and rendered, or they are evicted or cleared. What was never rendered by then counts as one byte.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from zeventfs.journal.column import Column, Mark
from zeventfs.journal.journal import Journal
from zeventfs.journal.matches import Found, Matches
from zeventfs.journal.rendition import Rendition
from zeventfs.journal.segment import Segment

__all__ = ["ViewColumn", "ViewRendition"]

_NOTHING = memoryview(b"")


class ViewColumn(Column):
    """What of *whole*, a segment's column, is in a view: the events that are *found*.

    `number` is that of the first of them. `base` and `number` mean something only once the view's
    run of bytes has come to the segment.
    """

    __slots__ = ("found", "number", "whole_column")

    def __init__(self, found: Found, whole_column: Column) -> None:
        super().__init__(0, whole_column.first_seq, _NOTHING)
        self.found = found
        self.number = 0
        self.whole_column = whole_column

    @property
    def begin(self) -> Mark:
        return Mark(self.base, self.first_seq, self.number)

    @property
    def next_seq(self) -> int:
        return self.whole_column.next_seq

    @property
    def next_number(self) -> int:
        """The number of the first event after the segment's."""
        return self.number + len(self.found.places)

    def extend(self, events: int) -> int:
        """Go on to further events that were found; *events* is how many to take or to render.

        Says how many were; none if nothing is to be done, or the segment is evicted for good.
        """
        whole, ends, places = self.whole_column, self.ends, self.found.places
        left = events
        while left > 0 and len(ends) < len(places):
            at = places[len(ends)]
            to_render = at + 1 - len(whole.ends)
            if to_render > 0:
                rendered = whole.render(min(left, to_render))
                if not rendered:
                    break
                left -= rendered
            else:
                self.length += whole.ends[at] - (whole.ends[at - 1] if at else 0)
                ends.append(self.length)
                left -= 1
        return events - left

    def settle(self) -> None:
        """Take in what was found and is rendered already."""
        known = bisect_left(self.found.places, len(self.whole_column.ends))
        self.extend(max(0, known - len(self.ends)))

    @property
    def complete(self) -> bool:
        """Whether all that was found is there."""
        return len(self.ends) == len(self.found.places)

    def mark(self, index: int) -> Mark:
        """The place before the segment's event *index* in the view, which must be there."""
        start = self.ends[index - 1] if index else 0
        seq = self.first_seq + self.found.places[index]
        return Mark(self.base + start, seq, self.number + index)

    def first_since(self, time_ns: int) -> int | None:
        """Which of its events is the first that happened at *time_ns* or later; None if none did.

        Events needn't come in the order in which they happened.
        """
        times = self.found.segment.kinds.times
        if not times or max(times) < time_ns:
            return None
        places = self.found.places[: len(self.ends)]
        return next((at for at, place in enumerate(places) if times[place] >= time_ns), None)

    def _after(self, index: int) -> int:
        """The seq after the view's event before *index*."""
        return self.first_seq + (self.found.places[index - 1] + 1 if index else 0)

    def seq_at(self, position: int) -> int:
        index = bisect_right(self.ends, position - self.base)
        if index == len(self.ends):
            return self._after(index)
        return self.first_seq + self.found.places[index]

    def number_at(self, position: int) -> int:
        return self.number + bisect_right(self.ends, position - self.base)

    def whole(self, start: int, size: int) -> tuple[int, int]:
        limit = start + size
        if limit >= self.length:
            return self.length, self._after(len(self.ends))
        index = bisect_right(self.ends, limit)
        return max(self.ends[index - 1], start) if index else start, self._after(index)

    def slice(self, start: int, stop: int) -> memoryview | bytes:
        if start >= stop:
            return b""
        ends, places, whole = self.ends, self.found.places, self.whole_column
        first, last = bisect_right(ends, start), bisect_left(ends, stop)
        pieces = []
        at = first
        while at <= last:
            run = at
            while run < last and places[run + 1] == places[run] + 1:
                run += 1
            begin = self._start(places[at])
            end = whole.ends[places[run]]
            if at == first:
                begin += start - (ends[first - 1] if first else 0)
            if run == last:
                end -= ends[last] - stop
            pieces.append(whole.buffer[begin:end])
            at = run + 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _start(self, place: int) -> int:
        return self.whole_column.ends[place - 1] if place else 0

    def ahead(self, start: int, size: int) -> memoryview | bytes:
        del start, size
        return b""  # seldom in one piece

    def drop(self) -> None:
        """Nothing is the view's own."""


class ViewRendition(Rendition):
    """What of *whole*, a rendition of *journal*, matches; *column_of* gives a segment's column.

    As long as it is read, `follow` must be called after each arrival that comes with another
    generation of the journal, lest a segment comes and goes that its readers were never told of.
    """

    __slots__ = (
        "_column_of",
        "_columns_by_serial",
        "_generation",
        "_journal",
        "_matches",
        "_pending",
    )

    def __init__(
        self,
        journal: Journal,
        matches: Matches,
        whole: Rendition,
        column_of: Callable[[Segment], Column],
    ) -> None:
        self._journal = journal
        self._matches = matches
        self._column_of = column_of
        self._columns_by_serial: dict[int, ViewColumn] = {}
        self._generation = -1
        first, *others = journal.segments
        super().__init__(self.column_of(first), whole.encode_gap, whole.losses)
        self._pending = [self.column_of(each) for each in others]

    def column_of(self, segment: Segment) -> ViewColumn:
        """The view's part of *segment*, as far as it is known."""
        column = self._columns_by_serial.get(_serial(segment))
        if column is None:
            column = ViewColumn(self._matches.found_in(segment), self._column_of(segment))
            self._columns_by_serial[_serial(segment)] = column
        return column

    def catch_up(self, events: int) -> bool:
        """Take or render *events* events more; say whether all that are found are there."""
        self.follow()
        while True:
            events -= self._last.extend(events)
            if not self._is_complete(self._last):
                return False
            if not self._pending:
                return True
            if events <= 0:
                return False
            self._go_on()

    def _is_complete(self, column: ViewColumn) -> bool:
        return column.complete and column.found.complete

    def keep_up(self, events: int) -> None:
        """Have the next *events* events rendered once so many wait for it, matching or not.

        So an event that matches after many that don't finds those before it done.
        """
        newest = _view_column(self._pending[-1] if self._pending else self._last)
        whole = newest.whole_column
        if len(newest.found.segment.kinds) - len(whole.ends) >= events:
            whole.render(events)

    @property
    def found_ahead(self) -> int:
        """How many events that were found the run of bytes has not come to."""
        last = self._last
        return (
            len(last.found.places)
            - len(last.ends)
            + sum(len(each.found.places) for each in self._pending)
        )

    @property
    def _last(self) -> ViewColumn:
        return _view_column(self.columns[-1])

    def _go_on(self) -> None:
        """Have the run of bytes come to the next segment, whether this one is complete or not."""
        last = self._last
        last.settle()
        column = self._pending.pop(0)
        column.base = last.end + (not self._is_complete(last))
        column.number = last.next_number
        self.add(column)

    def follow(self) -> None:
        """Know the journal's segments of now: those that are new, evicted, cleared."""
        if self._generation == self._journal.generation:
            return
        self._generation = self._journal.generation
        self._take_in_new_segments()
        segments = self._journal.segments
        kept_from = _serial(segments[0])
        while _serial(_segment(self.columns[0])) < kept_from:
            if len(self.columns) == 1:
                self._go_on()
            self.evict()
        for serial in [each for each in self._columns_by_serial if each < kept_from]:
            del self._columns_by_serial[serial]
        cleared = next((each for each in reversed(segments) if each.after_clear), None)
        if cleared is not None and self.floor.seq < cleared.identity.first_seq:
            while _serial(_segment(self._last)) < _serial(cleared):
                self._go_on()
            self.clear_before(self.column_of(cleared))

    def _take_in_new_segments(self) -> None:
        segments = self._journal.segments
        newest = _segment(self._pending[-1] if self._pending else self._last)
        new = segments[bisect_right(segments, _serial(newest), key=_serial) :]
        if newest.sealed and not newest.used:  # it was discarded
            if self._pending:
                del self._pending[-1]
            else:
                column = self.column_of(new.pop(0))
                column.base, column.number = self._last.base, self._last.number
                self.replace_last(column)
        self._pending += [self.column_of(each) for each in new]

    def since_time(self, time_ns: int) -> Mark:
        """The place before the first event kept that happened at *time_ns* or later, or the end."""
        for column in self._kept():
            index = column.first_since(time_ns)
            if index is not None:
                return column.mark(index)
        return self._end_mark

    def since_seq(self, seq: int) -> Mark:
        """The place before the first event kept whose seq is *seq* or more, or the end."""
        for column in self._kept():
            index = bisect_left(column.found.places, seq - column.first_seq)
            if index < len(column.ends):
                return column.mark(index)
        return self._end_mark

    def _kept(self) -> Iterator[ViewColumn]:
        """The columns that streams can still read, as far as the run of bytes has come."""
        for column in self.columns:
            if column.first_seq >= self.floor.seq:
                yield _view_column(column)

    @property
    def _end_mark(self) -> Mark:
        last = self._last
        return Mark(last.end, last.next_seq, last.next_number)


def _view_column(column: Column) -> ViewColumn:
    assert isinstance(column, ViewColumn)
    return column


def _segment(column: Column) -> Segment:
    return _view_column(column).found.segment


def _serial(segment: Segment) -> int:
    return segment.identity.serial
