"""The kernel's requests, translated to nodes and back; what the tree is, is not decided here.

pyfuse3 ends the mount when a handler raises anything but a FUSEError. So every handler is wrapped
by `answers`: zeventfs's own errors become their errno, and anything else EIO and a logged
traceback. All handlers run in one trio thread.
"""

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from zeventfs.errors import Closing, Denied, Fixed, NotFound, WouldBlock, ZeventfsError
from zeventfs.fuse.handles import HandleTable
from zeventfs.fuse.requests import getattr_handle, poll_request, pyfuse3, read_request
from zeventfs.fuse.waits import Waits
from zeventfs.nodes.base import Directory, File, Node

__all__ = ["Operations", "Ownership"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_KEEP_NAMES_S = 60  # how long the kernel may keep a name that always means the same node
_BLOCK = 512  # the unit of st_blocks, stat(2)
_NAME_MAX = 255


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
            return stat.S_IFDIR | readable | readable >> 2
        assert isinstance(node, File)
        mode = self.mode & 0o444 if node.readable else 0
        return stat.S_IFREG | mode | (0o200 if node.writable else 0)


def answers(
    handler: "Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]]",
) -> "Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]]":
    """Let nothing but a FUSEError out of *handler*."""

    @functools.wraps(handler)
    async def answer(self: "Operations", /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.waits.closing:
            raise pyfuse3.FUSEError(Closing.errno)
        try:
            return await handler(self, *args, **kwargs)
        except ZeventfsError as error:
            if error.errno == errno.EINVAL:
                log.warning("%s: %s", handler.__name__, error)
            raise pyfuse3.FUSEError(error.errno) from None
        except pyfuse3.FUSEError:
            raise
        except Exception:
            log.exception("%s%r failed", handler.__name__, args)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return answer


class Operations(pyfuse3.Operations):
    """The tree under *root*; *capacity* and *used* are what df shows, in bytes."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self,
        root: Directory,
        owner: Ownership,
        handles: HandleTable,
        waits: Waits,
        space: Callable[[], tuple[int, int]],
    ) -> None:
        super().__init__()
        self.waits = waits
        self.handles = handles
        self._owner = owner
        self._space = space
        self._root = root
        self._nodes: dict[int, Node] = {pyfuse3.ROOT_INODE: root}
        self._lookups: dict[int, int] = {}
        self._listings: dict[int, list[tuple[str, Node]]] = {}
        self._next_listing = 0

    # Nodes and their attributes

    def _node(self, inode: int) -> Node:
        try:
            return self._nodes[inode]
        except KeyError:
            raise NotFound(f"inode {inode}") from None

    def _directory(self, inode: int) -> Directory:
        node = self._node(inode)
        if not isinstance(node, Directory):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return node

    def _inode(self, node: Node) -> int:
        return pyfuse3.ROOT_INODE if node is self._root else node.ino

    def _remember(self, node: Node) -> None:
        """Count one more name or listing by which the kernel knows *node*."""
        inode = self._inode(node)
        self._nodes.setdefault(inode, node)
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    async def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        measured = await node.measure()
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(self._inode(node))
        entry.st_mode = pyfuse3.ModeT(self._owner.mode_of(node))
        entry.st_nlink = 1
        entry.st_uid = self._owner.uid
        entry.st_gid = self._owner.gid
        entry.st_size = measured.size
        entry.st_blocks = -(-measured.size // _BLOCK)
        entry.st_blksize = 4096
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = measured.mtime_ns
        entry.attr_timeout = 0  # sizes move without the kernel's doing
        entry.entry_timeout = _KEEP_NAMES_S if node.fixed else 0
        return entry

    @answers
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        del ctx
        node = self._directory(parent_inode).lookup(os.fsdecode(name))
        entry = await self._attributes(node)
        self._remember(node)
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            left = self._lookups.get(inode, 0) - count
            if left > 0:
                self._lookups[inode] = left
            elif inode != pyfuse3.ROOT_INODE:
                self._lookups.pop(inode, None)
                self._nodes.pop(inode, None)

    @answers
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        del ctx
        fh = getattr_handle()
        if fh is not None:
            # Only lseek(SEEK_END) asks so: the one sign of it that reaches us.
            self.handles[fh].opened.seek_to_end()
        return await self._attributes(self._node(inode))

    @answers
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        del attr, fh, ctx
        node = self._node(inode)
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise Fixed("modes and owners are given at mount")
        if fields.update_size and not (isinstance(node, File) and node.writable):
            raise Denied("not for writing")
        if not fields.update_size and (fields.update_atime or fields.update_mtime):
            raise Fixed("times are those of events")
        # O_TRUNC on a control file comes as a size of 0, and means nothing there.
        return await self._attributes(node)

    # Directories

    @answers
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        del ctx
        listing = self._next_listing
        self._next_listing += 1
        self._listings[listing] = list(self._directory(inode).entries())
        return listing

    @answers
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        for index in range(start_id, len(listing)):
            name, node = listing[index]
            entry = await self._attributes(node)
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, index + 1):
                break
            self._remember(node)

    async def releasedir(self, fh: int) -> None:
        self._listings.pop(fh, None)

    @answers
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        del ctx
        capacity, used = self._space()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks = -(-capacity // 4096)
        data.f_bfree = data.f_bavail = max(0, capacity - used) // 4096
        data.f_files = len(self._nodes)
        data.f_ffree = data.f_favail = 0
        data.f_namemax = _NAME_MAX
        return data

    # Files

    @answers
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self._node(inode)
        if not isinstance(node, File):
            raise pyfuse3.FUSEError(errno.EISDIR)
        access = flags & os.O_ACCMODE
        # root passes the kernel's check of the mode; what a file is not for, it is not for root
        if access != os.O_RDONLY and not node.writable:
            raise Denied("not for writing")
        if access != os.O_WRONLY and not node.readable:
            raise Denied("not for reading")
        opened = await node.open(ctx.pid)
        try:
            handle = self.handles.add(self._inode(node), ctx.pid, opened)
        except ZeventfsError:
            opened.close()
            raise
        # Sizes move and streams have none: the kernel must keep no pages and ask every time.
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle.fh), direct_io=True)

    @answers
    async def read(self, fh: int, off: int, size: int) -> bytes:
        unique, _pid, flags = read_request()  # before the first await: it is of this moment
        handle = self.handles[fh]
        opened = handle.opened
        answer = opened.read(off, size)
        if answer is None:
            if flags & os.O_NONBLOCK:
                raise WouldBlock("nothing new")
            assert opened.bell is not None
            attempt = functools.partial(opened.read, off, size)
            answer = await self.waits.until(unique, opened.bell, attempt)
        if handle.reader is not None:
            self.handles.record(handle)
        return answer  # type: ignore[return-value]  # pyfuse3 takes any buffer, its stub bytes

    @answers
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self.handles[fh].opened.write(off, buf)

    @answers
    async def poll(
        self,
        inode: int,
        fh: int,
        poll_handle: pyfuse3.PollHandle | None,
        ctx: pyfuse3.RequestContext,
    ) -> int:
        del inode, ctx
        _unique, kernel_handle, _schedule = poll_request()
        handle = self.handles[fh]
        opened = handle.opened
        ready = opened.ready()
        if poll_handle is not None and opened.bell is not None:
            opened.bell.call(handle, poll_handle.notify)
            self.handles.record_poll(handle, kernel_handle)
        return ready

    async def flush(self, fh: int) -> None:
        """close(2) of one of the handle's descriptors: nothing is held back."""

    async def fsync(self, fh: int, datasync: bool) -> None:  # noqa: FBT001 - pyfuse3's signature
        """What was written is carried out already."""

    async def release(self, fh: int) -> None:
        try:
            handle = self.handles.remove(fh)
            if handle.opened.bell is not None:
                handle.opened.bell.forget(handle)
            handle.opened.close()
        except Exception:
            log.exception("release of %d failed", fh)

    # The tree is not changed from outside

    async def _refuse(self, *_: object) -> NoReturn:
        raise pyfuse3.FUSEError(Fixed.errno)

    async def _unsupported(self, *_: object) -> NoReturn:
        raise pyfuse3.FUSEError(errno.EOPNOTSUPP)

    create: Any = _refuse
    link: Any = _refuse
    mkdir: Any = _refuse
    mknod: Any = _refuse
    rename: Any = _refuse
    rmdir: Any = _refuse
    symlink: Any = _refuse
    unlink: Any = _refuse
    getxattr: Any = _unsupported
    listxattr: Any = _unsupported
    removexattr: Any = _unsupported
    setxattr: Any = _unsupported
