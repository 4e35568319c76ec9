"""One mount, from its beginning to its end.

The end comes in one of three ways: `zeventfs umount` or a signal asks for it (all requests are
answered with ESHUTDOWN, the mount is detached, then the daemon leaves), the kernel unmounts when
the last user is gone, or somebody aborts the connection. In each, every wait is ended first.
"""

import logging
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import trio

from zeventfs.bell import Bell
from zeventfs.errors import MountFailed
from zeventfs.fuse.operations import Operations
from zeventfs.fuse.requests import pyfuse3, watch
from zeventfs.fuse.waits import Waits

__all__ = ["MOST_WAITING", "longest_wait_s", "mount", "serve"]

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
_OTHER_WORKERS = 64  # so that whatever waits, something is left to answer
_IDLE_WORKERS = 4
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


def mount(operations: Operations, mountpoint: Path, options: set[str]) -> None:
    """Mount; MountFailed if it can't be, the reason having been printed by libfuse."""
    try:
        pyfuse3.init(
            operations,
            str(mountpoint),
            {"default_permissions", "fsname=zeventfs", "subtype=zeventfs", *options},
        )
    except RuntimeError as error:
        raise MountFailed(f"can't mount at {mountpoint}: {error}") from error


async def serve(
    operations: Operations, bells: list[Bell], mountpoint: Path, ready: Callable[[], None]
) -> None:
    """Answer the kernel until the mount is over; call *ready* as soon as it is answered."""
    waits = operations.waits
    answering = trio.Event()
    operations.init = answering.set  # type: ignore[method-assign]

    def ended() -> None:
        waits.end()
        _wake(bells)

    watch(waits.interrupt, ended)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def announce() -> None:
                await answering.wait()
                ready()

            async def end_by_signal() -> None:
                async for number in signals:
                    if number != signal.SIGHUP:
                        log.info("%s: the mount ends", signal.Signals(number).name)
                        await _end(waits, bells, mountpoint)
                        return

            nursery.start_soon(announce)
            nursery.start_soon(end_by_signal)
            await pyfuse3.main(_IDLE_WORKERS, MOST_WAITING + _OTHER_WORKERS)
            waits.end()
            nursery.cancel_scope.cancel()


def _wake(bells: list[Bell]) -> None:
    """Have everybody look again, who sleeps in poll(2) too."""
    for bell in bells:
        bell.ring()


async def _end(waits: Waits, bells: list[Bell], mountpoint: Path) -> None:
    """Answer everybody, let go of the mountpoint, and stop."""
    waits.end()
    _wake(bells)
    while len(waits):
        await trio.lowlevel.checkpoint()
    command = ["umount", "-l", "--"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z", "--"]
    done = await trio.run_process(
        [*command, str(mountpoint)], check=False, capture_stdout=True, capture_stderr=True
    )
    if done.returncode:
        log.warning("%s: %s", " ".join(command), done.stderr.decode(errors="replace").strip())
    pyfuse3.terminate()
