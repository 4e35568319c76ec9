"""What debug/requests says of what the kernel asked."""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from kernel_client import ATTRIBUTES, CONTEXT, ROOT, Kernel, error_of, fields
from tree_client import Client, World

from zeventfs.errors import Denied
from zeventfs.fuse import answers
from zeventfs.fuse.operations import Ownership
from zeventfs.nodes.debug import debug_directory

PID = 4711


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def kernel(world: World, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(world)
    kernel.install(monkeypatch)
    monkeypatch.setattr(answers, "current", lambda: (0, 0, PID))
    monkeypatch.setattr("zeventfs.fuse.operations.current", lambda: (0, 0, PID))
    return kernel


def told(kernel: Kernel) -> list[str]:
    """The lines, without when and how long."""
    found = []
    for line in kernel.ops.requests().decode().splitlines():
        words = line.split()
        if words[-1] != "waiting":
            assert words.pop(-2).endswith("us")
        found.append(" ".join(words[1:]))
    return found


async def test_the_life_of_an_open_file(kernel: Kernel) -> None:
    kernel.world.post()
    fh = await kernel.open("events/log")
    length = len(await kernel.ops.read(fh, 0, 4096))
    await kernel.ops.flush(fh)
    await kernel.ops.fsync(fh, False)  # noqa: FBT003 - pyfuse3's way of calling
    await kernel.ops.release(fh)
    log = "segment/epoch/1"
    assert told(kernel) == [
        f"lookup /events pid={PID} ok",
        f"lookup events/log pid={PID} ok",
        f"open {log} pid={PID} ok",
        f"read {log} offset=0 size=4096 pid={PID} {length}",
        f"flush {log} pid={PID} ok",
        f"fsync {log} pid={PID} ok",
        f"release {log} pid={PID} ok",
    ]


async def test_a_blocked_read_waits_and_then_has_its_answer(kernel: Kernel) -> None:
    fh = await kernel.open("events/stream")
    begun = f"read events/stream offset=0 size=99999 pid={PID}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.ops.read, fh, 0, 99999)
        await trio.testing.wait_all_tasks_blocked()
        assert told(kernel)[-1] == f"{begun} waiting"
        kernel.world.post()
    assert told(kernel)[-1] == f"{begun} {kernel.world.journal.lines.end}"


async def test_a_signal_and_a_read_that_may_not_wait_are_their_errors(kernel: Kernel) -> None:
    fh = await kernel.open("events/stream")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(error_of, kernel.ops.read(fh, 0, 10))
        await trio.testing.wait_all_tasks_blocked()
        kernel.waits.interrupt(kernel.unique)
    kernel.flags = os.O_NONBLOCK
    await error_of(kernel.ops.read(fh, 0, 10))
    read = f"read events/stream offset=0 size=10 pid={PID}"
    assert told(kernel)[-2:] == [f"{read} EINTR", f"{read} EAGAIN"]


async def test_directories_and_writes(kernel: Kernel) -> None:
    listing = await kernel.ops.opendir(ROOT, CONTEXT)
    await kernel.list(listing)
    await kernel.ops.releasedir(listing)
    await kernel.ops.statfs(CONTEXT)
    clear = await kernel.open("events/clear", os.O_WRONLY)
    await kernel.ops.setattr(
        await kernel.lookup("events/clear"), ATTRIBUTES, fields("size"), None, CONTEXT
    )
    await kernel.ops.write(clear, 3, b"1\n")
    stream = await kernel.open("events/stream")
    await kernel.ops.poll(await kernel.lookup("events/stream"), stream, None, CONTEXT)
    await kernel.ops.getattr(ROOT, CONTEXT)
    seen = [line for line in told(kernel) if not line.startswith(("lookup", "open "))]
    assert seen == [
        f"opendir / pid={PID} ok",
        f"readdir / pid={PID} ok",
        f"releasedir / pid={PID} ok",
        f"statfs / pid={PID} ok",
        f"setattr events/clear pid={PID} ok",
        f"write events/clear offset=3 size=2 pid={PID} 2",
        f"poll events/stream pid={PID} 0x0",
        f"getattr / pid={PID} ok",
    ]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda ops: ops.lookup(ROOT, b"no\n", CONTEXT), r"lookup /no\x0a pid=4711 ENOENT"),
        (lambda ops: ops.getattr(9, CONTEXT), "getattr inode=9 pid=4711 ENOENT"),
        (lambda ops: ops.open(ROOT, 0, CONTEXT), "open / pid=4711 EISDIR"),
        (lambda ops: ops.mkdir(ROOT, b"x", 0, CONTEXT), "mkdir /x pid=4711 EPERM"),
        (lambda ops: ops.link(ROOT, ROOT, b"x", CONTEXT), "link / pid=4711 EPERM"),
        (lambda ops: ops.listxattr(ROOT, CONTEXT), "listxattr / pid=4711 ENOSYS"),
        (lambda ops: ops.getxattr(ROOT, b"user.x", CONTEXT), "getxattr / pid=4711 ENOSYS"),
        (lambda ops: ops.read(99, 0, 1), "read inode=0 offset=0 size=1 pid=4711 EIO"),
        (lambda ops: ops.write(99, 0, b"x"), "write inode=0 offset=0 size=1 pid=4711 EIO"),
        (lambda ops: ops.readdir(99, 0, None), "readdir inode=0 pid=4711 EIO"),
    ],
)
async def test_refusals_are_their_errors(
    kernel: Kernel, call: Callable[[Any], Any], line: str
) -> None:
    await error_of(call(kernel.ops))
    assert told(kernel) == [line]


async def test_what_is_asked_at_the_end_of_the_mount_is_there_too(kernel: Kernel) -> None:
    fh = await kernel.open("README")
    kernel.waits.end()
    assert await error_of(kernel.ops.read(fh, 0, 1)) == errno.ESHUTDOWN
    assert await error_of(kernel.ops.statfs(CONTEXT)) == errno.ESHUTDOWN
    await kernel.ops.release(fh)
    assert [line.split()[-1] for line in told(kernel)[-3:]] == ["ESHUTDOWN", "ESHUTDOWN", "ok"]


async def test_a_read_of_a_closed_handle_keeps_its_name_when_the_number_is_anothers(
    kernel: Kernel,
) -> None:
    fh = await kernel.open("README")
    await kernel.ops.read(fh, 0, 1)
    await kernel.ops.release(fh)
    assert await kernel.open("events/status") == fh
    assert f"read README offset=0 size=1 pid={PID} 1" in told(kernel)


async def test_an_inode_that_is_forgotten_is_its_number(kernel: Kernel) -> None:
    inode = await kernel.lookup("README")
    await kernel.ops.getattr(inode, CONTEXT)
    await kernel.ops.forget([(inode, 1)])
    assert told(kernel)[-1] == f"getattr inode={inode} pid={PID} ok"


async def test_the_file_is_one_moment_and_the_owners_alone() -> None:
    said = [b"first\n"]
    client = Client(debug_directory(lambda: said[0], lambda: 17))
    assert client.names("") == ["requests"]
    opened = await client.open("requests")
    said[0] = b"second, longer\n"
    assert await opened.read() == b"first\n"
    assert (await client.stat("requests")).size == 15
    assert (await client.stat("requests")).mtime_ns == 17
    with pytest.raises(Denied):
        await opened.write(b"x")
    requests = client.node("requests")
    for mode, shown in ((0o440, 0o400), (0o444, 0o400), (0o044, 0)):
        assert Ownership(0, 0, mode).mode_of(requests) & 0o777 == shown


async def test_of_a_large_read_what_follows_is_fetched(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[bytes] = []
    monkeypatch.setattr(
        "zeventfs.fuse.operations.read_ahead", lambda following: fetched.append(bytes(following))
    )
    for _ in range(4):
        kernel.world.post(size=12_000)
    fh = await kernel.open("events/log")
    answer = await kernel.ops.read(fh, 0, 40_000)
    assert fetched == [bytes(await kernel.ops.read(fh, len(answer), 40_000))]
    assert told(kernel)[-2].endswith(f"size=40000 pid={PID} {len(answer)}")
