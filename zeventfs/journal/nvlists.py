"""The journal as packed nvlists, each after its length: the very bytes that segments keep.

Invariant: the columns are those of all segments kept, so nothing is ever still to be rendered.
Positions count from the oldest segment that was kept when the rendition was begun; a segment's file
doesn't tell them, so they begin anew with a daemon.
"""

import struct
from collections.abc import Sequence

from zeventfs.event import Event
from zeventfs.journal.rendition import GapEncoder, Losses, Rendition
from zeventfs.journal.segment import Segment

__all__ = ["NvlistRendition", "with_length"]

_U32 = struct.Struct("<I")


def with_length(event: Event) -> bytes:
    """The packed nvlist of *event* after its length in bytes, a u32, little endian."""
    return _U32.pack(len(event.packed)) + event.packed


class NvlistRendition(Rendition):
    """The nvlists of *segments* and all later ones."""

    __slots__ = ()

    def __init__(self, segments: Sequence[Segment], encode_gap: GapEncoder, losses: Losses) -> None:
        first, *others = segments
        first.nvlists.base = 0
        super().__init__(first.nvlists, encode_gap, losses)
        for segment in others:
            self.add_segment(segment)

    def add_segment(self, segment: Segment) -> None:
        """Go on in *segment*."""
        segment.nvlists.base = self.end
        self.add(segment.nvlists)

    def replace_segment(self, old: Segment, new: Segment) -> None:
        """Have *new* in place of *old*, which is the last and empty."""
        new.nvlists.base = old.nvlists.base
        self.replace_last(new.nvlists)

    def evict_segment(self) -> None:
        """Forget the oldest segment."""
        self.evict()

    def clear_before_segment(self, segment: Segment) -> None:
        """Put all before *segment* out of the streams' reach."""
        self.clear_before(segment.nvlists)
