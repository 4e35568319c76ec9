"""One mount, from its beginning to its end.

The end comes in one of three ways: `zeventfs umount` or a signal asks for it (all requests are
answered with ESHUTDOWN, the mount is detached, then the daemon leaves), the kernel unmounts when
the last user is gone, or somebody aborts the connection. In each, every wait is ended first, and
afterwards nothing of the mount is left; nor is there when a bug ends the daemon.
"""

import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from zeventfs.bell import Bell
from zeventfs.errors import MountFailed
from zeventfs.fuse.ending import EndSignals
from zeventfs.fuse.mountpoint import Mountpoint
from zeventfs.fuse.operations import Operations
from zeventfs.fuse.requests import pyfuse3, watch
from zeventfs.fuse.waits import Waits

__all__ = ["MOST_WAITING", "longest_wait_s", "mount", "serve", "unmount"]

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
_OTHER_WORKERS = 64  # so that whatever waits, something is left to answer
_IDLE_WORKERS = 1
_TIMEOUTS = Path("/proc/sys/fs/fuse")


def longest_wait_s() -> float:
    """For how long a request may wait, infinite unless the kernel has a limit of its own.

    Where fs.fuse.max_request_timeout or default_request_timeout are set, a request that isn't
    answered in time aborts the whole connection (Documentation/admin-guide/sysctl/fs.rst).
    """
    limits = []
    for name in ("default_request_timeout", "max_request_timeout"):
        try:
            limits.append(int((_TIMEOUTS / name).read_text()))
        except (OSError, ValueError):  # an older kernel
            continue
    limit = min((each for each in limits if each > 0), default=0)
    if not limit:
        return math.inf
    longest = max(limit / 2, limit - 10)
    log.warning(
        "the kernel aborts FUSE requests after %d s (fs.fuse.*_request_timeout): "
        "a read that waits longer than %d s ends with EAGAIN",
        limit,
        longest,
    )
    return longest


def mount(operations: Operations, path: Path, options: set[str]) -> Mountpoint:
    """Mount at *path*; MountFailed if it can't be, the reason having been printed by libfuse."""
    try:
        pyfuse3.init(
            operations,
            str(path),
            {"default_permissions", "fsname=zeventfs", "subtype=zeventfs", *options},
        )
    except RuntimeError as error:
        raise MountFailed(f"can't mount at {path}: {error}") from error
    return Mountpoint(path)


async def unmount(mountpoint: Mountpoint) -> None:
    """Close the session, and detach what is left of the mount, whatever ended it.

    In this order: nobody answers any more, and a closed connection is an error at once for
    whoever asks the mounted tree something, umount(8) included.
    """
    pyfuse3.close(unmount=False)
    if mountpoint.is_ours:
        log.warning("the mount at %s has no daemon any more: detaching it", mountpoint.path)
        await mountpoint.detach()


async def serve(
    operations: Operations,
    bells: Callable[[], Iterable[Bell]],
    mountpoint: Mountpoint,
    ready: Callable[[], None],
    asked: EndSignals,
) -> None:
    """Answer the kernel until the mount is over; call *ready* as soon as it is answered."""
    waits = operations.waits
    answering = trio.Event()
    operations.init = answering.set  # type: ignore[method-assign]

    def ended() -> None:
        # Whoever is blocked is answered for order's sake; no reply arrives any more.
        logging.getLogger("pyfuse3").setLevel(logging.CRITICAL)
        waits.end()
        _wake(bells)

    watch(waits.interrupt, ended)
    async with trio.open_nursery() as nursery:

        async def announce() -> None:
            await answering.wait()
            ready()

        async def end_by_signal() -> None:
            number = await asked.wait()
            log.info("%s: the mount ends", number.name)
            await _end(waits, bells, mountpoint)

        nursery.start_soon(announce)
        nursery.start_soon(end_by_signal)
        await pyfuse3.main(_IDLE_WORKERS, MOST_WAITING + _OTHER_WORKERS)
        waits.end()
        nursery.cancel_scope.cancel()


def _wake(bells: Callable[[], Iterable[Bell]]) -> None:
    """Have everybody look again, who sleeps in poll(2) too."""
    for bell in bells():
        bell.ring()


async def _end(waits: Waits, bells: Callable[[], Iterable[Bell]], mountpoint: Mountpoint) -> None:
    """Answer everybody, let go of the mountpoint, and stop."""
    waits.end()
    _wake(bells)
    while len(waits):
        await trio.lowlevel.checkpoint()
    await mountpoint.detach()
    pyfuse3.terminate()
