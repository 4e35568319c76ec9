"""A file that is mapped whole and may be written through the mapping without fear of SIGBUS.

A store into a mapped hole of a full file system kills the process. So nothing is written beyond
what `reserve` has had allocated, and a full disk is an OSError from `reserve`, where it can be met.
"""

import mmap
import os
from pathlib import Path

__all__ = ["Mapped"]

_STEP = 256 * 1024  # one allocation call in so many bytes; a rare cost, and little held in advance


class Mapped:
    """*size* bytes of memory: a sparse file's if a *path* is given, else anonymous.

    An existing file keeps its content, and its size if *size* is None. `view` is the whole of it,
    of which only what `reserve` has answered for may be written.
    """

    __slots__ = ("_fd", "path", "size", "view")

    def __init__(self, path: Path | None, size: int | None) -> None:
        self.path = path
        self._fd = -1
        if path is None:
            if size is None:
                raise TypeError("anonymous memory needs a size")
            self.size = size
            self.view = memoryview(mmap.mmap(-1, size))
        else:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if size is not None:
                    os.ftruncate(self._fd, size)
                self.size = os.fstat(self._fd).st_size
                self.view = memoryview(mmap.mmap(self._fd, self.size))
            except BaseException:
                os.close(self._fd)
                raise

    def reserve(self, start: int, end: int) -> int:
        """Allocate from *start* to at least *end*; return up to where, at most a step further.

        Raises OSError (ENOSPC, EDQUOT) with nothing lost.
        """
        stop = min(max(end, start + _STEP), self.size)
        if self._fd >= 0:
            os.posix_fallocate(self._fd, start, stop - start)
        return stop

    def seal(self) -> None:
        """Take no further reservations: the descriptor goes, the memory stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def unlink(self) -> None:
        """Remove the file's name, if it has one; the memory lives on while somebody looks at it."""
        self.seal()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
