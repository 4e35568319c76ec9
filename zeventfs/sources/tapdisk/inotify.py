"""Tells what comes and goes in directories (inotify(7)), to one task, and never blocks.

Nothing is missed silently: where the kernel's queue overflowed, that is told as a change too.
"""

import ctypes
import os
import struct
from enum import IntFlag
from pathlib import Path
from typing import Final, NamedTuple, Self

import trio

__all__ = ["Change", "Inotify", "Mask", "directory_at"]

_HEAD: Final = struct.Struct("=iIII")  # wd, mask, cookie, length of the name with its NULs
_BUFFER: Final = 1 << 16
_CLOEXEC_NONBLOCK: Final = os.O_CLOEXEC | os.O_NONBLOCK  # IN_CLOEXEC and IN_NONBLOCK are these

_libc = ctypes.CDLL(None, use_errno=True)


class Mask(IntFlag):
    """Bits of what is watched for and of what came, from linux/inotify.h."""

    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x1000000


_APPEARED: Final = Mask.CREATE | Mask.MOVED_TO
_VANISHED: Final = Mask.DELETE | Mask.MOVED_FROM
_ENDED: Final = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.IGNORED
_WATCHED: Final = _APPEARED | _VANISHED | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR


class Change(NamedTuple):
    """What happened in watched directory *watch*, to the entry *name*; empty: to the directory."""

    watch: int
    name: str
    mask: Mask

    @property
    def appeared(self) -> bool:
        return bool(self.mask & _APPEARED)

    @property
    def vanished(self) -> bool:
        return bool(self.mask & _VANISHED)

    @property
    def ended(self) -> bool:
        """Whether the directory itself is gone, or elsewhere."""
        return bool(self.mask & _ENDED)

    @property
    def overflowed(self) -> bool:
        """Whether changes were lost, so that one has to look."""
        return bool(self.mask & Mask.Q_OVERFLOW)


class Inotify:
    """Watched directories; as context, it lets go of them. Raises OSError if there can't be one."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(_CLOEXEC_NONBLOCK))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def add(self, directory: str) -> int:
        """Watch *directory*; its number in changes. Raises OSError."""
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), int(_WATCHED)))

    async def changes(self) -> list[Change]:
        """Wait for changes; all that have come, in their order."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return _parse(os.read(self._fd, _BUFFER))
            except BlockingIOError:  # pragma: no cover - nobody else reads it
                continue


def _parse(read: bytes) -> list[Change]:
    changes = []
    at = 0
    while at < len(read):
        watch, mask, _, length = _HEAD.unpack_from(read, at)
        at += _HEAD.size
        name = read[at : at + length].rstrip(b"\0")
        at += length
        changes.append(Change(watch, os.fsdecode(name), Mask(mask)))
    return changes


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


async def directory_at(path: str, retry_s: float) -> None:
    """Return once there is a directory at *path*, or a link to one; it may have gone again.

    While there is none, the nearest directory above it is watched; where that can't be, it is
    looked for every *retry_s* seconds.
    """
    while not _is_directory(path):
        try:
            with Inotify() as inotify:
                above = _above(path)
                inotify.add(above)
                if above == _above(path) and not _is_directory(path):
                    await inotify.changes()
        except OSError:
            await trio.sleep(retry_s)


def _above(path: str) -> str:
    """The nearest directory above *path* that is there."""
    return str(next(each for each in Path(path).parents if _is_directory(str(each))))


def _is_directory(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - where Path.is_dir raises, this is False
