"""The errors that zeventfs raises on purpose, each with the errno that its caller sees."""

import errno

__all__ = [
    "Busy",
    "Closing",
    "DamagedState",
    "Denied",
    "Down",
    "Exists",
    "Fixed",
    "Full",
    "Interrupted",
    "Invalid",
    "Malformed",
    "MountFailed",
    "NotFound",
    "Stale",
    "TooMany",
    "TooManyOpen",
    "WouldBlock",
    "ZeventfsError",
]


class ZeventfsError(Exception):
    """The base of zeventfs's own errors; only its kinds are raised."""

    errno: int = errno.EIO

    def __init__(self, *args: object) -> None:
        if type(self) is ZeventfsError:
            raise TypeError("raise one of ZeventfsError's kinds")
        super().__init__(*args)


class Invalid(ZeventfsError):
    """What was given can't be understood (EINVAL)."""

    errno = errno.EINVAL


class NotFound(ZeventfsError):
    """There is no such file (ENOENT)."""

    errno = errno.ENOENT


class Denied(ZeventfsError):
    """The file is not for that (EACCES)."""

    errno = errno.EACCES


class Fixed(ZeventfsError):
    """What is there is not changed from outside: no names, no modes, nothing watched (EPERM)."""

    errno = errno.EPERM


class Exists(ZeventfsError):
    """There is one of that name already (EEXIST)."""

    errno = errno.EEXIST


class Full(ZeventfsError):
    """There is no room for one more (ENOSPC)."""

    errno = errno.ENOSPC


class Busy(ZeventfsError):
    """Not now (EBUSY)."""

    errno = errno.EBUSY


class WouldBlock(ZeventfsError):
    """Nothing to read yet, and the reader won't or may not wait (EAGAIN)."""

    errno = errno.EAGAIN


class TooMany(WouldBlock):
    """As many readers wait as may wait at once (EAGAIN)."""


class TooManyOpen(ZeventfsError):
    """As many files are open as can be (ENFILE)."""

    errno = errno.ENFILE


class Interrupted(ZeventfsError):
    """A signal ended the wait (EINTR)."""

    errno = errno.EINTR


class Closing(ZeventfsError):
    """The mount is at its end (ESHUTDOWN)."""

    errno = errno.ESHUTDOWN


class Down(ZeventfsError):
    """The VBD is dead or broken, and takes no requests (ESHUTDOWN)."""

    errno = errno.ESHUTDOWN


class Stale(ZeventfsError):
    """What the handle stood for has been evicted (ESTALE)."""

    errno = errno.ESTALE


class Malformed(ZeventfsError):
    """What a device answered can't be so (EPROTO)."""

    errno = errno.EPROTO


class DamagedState(ZeventfsError):
    """What an earlier daemon left in the runtime directory can't be used."""


class MountFailed(ZeventfsError):
    """The mount did not come about; the message says why, in a sentence."""
