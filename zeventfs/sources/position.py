"""Which EIDs the journal has, kept for the successor of a killed daemon to go on after them.

Invariant: what the file and the newest event of the journal say together is true at whatever
moment the daemon is killed. The file is mapped and written with plain stores. Before an event is
posted its EID is noted; after it was posted the position goes into one of two slots in turn, under
a checksum. So a slot that was being written is told from a whole one, the other is one event behind
at most, and the note says whether the journal's newest event is that one.
"""

import logging
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from zeventfs.event import Event
from zeventfs.journal.journal import GAP
from zeventfs.journal.segment import Segment
from zeventfs.mapped import Mapped
from zeventfs.nvlist import NvlistError
from zeventfs.sources.causes import Causes
from zeventfs.sources.eids import EidRange, without

__all__ = ["Place", "Position", "newest_first"]

log = logging.getLogger(__name__)

_SIZE = 4096
_MAGIC = b"ZEVPOS1\0"
_UNDER_WAY = struct.Struct("<Q")  # the first EID of what is being posted, 0 = nothing
_UNDER_WAY_AT = 64
_SLOTS_AT = 512, 2048
_CHECKSUM = struct.Struct("<I")
# In a slot: a checksum of what follows, the counts, epoch and life, the ranges that are missing.
# The counts: of the ranges, of the record; EID stood on, highest EID + 1, failed, told, seq.
_COUNTS = struct.Struct("<QQQQQQQ")
_IDENTITY = struct.Struct("<16s128s")
_IDENTITY_AT = _CHECKSUM.size + _COUNTS.size
_RANGES_AT = _IDENTITY_AT + _IDENTITY.size
_RANGE = struct.Struct("<QQ")
_MOST_RANGES = 64  # EIDs come out of order by a few; of more, the oldest aren't missed


class Place(NamedTuple):
    """What the journal has of a source in one *life* (at most 128 bytes) of its device's queue.

    *at* is the EID of the event posted last, 0 before the first: the device is sought for it. All
    EIDs up to *highest* were posted, or told as lost, but for *missing*; None before the first.
    *failed* is the device's count of failed posts that was taken account of, *told* how many of
    these were told, *seq* the event's.
    """

    life: str
    at: int = 0
    highest: int | None = None
    missing: tuple[EidRange, ...] = ()
    failed: int = 0
    told: int = 0
    seq: int = 0

    def after(self, eids: EidRange) -> "Place":
        """The place when *eids* are known too."""
        highest = self.highest
        if highest is None or eids.first > highest:
            missing = self.missing
            if highest is not None and eids.first > highest + 1:
                missing = (*missing, EidRange(highest + 1, eids.first - 1))[-_MOST_RANGES:]
            return self._replace(highest=eids.last, missing=missing)
        if not self.missing:
            return self
        return self._replace(missing=tuple(without(self.missing, eids)))


class _Line(msgspec.Struct):
    """What is read of a line of the journal."""

    source: str


class Position:
    """The position of one source, in the file *path* of the runtime directory, in this *epoch*.

    `place` is what a daemon before this one has left of the same epoch, if it has, and then what
    was noted here. Without room for the file it is kept in memory, and said so in the log.
    """

    def __init__(self, path: Path, epoch: str) -> None:
        self.place: Place | None = None
        self._path = path
        self._epoch = epoch.encode()
        self._number = 0
        self._mapped = self._recover() or self._create()

    def _recover(self) -> Mapped | None:
        """Read what is there; None if there is nothing to go on from."""
        try:
            mapped = Mapped(self._path, None)
            mapped.reserve(0, mapped.size)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("%s: where the source stood isn't known: %s", self._path, error)
            return None
        if mapped.size == _SIZE and mapped.view[: len(_MAGIC)] == _MAGIC:
            found = [self._read(mapped.view, at) for at in _SLOTS_AT]
            records = [each for each in found if each is not None]
            if records:
                number, epoch, place = max(records)
                if epoch == self._epoch:
                    self._number, self.place = number, place
                    self._identify(place)
                    return mapped
                mapped.seal()
                return None  # of a journal that is gone, and its events with it
        mapped.seal()
        log.warning("%s: where the source stood isn't known: no whole record", self._path)
        return None

    @staticmethod
    def _read(view: memoryview, at: int) -> tuple[int, bytes, Place] | None:
        (checksum,) = _CHECKSUM.unpack_from(view, at)
        count, number, stood, highest, *rest = _COUNTS.unpack_from(view, at + _CHECKSUM.size)
        if not number or count > _MOST_RANGES:
            return None
        identity = view[at + _IDENTITY_AT : at + _RANGES_AT]
        ranges = view[at + _RANGES_AT : at + _RANGES_AT + count * _RANGE.size]
        counts = view[at + _CHECKSUM.size : at + _IDENTITY_AT]
        if checksum != zlib.crc32(ranges, zlib.crc32(counts, zlib.crc32(identity))):
            return None
        epoch, life = [text.rstrip(b"\0") for text in _IDENTITY.unpack(identity)]
        missing = tuple(EidRange(*each) for each in _RANGE.iter_unpack(ranges))
        known = highest - 1 if highest else None
        return number, epoch, Place(life.decode("utf-8", "replace"), stood, known, missing, *rest)

    def _create(self) -> Mapped:
        try:
            mapped = Mapped(self._path, _SIZE)
            try:
                mapped.reserve(0, _SIZE)
            except OSError:
                mapped.unlink()
                raise
        except OSError as error:
            log.warning(
                "%s: %s; a daemon after this one would tell events twice",
                self._path,
                error.strerror,
            )
            mapped = Mapped(None, _SIZE)
        mapped.view[: len(_MAGIC)] = _MAGIC
        return mapped

    def correct(self, newest: Iterable[tuple[int, Event]]) -> None:
        """Take account of the journal's *newest* events, with their seqs, the newest first.

        Of these only what was being posted when the daemon was killed matters. So it is the very
        newest, and none other is asked for; an older one may have that EID in another life.
        """
        place = self.place
        (under_way,) = _UNDER_WAY.unpack_from(self._mapped.view, _UNDER_WAY_AT)
        if place is None or not under_way:
            return
        seq, event = next(iter(newest), (0, None))
        if event is not None and seq > place.seq and event.source == "zfs":
            get = event.payload.get
            if event.eid == under_way:
                after = place.after(EidRange(under_way, under_way))
                self._write(after._replace(at=under_way, seq=seq))
            elif event.name == GAP and get("first_eid") == under_way:
                after = place.after(EidRange(under_way, get("last_eid")))
                self._write(after._replace(told=place.told + get("failed", 0), seq=seq))
        self._under_way(0)

    def begin(self, place: Place) -> None:
        """Stand at *place* from now on."""
        self._identify(place)
        self._write(place)

    def _identify(self, place: Place) -> None:
        self._identity = _IDENTITY.pack(self._epoch, place.life.encode())
        self._identity_checksum = zlib.crc32(self._identity)
        self._identified = 0  # how many of the slots say so; of the others nothing else is written

    def posting(self, eids: EidRange) -> None:
        """Note that *eids* are going to be posted, as one event."""
        self._under_way(eids.first)

    def posted(self, eids: EidRange, at: int | None, seq: int, causes: Causes) -> None:
        """Note that *eids* were posted as *seq*; *at* is the event's own EID, None of a gap."""
        place = self.place
        assert place is not None  # as there is one from the first life's beginning
        at = place.at if at is None else at
        if not place.missing and eids.first - 1 == place.highest:  # so it is nearly always
            after = Place(place.life, at, eids.last, (), causes.failed, causes.told, seq)
        else:
            after = place.after(eids)
            after = after._replace(at=at, failed=causes.failed, told=causes.told, seq=seq)
        self._write(after)
        self._under_way(0)

    def _under_way(self, eid: int) -> None:
        _UNDER_WAY.pack_into(self._mapped.view, _UNDER_WAY_AT, eid)

    def _write(self, place: Place) -> None:
        self.place = place
        self._number += 1
        highest = 0 if place.highest is None else min(place.highest + 1, 2**64 - 1)
        counts = _COUNTS.pack(len(place.missing), self._number, place.at, highest, *place[4:])
        checksum = zlib.crc32(counts, self._identity_checksum)
        view = self._mapped.view
        at = _SLOTS_AT[self._number % 2]
        if place.missing:
            ranges = b"".join([_RANGE.pack(*each) for each in place.missing])
            checksum = zlib.crc32(ranges, checksum)
            view[at + _RANGES_AT : at + _RANGES_AT + len(ranges)] = ranges
        if self._identified < len(_SLOTS_AT):
            self._identified += 1
            view[at + _IDENTITY_AT : at + _RANGES_AT] = self._identity
        view[at : at + _IDENTITY_AT] = _CHECKSUM.pack(checksum) + counts


def newest_first(segments: Sequence[Segment]) -> Iterator[tuple[int, Event]]:
    """Yield the events of *segments* with their seqs, the newest first; decodes each when asked."""
    for segment in reversed(segments):
        for seq in range(segment.lines.next_seq - 1, segment.lines.first_seq - 1, -1):
            try:
                source = msgspec.json.decode(segment.line(seq), type=_Line).source
                event = Event.from_packed(source, segment.packed(seq))
            except (NvlistError, msgspec.DecodeError):  # somebody wrote into the file
                continue
            yield seq, event
