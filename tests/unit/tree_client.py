"""A client of a tree in this process: does with its nodes what the FUSE adapter does."""

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from zeventfs.bell import Bell
from zeventfs.errors import WouldBlock, ZeventfsError
from zeventfs.event import Event
from zeventfs.fuse.waits import Waits
from zeventfs.journal.journal import Journal, Limits
from zeventfs.nodes.base import Attributes, Directory, File, Node, Open
from zeventfs.nodes.events import EventsDirectory
from zeventfs.nodes.simulator import simulator_directory
from zeventfs.nodes.tree import tree
from zeventfs.nvlist import Type, decode
from zeventfs.render import Renderer

__all__ = ["Client", "Descriptor", "World", "blocked"]

NOW_NS = 1_700_000_000 * 10**9


class World:
    """A journal, and the whole tree over it; `injected` is what was written to inject."""

    def __init__(self, retain: int = 1 << 20, segment: int = 1 << 16) -> None:
        self.now_ns = NOW_NS
        renderer = Renderer("epoch", "2.1.11")
        self.journal = Journal("epoch", renderer, Limits(retain, segment), self.clock_ns)
        self.arrival = Bell()
        self.journal.subscribe(self.arrival.ring)
        self.injected: list[bytes] = []
        self.refuse: Exception | None = None
        self.rendered = 0

        def text(packed: bytes) -> bytes:
            self.rendered += 1
            return renderer.text(decode(packed))

        self.events = EventsDirectory(
            self.journal, self.arrival, self.clock_ns, text, self.journal.clear, ("zfs",)
        )
        self.journal.subscribe(self.events.views.arrived)
        self.root = tree(
            self.events,
            {"simulator": simulator_directory(self.inject, self.clock_ns)},
            self.clock_ns,
        )
        self.client = Client(self.root)

    def clock_ns(self) -> int:
        return self.now_ns

    async def inject(self, written: bytes) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.injected.append(written)

    def post(self, label: str = "x", size: int = 0) -> None:
        pairs = [("label", Type.STRING, label), ("filler", Type.STRING, "." * size)]
        self.now_ns += 10**9
        self.journal.append(Event.make("zfs", "sysevent.test", self.now_ns, pairs))


class Client:
    """The tree under *root*, by paths."""

    def __init__(self, root: Directory) -> None:
        self.root = root
        self.waits = Waits(100)
        self.unique = 0

    def node(self, path: str) -> Node:
        node: Node = self.root
        for name in path.split("/"):
            assert isinstance(node, Directory)
            node = node.lookup(name)
        return node

    def names(self, path: str) -> list[str]:
        node = self.node(path) if path else self.root
        assert isinstance(node, Directory)
        return [name for name, _ in node.entries()]

    async def stat(self, path: str) -> Attributes:
        return await self.node(path).measure()

    async def open(self, path: str, pid: int = 1) -> "Descriptor":
        node = self.node(path)
        assert isinstance(node, File)
        return Descriptor(self, node, await node.open(pid))

    async def content(self, path: str) -> bytes:
        """What cat prints of a file that ends."""
        opened = await self.open(path)
        content = b"".join(iter([await opened.read(100) for _ in range(1000)]))
        opened.close()
        return content

    async def write(self, path: str, written: bytes) -> int:
        opened = await self.open(path)
        try:
            return await opened.write(written)
        finally:
            opened.close()


class Descriptor:
    """An open file and its offset."""

    def __init__(self, client: Client, node: File, opened: Open) -> None:
        self.client = client
        self.node = node
        self.opened = opened
        self.offset = 0

    async def read(self, size: int = 1 << 17, *, nonblock: bool = False) -> bytes:
        answer = self.opened.read(self.offset, size)
        if answer is None:
            if nonblock:
                raise WouldBlock("nothing new")
            assert self.opened.bell is not None
            self.client.unique += 1
            attempt = functools.partial(self.opened.read, self.offset, size)
            answer = await self.client.waits.until(self.client.unique, self.opened.bell, attempt)
        assert answer is not None
        assert len(answer) <= size
        self.offset += len(answer)
        return bytes(answer)

    async def events(self) -> list[dict[str, Any]]:
        """What is there to be read now, as events."""
        lines = b""
        try:
            while more := await self.read(nonblock=True):
                lines += more
        except WouldBlock:
            pass
        return [json.loads(line) for line in lines.splitlines()]

    async def write(self, written: bytes) -> int:
        return await self.opened.write(self.offset, written)

    async def seek_to_end(self) -> None:
        """lseek(SEEK_END): the size is asked for, with the handle."""
        self.offset = self.opened.seek_to_end((await self.node.measure()).size)

    def ready(self) -> int:
        return self.opened.ready()

    def close(self) -> None:
        self.opened.close()


async def blocked(read: Callable[[], Awaitable[bytes]]) -> Callable[[], Awaitable[bytes]]:
    """Start *read* in a task, see it blocked, and give what waits for its answer."""
    answers: list[bytes | ZeventfsError] = []

    async def run() -> None:
        try:
            answers.append(await read())
        except ZeventfsError as error:
            answers.append(error)

    trio.lowlevel.spawn_system_task(run)
    await trio.testing.wait_all_tasks_blocked()
    assert not answers

    async def answer() -> bytes:
        await trio.testing.wait_all_tasks_blocked()
        (given,) = answers
        if isinstance(given, ZeventfsError):
            raise given
        return given

    return answer
