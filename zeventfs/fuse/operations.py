"""The kernel's requests, translated to nodes and back; what the tree is, is not decided here.

Every handler that can fail is wrapped by `answers`, which turns errors into errnos and tells the
trace. All handlers run in one trio thread.
"""

import errno
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from zeventfs.errors import Closing, Denied, Fixed, NotFound, Stale, WouldBlock
from zeventfs.fuse.answers import (
    answers,
    of_handle,
    of_inode,
    of_listing,
    of_name,
    of_tree,
    of_write,
    refusal,
    refused,
    traced,
)
from zeventfs.fuse.handles import HandleTable
from zeventfs.fuse.inodes import Inodes, Ownership
from zeventfs.fuse.passing import PassingNames
from zeventfs.fuse.requests import (
    current,
    getattr_handle,
    poll_request,
    pyfuse3,
    read_ahead,
    read_request,
)
from zeventfs.fuse.trace import Trace
from zeventfs.fuse.waits import Waits
from zeventfs.nodes.base import Buffer, Directory, File, Node, Open

__all__ = ["Operations", "Ownership"]

log = logging.getLogger(__name__)

_NAME_MAX = 255
_LARGE = 32 * 1024  # bytes; whoever reads so much at once reads on


class _Listing(NamedTuple):
    """An open directory: the names as they were when it was last read from its beginning."""

    directory: Directory
    entries: list[tuple[str, Node]]


def _wake(poller: pyfuse3.PollHandle) -> None:
    """Wake who sleeps in poll(2), if there is still a kernel to do so."""
    try:
        poller.notify()
    except OSError as error:  # whoever rings has nothing to do with a connection that ended
        log.debug("a poller was not woken: %s", error)


def _take_back(parent: int, name: bytes) -> None:
    """Have the kernel forget a name, soon: a thread of pyfuse3's tells it so."""
    inode = pyfuse3.InodeT(parent)
    pyfuse3.invalidate_entry_async(inode, pyfuse3.FileNameT(name), ignore_enoent=True)


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
        self.trace = Trace()
        self._space = space
        self._inodes = Inodes(root, owner)
        self._passing = PassingNames(_take_back)
        self._listings: dict[int, _Listing] = {}
        self._next_listing = 0

    def listed(self, fh: int) -> int:
        """The inode of the directory that is open as *fh*, 0 if none is."""
        listing = self._listings.get(fh)
        return 0 if listing is None else self._inodes.number(listing.directory)

    def requests(self) -> bytes:
        """The latest requests, for a person; see Trace.render."""
        return self.trace.render(self._inodes.name)

    def _directory(self, inode: int) -> Directory:
        node = self._inodes[inode]
        if not isinstance(node, Directory):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return node

    # Nodes and their attributes

    @answers(of_name)
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        del ctx
        directory, called = self._directory(parent_inode), os.fsdecode(name)
        node = directory.lookup(called)
        try:
            entry = await self._inodes.attributes(node)
        except Stale:  # evicted while it was measured: the name is another's by now, or nobody's
            node = directory.lookup(called)
            entry = await self._inodes.attributes(node)
        self._inodes.remember(node)
        if node.passing:
            self._passing.told(parent_inode, name, node)
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._inodes.forget(inode_list)

    @answers(of_inode)
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        del ctx
        fh = getattr_handle()
        opened = None if fh is None else self.handles[fh].opened
        entry = await self._inodes.attributes(self._inodes[inode])
        if opened is not None:
            # Only lseek(SEEK_END) asks so: the one sign of it that reaches us. The end is the one
            # that it is told here, whatever was still to be rendered for it.
            entry.st_size = opened.seek_to_end(entry.st_size)
        return entry

    @answers(of_inode)
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        del attr, fh, ctx
        node = self._inodes[inode]
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise Fixed("modes and owners are given at mount")
        if fields.update_size and not (isinstance(node, File) and node.writable):
            raise Denied("not for writing")
        if not fields.update_size and (fields.update_atime or fields.update_mtime):
            raise Fixed("times are those of events")
        # O_TRUNC on a control file comes as a size of 0, and means nothing there.
        return await self._inodes.attributes(node)

    # Directories

    @answers(of_inode)
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        del ctx
        directory = self._directory(inode)
        fh = self._next_listing
        self._next_listing += 1
        self._listings[fh] = _Listing(directory, [])
        return fh

    @answers(of_listing)
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        if start_id == 0:  # the first read, or rewinddir(3), which looks anew
            listing.entries[:] = listing.directory.entries()
        named = []
        for index, (name, node) in enumerate(listing.entries[start_id:], start_id + 1):
            try:
                entry = await self._inodes.listed(node)
            except (NotFound, Stale):  # gone since the listing began
                continue
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, index):
                break
            named.append(node)
        for node in named:  # only now is it sure that the kernel gets them
            self._inodes.remember(node)

    @traced(of_listing)
    async def releasedir(self, fh: int) -> None:
        self._listings.pop(fh, None)

    @answers(of_name)
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        del mode, ctx  # modes are given at mount
        node = self._directory(parent_inode).make(os.fsdecode(name))
        entry = await self._inodes.attributes(node)
        self._inodes.remember(node)
        return entry

    @answers(of_name)
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        del ctx
        self._directory(parent_inode).remove(os.fsdecode(name))

    @answers(of_tree)
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        del ctx
        capacity, used = self._space()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks = -(-capacity // 4096)
        data.f_bfree = data.f_bavail = max(0, capacity - used) // 4096
        data.f_files = len(self._inodes)
        data.f_ffree = data.f_favail = 0
        data.f_namemax = _NAME_MAX
        return data

    # Files

    @answers(of_inode)
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self._inodes[inode]
        if not isinstance(node, File):
            raise pyfuse3.FUSEError(errno.EISDIR)
        access = flags & os.O_ACCMODE
        # root passes the kernel's check of the mode; what a file is not for, it is not for root
        if (access != os.O_RDONLY or flags & os.O_TRUNC) and not node.writable:
            raise Denied("not for writing")
        if access != os.O_WRONLY and not node.readable:
            raise Denied("not for reading")
        opened = await node.open(ctx.pid)
        try:
            handle = self.handles.add(self._inodes.number(node), ctx.pid, opened)
        except BaseException:
            opened.close()
            raise
        # Sizes move and streams have none: the kernel must keep no pages and ask every time.
        fh = pyfuse3.FileHandleT(handle.fh)
        return pyfuse3.FileInfo(fh=fh, direct_io=True, keep_cache=False)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """As other handlers, but for the wrapper: a coroutine costs as much as the trace of it."""
        request = self.trace.begin("read", current()[2], self.handles.inode(fh), None, off, size)
        try:
            if self.waits.closing:
                raise Closing("the mount is at its end")  # noqa: TRY301 - answered as all are
            handle = self.handles[fh]
            opened = handle.opened
            answer = opened.read(off, size)
            if answer is None:
                answer = await self._next(opened, off, size)
            if handle.reader is not None:
                self.handles.record(handle)
            length = len(answer)
            if length >= _LARGE:
                read_ahead(opened.following(off + length, size))
        except Exception as error:  # noqa: BLE001 - refused logs it
            raise refused(self, request, error, (fh, off, size)) from None
        self.trace.end(request, length)
        return answer  # type: ignore[return-value]  # pyfuse3 takes any buffer, its stub bytes

    async def _next(self, opened: Open, off: int, size: int) -> Buffer:
        """What *opened* gives once there is something."""
        unique, _pid, flags = read_request()  # before the first await: it is of this moment
        if flags & os.O_NONBLOCK:
            raise WouldBlock("nothing new")
        assert opened.bell is not None
        return await self.waits.until(
            unique, opened.bell, functools.partial(opened.read, off, size)
        )

    @answers(of_write, int)
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self.handles[fh].opened.write(off, buf)

    @answers(of_inode, hex)
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
            opened.bell.call(handle, functools.partial(_wake, poll_handle))
            self.handles.record_poll(handle, kernel_handle)
        return ready

    @traced(of_handle)
    async def flush(self, fh: int) -> None:
        """close(2) of one of the handle's descriptors: nothing is held back."""

    @traced(of_handle)
    async def fsync(self, fh: int, datasync: bool) -> None:  # noqa: FBT001 - pyfuse3's signature
        """What was written is carried out already."""

    @traced(of_handle)
    async def release(self, fh: int) -> None:
        try:
            handle = self.handles.remove(fh)
            if handle.opened.bell is not None:
                handle.opened.bell.forget(handle)
            handle.opened.close()
        except Exception:
            log.exception("release of %d failed", fh)

    # The tree is not changed from outside, but for what mkdir and rmdir ask of some directories

    create: Any = refusal("create", errno.EPERM, of_name)
    link: Any = refusal("link", errno.EPERM, of_inode)
    mknod: Any = refusal("mknod", errno.EPERM, of_name)
    rename: Any = refusal("rename", errno.EPERM, of_name)
    symlink: Any = refusal("symlink", errno.EPERM, of_name)
    unlink: Any = refusal("unlink", errno.EPERM, of_name)
    # The kernel makes EOPNOTSUPP of it, and asks no more (fs/fuse/xattr.c).
    getxattr: Any = refusal("getxattr", errno.ENOSYS, of_inode)
    listxattr: Any = refusal("listxattr", errno.ENOSYS, of_inode)
    removexattr: Any = refusal("removexattr", errno.ENOSYS, of_inode)
    setxattr: Any = refusal("setxattr", errno.ENOSYS, of_inode)
