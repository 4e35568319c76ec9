"""Disk images to read from: regular files and block devices, nothing else, and never waiting.

What might block or act when it is opened (a FIFO, a terminal, a watchdog) is not opened at all.
"""

import os
import stat
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Protocol

from zeventfs.errors import Invalid
from zeventfs.vbd.vhd import EPOCH_S

__all__ = ["FILES", "Files", "Image", "Images", "read_within"]


class Image(Protocol):
    """An image that is open for reading.

    *size* is in bytes. *identity* is the same for all names of one image. *stamps* are the times,
    in seconds of VHD, that count as that of its last change: none for a device, whose node's times
    tell nothing of what it holds.
    """

    @property
    def size(self) -> int: ...
    @property
    def identity(self) -> Hashable: ...
    @property
    def stamps(self) -> frozenset[int]: ...

    def read(self, at: int, length: int) -> bytes:
        """At most *length* bytes from offset *at*, fewer where the image ends. Raises OSError."""
        ...

    def close(self) -> None: ...


class Images(Protocol):
    """Where images are, by their paths."""

    def open(self, path: str) -> Image:
        """Raise OSError, ValueError if nothing can have that name, Invalid if it is no image."""
        ...

    def resolve(self, path: str) -> str:
        """*path* without symbolic links, as far as it exists. Raises OSError and ValueError."""
        ...


class _File:
    """A regular file or a block device (Image)."""

    __slots__ = ("_fd", "identity", "size", "stamps")

    def __init__(self, fd: int) -> None:
        found = os.fstat(fd)
        _check(found)
        self._fd = fd
        self.size = os.lseek(fd, 0, os.SEEK_END)  # a device's st_size is 0
        self.identity: Hashable
        if stat.S_ISBLK(found.st_mode):
            self.identity = ("device", found.st_rdev)
            self.stamps: frozenset[int] = frozenset()
        else:
            self.identity = ("file", found.st_dev, found.st_ino)
            self.stamps = _stamps(int(found.st_mtime))

    def read(self, at: int, length: int) -> bytes:
        return os.pread(self._fd, length, at)

    def close(self) -> None:
        os.close(self._fd)


class Files:
    """The files and devices of this system (Images)."""

    def open(self, path: str) -> Image:
        _check(Path(path).stat())
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _File(fd)
        except BaseException:
            os.close(fd)
            raise

    def resolve(self, path: str) -> str:
        return os.path.realpath(path)


FILES = Files()


def read_within(image: Image, at: int, length: int) -> bytes:
    """*length* bytes from offset *at*. Raises Invalid where the image has not so many, OSError."""
    if at + length > image.size:
        raise Invalid(f"what should be at offset {at} is beyond its end")
    return image.read(at, length)


def _check(found: os.stat_result) -> None:
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise Invalid("neither a regular file nor a block device")


def _stamps(modified_s: int) -> frozenset[int]:
    """The specification counts from a midnight of UTC; libvhd from one of the host's time."""
    local_epoch_s = int(time.mktime((2000, 1, 1, 0, 0, 0, 0, 0, -1)))
    return frozenset({modified_s - EPOCH_S, modified_s - local_epoch_s})
