"""What a source of ZFS events drains: a queue of packed nvlists, with cursors, like /dev/zfs.

The semantics are those of module/zfs/fm.c, and every implementation (the kernel's device, the
simulator, a replay) keeps them, so that what drains one drains any. All numbers are errno values.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

__all__ = ["SEEK_END", "SEEK_START", "Cursor", "Device", "DeviceError", "Losses", "Taken"]

SEEK_START = 0
SEEK_END = 2**64 - 1


class DeviceError(OSError):
    """A call that a device refused; `needed` is the size of buffer that ENOMEM asks for."""

    def __init__(self, errno: int, strerror: str, *, needed: int = 0) -> None:
        super().__init__(errno, strerror)
        self.needed = needed


class Taken(NamedTuple):
    """One event off the queue: its packed native nvlist, and the device's own rough loss count."""

    packed: bytes
    dropped: int


class Losses(NamedTuple):
    """What a device says of events that it lost by itself.

    `failed` counts posts that took an EID and failed, since the module was loaded; `len_max` is how
    many events the queue holds at most, 0 if that isn't known.
    """

    failed: int
    len_max: int


class Cursor(Protocol):
    """One open of the device, which remembers the last event that it read."""

    def next(self, *, nonblock: bool, size: int) -> Taken:
        """Take the event after the last one read, and move on.

        *size* is the caller's buffer in bytes. Raises DeviceError: ENOENT, nothing new and
        *nonblock*; ENOMEM, the event needs `needed` bytes and stays; EINTR, `interrupt` ended the
        wait; ESHUTDOWN, the device went away; EBADF, the cursor is closed. ENOMEM comes also from a
        blocking call, so a blocking call with size 0 waits for an event without taking it.
        """
        ...

    def seek(self, eid: int) -> None:
        """Stand on event *eid*, before the oldest (SEEK_START) or on the newest (SEEK_END).

        Raises DeviceError ENOENT, the cursor unmoved, when there is no such event.
        """
        ...

    def waiting(self) -> int | None:
        """How many events there are after the last one read; None if the device can't say."""
        ...

    def interrupt(self) -> None:
        """End a blocking `next` of this cursor in another thread with EINTR, as a signal would."""
        ...

    def close(self) -> None:
        """Give the cursor back."""
        ...


class Device(Protocol):
    """A queue of events with any number of cursors."""

    def open(self) -> Cursor:
        """Return a cursor of its own before the oldest event."""
        ...

    def clear(self) -> int:
        """Empty the queue for every cursor; return how many events went. EIDs go on."""
        ...

    def subscribe(self, arrived: Callable[[], None]) -> None:
        """Have *arrived* called in the event loop's thread after one or more events arrived.

        It is called too when the device goes away, so that its next answer is heard. It may drain
        the queue before it returns; several arrivals may come as one call.
        """
        ...
