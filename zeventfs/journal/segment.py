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
from zeventfs.mapped import Mapped

__all__ = ["Identity", "Segment"]

_HEADER = 4096
_MAGIC = b"ZEVSEG1\0"
# magic, epoch, serial, first seq, base of the lines, capacity for lines, capacity for nvlists
_IDENTITY = struct.Struct("<8s16sQQQQQ")
_LENGTHS = struct.Struct("<QQq")  # of the lines, of the nvlists; time of the last event, ns
_LENGTHS_AT = 128
_CLEARED_AT = 192  # a byte: whether a clear happened just before this segment
_U32 = struct.Struct("<I")
_NVLIST_ROOM = 2  # packed nvlists take about as much as their lines; with room to spare


class Identity(NamedTuple):
    """What a segment is: its epoch, its number in it, and where its first event stands."""

    epoch: str
    serial: int
    first_seq: int
    base: int


class Segment:
    """Events `identity.first_seq` and following, for as long as there is room.

    `holders` counts the open logs that read this segment; `stale` says that it was evicted for
    good although somebody held it.
    """

    __slots__ = (
        "_mapped",
        "_reserved",
        "holders",
        "identity",
        "lines",
        "mtime_ns",
        "nvlists",
        "stale",
    )

    def __init__(
        self, mapped: Mapped, identity: Identity, line_room: int, nvlist_room: int
    ) -> None:
        self._mapped = mapped
        self.identity = identity
        split = _HEADER + line_room
        self.lines = Column(identity.base, identity.first_seq, mapped.view[_HEADER:split])
        self.nvlists = Column(0, identity.first_seq, mapped.view[split : split + nvlist_room])
        self._reserved = [0, 0]  # how far each column may be written
        self.mtime_ns = 0
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
            self._reserve(0, 1)
            self._reserve(1, 1)
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
            magic, epoch, serial, first_seq, base, *rooms = _IDENTITY.unpack_from(mapped.view)
            lines, nvlists, mtime_ns = _LENGTHS.unpack_from(mapped.view, _LENGTHS_AT)
        except (ValueError, struct.error) as error:
            raise DamagedState(f"{path}: no segment: {error}") from error
        if (
            magic != _MAGIC
            or mapped.size != _HEADER + sum(rooms)
            or not (lines <= rooms[0] and nvlists <= rooms[1])
        ):
            raise DamagedState(f"{path}: no segment of this version")
        identity = Identity(epoch.decode("ascii", "replace"), serial, first_seq, base)
        self = cls(mapped, identity, *rooms)
        self.mtime_ns = mtime_ns
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
        self._reserved = [self.lines.length, self.nvlists.length]

    @property
    def used(self) -> int:
        """Bytes of events in it, in both forms."""
        return self.lines.length + self.nvlists.length

    @property
    def after_clear(self) -> bool:
        """Whether streams begin here or later, since what was before has been cleared."""
        return self._mapped.view[_CLEARED_AT] != 0

    def mark_cleared(self) -> None:
        """Note that all before this segment has been cleared."""
        self._mapped.view[_CLEARED_AT] = 1

    @property
    def in_memory(self) -> bool:
        """Whether no file stands behind it."""
        return self._mapped.path is None

    def room_for(self, line: bytes, packed: bytes) -> bool:
        """Whether one more event fits; reserves what it takes.

        Raises OSError (ENOSPC) when the file system has no room.
        """
        end = self.lines.length + len(line)
        if end > self._reserved[0]:
            if end > len(self.lines.buffer):
                return False
            self._reserve(0, end)
        end = self.nvlists.length + 4 + len(packed)
        if end > self._reserved[1]:
            if end > len(self.nvlists.buffer):
                return False
            self._reserve(1, end)
        return True

    def _reserve(self, column: int, end: int) -> None:
        start = (_HEADER, _HEADER + len(self.lines.buffer))[column]
        room = len((self.lines, self.nvlists)[column].buffer)
        reserved = self._mapped.reserve(start + self._reserved[column], start + end) - start
        self._reserved[column] = min(reserved, room)

    def append(self, line: bytes, packed: bytes, time_ns: int) -> None:
        """Add one event, for which there must be room; it is committed when this returns."""
        self.lines.append(line)
        self.nvlists.append(_U32.pack(len(packed)) + packed)
        self.mtime_ns = time_ns
        _LENGTHS.pack_into(
            self._mapped.view, _LENGTHS_AT, self.lines.length, self.nvlists.length, time_ns
        )

    def packed(self, seq: int) -> bytes:
        """The packed nvlist of event *seq*."""
        nvlists = self.nvlists
        index = seq - nvlists.first_seq
        start = nvlists.ends[index - 1] if index else 0
        return bytes(nvlists.buffer[start + 4 : nvlists.ends[index]])

    def seal(self) -> None:
        """Take no further events."""
        self._mapped.seal()

    def discard(self) -> None:
        """Remove the file of a segment that took no event; who holds it reads to its end."""
        self._mapped.unlink()

    def drop(self) -> None:
        """Evict for good: the bytes and the file go."""
        self.stale = True
        self.lines.drop()
        self.nvlists.drop()
        self._mapped.unlink()
