"""Keeps the whole daemon in memory, for hosts whose own root may be on the devices that fail.

What stands when it is locked is read in and stays; what comes later is locked as it is touched. So
nothing that the daemon needs in service is ever fetched from a disk, and what a blocked reader or a
thread merely reserves (a stack, say) is not paid for.
"""

import ctypes
import linecache
import logging
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from zeventfs import logs
from zeventfs.errors import MountFailed

__all__ = ["in_memory", "is_memory", "keep_room"]

log = logging.getLogger(__name__)

ROOM: Final = 4 << 20  # of what Python allocates for small objects, and of all else, each

# sys/mman.h of all that is common (powerpc, sparc and alpha have others), sys/prctl.h, malloc.h
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
PR_SET_IO_FLUSHER = 57
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
MMAP_THRESHOLD_MOST = 32 << 20  # the most that glibc takes: HEAP_MAX_SIZE / 2
CAP_IPC_LOCK = 14  # linux/capability.h

_BLOCK: Final = 400  # bytes: small enough for Python's own allocator, which takes up to 512
_ARENA: Final = 256 << 10  # bytes, of CPython's arenas the least that there was; now it is 1 MiB

_room: list[bytes] = []


@contextmanager
def in_memory() -> Iterator[None]:
    """Have all of the process locked, now and from now on, and its log written by a thread.

    Where the kernel lets us, what is allocated from now on doesn't wait for disks either. Raises
    MountFailed where locking is not permitted; afterwards only the log is as before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _allow()
    # In two steps: all of what is there, but of what will be only what is touched.
    for flags in (MCL_CURRENT, MCL_FUTURE | MCL_ONFAULT):
        if libc.mlockall(flags) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise MountFailed(f"can't lock the daemon in memory: {reason}")
    if libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:  # prctl(2), Linux 5.6
        log.info(
            "mlock: an allocation may wait for disks, PR_SET_IO_FLUSHER: %s",
            os.strerror(ctypes.get_errno()),
        )
    _read_no_source()
    _mallopt(M_ARENA_MAX, 1)  # threads have no room of their own
    with logs.apart():
        yield


def _allow() -> None:
    """See that nothing will be too much to lock, or raise MountFailed."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    elif not _may_lock(Path("/proc/self/status").read_text("ascii", "replace")):
        raise MountFailed(
            f"mlock is not permitted: it takes CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK, "
            f"which is {hard >> 10} kB (ulimit -l unlimited, or LimitMEMLOCK=infinity)"
        )


def _may_lock(status: str) -> bool:
    """Whether the process of *status*, as in /proc/PID/status, has CAP_IPC_LOCK."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> CAP_IPC_LOCK & 1)


def _read_no_source() -> None:
    """Have tracebacks name file and line, but not read the line from the disk."""

    def nothing(filename: str, module_globals: dict[str, Any] | None = None) -> list[str]:  # noqa: ARG001 - linecache's names
        return []

    def unraisable(told: "sys.UnraisableHookArgs") -> None:  # Python's own reads it too
        kept = None
        if told.exc_value is not None:
            kept = (told.exc_type, told.exc_value, told.exc_traceback)
        log.error("%s: %r", told.err_msg or "Exception ignored in", told.object, exc_info=kept)

    linecache.updatecache = nothing
    sys.unraisablehook = unraisable


def keep_room() -> None:
    """Have ROOM bytes for small objects and ROOM for others, in memory and free, and keep them.

    What an event takes while it passes comes out of that, and goes back to it. For once the process
    is all built.
    """
    blocks = [bytes(_BLOCK) for _ in range(ROOM // _BLOCK)]  # its zeros touch each page
    # An arena goes back to the kernel when nothing is in it any more: something is in each.
    _room[:] = blocks[:: _ARENA // 2 // _BLOCK]
    del blocks
    _mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_MOST)
    _mallopt(M_TRIM_THRESHOLD, 2 * ROOM)
    _mallopt(M_TOP_PAD, ROOM)
    bytearray(ROOM)


def _mallopt(parameter: int, value: int) -> None:
    """mallopt(3), unless libc has none (musl)."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(parameter, value)


def is_memory(path: Path) -> bool:
    """Whether what is written to files in directory *path* stays in memory (tmpfs, ramfs)."""
    device = path.stat().st_dev
    number = b"%d:%d" % (os.major(device), os.minor(device))
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, kind = line.partition(b" - ")  # proc(5)
        if fields.split()[2] == number:
            return kind.split()[0] in {b"tmpfs", b"ramfs"}
    return False
