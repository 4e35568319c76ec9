"""The kernel, as pyfuse3 hands on its requests, and what it would be told of them."""

import os
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from tree_client import World

from zeventfs.fuse import operations
from zeventfs.fuse.handles import HandleTable
from zeventfs.fuse.operations import Operations, Ownership
from zeventfs.fuse.requests import pyfuse3
from zeventfs.fuse.waits import Waits

__all__ = ["ATTRIBUTES", "CONTEXT", "ROOT", "Kernel", "error_of", "fields"]

ROOT = pyfuse3.ROOT_INODE
CONTEXT = pyfuse3.RequestContext()
ATTRIBUTES = pyfuse3.EntryAttributes()


class Kernel:
    """Asks what the kernel would; what the extension would tell of a request is set here."""

    def __init__(self, world: World, mode: int = 0o440) -> None:
        self.world = world
        self.waits = Waits(10)
        self.flags = 0
        self.unique = 0
        self.getattr_fh: int | None = None
        self.room = 1000
        self.listed: list[tuple[str, int, int]] = []
        self.handles = HandleTable(None)
        self.ops: Any = Operations(
            world.root,
            Ownership(11, 22, mode),
            self.handles,
            self.waits,
            lambda: (1 << 20, world.journal.kept),
        )

    def read_request(self) -> tuple[int, int, int]:
        self.unique += 1
        return self.unique, 1, self.flags

    def readdir_reply(self, _token: object, name: bytes, entry: Any, next_id: int) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.listed.append((os.fsdecode(name), entry.st_ino, next_id))
        return True

    async def lookup(self, path: str) -> int:
        inode: int = ROOT
        for name in path.split("/"):
            inode = (await self.ops.lookup(inode, name.encode(), CONTEXT)).st_ino
        return inode

    async def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        info = await self.ops.open(await self.lookup(path), flags, CONTEXT)
        assert info.direct_io
        assert not info.keep_cache
        fh: int = info.fh
        return fh

    async def stat(self, path: str) -> pyfuse3.EntryAttributes:
        entry: pyfuse3.EntryAttributes = await self.ops.getattr(await self.lookup(path), CONTEXT)
        return entry

    async def list(self, fh: int, start: int = 0) -> list[str]:
        self.listed.clear()
        await self.ops.readdir(fh, start, None)
        return [name for name, _, _ in self.listed]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have what a request's facts are asked of, and where listings go, be this kernel."""
        monkeypatch.setattr(operations, "read_request", self.read_request)
        monkeypatch.setattr(operations, "getattr_handle", lambda: self.getattr_fh)
        monkeypatch.setattr(operations, "poll_request", lambda: (1, 77, True))
        monkeypatch.setattr(pyfuse3, "readdir_reply", self.readdir_reply)


async def error_of(call: Awaitable[object]) -> int:
    with pytest.raises(pyfuse3.FUSEError) as refused:
        await call
    return refused.value.errno


def fields(*names: str) -> SimpleNamespace:
    every = ("atime", "mtime", "ctime", "mode", "uid", "gid", "size")
    return SimpleNamespace(**{f"update_{name}": name in names for name in every})
