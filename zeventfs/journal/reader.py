"""One open stream: which bytes an offset means to its reader, and what it has missed.

Theory of operation. A reader names file offsets; the journal knows positions, which begin where
its epoch did. The difference is the reader's *skew*. It is chosen at open, so that offset 0 is the
oldest event then kept, and it changes only at a seek (to 0: an offset is then a position) and at a
gap (the gap's own bytes take up offsets that no position stands behind).

What is a seek? A reader like bash's `read` takes a block, then steps back to the end of the line
that it wanted. So an offset within the last answer, both its ends included, continues it, and any
other is a seek: below the oldest event kept it begins there, beyond the end it is the end.

Who asks where the end is (lseek SEEK_END) may read as of a file that has one, as tail does: as many
bytes as the size says. Where it is before that size and nothing is left, because what the size
counts is kept no more, it gets an end of file instead of a wait. Who stands at the end waits.

A position that is no longer kept is a *gap*: one event of this reader's own, in an answer of its
own, after which the reader stands at the oldest event kept. For every reader, the events that it
read and the events in its own gaps add up to the events posted since it began.

Between calls a reader is the numbers in `Reader.state()`, which fit a fixed record; only what
helps to be exact in rare cases (the rest of a torn line, the line ends of what was evicted) is
kept beside them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from zeventfs.journal.column import Column, Mark
from zeventfs.journal.rendition import Rendition

__all__ = ["CAUSES", "Gap", "Reader", "ReaderState"]

CAUSES = ("", "evicted", "cleared")  # by their number in a record


class Gap(NamedTuple):
    """A reader's own gap: the offset at which its bytes begin, what was lost, why, and when.

    The *dropped* events are among those from *first_seq* to *last_seq*, of all events all of them.
    """

    start: int
    dropped: int
    first_seq: int
    last_seq: int
    cause: str
    time_ns: int


class ReaderState(NamedTuple):
    """What a reader is between two reads; `seq` is due at offset `end`."""

    skew: int
    start: int
    end: int
    seq: int
    gap: Gap | None


class Reader:
    """A cursor over *rendition*, beginning at *begin*, or at the oldest event kept now.

    *clock_ns* gives the time that a gap is stamped with, in ns since 1970.
    """

    __slots__ = (
        "_clock_ns",
        "_columns",
        "_gap_bytes",
        "_lane",
        "_measures",
        "_number",
        "_rest",
        "_sought",
        "end",
        "gap",
        "rendition",
        "seq",
        "skew",
        "start",
    )

    def __init__(
        self,
        rendition: Rendition,
        clock_ns: Callable[[], int],
        begin: Mark | None = None,
    ) -> None:
        self._clock_ns = clock_ns
        begin = begin or rendition.oldest
        self.rendition = rendition
        self.skew = begin.position
        self.start = 0
        self.end = 0
        self.seq = begin.seq
        # The number, see Column, of the event at `end` when no column tells it; None if none can.
        self._number: int | None = begin.number
        self.gap: Gap | None = None
        self._gap_bytes = b""
        self._rest = b""
        self._columns: Sequence[Column] = ()
        self._lane: Column | None = None
        self._sought: int | None = None
        self._measures = False

    def miss(self, first_seq: int, cause: str) -> None:
        """Begin with a gap: the events from *first_seq* on were wanted, and are kept no more.

        How many of them are the rendition's can't be told: the gap counts them all.
        """
        assert self._number is not None
        begin = Mark(self.skew, self.seq, self._number)
        self.seq, self._number = first_seq, None
        self._lose(0, begin, cause)

    @property
    def lag(self) -> int:
        """How many events of the rendition, as far as it is rendered, come at `end` or later."""
        newest = self.rendition.number_at(self.rendition.end)
        due = self._number_at(self.end)
        return self.rendition.columns[-1].next_seq - self.seq if due is None else newest - due

    def state(self) -> ReaderState:
        """The numbers from which `restore` makes this reader again."""
        return ReaderState(self.skew, self.start, self.end, self.seq, self.gap)

    def restore(self, state: ReaderState) -> None:
        """Stand where another reader of the same rendition, in the same epoch, stood.

        A part of its last answer that is no longer kept can't be stepped back to.
        """
        self.skew, self.start, self.end, self.seq, self.gap = state
        self._number = None
        if self.gap is not None:
            self._gap_bytes = self._encode(self.gap)
            return
        rendition = self.rendition
        position = self.end + self.skew
        self._columns = rendition.columns_between(self.start + self.skew, position)
        kept_from = rendition.columns[0].base  # be it cleared or not
        self.start = min(max(self.start, kept_from - self.skew), self.end)
        if position >= kept_from:
            self._rest = rendition.rest_at(position)

    def ready(self) -> bool:
        """Whether a read at the end of the last one, or at the end sought since, gets something."""
        if self._sought is not None:
            return self._sought < self.rendition.end
        return bool(
            self._rest
            or self.end + self.skew < self.rendition.end
            or (self.gap is not None and self.end < self.gap.start + len(self._gap_bytes))
        )

    def seek_to_end(self) -> None:
        """Note that lseek(SEEK_END) was called: until the next read, `ready` answers for there."""
        self._sought = self.rendition.end
        self._measures = True

    def read(self, offset: int, size: int) -> memoryview | bytes | None:
        """What a read of *size* > 0 bytes at *offset* gets; None when nothing is there yet.

        No bytes are an end of file, which only who has called `seek_to_end` gets.
        Nothing changes when the answer is None, but for a seek.
        """
        self._sought = None
        if offset == self.end and self._lane is not None:
            answer = self._read_on(self._lane, size)
            if answer is not None:
                return answer
        self._lane = None
        if not self.start <= offset <= self.end:
            self._seek(offset)
        elif self.gap is not None and offset < self.gap.start + len(self._gap_bytes):
            return self._answer_gap(self.gap, offset, size)
        elif offset == self.end and self._rest:
            return self._answer_rest(offset, size)
        rendition = self.rendition
        position = offset + self.skew
        if position >= rendition.end:
            return b"" if self._measures and offset < rendition.end else None
        if position < rendition.begin:
            return self._fall_into_gap(offset, size)
        buffer, self.seq, self._rest, self._columns = rendition.cut(position, size)
        self.start = offset
        self.end = offset + len(buffer)
        self.gap = None
        if not self._rest:
            self._lane = self._columns[-1]
        return buffer

    def _read_on(self, column: Column, size: int) -> memoryview | bytes | None:
        """What follows in *column*, if it is kept and has more whole events than fit.

        This is all that a reader who drains a backlog needs nearly always, and nothing else.
        """
        position = self.end + self.skew
        start = position - column.base
        if start + size >= column.length or position < self.rendition.begin:
            return None
        stop, seq = column.whole(start, size)
        if stop == start:
            return None
        self.start = self.end
        self.end += stop - start
        self.seq = seq
        self._columns = (column,)
        return column.slice(start, stop)

    def following(self, size: int) -> memoryview | bytes:
        """At most *size* of the bytes that lie behind the last answer, in the same column."""
        if not self._columns:
            return b""
        column = self._columns[-1]
        return column.ahead(self.end + self.skew - column.base, size)

    def _seek(self, offset: int) -> None:
        rendition = self.rendition
        oldest = rendition.oldest
        position = min(max(offset, oldest.position), rendition.end)
        self.skew = position - offset
        self.start = self.end = offset
        self.seq = rendition.seq_at(position) if position > oldest.position else oldest.seq
        self._number = rendition.number_at(position)
        self.gap = None
        self._rest = b""
        self._columns = ()

    def _answer_rest(self, offset: int, size: int) -> bytes:
        """The next part of an event for which the reader's buffer is too small."""
        answer, self._rest = self._rest[:size], self._rest[size:]
        self.start = offset
        self.end = offset + len(answer)
        return answer

    def _answer_gap(self, gap: Gap, offset: int, size: int) -> bytes:
        begin = offset - gap.start
        answer = self._gap_bytes[begin : begin + size]
        self.start = offset
        self.end = offset + len(answer)
        return answer

    def _fall_into_gap(self, offset: int, size: int) -> bytes:
        """Count what is lost at *offset*, and go on behind it."""
        position = offset + self.skew
        floor = self.rendition.floor
        target, cause = (
            (floor, "cleared") if position < floor.position else (self.rendition.oldest, "evicted")
        )
        gap = self._lose(offset, target, cause)
        return self._answer_gap(gap, offset, size)

    def _lose(self, offset: int, target: Mark, cause: str) -> Gap:
        """Have a gap at *offset*, behind which the reader stands at *target*."""
        first_seq, last_seq = self._seq_lost_at(offset), target.seq - 1
        due = self._number_at(offset)
        dropped = last_seq - first_seq + 1 if due is None else target.number - due
        gap = self.gap = Gap(offset, dropped, first_seq, last_seq, cause, self._clock_ns())
        self._gap_bytes = self._encode(gap)
        self.rendition.losses.count(cause, dropped)
        self._stand_behind(gap, target)
        return gap

    def _stand_behind(self, gap: Gap, target: Mark) -> None:
        self.skew = target.position - (gap.start + len(self._gap_bytes))
        self.seq = target.seq
        self._number = target.number
        self._rest = b""
        self._columns = ()

    def _seq_lost_at(self, offset: int) -> int:
        """The seq due at *offset*, although its bytes are gone.

        At the end of the last answer it is known. Before that it follows from the ends of the
        answer's columns, which outlive their bytes.
        """
        if offset == self.end:
            return self.seq
        position = offset + self.skew
        column = next(each for each in reversed(self._columns) if each.base <= position)
        return column.seq_at(position)

    def _number_at(self, offset: int) -> int | None:
        """The number of the event due at *offset*, within the last answer, kept or not.

        At the end of it, an event of which only the rest is due has been counted as read.
        """
        if not self._columns:
            return self._number
        position = offset + self.skew
        column = next((each for each in reversed(self._columns) if each.base <= position), None)
        if column is None:
            return None
        torn = offset == self.end and not column.starts_at(position)
        return column.number_at(position) + torn

    def _encode(self, gap: Gap) -> bytes:
        return self.rendition.encode_gap(
            gap.dropped, gap.first_seq, gap.last_seq, gap.cause, gap.time_ns
        )
