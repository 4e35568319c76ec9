"""The thread that reads /dev/zfs into a backlog, from `start` to `stop`.

It sleeps in the kernel until there is an event, takes all there are, and rings. A second thread
guards its sleep (see `_zevents.c`). The descriptor is held for as long as the module lives, so
`rmmod zfs` says that the module is in use, as it does while zed runs. Where the device isn't there,
can't be read, or was lost, it is looked for each second until it can be.

A signal (SIGURG) ends the sleep in the kernel. It has an empty handler of its own in C, of which
Python and its event loop hear nothing, and is sent to this thread alone.
"""

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zeventfs.sources.device import SEEK_END, SEEK_START, DeviceError
from zeventfs.sources.kernel._zevents import WAKING, Zevents
from zeventfs.sources.kernel.backlog import Backlog, Batch, Lost, Ready
from zeventfs.sources.kernel.module import DEVICE, life, preflight

__all__ = ["Reader", "device_error"]

log = logging.getLogger(__name__)

_BUFFER = 1 << 20  # bytes read with the GIL released once: some 1,500 events
_STACK = 256 << 10  # bytes; what runs in the threads is shallow
_LOOK_S = 1.0


class _Pause:
    def __init__(self) -> None:
        self.begun = threading.Event()
        self.over = threading.Event()


class Reader:
    """Reads the device under *root* into *backlog*, and calls *ring* after what it put there.

    While its thread doesn't run it reads only when it is told to, in the caller's thread. All but
    *ring*, which either thread calls, is for one thread.
    """

    def __init__(self, root: Path, backlog: Backlog, ring: Callable[[], None]) -> None:
        self._root = root
        self._backlog = backlog
        self._ring = ring
        self._zevents: Zevents | None = None
        self._thread: threading.Thread | None = None
        self._pause: _Pause | None = None  # that is asked for
        self._buffer = bytearray(_BUFFER)
        self.life = ""  # of what is read now
        self._last_eid = SEEK_START  # of what was read last
        self._at_end = False  # whether the queue's end was seen after that
        self._reason: str | None = None  # why there is nothing to be read, as it was told last
        self._told_full = False
        self._look()

    @property
    def running(self) -> bool:
        """Whether the thread reads."""
        return self._thread is not None

    def start(self) -> None:
        """Have the thread read from now on."""
        if self._thread is None:
            self._backlog.begin()
            if self._zevents is not None:
                self._zevents.begin()
            self._thread = _start(self._run, "zfs reader")

    def stop(self) -> None:
        """End the thread, whatever it is at, at once; `start` goes on with the next event."""
        if self._thread is None:
            return
        self._interrupt()
        self._thread.join()
        self._thread = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within this context the thread, if there is one, doesn't read.

        It isn't ended for that, since another might not be to be had. (Its guard is, and then the
        device is lost until there is one again.)
        """
        if self._thread is None:
            yield
            return
        pause = _Pause()
        try:
            self._pause = pause
            self._interrupt()
            while not pause.begun.wait(_LOOK_S) and self._thread.is_alive():
                pass  # a dead one pauses, too
            yield
        finally:
            self._backlog.begin()
            if self._zevents is not None:
                self._zevents.begin()
            pause.over.set()

    def _interrupt(self) -> None:
        """End what the thread waits for, now and until both begin again."""
        self._backlog.end()
        if (zevents := self._zevents) is not None:
            zevents.end()

    def close(self) -> None:
        """End the thread, and all waits, and close the device."""
        self.stop()
        self._backlog.end()
        self._close()

    def read(self) -> None:
        """Put what there is into the backlog, without waiting; only while the thread doesn't."""
        if self._zevents is not None:
            self._take(self._zevents, block=False)

    def seek(self, eid: int) -> None:
        """Move the kernel's cursor (Cursor.seek); only while the thread doesn't read.

        Raises DeviceError; ESHUTDOWN, the device is not there.
        """
        if self._zevents is None:
            raise DeviceError(errno.ESHUTDOWN, self._reason or "")
        try:
            self._zevents.seek(eid)
        except OSError as error:
            raise device_error(error) from None
        self._last_eid = SEEK_START if eid == SEEK_END else eid
        self._at_end = False

    def _run(self) -> None:
        # What is sent to the process as a whole is for the main thread to hear.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {WAKING})
        self._read_on()
        while (pause := self._pause) is not None:
            self._pause = None
            pause.begun.set()
            pause.over.wait()
            self._read_on()

    def _read_on(self) -> None:
        """Read, or look for what there is to be read, until this is to end or to pause."""
        while not self._backlog.ended:
            try:
                if self._zevents is not None:
                    self._drain(self._zevents)
                elif not self._backlog.wait_for_end(_LOOK_S):
                    self._look()
            except Exception as error:  # without this thread nothing would ever come again
                log.exception("looking for /dev/zfs broke off")
                self._close()
                self._tell_lost(repr(error))

    def _look(self) -> None:
        """Open the device, if it is there to be read, and go on where that was left."""
        reason = preflight(self._root)
        if reason is None:
            try:
                zevents = Zevents(self._root / DEVICE)
            except OSError as error:  # it went just now
                reason = f"/dev/zfs can't be opened: {error.strerror}"
            else:
                self._resume(zevents)
                return
        self._tell_lost(reason)

    def _resume(self, zevents: Zevents) -> None:
        now = life(self._root)  # it can't end any more: the open descriptor holds the module
        if now and now == self.life:
            try:
                zevents.seek(self._last_eid)
            except OSError:
                log.debug("event %d isn't queued any more: all that is came after", self._last_eid)
        self.life = now
        self._at_end = False
        self._reason = None
        self._zevents = zevents
        self._put(Ready(now))

    def _drain(self, zevents: Zevents) -> None:
        """Read until the device is lost, or this is to end or to pause."""
        try:
            with _guarded(zevents):
                reason = self._take_all(zevents)
        except Exception as error:  # such as no memory: what was read is missed by its EIDs
            log.exception("reading /dev/zfs broke off")
            reason = repr(error)
        if reason is not None:
            self._close()
            self._tell_lost(reason)

    def _take_all(self, zevents: Zevents) -> str | None:
        """Why nothing more can be read; None when this is to end or to pause."""
        while self._has_room():
            error = self._take(zevents, block=True)
            if error not in {0, errno.EINTR}:
                return _sentence(error)
        return None

    def _take(self, zevents: Zevents, *, block: bool) -> int:
        """Read into the backlog what is there; 0 or an errno that ends the reading."""
        used, count, error, needed = zevents.take(self._buffer, block)
        if count:
            batch = bytes(memoryview(self._buffer)[:used])
            self._last_eid = _eid_of_last(batch)
            self._put(Batch(batch, count, self._at_end))
            self._at_end = error == errno.ENOENT
        elif error == errno.ENOMEM and needed > len(self._buffer):
            self._buffer = bytearray(needed)
            return 0
        return 0 if error in {errno.ENOENT, errno.ENOMEM} else error

    def _has_room(self) -> bool:
        """Wait until the backlog has room; False when this is to end or to pause."""
        if self._backlog.full and not self._told_full:
            self._told_full = True
            log.warning(
                "events come faster than they are taken in: reading waits, and what the kernel's"
                " queue can't hold meanwhile is lost and counted"
            )
        return self._backlog.wait_for_room()

    def _tell_lost(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._put(Lost(reason))

    def _put(self, entry: Batch | Lost | Ready) -> None:
        self._backlog.put(entry)
        self._ring()

    def _close(self) -> None:
        if self._zevents is not None:
            self._zevents.close()
            self._zevents = None


def device_error(error: OSError) -> DeviceError:
    """The same, as a device's refusal."""
    return DeviceError(error.errno or errno.EIO, error.strerror or str(error))


@contextmanager
def _guarded(zevents: Zevents) -> Iterator[None]:
    """Within this context, the reader's sleep is guarded."""
    guard = _start(zevents.guard, "zfs guard")
    try:
        yield
    finally:
        zevents.end()
        guard.join()


def _start(work: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread for *work*, with a small stack."""
    before = threading.stack_size(_STACK)
    try:
        thread = threading.Thread(target=work, name=name)
        thread.start()
    finally:
        threading.stack_size(before)
    return thread


def _eid_of_last(batch: bytes) -> int:
    """The EID of the last event: the value of its last pair, with the end of the list behind it."""
    return int.from_bytes(batch[-12:-4], sys.byteorder)


def _sentence(error: int) -> str:
    if error == errno.ESHUTDOWN:
        return "the ZFS module is being unloaded"
    return f"/dev/zfs can't be read: {os.strerror(error)}"
