"""One rendition of one segment's events: their encoded bytes back to back, and where each ends.

A column only grows, and a byte once written stays: readers are given slices of it, not copies.
When its segment is evicted the bytes go and the ends stay, so that a reader that comes late can
still be told exactly how many events it has lost.
"""

from array import array
from bisect import bisect_right
from typing import NamedTuple

__all__ = ["Column", "Mark"]

_NOTHING = memoryview(b"")


class Mark(NamedTuple):
    """A place between two events: the byte position; seq and number of the event that follows.

    Events are numbered as columns say: of a rendition of all events the number is the seq.
    """

    position: int
    seq: int
    number: int


class Column:
    """Bytes of consecutive events.

    `base` is the position of the first byte in the rendition's stream, `first_seq` the first
    event's seq, `ends[i]` where event `first_seq + i` ends, counted from `base`.
    """

    __slots__ = ("base", "buffer", "ends", "first_seq", "length")

    def __init__(self, base: int, first_seq: int, buffer: memoryview) -> None:
        self.base = base
        self.first_seq = first_seq
        self.buffer = buffer
        self.ends = array("Q")
        self.length = 0

    @property
    def begin(self) -> Mark:
        """The place before the first event."""
        return Mark(self.base, self.first_seq, self.first_seq)

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self.base + self.length

    @property
    def next_seq(self) -> int:
        """The seq of the event that would come next."""
        return self.first_seq + len(self.ends)

    def append(self, encoded: bytes) -> None:
        """Add one event's bytes; the buffer must have room for them."""
        start = self.length
        end = start + len(encoded)
        self.buffer[start:end] = encoded
        self.ends.append(end)
        self.length = end

    def seq_at(self, position: int) -> int:
        """The seq of the event to which the byte at *position* belongs."""
        return self.first_seq + bisect_right(self.ends, position - self.base)

    def number_at(self, position: int) -> int:
        """The number of the event at *position* among those of the rendition: of all, the seq."""
        return self.seq_at(position)

    def start_of(self, seq: int) -> int:
        """The position at which event *seq* begins; for `next_seq`, the end."""
        index = seq - self.first_seq
        return self.base + (self.ends[index - 1] if index else 0)

    def event(self, seq: int) -> bytes:
        """The bytes of event *seq*, which must be there."""
        index = seq - self.first_seq
        return bytes(self.buffer[self.start_of(seq) - self.base : self.ends[index]])

    def whole(self, start: int, size: int) -> tuple[int, int]:
        """Where whole events that begin with the byte at *start* end within *size* bytes.

        *start* and the first answer count from `base`; the second answer is the seq that follows.
        The first is *start* when not even one event, or what is left of it, fits.
        """
        limit = start + size
        if limit >= self.length:
            return self.length, self.first_seq + len(self.ends)
        index = bisect_right(self.ends, limit)
        return max(self.ends[index - 1], start) if index else start, self.first_seq + index

    def end_of(self, start: int) -> int:
        """Where the event of the byte at *start* ends; both count from `base`."""
        return self.ends[bisect_right(self.ends, start)]

    def starts_at(self, position: int) -> bool:
        """Whether an event begins at *position*, which must be kept or the end."""
        start = position - self.base
        index = bisect_right(self.ends, start)
        return start == (self.ends[index - 1] if index else 0)

    def slice(self, start: int, stop: int) -> memoryview | bytes:
        """The bytes from *start* to *stop*, both counted from `base`."""
        return self.buffer[start:stop]

    def ahead(self, start: int, size: int) -> memoryview | bytes:
        """What of the *size* bytes from *start*, counted from `base`, lies in one piece already."""
        return self.buffer[start : min(start + size, self.length)]

    def render(self, events: int) -> int:
        """Render the next *events* events, if they are still to be; say how many."""
        del events
        return 0  # they never are: what is appended is rendered

    def drop(self) -> None:
        """Let the bytes go; slices that were given out stay good."""
        self.buffer = _NOTHING
