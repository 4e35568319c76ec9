"""How many events of each class there were, and when the first and the last of them happened.

Counting costs an event one look-up, and the memory is bounded: what comes when no class more can be
told apart is counted all the same, together. It knows no journal and keeps no event.
"""

from collections.abc import Iterator

__all__ = ["Summary", "Tally"]

_MOST_CLASSES = 1000  # of ZFS's own there are fewer than a hundred
_LONGEST_CLASS = 256  # characters; ZFS's own longest is FM_MAX_CLASS, 100


class Tally:
    """Events of one class: how many, and the times of the first and the last that came, in ns."""

    __slots__ = ("count", "first_ns", "last_ns")

    def __init__(self, first_ns: int) -> None:
        self.count = 0
        self.first_ns = first_ns
        self.last_ns = first_ns


class Summary:
    """The tallies of all events counted; `others` is that of classes that have none of their own.

    `others` is None as long as there are no such.
    """

    __slots__ = ("_tallies", "others")

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self.others: Tally | None = None

    def count(self, name: str, time_ns: int) -> None:
        """Take note of one event of class *name*."""
        tally = self._tallies.get(name) or self._new(name, time_ns)
        tally.count += 1
        tally.last_ns = time_ns

    def count_unknown(self, time_ns: int) -> None:
        """Take note of one event whose class can't be told any more."""
        tally = self._other(time_ns)
        tally.count += 1
        tally.last_ns = time_ns

    def _new(self, name: str, time_ns: int) -> Tally:
        if len(self._tallies) >= _MOST_CLASSES or len(name) > _LONGEST_CLASS:
            return self._other(time_ns)
        tally = self._tallies[name] = Tally(time_ns)
        return tally

    def _other(self, time_ns: int) -> Tally:
        if self.others is None:
            self.others = Tally(time_ns)
        return self.others

    def __contains__(self, name: object) -> bool:
        """Whether class *name* has a tally of its own."""
        return name in self._tallies

    def __iter__(self) -> Iterator[tuple[str, Tally]]:
        """The classes, sorted, with their tallies."""
        return iter(sorted(self._tallies.items()))
