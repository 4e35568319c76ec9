"""The queue: every event of the mount, from every source, in the order in which it came.

Invariants: seqs have no holes; a byte that was shown at a position stays there; whole segments
are evicted, the oldest first, as soon as more than *retain* bytes, or too many of them, are kept,
but for the one that grows. The journal knows no
source, no file and no clock of its own. It is used from one thread.

A clear begins a new segment. What was there before it is out of every stream's reach, and stays
for the readers of rotated logs until it is evicted like anything else.
"""

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from zeventfs.event import Event
from zeventfs.journal.nvlists import NvlistRendition, with_length
from zeventfs.journal.rendition import Losses, Rendition
from zeventfs.journal.segment import Identity, Segment
from zeventfs.journal.store import Store
from zeventfs.journal.summary import Summary
from zeventfs.journal.text import TextRendition
from zeventfs.nvlist import NvlistError, Type

__all__ = ["GAP", "Encoder", "Journal", "JournalStatistics", "Limits", "gap_event"]

GAP = "zeventfs.gap"
_SOURCE = re.compile(rb'"source":"([^"\\]*)"')  # of a line: the first is the event's
_MOST_SEGMENTS = 512  # each costs a descriptor and some pages, however little is in it


class Encoder(Protocol):
    """What the journal needs of a renderer."""

    def json_line(self, event: Event, seq: int | None) -> bytes:
        """*event* as one JSON line; without *seq*, of a reader's own."""
        ...


class _Following(Protocol):
    """A rendition beside the lines, begun when it was first asked for, that the segments go into.

    `add_segment` goes on in a new one, `replace_segment` puts *new* in place of *old*, which is the
    last and empty, `evict_segment` forgets the oldest, `clear_before_segment` puts all before the
    last, *segment*, out of the streams' reach.
    """

    def add_segment(self, segment: Segment) -> None: ...
    def replace_segment(self, old: Segment, new: Segment) -> None: ...
    def evict_segment(self) -> None: ...
    def clear_before_segment(self, segment: Segment) -> None: ...


class Limits(NamedTuple):
    """Bytes of events to keep, in both their forms; bytes of JSON lines in a segment."""

    retain: int
    segment: int


class JournalStatistics(NamedTuple):
    """How things stand: the events that a new reader would get, and the bytes of their lines.

    `first_seq` is `last_seq` + 1 when nothing is queued; `kept` is what counts against retain=.
    """

    queued: int
    bytes: int
    first_seq: int
    last_seq: int
    kept: int
    segments: int
    in_memory: int


def gap_event(dropped: int, first_seq: int, last_seq: int, cause: str, time_ns: int) -> Event:
    """A reader's own gap: it has lost *dropped* of the events *first_seq* to *last_seq*."""
    return Event.make(
        "zeventfs",
        GAP,
        time_ns,
        (
            ("dropped", Type.UINT64, dropped),
            ("first_seq", Type.UINT64, first_seq),
            ("last_seq", Type.UINT64, last_seq),
            ("cause", Type.STRING, cause),
        ),
    )


def _encode_gap_nvlist(
    dropped: int, first_seq: int, last_seq: int, cause: str, time_ns: int
) -> bytes:
    return with_length(gap_event(dropped, first_seq, last_seq, cause, time_ns))


class Journal:
    """The events kept, within *limits*, in segments from *store* (in memory without one).

    Begins with the segments that the store has recovered, which must be of *epoch*. `summary`
    counts every event from seq `counted_from` on, be it kept or not. `generation` changes when the
    segments do, or what of them has been cleared. *witness* is told of each event, those recovered
    included, with its seq.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is a thing of its own
        self,
        epoch: str,
        encoder: Encoder,
        limits: Limits,
        clock_ns: Callable[[], int],
        store: Store | None = None,
        witness: Callable[[Event, int], None] = lambda _event, _seq: None,
    ) -> None:
        self.epoch = epoch
        self.losses = Losses()
        self.limits = limits
        self._clock_ns = clock_ns
        self._encoder = encoder
        self._witness = witness
        self._store = store or Store(None)
        self._arrivals: list[Callable[[], None]] = []
        self._held: list[Segment] = []  # evicted, but open somewhere
        self.segments = list(self._store.recovered) or [self._first_segment()]
        self.lines = Rendition(self.segments[0].lines, self._encode_gap, self.losses)
        self._text: TextRendition | None = None
        self._nvlists: NvlistRendition | None = None
        self._following: list[_Following] = []
        self.generation = 0
        self._recover_renditions()
        self.summary = Summary()
        self.counted_from = self.segments[0].lines.first_seq
        self._recover_summary()
        self.kept = sum(each.used for each in self.segments)
        self._evict()

    def _first_segment(self) -> Segment:
        segment = self._store.create(Identity(self.epoch, 1, 1, 0), self.limits.segment)
        segment.mtime_ns = self._clock_ns()
        return segment

    def _recover_renditions(self) -> None:
        for segment in self.segments[1:]:
            self.lines.add(segment.lines)
        for segment in self.segments:
            if segment.after_clear:
                self.lines.clear_before(segment.lines)
        for segment in self.segments[:-1]:
            segment.seal()

    def _recover_summary(self) -> None:
        for segment in self.segments:
            for seq in range(segment.lines.first_seq, segment.lines.next_seq):
                found = _SOURCE.search(segment.line(seq))
                source = found[1].decode(errors="surrogateescape") if found else ""
                try:
                    event = Event.from_packed(source, segment.packed(seq))
                except NvlistError:  # somebody wrote into the file
                    self.summary.count_unknown(segment.mtime_ns)
                    segment.kinds.append((source, "", None), segment.mtime_ns)
                else:
                    self._count(segment, event, seq)

    def _count(self, segment: Segment, event: Event, seq: int) -> None:
        """Take note of what *event*, which is the next of *segment*, is."""
        segment.kinds.append((event.source, event.name, event.pool), event.time_ns)
        self.summary.count(event.name, event.time_ns)
        self._witness(event, seq)

    def _encode_gap(
        self, dropped: int, first_seq: int, last_seq: int, cause: str, time_ns: int
    ) -> bytes:
        gap = gap_event(dropped, first_seq, last_seq, cause, time_ns)
        return self._encoder.json_line(gap, None)

    @property
    def current(self) -> Segment:
        """The segment that grows."""
        return self.segments[-1]

    def subscribe(self, arrived: Callable[[], None]) -> None:
        """Have *arrived* called after each event."""
        self._arrivals.append(arrived)

    def append(self, event: Event) -> int:
        """Take in one event; return its seq."""
        seq = self.segments[-1].lines.next_seq
        line = self._encoder.json_line(event, seq)
        packed = event.packed
        segment = self._with_room(line, packed)
        segment.append(line, packed, self._clock_ns())
        self._count(segment, event, seq)
        if event.name == GAP:
            self.losses.count("source", event.payload.get("dropped", 0))
        self.kept += len(line) + len(packed) + 4
        if self.kept > self.limits.retain:
            self._evict()
        for arrived in self._arrivals:
            arrived()
        return seq

    def clear(self) -> None:
        """Put all events out of the streams' reach, and go on in a new segment."""
        if self.current.used:
            self._rotate(self._store.create, self.limits.segment)
        self.current.mark_cleared()
        self.lines.clear_before(self.current.lines)
        for each in self._following:
            each.clear_before_segment(self.current)
        self.generation += 1

    def text(self, encode: Callable[[bytes], bytes]) -> TextRendition:
        """The rendition as text, *encode* giving that of a packed nvlist; begun when first asked.

        Its positions count from the oldest segment kept at that moment.
        """
        if self._text is None:
            self._text = TextRendition(self.segments, encode, self.losses)
            self._follow(self._text)
        return self._text

    def nvlists(self) -> NvlistRendition:
        """The rendition as packed nvlists, each after its length; begun when first asked.

        Its positions count from the oldest segment kept at that moment.
        """
        if self._nvlists is None:
            self._nvlists = NvlistRendition(self.segments, _encode_gap_nvlist, self.losses)
            self._follow(self._nvlists)
        return self._nvlists

    def _follow(self, rendition: _Following) -> None:
        """Have *rendition*, which is of the segments kept, kept up to date."""
        for segment in self.segments:
            if segment.after_clear:
                rendition.clear_before_segment(segment)
        self._following.append(rendition)

    def hold(self, segment: Segment) -> None:
        """Keep *segment* for one more open log, even when it is evicted (within limits)."""
        segment.holders += 1

    def release(self, segment: Segment) -> None:
        """Undo one `hold`."""
        segment.holders -= 1
        if not segment.holders and segment in self._held:
            self._held.remove(segment)
            segment.drop()

    def statistics(self) -> JournalStatistics:
        """How things stand now."""
        oldest = self.lines.oldest
        last_seq = self.current.lines.next_seq - 1
        return JournalStatistics(
            queued=last_seq - oldest.seq + 1,
            bytes=self.lines.end - oldest.position,
            first_seq=oldest.seq,
            last_seq=last_seq,
            kept=self.kept,
            segments=len(self.segments),
            in_memory=sum(each.in_memory for each in self.segments),
        )

    def _with_room(self, line: bytes, packed: bytes) -> Segment:
        """The segment that takes the next event: the current one, else a new one.

        A file system that is full costs the event nothing but its file.
        """
        size = max(self.limits.segment, len(line), len(packed) + 4)
        for create in (self._store.create, self._store.create_in_memory):
            try:
                if self.segments[-1].room_for(line, packed):
                    return self.segments[-1]
            except OSError as error:
                self._store.say_full(error)
            self._rotate(create, size)
        return self.segments[-1]

    def _rotate(self, create: Callable[[Identity, int], Segment], size: int) -> None:
        """Go on in a new segment for *size* bytes of lines; an empty one is replaced."""
        old = self.segments[-1]
        lines = old.lines
        serial = old.identity.serial + 1
        new = create(Identity(self.epoch, serial, lines.next_seq, lines.end), size)
        new.mtime_ns = self._clock_ns()
        self.generation += 1
        if old.used:
            old.seal()
            self.segments.append(new)
            self.lines.add(new.lines)
            for each in self._following:
                each.add_segment(new)
            self._evict()
            return
        if old.after_clear:
            new.mark_cleared()
        old.discard()
        self.segments[-1] = new
        self.lines.replace_last(new.lines)
        for each in self._following:
            each.replace_segment(old, new)

    def _evict(self) -> None:
        """Let the oldest segments go until no more is kept than may be."""
        while len(self.segments) > 1 and (
            self.kept > self.limits.retain or len(self.segments) > _MOST_SEGMENTS
        ):
            segment = self.segments.pop(0)
            self.generation += 1
            self.kept -= segment.used
            self.lines.evict()
            for each in self._following:
                each.evict_segment()
            if segment.holders:
                self._held.append(segment)
            else:
                segment.drop()
        while sum(each.used for each in self._held) > self.limits.retain:
            self._held.pop(0).drop()
