"""OpenZFS's /dev/zfs as the device that a source drains, without a wait in the event loop.

A thread reads (`reader`), what it read waits in a backlog, and the loop takes it from there: so the
kernel's queue, 512 events as a rule, is emptied however long an event's decoding takes. The loop is
rung for through a function that it brings along, such as trio's `TrioToken.run_sync_soon`, with at
most one ring under way.

A device has one cursor here, since what is told of its life is told in the order of that cursor's
events. The thread reads from when there are both a cursor and a subscriber; before that, the cursor
is read in the caller's.
"""

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from zeventfs.sources.device import DeviceError, Losses, Taken
from zeventfs.sources.kernel._zevents import Zevents
from zeventfs.sources.kernel.backlog import Backlog, Batch, Lost
from zeventfs.sources.kernel.module import DEVICE, ROOT, life, losses, preflight
from zeventfs.sources.kernel.reader import Reader, device_error

__all__ = ["BACKLOG", "KernelCursor", "KernelDevice"]

BACKLOG = 64 << 20  # bytes: some 90,000 events
_HEAD = struct.Struct("=QQ")  # before each event: its size, the kernel's `dropped`


class KernelDevice:
    """/dev/zfs under *root* (zeventfs.sources.device.Device); as context, it is closed at the end.

    ``wake(call)`` is to have *call* called in the event loop's thread, from any thread, and raises
    RuntimeError while there is no loop. It is first called after `subscribe`. *backlog* is
    how many bytes of events may wait for the loop.
    """

    def __init__(
        self,
        wake: Callable[[Callable[[], None]], object],
        *,
        root: Path = ROOT,
        backlog: int = BACKLOG,
    ) -> None:
        self._wake = wake
        self._root = root
        self._most = backlog
        self._cursor: KernelCursor | None = None
        self._subscribers: list[Callable[[], None]] = []
        self._rung = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> "KernelCursor":
        """Return the cursor, before the oldest event.

        It is given where the device can't be read too, and waits for it. Raises DeviceError EBUSY:
        there is one already.
        """
        if self._cursor is not None:
            raise DeviceError(errno.EBUSY, "a KernelDevice has one cursor")
        self._cursor = KernelCursor(self._root, self._most, self._ring)
        if self._subscribers:
            self._cursor.start()
        return self._cursor

    def clear(self) -> int:
        """Empty the queue for everybody; return how many events went (ZFS_IOC_EVENTS_CLEAR).

        What the cursor has read ahead goes with it. Raises DeviceError: ESHUTDOWN, the device is
        gone or refuses; or what the kernel says.
        """
        reason = preflight(self._root)
        if reason is not None:
            raise DeviceError(errno.ESHUTDOWN, reason)
        if self._cursor is None:
            return self._clear()
        with self._cursor.emptied():
            return self._clear()

    def _clear(self) -> int:
        try:
            device = Zevents(self._root / DEVICE)
            try:
                return device.clear()
            finally:
                device.close()
        except OSError as error:
            raise device_error(error) from None

    def subscribe(self, arrived: Callable[[], None]) -> None:
        """Have *arrived* called in the loop's thread after events, a loss, or a return."""
        self._subscribers.append(arrived)
        if self._cursor is not None:
            self._cursor.start()

    @property
    def life(self) -> str:
        """The life of the module whose events the cursor gives now; "" while it is not known."""
        return life(self._root) if self._cursor is None else self._cursor.life

    def losses(self) -> Losses:
        """What the module says now of failed posts and of its queue's length."""
        return losses(self._root)

    def close(self) -> None:
        """End the reading; see KernelCursor.close."""
        if self._cursor is not None:
            self._cursor.close()

    def _ring(self) -> None:
        """Have the subscribers called by the loop; one call is enough however much there is."""
        if self._rung or not self._subscribers:
            return
        self._rung = True
        try:
            self._wake(self._arrived)
        except BaseException as error:
            self._rung = False  # the next one must ring
            # RuntimeError: the loop is over, or hasn't begun, and who begins it looks by himself.
            if not isinstance(error, RuntimeError):
                raise

    def _arrived(self) -> None:
        self._rung = False  # before they look: what comes after their last look rings again
        for arrived in self._subscribers:
            arrived()


class KernelCursor:
    """The one cursor of a KernelDevice (zeventfs.sources.device.Cursor), for one thread."""

    def __init__(self, root: Path, most: int, ring: Callable[[], None]) -> None:
        self.life = ""
        self._ring = ring
        self._backlog = Backlog(most)
        self._events = b""  # the batch that is being given, and how far it is
        self._offset = 0
        self._after_end = False  # of the next event
        self._taken = 0
        self._lost: str | None = None
        self._closed = False
        self._reader = Reader(root, self._backlog, ring)
        self._advance()  # to be ready, or lost, from the beginning

    def next(self, *, nonblock: bool, size: int) -> Taken:
        """Take the event after the last one read, and move on; see Cursor.next.

        Nothing is asked of the kernel once the reading has been started, which a blocking call
        does. When the device was lost this is told after the last event from before, with the
        reason as `strerror`, and what came after its return follows.
        """
        while self._offset == len(self._events):
            self._check()
            if not self._reader.running:
                if nonblock:
                    self._reader.read()
                else:
                    self.start()
            if not self._advance():
                self._wait(nonblock=nonblock)
            elif self._lost is not None:
                if self._backlog:  # it is back already, and this ring may be the last
                    self._ring()
                self._refuse()
        length, dropped = _HEAD.unpack_from(self._events, self._offset)
        if length > size:
            raise DeviceError(errno.ENOMEM, os.strerror(errno.ENOMEM), needed=length)
        start = self._offset + _HEAD.size
        self._offset = start + length
        self._taken += 1
        after_end, self._after_end = self._after_end, False
        return Taken(self._events[start : self._offset], dropped, after_end)

    def seek(self, eid: int) -> None:
        """Stand on event *eid*, before the oldest or on the newest; see Cursor.seek.

        What was read ahead is read anew, if it is still queued. The thread pauses for it.
        """
        self._check()
        self._refuse()
        with self._reader.paused():
            if self._reader.life != self.life:  # an EID of one life is nothing to another
                raise DeviceError(errno.ESHUTDOWN, "the ZFS module was loaded anew")
            self._reader.seek(eid)
            self._forget()

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Read nothing within this context, and have nothing left that was read, if it succeeds."""
        with self._reader.paused():
            yield
            self._forget()

    def _forget(self) -> None:
        """Have nothing that was read and not taken; only while nothing is read."""
        self._backlog.drop_events()
        self._events, self._offset = b"", 0
        self._taken = self._backlog.queued

    def waiting(self) -> int:
        """How many events were read from the kernel and not taken yet."""
        return self._backlog.queued - self._taken

    def interrupt(self) -> None:
        """End a blocking `next` in another thread with EINTR, this or the next one."""
        self._backlog.interrupt()

    def start(self) -> None:
        """Have the thread read from now on."""
        if not self._closed:
            self._reader.start()

    def close(self) -> None:
        """End the reading and its threads; all calls answer EBADF from now on."""
        self._closed = True
        self._events, self._offset = b"", 0
        self._reader.close()

    def _check(self) -> None:
        if self._closed:
            raise DeviceError(errno.EBADF, os.strerror(errno.EBADF))

    def _refuse(self) -> None:
        """Raise ESHUTDOWN while the device is lost."""
        if self._lost is not None:
            raise DeviceError(errno.ESHUTDOWN, self._lost)

    def _wait(self, *, nonblock: bool) -> None:
        """Wait for an entry, or say that there is none."""
        self._refuse()
        if nonblock:
            raise DeviceError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not self._backlog.wait_for_entry():
            raise DeviceError(errno.EINTR, os.strerror(errno.EINTR))

    def _advance(self) -> bool:
        """Go on to the next entry of the backlog; False when there is none."""
        entry = self._backlog.get()
        match entry:
            case None:
                return False
            case Batch():
                self._events, self._offset = entry.events, 0
                self._after_end = entry.after_end
            case Lost():
                self._lost = entry.reason
            case _:
                self._lost, self.life = None, entry.life
        return True
