"""A floor: the least that pyfuse3 can do and still answer; run as a process of its own.

`constant` answers every read with one `bytes`; a read of `wait` blocks until somebody writes to
`set` or one of its `children` ends (simulated tapdisks, a pid a line), and gets the time
(CLOCK_REALTIME, ns, decimal) of the moment when that was noticed, padded to an event's length.
"""

import argparse
import errno
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pyfuse3
import trio

from zeventfs.simulator.tapdisk import command

__all__ = ["Floor"]

GUEST_RATE = 20  # as the simulator's
CONSTANT = pyfuse3.InodeT(2)
WAIT = pyfuse3.InodeT(3)
SET = pyfuse3.InodeT(4)
CHILDREN = pyfuse3.InodeT(5)
NAMES = {b"constant": CONSTANT, b"wait": WAIT, b"set": SET, b"children": CHILDREN}


class Floor(pyfuse3.Operations):
    """Files in one directory; *size* and *length* are bytes of `constant` and of `wait`."""

    def __init__(self, size: int, length: int, children: Sequence[int]) -> None:
        super().__init__()
        self._children = b"".join(b"%d\n" % pid for pid in children)
        self._constant = b"x" * size
        self._length = length
        self._answer = b""
        self._posted = trio.Event()

    async def lookup(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        if parent_inode != pyfuse3.ROOT_INODE or name not in NAMES:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(NAMES[name], ctx)

    async def getattr(
        self,
        inode: pyfuse3.InodeT,
        ctx: pyfuse3.RequestContext,  # noqa: ARG002  pyfuse3 passes it
    ) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = pyfuse3.ModeT(
            stat.S_IFDIR | 0o555 if inode == pyfuse3.ROOT_INODE else stat.S_IFREG | 0o644
        )
        entry.attr_timeout = 0
        return entry

    async def open(
        self,
        inode: pyfuse3.InodeT,
        flags: pyfuse3.FlagT,  # noqa: ARG002  pyfuse3 passes it
        ctx: pyfuse3.RequestContext,  # noqa: ARG002  pyfuse3 passes it
    ) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=True)

    async def read(
        self,
        fh: pyfuse3.FileHandleT,
        off: int,
        size: int,
    ) -> bytes:
        if fh == CONSTANT:  # which is the same everywhere
            constant = self._constant
            return constant if size >= len(constant) else constant[:size]
        if fh == CHILDREN:
            return self._children[off : off + size]
        await self._posted.wait()
        return self._answer

    async def write(
        self,
        fh: pyfuse3.FileHandleT,  # noqa: ARG002  only `set` can be written
        off: int,  # noqa: ARG002  nor does it matter where
        buf: bytes,
    ) -> int:
        self._post()
        return len(buf)

    async def follow(self, child: int) -> None:
        """Wait for the end of the process *child*, and wake who reads `wait`."""
        fd = os.pidfd_open(child)
        await trio.lowlevel.wait_readable(fd)
        self._post()
        os.close(fd)

    def _post(self) -> None:
        posted = self._posted
        self._posted = trio.Event()
        self._answer = b"%d" % time.time_ns()
        self._answer = self._answer.ljust(self._length - 1) + b"\n"
        posted.set()


@contextmanager
def tapdisks(number: int, directory: str) -> Iterator[list[int]]:
    """The pids of *number* simulated tapdisks in *directory*, once they are ready."""
    places = ("--dir", directory, "--shm", directory)
    start = command("-D", *places, "--rate", str(GUEST_RATE), parent=os.getpid())
    with ExitStack() as stack:
        started = []
        for _ in range(number):
            child = stack.enter_context(subprocess.Popen(start, stdout=subprocess.PIPE))
            stack.callback(child.kill)
            started.append(child)
        for child in started:
            assert child.stdout is not None
            child.stdout.readline()
        yield [child.pid for child in started]


async def serve(floor: Floor, children: Sequence[int], tasks: int) -> None:
    """Answer with *tasks* workers until SIGTERM or the unmount."""

    async def end_on_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                pyfuse3.terminate()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_on_signal)
        for child in children:
            nursery.start_soon(floor.follow, child)
        await pyfuse3.main(min_tasks=1, max_tasks=tasks)
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mountpoint")
    parser.add_argument("--size", type=int, default=131072)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tasks", type=int, default=99)
    parser.add_argument("--children", type=int, default=0)
    parser.add_argument("--directory", default="", help="the children's, for their sockets")
    arguments = parser.parse_args()
    with tapdisks(arguments.children, arguments.directory) as children:
        floor = Floor(arguments.size, arguments.length, children)
        pyfuse3.init(
            floor,
            os.fspath(arguments.mountpoint),
            {*pyfuse3.default_options, "fsname=floor_pyfuse3"},
        )
        try:
            trio.run(serve, floor, children, arguments.tasks)
        finally:
            pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
