"""The queue behind a simulated or replayed device: module/zfs/fm.c's list of events, with cursors.

Every event has a position, counted up for ever from 0; the queue holds the positions from `oldest`
up to `end`, and a cursor is the position of the event that it read last. What has become of that
event follows from comparing positions, so an arrival costs the same however long the queue is and
however many cursors stand in it. A lock guards all of it: cursors may be read in threads.

Where this differs from the kernel: a blocking read can't miss an event that arrives between its
look at the list and its sleep (the kernel's can, and is late until the next post); a device that
was shut down answers ESHUTDOWN to every call (the kernel's /dev/zfs is gone by then), and its
cursors are good again after `load` (the kernel's must be opened anew; what stands for it does so).
"""

import errno
import functools
import os
import threading
from collections.abc import Callable

from zeventfs.nvlist import NvlistError, decode
from zeventfs.sources.device import SEEK_END, SEEK_START, DeviceError, Losses, Taken

__all__ = ["LEN_MAX", "Ring", "RingCursor"]

LEN_MAX = 512  # zfs_zevent_len_max since 2.0.5 and 2.1.0


_strerror = functools.cache(os.strerror)  # every drain of the queue ends with one


def _refusal(number: int, *, needed: int = 0) -> DeviceError:
    return DeviceError(number, _strerror(number), needed=needed)


def _eid_of(packed: bytes) -> object:
    """Return the EID that a packed event says it has, None when it doesn't say."""
    try:
        return decode(packed).get("eid")
    except NvlistError:
        return None


class _Queue:
    """What a ring and its cursors share, guarded by `lock`; `changed` wakes blocked reads."""

    def __init__(self) -> None:
        self.events: dict[int, bytes] = {}  # position -> packed; the positions have no holes
        self.end = 0  # the position that the next event gets
        self.rate_limited = 0
        self.down = False
        self.loads = 0  # how often the module was loaded anew
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    @property
    def oldest(self) -> int:
        """The position of the oldest event, or of the next one when there is none."""
        return self.end - len(self.events)

    def check(self) -> None:
        if self.down:
            raise _refusal(errno.ESHUTDOWN)


class Ring:
    """A device (zeventfs.sources.device.Device) that holds what is put into it.

    *len_max* is zfs_zevent_len_max: an event that arrives when so many are queued frees the oldest.
    It may be changed at any time; lowering it frees nothing by itself, as in the kernel. *life* is
    what Device.life says of it; a ring that ends with its process has none.
    """

    def __init__(self, len_max: int = LEN_MAX, *, life: str = "") -> None:
        self.len_max = len_max
        self.life = life
        self._queue = _Queue()
        self._subscribers: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._queue.events)

    def losses(self) -> Losses:
        """What was lost: nothing but what the queue lets go of."""
        return Losses(failed=0, len_max=self.len_max)

    def open(self) -> "RingCursor":
        """Return a cursor of its own before the oldest event. Raises DeviceError ESHUTDOWN."""
        self._queue.check()
        return RingCursor(self._queue)

    def clear(self) -> int:
        """Empty the queue for every cursor; return how many events went. EIDs go on.

        Raises DeviceError ESHUTDOWN.
        """
        queue = self._queue
        with queue.lock:
            queue.check()
            count = len(queue.events)
            queue.events.clear()
            return count

    def subscribe(self, arrived: Callable[[], None]) -> None:
        """Have *arrived* called after each event, in the stack of whoever brought it."""
        self._subscribers.append(arrived)

    def put(self, packed: bytes) -> None:
        """Queue one packed event as it is, wake blocked reads, then call the subscribers.

        Raises DeviceError ESHUTDOWN.
        """
        queue = self._queue
        with queue.lock:
            queue.check()
            full = len(queue.events) >= self.len_max
            queue.events[queue.end] = packed
            queue.end += 1
            if full:
                del queue.events[queue.oldest]
            queue.changed.notify_all()
        for arrived in self._subscribers:
            arrived()

    def rate_limited(self, count: int) -> None:
        """Note *count* events that a rate limit kept from being posted; they never had an EID.

        The count is one for all cursors: whichever reads next reports it as dropped.
        """
        with self._queue.lock:
            self._queue.rate_limited += count

    def shutdown(self) -> None:
        """Go away, as when the module is unloaded: the queue is freed, all calls get ESHUTDOWN.

        The subscribers are called once more, in the caller's stack.
        """
        queue = self._queue
        with queue.lock:
            queue.down = True
            queue.events.clear()
            queue.changed.notify_all()
        for arrived in self._subscribers:
            arrived()

    def load(self, life: str) -> None:
        """Come back after `shutdown`, empty and in another *life*; the cursors are as if new.

        The subscribers are called once more, in the caller's stack.
        """
        queue = self._queue
        with queue.lock:
            queue.down = False
            queue.loads += 1
            queue.rate_limited = 0
            self.life = life
        for arrived in self._subscribers:
            arrived()


class RingCursor:
    """One open of a Ring (zeventfs.sources.device.Cursor)."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self._last: int | None = None  # the position of the event read last; None: at the start
        self._dropped = 0
        self._loads = queue.loads
        self._saw_end = False
        self._signalled = False
        self._closed = False

    def next(self, *, nonblock: bool, size: int) -> Taken:
        """Take the event after the last one read, and move on; see Cursor.next.

        A cursor that is closed while it waits in another thread waits on, as a descriptor does.
        """
        queue = self._queue
        with queue.lock:
            self._check()
            while (position := self._next_position()) not in queue.events:
                self._saw_end = True
                if nonblock:
                    raise _refusal(errno.ENOENT)
                self._wait()
            packed = queue.events[position]
            if len(packed) > size:
                raise _refusal(errno.ENOMEM, needed=len(packed))
            self._last = position
            dropped = self._dropped + queue.rate_limited
            self._dropped = queue.rate_limited = 0
            saw_end, self._saw_end = self._saw_end, position == queue.end - 1
            return Taken(packed, dropped, saw_end)

    def seek(self, eid: int) -> None:
        """Stand on event *eid*, before the oldest or on the newest; see Cursor.seek.

        Where a recording has an EID more than once, the oldest is meant.
        """
        queue = self._queue
        with queue.lock:
            self._check()
            self._notice_eviction()
            self._saw_end = False
            if eid == SEEK_START:
                self._last = None
            elif eid == SEEK_END:
                self._last = queue.end - 1 if queue.events else None
            else:
                self._last = self._find(eid)

    def waiting(self) -> int:
        """How many events there are after the last one read; none of a device that went away."""
        queue = self._queue
        with queue.lock:
            after = 0 if self._last is None else self._last + 1
            return queue.end - max(after, queue.oldest)

    def interrupt(self) -> None:
        """End a blocking `next` of this cursor in another thread with EINTR.

        Like a pending signal it waits for the next wait if there is none just now, so that an
        interrupt that is a little early isn't lost; a caller may see EINTR once for nothing.
        """
        with self._queue.lock:
            self._signalled = True
            self._queue.changed.notify_all()

    def close(self) -> None:
        """Give the cursor back; `next` and `seek` answer EBADF from now on."""
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise _refusal(errno.EBADF)
        self._queue.check()
        if self._loads != self._queue.loads:
            self._loads = self._queue.loads
            self._last, self._dropped, self._saw_end = None, 0, False

    def _wait(self) -> None:
        """Wait for a change of the queue. Raises DeviceError EINTR, ESHUTDOWN."""
        if not self._signalled:
            self._queue.changed.wait()
            self._queue.check()
        if self._signalled:
            self._signalled = False
            raise _refusal(errno.EINTR)

    def _notice_eviction(self) -> None:
        """Count the loss of the event read last, once, however many went after it."""
        if self._last is not None and self._last < self._queue.oldest:
            self._last = None
            self._dropped += 1

    def _next_position(self) -> int:
        """Return the position of the event to be read next, whether or not it is there yet."""
        self._notice_eviction()
        return self._queue.oldest if self._last is None else self._last + 1

    def _find(self, eid: int) -> int:
        for position, packed in self._queue.events.items():
            if _eid_of(packed) == eid:
                return position
        raise _refusal(errno.ENOENT)
