"""A file that is mapped whole and may be written through the mapping without fear of SIGBUS.

A store into a mapped hole of a full file system kills the process. So nothing is written beyond
what `reserve` has had allocated, and a full disk is an OSError from `reserve`, where it can be met.
"""

import mmap
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["Mapped"]

_STEP = 256 * 1024  # one allocation call in so many bytes; a rare cost, and little held in advance
_MADV_POPULATE_WRITE = 23  # madvise(2), Linux 5.14; the mmap module doesn't know it yet


class Mapped:
    """*size* bytes of memory: a new sparse file's if a *path* is given, else anonymous.

    Without *size* it is the file that is there already, as it is; ValueError if that is empty.
    `view` is the whole of it, of which only what `reserve` has answered for may be written.
    """

    __slots__ = ("_fd", "path", "size", "view")

    def __init__(self, path: Path | None, size: int | None) -> None:
        self.path = path
        self._fd = -1
        if path is None:
            if size is None:
                raise TypeError("anonymous memory needs a size")
            memory = mmap.mmap(-1, size)
        else:
            new = 0 if size is None else os.O_CREAT | os.O_TRUNC
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | new, 0o600)
            try:
                if size is not None:
                    os.ftruncate(self._fd, size)
                memory = mmap.mmap(self._fd, 0)
            except BaseException:
                self.seal()
                if new:
                    path.unlink()
                raise
        self.size = len(memory)
        self.view = memoryview(memory)

    def __del__(self) -> None:
        """Close the file; what is mapped of it stays so for whoever has a view of it."""
        self.seal()

    def reserve(self, start: int, end: int) -> int:
        """Allocate from *start* to at least *end*; return up to where, at most a step further.

        Raises OSError (ENOSPC, EDQUOT) with nothing lost.
        """
        stop = min(max(end, start + _STEP), self.size)
        if self._fd >= 0:
            os.posix_fallocate(self._fd, start, stop - start)
        self._fetch(start // mmap.PAGESIZE * mmap.PAGESIZE, stop)
        return stop

    def _fetch(self, start: int, stop: int) -> None:
        """Have the pages at hand at once, and locked where we are: a store has to wait for none."""
        memory = self.view.obj
        assert isinstance(memory, mmap.mmap)
        with suppress(OSError):  # an older kernel: it fetches each page at the first store to it
            memory.madvise(_MADV_POPULATE_WRITE, start, stop - start)

    def give_back(self, start: int, end: int) -> None:
        """Undo what was reserved from *start* to *end*, of which nothing is needed, page by page.

        Where the file system can't do that, it stays allocated.
        """
        start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        end = end // mmap.PAGESIZE * mmap.PAGESIZE
        if self._fd >= 0 and start < end:
            memory = self.view.obj
            assert isinstance(memory, mmap.mmap)
            with suppress(OSError):
                memory.madvise(mmap.MADV_REMOVE, start, end - start)

    def seal(self) -> None:
        """Take no further reservations: our descriptor goes, and the memory stays, with its own."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def unlink(self) -> None:
        """Remove the file's name, if it has one; the memory goes when nobody looks at it any more.

        A name that can't be removed stays: whoever finds it must see that it is out of date.
        """
        self.seal()
        self.view = memoryview(b"")
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()
