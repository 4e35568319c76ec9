"""Which numbers of one of the kernel's counts have come, and so which have not.

Two CPUs may send what they have numbered in the opposite order: a number is only said to be missing
when `settle` is called, after what waits has been taken.
"""

from typing import Final, NamedTuple

__all__ = ["Missing", "Numbers"]

_MOST: Final = 256  # holes kept open
_LATE: Final = 1024  # numbers; one that is further below the highest is of a count begun anew


class Missing(NamedTuple):
    """*number* of them, the first and the last included."""

    number: int
    first: int
    last: int


class Numbers:
    """The numbers, each one above the other; *highest* None if the first one is not known."""

    __slots__ = ("_holes", "_lost", "_skipped", "highest")

    def __init__(self, highest: int | None = None) -> None:
        self.highest = highest
        self._skipped = 0  # of the first to come, as long as none is known
        self._holes: dict[int, int] = {}  # first and last of each
        self._lost: Missing | None = None  # of holes that were too many

    def __bool__(self) -> bool:
        """Whether any is missing."""
        return bool(self._holes) or self._lost is not None

    def take(self, number: int) -> bool:
        """Take *number*; whether it has not come before, nor been passed by `skip`."""
        highest = self.highest
        if highest is None:
            self.highest, skipped = number - 1 + max(self._skipped, 1), self._skipped
            return not skipped
        if number > highest:
            if number > highest + 1:
                self._open(highest + 1, number - 1)
            self.highest = number
            return True
        if highest - number > _LATE:
            self.highest = number
            return True
        for first, last in self._holes.items():
            if first <= number <= last:
                del self._holes[first]
                if first < number:
                    self._holes[first] = number - 1
                if number < last:
                    self._holes[number + 1] = last
                return True
        return False

    def _open(self, first: int, last: int) -> None:
        if len(self._holes) >= _MOST:
            self._lost = self.settle()
        self._holes[first] = last

    def expect(self, number: int) -> None:
        """Take all to *number*, that one too, as missing that have not come yet."""
        if self.highest is not None and number > self.highest:
            self._open(self.highest + 1, number)
            self.highest = number

    def skip(self, count: int) -> None:
        """Take the next *count* as having come."""
        if self.highest is None:
            self._skipped += count
        else:
            self.highest += count

    def forget_skipped(self) -> None:
        """Take what comes as new, if none is known: what was skipped may be lost."""
        self._skipped = 0

    def settle(self) -> Missing | None:
        """What is missing since it was last asked; it won't come any more."""
        holes = [Missing(last - first + 1, first, last) for first, last in self._holes.items()]
        if self._lost is not None:
            holes.append(self._lost)
        self._holes.clear()
        self._lost = None
        if not holes:
            return None
        return Missing(
            sum(hole.number for hole in holes),
            min(hole.first for hole in holes),
            max(hole.last for hole in holes),
        )
