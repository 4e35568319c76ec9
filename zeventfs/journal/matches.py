"""Which events of the journal match an expression: found when somebody asks, kept while it is used.

As long as nobody holds them nothing is done when an event arrives. Who asks has the events kept
that were not looked at yet looked through, by their kinds first: in a segment of which no kind can
match, no event is looked at. While somebody holds them, who hears of arrivals adds what matches.
"""

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from zeventfs.filter import Expression
from zeventfs.journal.journal import Journal
from zeventfs.journal.segment import Segment

__all__ = ["Found", "Matches", "record_of"]

_ALL_TO_COME: Final = 1 << 62  # more events than any segment has


class Found:
    """Those events of *segment* that match, by their place in it, as far as it was searched.

    `complete` says that all its events were, and `searched` how many; while somebody adds what
    matches as it comes it is _ALL_TO_COME.
    """

    __slots__ = ("_may", "places", "searched", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.places = array("I")
        self.searched = 0
        self._may: list[bool] = []  # by a kind's number

    @property
    def complete(self) -> bool:
        """Whether all that matches so far is in `places`."""
        return self.searched >= len(self.segment.kinds)

    def search(self, expression: Expression, events: int) -> int:
        """Look at the next *events* events, or as many as there are; say how many.

        A segment in which no event can match takes one look.
        """
        if self.complete:
            return 0
        kinds = self.segment.kinds
        may = self._may
        may += [expression.may_match(kind) for kind in kinds.table[len(may) :]]
        begin, end = self.searched, len(kinds)
        if not any(may):
            self.searched = end
            return 1
        end = self.searched = min(begin + events, end)
        places = [at for at in range(begin, end) if may[kinds.numbers[at]]]
        if not expression.decided_by_kind:
            places = [at for at in places if _matches(expression, self.segment, at)]
        self.places.extend(places)
        return end - begin


class Matches:
    """The events of *journal* that match *expression*, from the oldest kept now on.

    `held` counts those who want them to be of now; `expression` decides, its since= does not.
    """

    __slots__ = ("_found", "_growing", "_journal", "_searched_before", "expression", "held")

    def __init__(self, journal: Journal, expression: Expression) -> None:
        self._journal = journal
        self._found: dict[int, Found] = {}
        self._growing: Found | None = None  # to which was added last
        self._searched_before = 0  # a segment's serial
        self.expression = expression
        self.held = 0

    def found_in(self, segment: Segment) -> Found:
        """What is known of *segment*'s events; of one that was evicted, and is held, all."""
        serial = _serial(segment)
        kept_from = _serial(self._journal.segments[0])
        found = self._found.get(serial)
        if found is None:
            self._forget_before(kept_from)
            found = self._found[serial] = Found(segment)
            if self.held and serial >= kept_from:
                found.searched = _ALL_TO_COME
        if serial < kept_from:  # nobody looks through it in turns any more
            found.search(self.expression, len(segment.kinds))
        return found

    def _forget_before(self, kept_from: int) -> None:
        for serial, found in list(self._found.items()):
            if serial < kept_from and not found.segment.holders:
                del self._found[serial]

    def search(self, events: int) -> bool:
        """Look at the next *events* events; say whether all that are kept have been looked at."""
        if self.held:
            return True
        segments = self._journal.segments
        for segment in segments[bisect_left(segments, self._searched_before, key=_serial) :]:
            self._searched_before = _serial(segment)
            events -= self.found_in(segment).search(self.expression, events)
            if events <= 0:
                return False
        return True

    def hold(self) -> None:
        """Have what matches added from now on, all before having been looked at."""
        self.held += 1
        if self.held == 1:
            for segment in self._journal.segments:
                self.found_in(segment).searched = _ALL_TO_COME

    def release(self) -> None:
        """Undo one `hold`."""
        self.held -= 1
        if not self.held:
            self._growing = None
            for segment in self._journal.segments:
                self.found_in(segment).searched = len(segment.kinds)

    def add_newest(self) -> None:
        """Take in the journal's newest event, which matches; only while somebody holds them."""
        segment = self._journal.current
        found = self._growing
        if found is None or found.segment is not segment:
            found = self._growing = self.found_in(segment)
        found.places.append(len(segment.kinds) - 1)


def record_of(segment: Segment, place: int) -> Mapping[str, Any] | None:
    """The event of *segment* at *place* as its JSON line has it; None if that is no event.

    It is none when the segment is gone, or somebody wrote into its file.
    """
    if segment.stale:
        return None
    try:
        record = msgspec.json.decode(segment.line(segment.lines.first_seq + place))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("payload"), dict) else None


def _matches(expression: Expression, segment: Segment, place: int) -> bool:
    record = record_of(segment, place)
    return record is not None and expression.matches(record)


def _serial(segment: Segment) -> int:
    return segment.identity.serial
