"""What the kernel asks of open files: reads, writes, poll; and what errors become."""

import errno
import logging
import os
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
import trio
import trio.testing
from kernel_client import ATTRIBUTES, CONTEXT, ROOT, Kernel, error_of, fields
from tree_client import World

from zeventfs.errors import Invalid, ZeventfsError
from zeventfs.fuse import handles
from zeventfs.fuse.requests import pyfuse3
from zeventfs.nodes.base import Open


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def kernel(world: World, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(world)
    kernel.install(monkeypatch)
    return kernel


class Poller:
    """Stands for pyfuse3's PollHandle."""

    def __init__(self, error: OSError | None = None) -> None:
        self.notified = 0
        self.error = error

    def notify(self) -> None:
        self.notified += 1
        if self.error is not None:
            raise self.error


# Files


@pytest.mark.parametrize(
    ("path", "flags", "answer"),
    [
        ("events/stream", os.O_WRONLY, errno.EACCES),
        ("events/log", os.O_RDONLY | os.O_TRUNC, errno.EACCES),
        ("events/stream", os.O_RDWR, errno.EACCES),
        ("events/clear", os.O_RDONLY, errno.EACCES),
        ("events/clear", os.O_RDWR, errno.EACCES),
        ("events/clear", os.O_WRONLY | os.O_TRUNC, 0),
        ("README", os.O_RDONLY | os.O_NONBLOCK, 0),
    ],
)
async def test_what_a_file_is_not_for_it_is_not_for_root(
    kernel: Kernel, path: str, flags: int, answer: int
) -> None:
    if answer:
        assert await error_of(kernel.open(path, flags)) == answer
        assert len(kernel.handles) == 0
    else:
        await kernel.open(path, flags)


async def test_with_no_number_left_an_open_is_refused_and_nothing_held(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "MOST", 0)
    assert await error_of(kernel.open("events/log")) == errno.ENFILE
    assert await error_of(kernel.open("events/stream")) == errno.ENFILE
    assert kernel.world.journal.current.holders == 0
    assert not kernel.world.events.around.readers


@pytest.mark.parametrize("path", ["README", "events/stream", "events/log", "events/stream.txt"])
async def test_a_read_is_never_longer_than_asked(kernel: Kernel, path: str) -> None:
    for _ in range(20):
        kernel.world.post()
    fh = await kernel.open(path)
    for size in (1, 7, 500, 4096, 100_000):
        for offset in (0, 3, 1000, 10**6):
            kernel.flags = os.O_NONBLOCK
            with suppress(pyfuse3.FUSEError):  # EAGAIN, at the end of a stream
                assert len(await kernel.ops.read(fh, offset, size)) <= size


async def test_a_read_waits_unless_the_file_is_nonblocking_now(kernel: Kernel) -> None:
    fh = await kernel.open("events/stream")
    kernel.flags = os.O_NONBLOCK
    assert await error_of(kernel.ops.read(fh, 0, 4096)) == errno.EAGAIN
    kernel.flags = 0
    answers: list[bytes] = []

    async def read() -> None:
        answers.append(bytes(await kernel.ops.read(fh, 0, 4096)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert len(kernel.waits) == 1
        kernel.world.post("now")
    assert b"now" in answers[0]
    assert kernel.handles[fh].reader is not None


async def test_an_interrupted_read_is_eintr(kernel: Kernel) -> None:
    fh = await kernel.open("events/stream")
    errors: list[int] = []

    async def read() -> None:
        errors.append(await error_of(kernel.ops.read(fh, 0, 4096)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        kernel.waits.interrupt(kernel.unique)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        kernel.waits.end()
    assert errors == [errno.EINTR, errno.ESHUTDOWN]


async def test_writes_reach_the_file_and_its_refusal_is_logged(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    fh = await kernel.open("simulator/inject", os.O_WRONLY)
    assert await kernel.ops.write(fh, 0, b"line\n") == 5
    assert kernel.world.injected == [b"line\n"]
    kernel.world.refuse = Invalid("Line 1: it is nonsense")
    assert await error_of(kernel.ops.write(fh, 5, b"x")) == errno.EINVAL
    assert "Line 1: it is nonsense" in caplog.text
    await kernel.ops.flush(fh)
    await kernel.ops.fsync(fh, False)  # noqa: FBT003 - pyfuse3's way of calling
    await kernel.ops.release(fh)
    assert len(kernel.handles) == 0


# poll


async def test_a_poller_is_woken_once_by_the_next_event(kernel: Kernel) -> None:
    fh = await kernel.open("events/stream")
    first, second = Poller(), Poller()
    assert await kernel.ops.poll(1, fh, first, CONTEXT) == 0
    assert await kernel.ops.poll(1, fh, None, CONTEXT) == 0
    assert await kernel.ops.poll(1, fh, second, CONTEXT) == 0
    kernel.world.post()
    kernel.world.post()
    assert (first.notified, second.notified) == (0, 1), "one notice wakes all of a file's pollers"
    assert await kernel.ops.poll(1, fh, first, CONTEXT) & select.POLLIN
    kernel.world.post()
    assert first.notified == 1


async def test_a_closed_file_wakes_nobody(kernel: Kernel) -> None:
    fh = await kernel.open("events/stream")
    poller = Poller()
    await kernel.ops.poll(1, fh, poller, CONTEXT)
    await kernel.ops.release(fh)
    again = await kernel.open("events/stream")
    assert again == fh
    kernel.world.post()
    assert poller.notified == 0


async def test_a_poller_of_a_dead_connection_harms_nobody(kernel: Kernel) -> None:
    dead, living = Poller(OSError(errno.ENODEV, "No such device")), Poller()
    for poller in (dead, living):
        await kernel.ops.poll(1, await kernel.open("events/stream"), poller, CONTEXT)
    kernel.world.post()
    assert (dead.notified, living.notified) == (1, 1)


async def test_a_file_that_is_always_ready_keeps_no_poller(kernel: Kernel) -> None:
    fh = await kernel.open("README")
    assert await kernel.ops.poll(1, fh, Poller(), CONTEXT) & select.POLLIN


async def test_after_lseek_to_the_end_poll_answers_for_there(kernel: Kernel) -> None:
    for path in ("events/stream", "events/stream.txt"):
        fh = await kernel.open(path)
        for _ in range(200):
            kernel.world.post()
        kernel.getattr_fh = fh
        await kernel.stat(path)
        kernel.getattr_fh = None
        assert await kernel.ops.poll(1, fh, None, CONTEXT) == 0
        kernel.world.post()
        assert await kernel.ops.poll(1, fh, None, CONTEXT) & select.POLLIN


# Errors


class Broken(Open):
    """What is open, with a bug in it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self, offset: int, size: int) -> bytes:
        del offset, size
        raise self.error

    async def write(self, offset: int, written: bytes) -> int:
        del offset, written
        raise self.error

    def ready(self) -> int:
        raise self.error

    def seek_to_end(self, size: int) -> int:
        del size
        raise self.error

    def close(self) -> None:
        raise self.error


def calls(kernel: Kernel, fh: int) -> Iterator[Callable[[], Awaitable[object]]]:
    ops = kernel.ops
    kernel.getattr_fh = fh
    yield lambda: ops.read(fh, 0, 10)
    yield lambda: ops.write(fh, 0, b"x" * 100_000)
    yield lambda: ops.poll(1, fh, None, CONTEXT)
    yield lambda: ops.getattr(ROOT, CONTEXT)


async def test_a_bug_is_eio_and_a_traceback_of_bounded_length(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    fh = kernel.handles.add(5, 1, Broken(ZeroDivisionError())).fh
    for count, call in enumerate(calls(kernel, fh), 1):
        assert await error_of(call()) == errno.EIO
        assert len(caplog.records) == count
        assert caplog.records[-1].exc_info is not None
        assert len(caplog.records[-1].getMessage()) < 1000
    await kernel.ops.release(fh)
    assert "ZeroDivisionError" in caplog.text
    await kernel.ops.release(fh)  # of what isn't open any more
    caplog.clear()
    assert await error_of(kernel.ops.read(4711, 0, 1)) == errno.EIO


async def test_every_handler_turns_a_bug_into_eio(
    kernel: Kernel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = await kernel.lookup("README")

    async def fail(_: object) -> None:
        raise ZeroDivisionError

    def fail_plainly(*_: object) -> None:
        raise ZeroDivisionError

    readme = type(kernel.world.client.node("README"))
    monkeypatch.setattr(readme, "measure", fail)
    monkeypatch.setattr(readme, "open", fail)
    monkeypatch.setattr(type(kernel.world.root), "entries", fail_plainly)
    monkeypatch.setattr(kernel.ops, "_space", fail_plainly)
    listing = await kernel.ops.opendir(ROOT, CONTEXT)
    for call in (
        kernel.ops.lookup(ROOT, b"README", CONTEXT),
        kernel.ops.getattr(inode, CONTEXT),
        kernel.ops.setattr(inode, ATTRIBUTES, fields(), None, CONTEXT),
        kernel.ops.open(inode, os.O_RDONLY, CONTEXT),
        kernel.ops.readdir(listing, 0, None),
        kernel.ops.statfs(CONTEXT),
    ):
        assert await error_of(call) == errno.EIO
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    assert len(caplog.records) == 6
    monkeypatch.undo()


@pytest.mark.parametrize(
    "kind",
    [kind for kind in ZeventfsError.__subclasses__() if kind.__module__ == "zeventfs.errors"],
)
async def test_own_errors_become_their_errno(
    kernel: Kernel, kind: type[ZeventfsError], caplog: pytest.LogCaptureFixture
) -> None:
    fh = kernel.handles.add(5, 1, Broken(kind("why"))).fh
    for call in calls(kernel, fh):
        assert await error_of(call()) == kind.errno
    assert bool(caplog.records) == (kind.errno == errno.EINVAL)


async def test_at_the_end_every_new_call_is_eshutdown_and_closing_still_works(
    kernel: Kernel,
) -> None:
    fh = await kernel.open("events/stream")
    listing = await kernel.ops.opendir(ROOT, CONTEXT)
    kernel.waits.end()
    for call in (
        kernel.ops.read(fh, 0, 10),
        kernel.ops.poll(1, fh, None, CONTEXT),
        kernel.ops.lookup(ROOT, b"README", CONTEXT),
        kernel.ops.getattr(ROOT, CONTEXT),
        kernel.ops.readdir(listing, 0, None),
        kernel.ops.statfs(CONTEXT),
    ):
        assert await error_of(call) == errno.ESHUTDOWN
    await kernel.ops.flush(fh)
    await kernel.ops.release(fh)
    await kernel.ops.releasedir(listing)
    await kernel.ops.forget([(kernel.world.client.node("events").ino, 1)])
    assert len(kernel.handles) == 0
