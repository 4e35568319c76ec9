"""A small file system that writes down what zeventfs.fuse.requests says of each request.

Arguments: mountpoint, file for the facts (one JSON object to a line, each of one key). Of its
three files ``ready`` answers at once, ``wait`` when somebody writes to it, and ``late`` makes the
daemon linger between "readable" and reading from its second request on.
"""

import errno
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import IO, Any

import trio

from zeventfs.fuse import requests
from zeventfs.fuse.requests import pyfuse3

NAMES = {b"ready": 2, b"wait": 3, b"late": 4}


class Tree(pyfuse3.Operations):
    def __init__(self, facts: IO[str]) -> None:
        super().__init__()
        self._facts = facts
        self._waits: dict[int, trio.CancelScope] = {}
        self._wake = trio.Event()
        self.linger = 0.0

    def note(self, **fact: object) -> None:
        self._facts.write(json.dumps(fact) + "\n")

    def interrupted(self, unique: int) -> None:
        self.note(interrupted=unique)
        self._waits[unique].cancel()

    def ended(self) -> None:
        self.note(ended=True)
        for scope in self._waits.values():
            scope.cancel()

    def init(self) -> None:
        self.note(init=[requests.started(), requests.current()[0]])

    async def lookup(self, parent_inode: Any, name: Any, ctx: Any) -> pyfuse3.EntryAttributes:
        del parent_inode
        if name not in NAMES:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(NAMES[name], ctx)

    async def getattr(self, inode: Any, ctx: Any) -> pyfuse3.EntryAttributes:
        del ctx
        if requests.current()[0] == 3:
            self.note(getattr=requests.getattr_handle())
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == 1 else stat.S_IFREG | 0o644
        entry.entry_timeout = entry.attr_timeout = 0
        return entry

    async def setattr(
        self, inode: Any, attr: Any, fields: Any, fh: Any, ctx: Any
    ) -> pyfuse3.EntryAttributes:
        del attr, fields, fh
        return await self.getattr(inode, ctx)

    async def open(self, inode: Any, flags: Any, ctx: Any) -> pyfuse3.FileInfo:
        del flags, ctx
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def read(self, fh: Any, off: int, size: int) -> bytes:
        unique, pid, flags = requests.read_request()
        self.note(read=[unique, pid, flags])
        if fh == NAMES[b"late"]:
            self.linger = 0.3
        if fh != NAMES[b"wait"]:
            return b"ready\n"[off : off + size]
        if flags & os.O_NONBLOCK:
            raise pyfuse3.FUSEError(errno.EAGAIN)
        with trio.CancelScope() as scope:
            self._waits[unique] = scope
            try:
                await self._wake.wait()
            finally:
                del self._waits[unique]
        if scope.cancelled_caught:
            raise pyfuse3.FUSEError(errno.EINTR)
        return b"woken\n"

    async def write(self, fh: Any, off: int, buf: bytes) -> int:
        del fh, off
        opcode, *_ = requests.current()
        letter = buf[:1]
        await trio.sleep(0.05)  # other requests are received meanwhile
        self.note(write=[opcode, buf == letter * len(buf), letter.decode(), len(buf)])
        self._wake.set()
        return len(buf)

    async def poll(self, inode: Any, fh: Any, poll_handle: Any, ctx: Any) -> int:
        del inode, fh, ctx
        unique, kh, schedule = requests.poll_request()
        self.note(poll=[unique, kh, schedule, poll_handle is not None])
        return 0


async def beat(tree: Tree) -> None:
    """Show that the daemon's loop goes round."""
    while True:
        tree.note(beat=trio.current_time())
        await trio.sleep(0.05)


async def serve(tree: Tree) -> None:
    readable = trio.lowlevel.wait_readable

    async def late_readable(fd: int) -> None:
        await readable(fd)
        time.sleep(tree.linger)  # noqa: ASYNC251 - the daemon is busy, and a request may vanish

    trio.lowlevel.wait_readable = late_readable  # type: ignore[assignment] # takes just what pyfuse3 gives
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat, tree)
        await pyfuse3.main(min_tasks=5, max_tasks=1000)
        nursery.cancel_scope.cancel()


def main() -> None:
    mountpoint, facts = sys.argv[1:]
    with Path(facts).open("w", buffering=1, encoding="ascii") as lines:
        tree = Tree(lines)
        requests.watch(tree.interrupted, tree.ended)
        pyfuse3.init(tree, mountpoint, {"fsname=requests"})
        try:
            trio.run(serve, tree)
        finally:
            pyfuse3.close()
        tree.note(exit=True)


main()
