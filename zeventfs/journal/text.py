"""The journal as text, rendered from the kept nvlists only once somebody asks, and then only once.

What was never rendered when it was cleared or evicted counts as one byte, so that its place in the
run of bytes is still behind every reader who has not read it, and before every one who has.
"""

from collections.abc import Callable, Sequence

from zeventfs.journal.column import Column
from zeventfs.journal.rendition import Losses, Rendition
from zeventfs.journal.segment import Segment

__all__ = ["TextColumn", "TextRendition"]

_FIRST_ROOM = 64 * 1024


class TextColumn(Column):
    """A segment's text; its buffer grows by being replaced, so slices given out stay good.

    `base` means something only once the rendition has come to the segment.
    """

    __slots__ = ("_encode", "segment")

    def __init__(self, segment: Segment, encode: Callable[[bytes], bytes]) -> None:
        super().__init__(0, segment.identity.first_seq, memoryview(b""))
        self.segment = segment
        self._encode = encode

    @property
    def complete(self) -> bool:
        """Whether all of the segment's events so far are rendered."""
        return len(self.ends) == len(self.segment.lines.ends)

    def render(self, events: int) -> int:
        """Render the next *events* events, or as many as there are; say how many.

        Of what has been evicted for good there are none.
        """
        if self.segment.stale:
            return 0
        count = min(events, len(self.segment.lines.ends) - len(self.ends))
        for _ in range(count):
            self.append(self._encode(self.segment.packed(self.next_seq)))
        return count

    def append(self, encoded: bytes) -> None:
        """Add one event's text."""
        needed = self.length + len(encoded)
        if needed > len(self.buffer):
            larger = bytearray(max(needed, 2 * len(self.buffer), _FIRST_ROOM))
            larger[: self.length] = self.buffer[: self.length]
            self.buffer = memoryview(larger)
        super().append(encoded)


class TextRendition(Rendition):
    """The text of *segments* and all later ones; *encode* gives that of one packed nvlist.

    Invariant: the columns are those of the oldest segments kept, at least one, and `_pending` are
    the segments after them, to which the run of bytes has not come yet.
    """

    __slots__ = ("_encode", "_pending")

    def __init__(
        self, segments: Sequence[Segment], encode: Callable[[bytes], bytes], losses: Losses
    ) -> None:
        self._encode = encode
        super().__init__(self.column_of(segments[0]), _encode_gap, losses)
        self._pending = list(segments[1:])

    def column_of(self, segment: Segment) -> TextColumn:
        """The text of *segment*, as far as it is rendered; it stays with the segment."""
        column = segment.text
        if column is None:
            column = segment.text = TextColumn(segment, self._encode)
        assert isinstance(column, TextColumn)
        return column

    def catch_up(self, events: int) -> bool:
        """Render the next *events* events; say whether all that there are are done."""
        while True:
            events -= self._last.render(events)
            if not self._last.complete:
                return False
            if not self._pending:
                return True
            self._go_on()

    @property
    def _last(self) -> TextColumn:
        last = self.columns[-1]
        assert isinstance(last, TextColumn)
        return last

    def _go_on(self) -> None:
        """Have the run of bytes come to the next segment, whether this one is complete or not."""
        last = self._last
        column = self.column_of(self._pending.pop(0))
        column.base = last.end + (not last.complete)
        self.add(column)

    def add_segment(self, segment: Segment) -> None:
        """Go on in *segment*, when its turn comes."""
        self._pending.append(segment)

    def replace_segment(self, old: Segment, new: Segment) -> None:
        """Have *new* in place of *old*, which is empty."""
        if old in self._pending:
            self._pending[self._pending.index(old)] = new
        else:
            column = self.column_of(new)
            column.base = self._last.base
            self.replace_last(column)

    def evict_segment(self) -> None:
        """Forget the oldest segment, rendered or not."""
        if len(self.columns) == 1:
            self._go_on()
        self.evict()

    def clear_before_segment(self, segment: Segment) -> None:
        """Put all before *segment*, rendered or not, out of the streams' reach.

        It must be one to which the run of bytes has not come, or only just.
        """
        while self._last.segment is not segment:
            self._go_on()
        self.clear_before(self._last)


def _encode_gap(dropped: int, first_seq: int, last_seq: int, cause: str, time_ns: int) -> bytes:
    del first_seq, last_seq, cause, time_ns  # zpool's text has none of them
    return b"dropped %d events\n" % dropped
