"""Which events of the journal match an expression: found when somebody asks, kept while it is used.

As long as nobody holds them nothing is done when an event arrives. Who asks has the events kept
that were not looked at yet looked through, by their kinds first: in a segment of which no kind can
match, no event is looked at. While somebody holds them, who hears of arrivals adds what matches.
"""

from array import array
from collections.abc import Mapping
from typing import Any

import msgspec

from zeventfs.filter import Expression
from zeventfs.journal.journal import Journal
from zeventfs.journal.segment import Segment

__all__ = ["Found", "Matches", "record_of"]


class Found:
    """Those events of *segment* that match, by their place in it, as far as it was `searched`."""

    __slots__ = ("_may", "places", "searched", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.places = array("I")
        self.searched = 0
        self._may: list[bool] = []  # by a kind's number

    def search(self, expression: Expression, events: int) -> int:
        """Look at the next *events* events, or as many as there are; say how many."""
        kinds = self.segment.kinds
        begin = self.searched
        end = self.searched = min(begin + events, len(kinds))
        may = self._may
        may += [expression.may_match(kind) for kind in kinds.table[len(may) :]]
        if any(may):
            places = [at for at in range(begin, end) if may[kinds.numbers[at]]]
            if not expression.decided_by_kind:
                places = [at for at in places if expression.matches(record_of(self.segment, at))]
            self.places.extend(places)
        return end - begin


class Matches:
    """The events of *journal* that match *expression*, from the oldest kept now on.

    `held` counts those who want them to be of now; `expression` decides, its since= does not.
    """

    __slots__ = ("_found", "_journal", "expression", "held")

    def __init__(self, journal: Journal, expression: Expression) -> None:
        self._journal = journal
        self._found: dict[int, Found] = {}
        self.expression = expression
        self.held = 0

    def found_in(self, segment: Segment) -> Found:
        """What is known of *segment*'s events."""
        serial = segment.identity.serial
        found = self._found.get(serial)
        if found is None:
            kept_from = self._journal.segments[0].identity.serial
            for each in [each for each in self._found if each < kept_from]:
                del self._found[each]
            found = self._found[serial] = Found(segment)
        return found

    def search(self, events: int) -> bool:
        """Look at the next *events* events; say whether all that are kept have been looked at."""
        if self.held:
            return True
        for segment in self._journal.segments:
            events -= self.found_in(segment).search(self.expression, events)
            if not events:
                break
        return self.found_in(self._journal.current).searched == len(self._journal.current.kinds)

    def hold(self) -> None:
        """Have what matches added from now on, all before having been looked at."""
        self.held += 1

    def release(self) -> None:
        """Undo one `hold`."""
        self.held -= 1
        if not self.held:
            for segment in self._journal.segments:
                self.found_in(segment).searched = len(segment.kinds)

    def add_newest(self) -> None:
        """Take in the journal's newest event, which matches; only while somebody holds them."""
        segment = self._journal.current
        self.found_in(segment).places.append(len(segment.kinds) - 1)

    def complete(self, found: Found) -> bool:
        """Whether *found* has all that matches so far."""
        return self.held > 0 or found.searched == len(found.segment.kinds)


def record_of(segment: Segment, place: int) -> Mapping[str, Any]:
    """The event of *segment* at *place* as its JSON line has it; of one that is gone, nothing."""
    if segment.stale:
        return {}
    try:
        record = msgspec.json.decode(segment.line(segment.lines.first_seq + place))
    except msgspec.DecodeError:  # somebody wrote into the file
        return {}
    return record if isinstance(record, dict) else {}
