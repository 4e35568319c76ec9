"""What the kernel asks of the tree: attributes, inodes, directories; and the end of the mount."""

import errno
import os
import stat

import pytest
from kernel_client import ATTRIBUTES, CONTEXT, ROOT, Kernel, error_of, fields
from tree_client import NOW_NS, World

from zeventfs.errors import Busy, Stale
from zeventfs.fuse.operations import Ownership
from zeventfs.nodes.base import Attributes, Directory, Node, SnapshotFile

SMALL = pytest.mark.parametrize("world", [{"retain": 6000, "segment": 1000}], indirect=True)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    return World(**getattr(request, "param", {}))


@pytest.fixture
def kernel(world: World, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(world)
    kernel.install(monkeypatch)
    return kernel


# Attributes


@pytest.mark.parametrize(
    ("mode", "directory", "readable"),
    [(0o440, 0o550, 0o440), (0o444, 0o555, 0o444), (0o777, 0o555, 0o444), (0o600, 0o500, 0o400)],
)
def test_permissions_follow_from_mode(
    world: World, mode: int, directory: int, readable: int
) -> None:
    owner = Ownership(0, 0, mode)
    assert owner.mode_of(world.root) == stat.S_IFDIR | directory
    for path in ("README", "events/stream", "events/log.txt", "events/status"):
        assert owner.mode_of(world.client.node(path)) == stat.S_IFREG | readable
    for path in ("events/clear", "simulator/inject"):
        assert owner.mode_of(world.client.node(path)) == stat.S_IFREG | 0o200


async def test_attributes_of_files_are_true_and_never_kept(kernel: Kernel, world: World) -> None:
    world.post()
    entry = await kernel.stat("events/log")
    assert (entry.st_uid, entry.st_gid, entry.st_nlink) == (11, 22, 1)
    assert entry.st_size == world.journal.lines.end
    assert entry.st_blocks == -(-entry.st_size // 512)
    assert entry.st_mtime_ns == entry.st_ctime_ns == NOW_NS + 10**9
    assert entry.attr_timeout == entry.entry_timeout == 0
    assert (await kernel.stat("events/stream")).entry_timeout > 0
    assert (await kernel.ops.getattr(ROOT, CONTEXT)).st_ino == ROOT


async def test_a_name_whose_file_is_evicted_while_it_is_measured_is_the_next_ones(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Evicted(Node):
        async def measure(self) -> Attributes:
            raise Stale("evicted")

    found = [SnapshotFile("now log.1", lambda: b"x", lambda: NOW_NS), Evicted("then log.1")]
    monkeypatch.setattr(Directory, "lookup", lambda *_: found.pop())
    entry = await kernel.ops.lookup(ROOT, b"log.1", CONTEXT)
    assert (entry.st_size, found) == (1, [])
    found += [Evicted("once more"), Evicted("log.1")]
    assert await error_of(kernel.ops.lookup(ROOT, b"log.1", CONTEXT)) == errno.ESTALE


async def test_a_listing_is_believed_for_as_long_as_it_takes_to_go_through_it(
    kernel: Kernel,
) -> None:
    for name in ("events/log", "events/stream", "events/class"):
        entry = await kernel.ops._inodes.listed(kernel.world.client.node(name))
        assert 0 < entry.attr_timeout < 0.1
        assert entry.entry_timeout > 0
    assert (await kernel.stat("events/log")).attr_timeout == 0


async def test_the_modes_of_directories_are_not_asked_for_at_each_step_of_a_path(
    kernel: Kernel,
) -> None:
    for path in ("events", "simulator"):
        assert 0 < (await kernel.stat(path)).attr_timeout < 0.1
    assert (await kernel.ops.getattr(ROOT, CONTEXT)).attr_timeout > 0


async def test_df_shows_what_is_kept_of_what_may_be(kernel: Kernel, world: World) -> None:
    world.post(size=8192)
    free = (await kernel.ops.statfs(CONTEXT)).f_bfree * 4096
    assert (1 << 20) - 8192 - 4096 * 6 < free < (1 << 20) - 8192
    assert (await kernel.ops.statfs(CONTEXT)).f_blocks * 4096 == 1 << 20


@pytest.mark.parametrize(
    ("path", "changes", "answer"),
    [
        ("events/clear", ("size",), 0),
        ("simulator/inject", ("size", "mtime"), 0),
        ("events/stream", ("size",), errno.EACCES),
        ("events", ("size",), errno.EACCES),
        ("events/log", ("mode",), errno.EPERM),
        ("events/clear", ("uid", "size"), errno.EPERM),
        ("events/clear", ("gid",), errno.EPERM),
        ("events/clear", ("atime", "mtime"), errno.EPERM),
        ("events/clear", ("mtime",), errno.EPERM),
        ("events/clear", ("ctime",), 0),
    ],
)
async def test_only_what_is_written_to_may_be_truncated_and_nothing_else_changed(
    kernel: Kernel, world: World, path: str, changes: tuple[str, ...], answer: int
) -> None:
    world.post()
    call = kernel.ops.setattr(
        await kernel.lookup(path), ATTRIBUTES, fields(*changes), None, CONTEXT
    )
    if answer:
        assert await error_of(call) == answer
    else:
        await call
    assert world.journal.statistics().queued == 1, "O_TRUNC alone clears nothing"


async def test_the_tree_is_not_changed_from_outside(kernel: Kernel) -> None:
    for name in ("create", "link", "mknod", "rename", "symlink", "unlink"):
        assert await error_of(getattr(kernel.ops, name)(1, 2, 3)) == errno.EPERM
    for parent in (ROOT, await kernel.lookup("events")):
        assert await error_of(kernel.ops.mkdir(parent, b"x", 0o755, CONTEXT)) == errno.EPERM
        assert await error_of(kernel.ops.rmdir(parent, b"stream", CONTEXT)) == errno.EPERM
    readme = await kernel.lookup("README")
    assert await error_of(kernel.ops.mkdir(readme, b"x", 0o755, CONTEXT)) == errno.ENOTDIR
    for name in ("getxattr", "listxattr", "removexattr", "setxattr"):
        error = await error_of(getattr(kernel.ops, name)(1, 2))
        assert error == errno.ENOSYS, "the kernel asks once, and says EOPNOTSUPP from then on"


# Inodes


async def test_an_unknown_name_or_inode_is_not_found(kernel: Kernel) -> None:
    for call in (
        kernel.ops.lookup(ROOT, b"nothing", CONTEXT),
        kernel.ops.lookup(ROOT, b"\xff\xfe", CONTEXT),
        kernel.ops.lookup(4711, b"README", CONTEXT),
        kernel.ops.getattr(4711, CONTEXT),
        kernel.ops.open(4711, os.O_RDONLY, CONTEXT),
        kernel.ops.opendir(4711, CONTEXT),
        kernel.ops.setattr(4711, ATTRIBUTES, fields("size"), None, CONTEXT),
    ):
        assert await error_of(call) == errno.ENOENT
    readme = await kernel.lookup("README")
    assert await error_of(kernel.ops.lookup(readme, b"x", CONTEXT)) == errno.ENOTDIR
    assert await error_of(kernel.ops.opendir(readme, CONTEXT)) == errno.ENOTDIR
    assert await error_of(kernel.ops.open(ROOT, os.O_RDONLY, CONTEXT)) == errno.EISDIR


async def test_an_inode_is_known_until_it_is_forgotten_as_often_as_it_was_named(
    kernel: Kernel,
) -> None:
    inode = await kernel.lookup("README")
    assert await kernel.lookup("README") == inode
    await kernel.ops.forget([(inode, 1)])
    await kernel.ops.getattr(inode, CONTEXT)
    await kernel.ops.forget([(inode, 1), (4711, 3), (ROOT, 1)])
    assert await error_of(kernel.ops.getattr(inode, CONTEXT)) == errno.ENOENT
    await kernel.ops.getattr(ROOT, CONTEXT)


@SMALL
async def test_an_evicted_log_is_stale_to_who_has_its_inode_and_new_to_who_looks(
    kernel: Kernel,
) -> None:
    world = kernel.world
    world.post()
    inode = await kernel.lookup("events/log")
    for _ in range(100):
        world.post(size=500)
    assert await error_of(kernel.ops.getattr(inode, CONTEXT)) == errno.ESTALE
    assert await error_of(kernel.ops.open(inode, os.O_RDONLY, CONTEXT)) == errno.ESTALE
    assert await kernel.lookup("events/log") != inode


# Directories


async def test_a_listing_goes_on_where_it_stopped(kernel: Kernel) -> None:
    fh = await kernel.ops.opendir(await kernel.lookup("events"), CONTEXT)
    kernel.room = 2
    names = await kernel.list(fh)
    assert len(names) == 2
    last = kernel.listed[-1][2]
    for _ in range(3):  # rotations
        kernel.world.post()
        kernel.world.journal.clear()
    kernel.room = 1000
    names += await kernel.list(fh, last)
    streams = ["stream", "stream.nvl", "stream.txt"]
    logs = ["log", "log.nvl", "log.txt"]
    views = ["class", "source", "where"]
    assert sorted(names) == sorted(
        ["clear", "latest", *logs, "status", *streams, "summary", *views]
    )
    assert await kernel.list(fh, kernel.listed[-1][2]) == []
    assert "log.3" in await kernel.list(fh), "rewinddir looks anew"
    await kernel.ops.releasedir(fh)
    await kernel.ops.releasedir(fh)
    assert await error_of(kernel.ops.readdir(fh, 0, None)) == errno.EIO


@SMALL
async def test_what_is_evicted_during_a_listing_is_left_out(kernel: Kernel) -> None:
    world = kernel.world
    for _ in range(10):
        world.post(size=500)
    fh = await kernel.ops.opendir(await kernel.lookup("events"), CONTEXT)
    kernel.room = 1
    assert len(await kernel.list(fh)) == 1
    for _ in range(50):
        world.post(size=500)
    kernel.room = 1000
    rest = ["stream.txt", "stream.nvl", "clear", "latest", "status", "summary"]
    assert await kernel.list(fh, 1) == [*rest, "class", "source", "where"]


async def test_names_that_did_not_reach_the_kernel_are_not_counted(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fh = await kernel.ops.opendir(ROOT, CONTEXT)

    async def fail(_: object) -> None:
        raise Busy

    monkeypatch.setattr(type(kernel.world.events), "measure", fail)
    assert await error_of(kernel.ops.readdir(fh, 0, None)) == errno.EBUSY
    readme = kernel.world.client.node("README").ino
    assert await error_of(kernel.ops.getattr(readme, CONTEXT)) == errno.ENOENT
    monkeypatch.undo()
