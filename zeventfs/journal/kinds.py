"""What is known of a segment's events without a look at their bytes: of what kind, and of when.

An event takes a few bytes here; the kinds themselves are stored once in a segment, and go with it.
"""

from array import array

from zeventfs.filter import Kind

__all__ = ["Kinds"]

_LATEST_NS = 2**63 - 1


class Kinds:
    """The kinds and times of a segment's events, in their order.

    `table[numbers[i]]` is the kind of the segment's event i, `times[i]` when it happened, in ns
    since 1970, as near as 64 bits come to it.
    """

    __slots__ = ("_number_of", "numbers", "table", "times")

    def __init__(self) -> None:
        self.table: list[Kind] = []
        self.numbers = array("I")
        self.times = array("q")
        self._number_of: dict[tuple[str, str, str | None], int] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def newest(self) -> Kind:
        """The kind of the last event."""
        return self.table[self.numbers[-1]]

    def append(self, kind: tuple[str, str, str | None], time_ns: int) -> None:
        """Take note of the next event; *kind* is a Kind, or a tuple of its values."""
        number = self._number_of.get(kind)
        if number is None:
            number = self._number_of[kind] = len(self.table)
            self.table.append(Kind(*kind))
        self.numbers.append(number)
        try:
            self.times.append(time_ns)
        except OverflowError:  # the year 2262 and later, or long before 1970
            self.times.append(_LATEST_NS if time_ns > 0 else -_LATEST_NS)
