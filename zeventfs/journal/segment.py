"""One segment of the journal: a file (or memory) with its events as JSON lines and as nvlists.

The file is a header, then room for the lines, then room for the nvlists, each after its length
(u32, little endian). Bytes are written first and the lengths in the header after them, so that
whatever moment the daemon is killed at, what the lengths cover is whole.
"""

import struct
from pathlib import Path
from typing import NamedTuple

from zeventfs.errors import DamagedState
from zeventfs.journal.column import Column
from zeventfs.journal.kinds import Kinds
from zeventfs.mapped import Mapped

__all__ = ["Identity", "Segment"]

_HEADER = 4096
_MAGIC = b"ZEVSEG1\0"
# magic, epoch, serial, first seq, base of the lines, capacity for lines, capacity for nvlists
_IDENTITY = struct.Struct("<8s16sQQQQQ")
_LENGTHS = struct.Struct("<QQq")  # of the lines, of the nvlists; time of the last event, ns
_LENGTHS_AT = 128
_CLEARED_AT = 192  # a byte: whether a clear happened just before this segment
_SEALED_AT = 193  # a byte: whether another segment has taken the events after these
_U32 = struct.Struct("<I")
_NOTHING = memoryview(b"")
_NVLIST_ROOM = 2  # packed nvlists take about as much as their lines; with room to spare


class Identity(NamedTuple):
    """What a segment is: its epoch, its number in it, and where its first event stands.

    An epoch is 16 ASCII characters at most.
    """

    epoch: str
    serial: int
    first_seq: int
    base: int


class Segment:
    """Events `identity.first_seq` and following, for as long as there is room.

    `holders` counts the open logs that read this segment; `stale` says that it was evicted for
    good, maybe although somebody held it. `after_clear` says that streams begin here or later,
    since what was before has been cleared, `sealed` that it takes no more events. `kinds` are those
    of its events, which a recovered one is told by whoever knows them. `text` is its rendition as
    text, if somebody asked.
    """

    __slots__ = (
        "_header",
        "_mapped",
        "_reserved_lines",
        "_reserved_nvlists",
        "after_clear",
        "holders",
        "identity",
        "kinds",
        "lines",
        "mtime_ns",
        "nvlists",
        "sealed",
        "stale",
        "text",
    )

    def __init__(
        self, mapped: Mapped, identity: Identity, line_room: int, nvlist_room: int
    ) -> None:
        self._mapped = mapped
        self._header = mapped.view[:_HEADER]
        self.identity = identity
        split = _HEADER + line_room
        self.lines = Column(identity.base, identity.first_seq, mapped.view[_HEADER:split])
        self.nvlists = Column(0, identity.first_seq, mapped.view[split : split + nvlist_room])
        self.kinds = Kinds()
        self.text: Column | None = None
        self._reserved_lines = 0  # how far each column may be written
        self._reserved_nvlists = 0
        self.mtime_ns = 0
        self.after_clear = False
        self.sealed = False
        self.holders = 0
        self.stale = False

    @classmethod
    def create(cls, path: Path | None, identity: Identity, size: int) -> "Segment":
        """A new segment for *size* bytes of lines, in the file *path* or in memory.

        Raises OSError when there is no room for even the beginning of it.
        """
        rooms = size, size * _NVLIST_ROOM
        mapped = Mapped(path, _HEADER + sum(rooms))
        try:
            mapped.reserve(0, _HEADER)
            self = cls(mapped, identity, *rooms)
            self._reserve_lines(1)
            self._reserve_nvlists(1)
        except OSError:
            mapped.unlink()
            raise
        epoch, *numbers = identity
        _IDENTITY.pack_into(mapped.view, 0, _MAGIC, epoch.encode(), *numbers, *rooms)
        return self

    @classmethod
    def recover(cls, path: Path) -> "Segment":
        """Read back what an earlier daemon wrote to *path*.

        Raises DamagedState when that is no segment, OSError when it can't be read.
        """
        try:
            mapped = Mapped(path, None)
        except ValueError as error:
            raise DamagedState(str(error)) from error
        try:
            return cls._from_file(mapped)
        except DamagedState:
            mapped.seal()
            raise

    @classmethod
    def _from_file(cls, mapped: Mapped) -> "Segment":
        if mapped.size < _HEADER:
            raise DamagedState("no segment")
        header = mapped.view[:_HEADER]
        magic, epoch, serial, first_seq, base, *rooms = _IDENTITY.unpack_from(header)
        lines, nvlists, mtime_ns = _LENGTHS.unpack_from(header, _LENGTHS_AT)
        if (
            magic != _MAGIC
            or mapped.size != _HEADER + sum(rooms)
            or not (lines <= rooms[0] and nvlists <= rooms[1])
        ):
            raise DamagedState("no segment of this version")
        epoch_name = epoch.rstrip(b"\0").decode("ascii", "replace")
        self = cls(mapped, Identity(epoch_name, serial, first_seq, base), *rooms)
        self.mtime_ns = mtime_ns
        self.after_clear = header[_CLEARED_AT] != 0
        self.sealed = header[_SEALED_AT] != 0
        self._recover_ends(lines, nvlists)
        return self

    def _recover_ends(self, lines: int, nvlists: int) -> None:
        """Find the events again; one of which only a part was committed is left out."""
        text = bytes(self.lines.buffer[:lines])
        end = text.find(b"\n") + 1
        while end:
            self.lines.ends.append(end)
            end = text.find(b"\n", end) + 1
        start = 0
        while start + 4 <= nvlists:
            start += 4 + _U32.unpack_from(self.nvlists.buffer, start)[0]
            if start > nvlists:
                break
            self.nvlists.ends.append(start)
        count = min(len(self.lines.ends), len(self.nvlists.ends))
        for column in (self.lines, self.nvlists):
            del column.ends[count:]
            column.length = column.ends[-1] if count else 0
        self._reserved_lines = self.lines.length
        self._reserved_nvlists = self.nvlists.length

    @property
    def used(self) -> int:
        """Bytes of events in it, in both forms."""
        return self.lines.length + self.nvlists.length

    def mark_cleared(self) -> None:
        """Note that all before this segment has been cleared."""
        self.after_clear = True
        self._header[_CLEARED_AT] = 1

    @property
    def in_memory(self) -> bool:
        """Whether no file stands behind it."""
        return self._mapped.path is None

    def room_for(self, line: bytes, packed: bytes) -> bool:
        """Whether one more event fits; reserves what it takes.

        Raises OSError (ENOSPC) when the file system has no room.
        """
        lines_end = self.lines.length + len(line)
        nvlists_end = self.nvlists.length + 4 + len(packed)
        if lines_end <= self._reserved_lines and nvlists_end <= self._reserved_nvlists:
            return True
        if lines_end > len(self.lines.buffer) or nvlists_end > len(self.nvlists.buffer):
            return False
        if lines_end > self._reserved_lines:
            self._reserve_lines(lines_end)
        if nvlists_end > self._reserved_nvlists:
            self._reserve_nvlists(nvlists_end)
        return True

    def _reserve_lines(self, end: int) -> None:
        stop = self._mapped.reserve(_HEADER + self._reserved_lines, _HEADER + end)
        self._reserved_lines = min(stop - _HEADER, len(self.lines.buffer))

    def _reserve_nvlists(self, end: int) -> None:
        start = _HEADER + len(self.lines.buffer)
        self._reserved_nvlists = (
            self._mapped.reserve(start + self._reserved_nvlists, start + end) - start
        )

    def append(self, line: bytes, packed: bytes, time_ns: int) -> None:
        """Add one event, for which there must be room; it is committed when this returns."""
        lines = self.lines
        nvlists = self.nvlists
        lines.append(line)
        nvlists.append(_U32.pack(len(packed)) + packed)
        self.mtime_ns = time_ns
        _LENGTHS.pack_into(self._header, _LENGTHS_AT, lines.length, nvlists.length, time_ns)

    def packed(self, seq: int) -> bytes:
        """The packed nvlist of event *seq*."""
        return self.nvlists.event(seq)[4:]

    def line(self, seq: int) -> bytes:
        """The JSON line of event *seq*."""
        return self.lines.event(seq)

    def seal(self) -> None:
        """Take no further events, and give back what was reserved for them.

        The file says so, lest an event's seq is given twice: a later daemon can't go on from here
        if what followed has no file.
        """
        self.sealed = True
        self._header[_SEALED_AT] = 1
        split = _HEADER + len(self.lines.buffer)
        self._mapped.give_back(_HEADER + self.lines.length, split)
        self._mapped.give_back(split + self.nvlists.length, self._mapped.size)
        self._mapped.seal()

    def discard(self) -> None:
        """Remove the file of a segment that took no event; who holds it reads to its end."""
        self.seal()
        self._mapped.unlink()

    def drop(self) -> None:
        """Evict for good: the bytes and the file go."""
        self.stale = True
        self._header = _NOTHING
        for column in (self.lines, self.nvlists, self.text):
            if column is not None:
                column.drop()
        self._mapped.unlink()
