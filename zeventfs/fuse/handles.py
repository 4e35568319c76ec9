"""What is open, and a record of it in a mapped file that the next daemon can read.

A record is a fixed number of bytes at a place that follows from the handle's number, and holds what
the kernel will go on naming after a restart: the handle, its node's inode number, where its reader
stands, and the kernel's poll handle. It is kept up with by every read, so it costs one store.
"""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zeventfs.errors import TooManyOpen
from zeventfs.journal.reader import CAUSES, Gap, Reader, ReaderState
from zeventfs.mapped import Mapped
from zeventfs.nodes.base import Open
from zeventfs.nodes.streams import OpenStream

__all__ = ["Handle", "HandleTable", "Record", "records"]

log = logging.getLogger(__name__)

MOST = 65_536
_SIZE = 128
# state, cause of the gap, pid; inode; skew, start, end, seq;
# gap: start, dropped, first, last, time; kh
_RECORD = struct.Struct("<BBxxI Q qQQQ QQQQq Q")
_READER, _READER_AT = struct.Struct("<qQQQ"), 16
_GAP, _GAP_AT = struct.Struct("<QQQQq"), 48
_POLL, _POLL_AT = struct.Struct("<Q"), 88
_FREE, _FILE, _STREAM = 0, 1, 2  # states


class Record(NamedTuple):
    """One open file, as the file holds it; `reader` is None for what is no stream."""

    fh: int
    pid: int
    ino: int
    reader: ReaderState | None
    poll_handle: int


class Handle:
    """An open file of the kernel's; `reader` is that of a stream."""

    __slots__ = ("fh", "ino", "opened", "reader")

    def __init__(self, fh: int, ino: int, opened: Open) -> None:
        self.fh = fh
        self.ino = ino
        self.opened = opened
        self.reader: Reader | None = opened.reader if isinstance(opened, OpenStream) else None


class HandleTable:
    """Handles by number; *path* is where their records are kept, None for nowhere that lasts.

    Begins empty, whatever the file held: an earlier daemon's handles are `records` of a file.
    """

    def __init__(self, path: Path | None) -> None:
        self._handles: dict[int, Handle] = {}
        self._free: list[int] = []
        self._next = 0
        if path is not None:
            path.unlink(missing_ok=True)
        self._mapped = Mapped(path, MOST * _SIZE)
        self._view = self._mapped.view
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._handles)

    def __getitem__(self, fh: int) -> Handle:
        return self._handles[fh]

    def inode(self, fh: int) -> int:
        """The inode that is open as *fh*, 0 if none is."""
        handle = self._handles.get(fh)
        return 0 if handle is None else handle.ino

    def __iter__(self) -> Iterator[Handle]:
        return iter(self._handles.values())

    def add(self, ino: int, pid: int, opened: Open) -> Handle:
        """A handle for *opened*, with a number of its own; TooManyOpen when there is none left."""
        if self._free:
            fh = self._free.pop()
        elif self._next < MOST:
            fh = self._next
            self._next += 1
        else:
            raise TooManyOpen(f"{MOST} files are open")
        handle = Handle(fh, ino, opened)
        self._reserve((fh + 1) * _SIZE)
        _RECORD.pack_into(self._view, fh * _SIZE, _FREE, 0, pid, ino, *[0] * 10)
        self.record(handle)
        self._view[fh * _SIZE] = _FILE if handle.reader is None else _STREAM  # now it is whole
        self._handles[fh] = handle
        return handle

    def _reserve(self, end: int) -> None:
        if end <= self._reserved:
            return
        try:
            self._reserved = self._mapped.reserve(self._reserved, end)
        except OSError as error:
            log.warning(
                "%s: %s; open files would not survive the daemon", self._mapped.path, error.strerror
            )
            kept = bytes(self._view[: self._reserved])
            self._mapped.unlink()
            self._mapped = Mapped(None, MOST * _SIZE)
            self._view = self._mapped.view
            self._view[: len(kept)] = kept
            self._reserved = MOST * _SIZE

    def record(self, handle: Handle) -> None:
        """Keep where *handle*'s reader stands."""
        reader = handle.reader
        if reader is None:
            return
        at = handle.fh * _SIZE
        _READER.pack_into(
            self._view, at + _READER_AT, reader.skew, reader.start, reader.end, reader.seq
        )
        gap = reader.gap
        if gap is not None:
            start, dropped, first_seq, last_seq, _cause, time_ns = gap
            _GAP.pack_into(self._view, at + _GAP_AT, start, dropped, first_seq, last_seq, time_ns)
        self._view[at + 1] = 0 if gap is None else CAUSES.index(gap.cause)

    def record_poll(self, handle: Handle, kernel_handle: int) -> None:
        """Keep the number by which the kernel knows who sleeps in poll(2) on *handle*."""
        _POLL.pack_into(self._view, handle.fh * _SIZE + _POLL_AT, kernel_handle)

    def remove(self, fh: int) -> Handle:
        """Forget handle *fh*."""
        handle = self._handles.pop(fh)
        self._free.append(fh)
        self._view[fh * _SIZE] = _FREE
        return handle


def records(path: Path) -> Iterator[Record]:
    """The handles that a daemon left behind in *path*; OSError or ValueError if it is no table."""
    table = path.read_bytes() if path.stat().st_size == MOST * _SIZE else b""
    if not table:
        raise ValueError(f"{path} is no table of open files")
    for fh in range(MOST):
        state, cause, pid, ino, skew, start, end, seq, *gap, kernel_handle = _RECORD.unpack_from(
            table, fh * _SIZE
        )
        if state == _FREE:
            continue
        if state > _STREAM or cause >= len(CAUSES):
            raise ValueError(f"{path} has no record of an open file at {fh}")
        start_of_gap, dropped, first_seq, last_seq, time_ns = gap
        lost = (
            Gap(start_of_gap, dropped, first_seq, last_seq, CAUSES[cause], time_ns)
            if cause
            else None
        )
        reader = ReaderState(skew, start, end, seq, lost) if state == _STREAM else None
        yield Record(fh, pid, ino, reader, kernel_handle)
