"""Which nodes the kernel knows, by inode number, and what stat(2) shows of them.

A node is kept for as long as the kernel has not forgotten as many lookups of it as it was answered;
so what has gone from the tree can still be told to those who hold it.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

from zeventfs.errors import NotFound
from zeventfs.fuse.requests import pyfuse3
from zeventfs.nodes.base import Directory, File, Node

__all__ = ["Inodes", "Ownership"]

_KEEP_NAMES_S = 60  # how long the kernel may keep a name that always means the same node
# To check who may pass, the kernel wants the mode of each directory on each path, and asks for all
# attributes when it has none that last: three requests for one stat(2). Of a directory nothing
# moves but the time, which so may be late by this much.
_KEEP_DIRECTORIES_S = 0.02
# `ls -l` asks for each name right after the listing that told all of it, up to three requests for
# each, of which none is needed for as long as the listing is believed. It is a tick or two.
_BELIEVE_LISTINGS_S = 0.005
_BLOCK = 512  # the unit of st_blocks, stat(2)


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns the tree, and the permission bits of files that can be read."""

    uid: int
    gid: int
    mode: int

    def mode_of(self, node: Node) -> int:
        """st_mode of *node*: whoever may read may list, and only the owner may steer."""
        if isinstance(node, Directory):
            readable = self.mode & 0o444
            return stat.S_IFDIR | readable | readable >> 2 | (0o200 if node.steerable else 0)
        assert isinstance(node, File)
        readers = 0o400 if node.private else 0o444
        mode = self.mode & readers if node.readable else 0
        return stat.S_IFREG | mode | (0o200 if node.writable else 0)


class Inodes:
    """The nodes below and with *root*, as far as the kernel knows them."""

    def __init__(self, root: Directory, owner: Ownership) -> None:
        self._root = root
        self._owner = owner
        self._nodes: dict[int, Node] = {pyfuse3.ROOT_INODE: root}
        self._lookups: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, inode: int) -> Node:
        try:
            return self._nodes[inode]
        except KeyError:
            raise NotFound(f"inode {inode}") from None

    def number(self, node: Node) -> int:
        """By which number the kernel knows *node*, or would."""
        return pyfuse3.ROOT_INODE if node is self._root else node.ino

    def name(self, inode: int) -> str:
        """What *inode* is called for a person: its node's key, or its number if it is forgotten."""
        node = self._nodes.get(inode)
        return f"inode={inode}" if node is None else node.key or "/"

    def remember(self, node: Node) -> None:
        """Count one more answer that named *node* to the kernel."""
        inode = self.number(node)
        self._nodes.setdefault(inode, node)
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take the kernel's word that it knows so many answers less of each inode."""
        for inode, count in counts:
            left = self._lookups.pop(inode, 0) - count
            if left > 0:
                self._lookups[inode] = left
            elif inode != pyfuse3.ROOT_INODE:
                self._nodes.pop(inode, None)

    async def attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        """What stat(2) shows of *node*, true at this moment."""
        measured = await node.measure()
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(self.number(node))
        entry.st_mode = pyfuse3.ModeT(self._owner.mode_of(node))
        entry.st_nlink = 1
        entry.st_uid = self._owner.uid
        entry.st_gid = self._owner.gid
        entry.st_size = measured.size
        entry.st_blocks = -(-measured.size // _BLOCK)
        entry.st_blksize = 4096
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = measured.mtime_ns
        # sizes move without the kernel's doing
        entry.attr_timeout = _KEEP_DIRECTORIES_S if isinstance(node, Directory) else 0
        entry.entry_timeout = _KEEP_NAMES_S if node.fixed else 0
        return entry

    async def listed(self, node: Node) -> pyfuse3.EntryAttributes:
        """What a listing tells of *node*."""
        entry = await self.attributes(node)
        entry.attr_timeout = max(entry.attr_timeout, _BELIEVE_LISTINGS_S)
        entry.entry_timeout = max(entry.entry_timeout, _BELIEVE_LISTINGS_S)
        return entry
