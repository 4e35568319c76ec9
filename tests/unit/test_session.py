"""How a mount ends, with pyfuse3's loop replaced by one that a test steers."""

import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from zeventfs.bell import Bell
from zeventfs.errors import Closing, MountFailed
from zeventfs.fuse import session
from zeventfs.fuse.ending import EndSignals
from zeventfs.fuse.requests import pyfuse3
from zeventfs.fuse.waits import Waits


class Kernel:
    """Stands for pyfuse3 and the mountpoint; `happened` is the order of things."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.over = trio.Event()
        self.waits = Waits(10)
        self.bell = Bell()
        self.operations: Any = SimpleNamespace(waits=self.waits, init=None)
        self.is_ours = True
        self.path = Path("/nowhere/mnt")
        self.ended: Callable[[], None] = lambda: None

    def watch(self, interrupted: Callable[[int], None], ended: Callable[[], None]) -> None:
        assert interrupted == self.waits.interrupt
        self.ended = ended

    async def main(self, _least: int, most: int) -> None:
        assert most > session.MOST_WAITING
        self.operations.init()
        await self.over.wait()

    def terminate(self) -> None:
        self.happened.append("terminate")
        self.over.set()

    def close(self, *, unmount: bool) -> None:
        assert not unmount
        self.happened.append("close")

    async def detach(self) -> None:
        await trio.lowlevel.checkpoint()
        self.happened.append("detach")
        self.is_ours = False

    async def read(self) -> None:
        try:
            await self.waits.until(1, self.bell, lambda: None)
        except Closing:
            self.happened.append("answered")

    async def serve(self, ready: Callable[[], None], asked: EndSignals) -> None:
        await session.serve(self.operations, lambda: [self.bell], self, ready, asked)  # type: ignore[arg-type]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    monkeypatch.setattr(session, "watch", kernel.watch)
    for name in ("main", "terminate", "close"):
        monkeypatch.setattr(pyfuse3, name, getattr(kernel, name))
    yield kernel
    logging.getLogger("pyfuse3").setLevel(logging.NOTSET)


async def test_a_signal_answers_all_then_detaches_then_ends(kernel: Kernel) -> None:
    notified: list[str] = []
    kernel.bell.call("poller", lambda: notified.append("poller"))
    with EndSignals() as asked, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.read)
            nursery.start_soon(kernel.serve, lambda: kernel.happened.append("ready"), asked)
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.happened == ["ready"]
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
    assert kernel.happened == ["ready", "answered", "detach", "terminate"]
    assert notified == ["poller"]
    assert kernel.waits.closing


async def test_an_end_that_the_kernel_tells_of_ends_every_wait_quietly(kernel: Kernel) -> None:
    with EndSignals() as asked, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.read)
            nursery.start_soon(kernel.serve, lambda: None, asked)
            await trio.testing.wait_all_tasks_blocked()
            kernel.ended()
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.happened == ["answered"]
            assert not logging.getLogger("pyfuse3").isEnabledFor(logging.ERROR)
            kernel.over.set()


async def test_what_is_left_of_a_mount_is_detached_after_the_session_is_closed(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    await session.unmount(kernel)  # type: ignore[arg-type]
    assert kernel.happened == ["close", "detach"]
    assert "no daemon any more" in caplog.text
    caplog.clear()
    await session.unmount(kernel)  # type: ignore[arg-type]
    assert kernel.happened == ["close", "detach", "close"]
    assert not caplog.records


def test_a_mount_that_libfuse_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("fuse_session_mount failed")

    monkeypatch.setattr(pyfuse3, "init", refuse)
    with pytest.raises(MountFailed, match="can't mount at /nowhere"):
        session.mount(Kernel().operations, Path("/nowhere"), set())


def test_a_mount_takes_the_options_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(pyfuse3, "init", lambda *args: given.extend(args))
    place = session.mount(Kernel().operations, Path("/nowhere"), {"ro"})
    assert given[1:] == [
        "/nowhere",
        {"default_permissions", "fsname=zeventfs", "subtype=zeventfs", "ro"},
    ]
    assert not place.is_ours


@pytest.mark.parametrize(
    ("limits", "longest"),
    [
        ({}, math.inf),
        ({"default_request_timeout": "0", "max_request_timeout": "0"}, math.inf),
        ({"default_request_timeout": "nonsense"}, math.inf),
        ({"default_request_timeout": "0", "max_request_timeout": "60"}, 50),
        ({"default_request_timeout": "12", "max_request_timeout": "60"}, 6),
    ],
)
def test_no_wait_is_longer_than_the_kernel_has_patience(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limits: dict[str, str],
    longest: float,
) -> None:
    monkeypatch.setattr(session, "_TIMEOUTS", tmp_path)
    for name, value in limits.items():
        (tmp_path / name).write_text(value)
    assert session.longest_wait_s() == longest
    assert len(caplog.records) == (longest != math.inf)
