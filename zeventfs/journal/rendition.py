"""The journal in one encoding, as one endless run of bytes of which the newest part is kept.

It knows positions, segments' columns and what has been lost before them, and no reader.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from zeventfs.journal.column import Column, Mark

__all__ = ["Cut", "GapEncoder", "Losses", "Rendition"]


class Losses:
    """How many gaps there were, and how many events were lost in them, by cause."""

    __slots__ = ("events", "gaps")

    def __init__(self) -> None:
        self.gaps: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    def count(self, cause: str, events: int) -> None:
        """Add one gap of *events* events."""
        self.gaps[cause] += 1
        self.events[cause] += events


class Cut(NamedTuple):
    """What a read gets: the bytes, the seq due after them, and what is left of a torn event.

    `columns` are those that the bytes come from.
    """

    buffer: memoryview | bytes
    seq: int
    rest: bytes
    columns: Sequence[Column]


class GapEncoder(Protocol):
    """Encodes one reader's gap in the manner of the rendition."""

    def __call__(
        self, dropped: int, first_seq: int, last_seq: int, cause: str, time_ns: int
    ) -> bytes:
        """The bytes of the gap event; the same for the same arguments."""
        ...


class Rendition:
    """The columns kept, oldest first; the last one grows.

    `floor` is where the last clear happened: readers begin there or later, although the columns
    before it may still be there for those who read them as rotated logs.
    """

    __slots__ = ("_bases", "columns", "encode_gap", "floor", "losses")

    def __init__(self, first: Column, encode_gap: GapEncoder, losses: Losses) -> None:
        self.columns: list[Column] = [first]
        self._bases: list[int] = [first.base]
        self.floor = first.begin
        self.encode_gap = encode_gap
        self.losses = losses

    @property
    def end(self) -> int:
        """The position after the newest byte."""
        last = self.columns[-1]
        return last.base + last.length

    @property
    def oldest(self) -> Mark:
        """Where the oldest event that a reader can still have begins."""
        first = self.columns[0]
        if self.floor.position > first.base:
            return self.floor
        return first.begin

    @property
    def begin(self) -> int:
        """The position of `oldest`."""
        return max(self.columns[0].base, self.floor.position)

    def add(self, column: Column) -> None:
        """Go on in *column*, which begins where the last one ends."""
        self.columns.append(column)
        self._bases.append(column.base)

    def evict(self) -> Column:
        """Forget the oldest column, and return it."""
        del self._bases[0]
        return self.columns.pop(0)

    def replace_last(self, column: Column) -> None:
        """Have *column* in place of the last one, which is empty."""
        self.columns[-1] = column

    def clear_before(self, column: Column) -> None:
        """Put everything before *column* out of the streams' reach."""
        self.floor = column.begin

    def index_of(self, position: int) -> int:
        """The index in `columns` of the one that holds *position*, or would next."""
        if position >= self._bases[-1]:
            return len(self._bases) - 1
        return bisect_right(self._bases, position) - 1

    def seq_at(self, position: int) -> int:
        """The seq of the event at *position*, which must be kept or the end."""
        return self.columns[self.index_of(position)].seq_at(position)

    def number_at(self, position: int) -> int:
        """The number, see Column, of the event at *position*, which must be kept or the end."""
        return self.columns[self.index_of(position)].number_at(position)

    def columns_between(self, start: int, end: int) -> Sequence[Column]:
        """The columns kept in which positions from *start* to *end* are."""
        return [each for each in self.columns if each.base <= end and start <= each.end]

    def rest_at(self, position: int) -> bytes:
        """What is left of the event that *position* is inside of; nothing at an event's beginning.

        *position* must be kept or the end.
        """
        column = self.columns[self.index_of(position)]
        if column.starts_at(position):
            return b""
        start = position - column.base
        return bytes(column.slice(start, column.end_of(start)))

    def cut(self, position: int, size: int) -> Cut:
        """As many whole events from *position* on as fit into *size*; a part if not even one does.

        *position* must be kept and before the end. An event that *position* is inside of gives
        its rest first.
        """
        index = self.index_of(position)
        column = self.columns[index]
        start = position - column.base
        stop, seq = column.whole(start, size)
        if stop == start:
            end = column.end_of(start)
            rest = bytes(column.slice(start + size, end))
            seq = column.seq_at(position) + 1
            return Cut(column.slice(start, start + size), seq, rest, (column,))
        if stop == column.length and index + 1 < len(self.columns):
            return self._joined(index, start, size)
        return Cut(column.slice(start, stop), seq, b"", (column,))

    def _joined(self, index: int, start: int, size: int) -> Cut:
        """A cut that goes on into the following columns; the one case that copies."""
        pieces: list[memoryview | bytes] = []
        columns: list[Column] = []
        seq = self.columns[index].first_seq
        for column in self.columns[index:]:
            stop, following = column.whole(start, size)
            if stop == start < column.length:
                break
            seq = following
            pieces.append(column.slice(start, stop))
            columns.append(column)
            size -= stop - start
            start = 0
            if stop < column.length:
                break
        return Cut(b"".join(pieces), seq, b"", columns)
