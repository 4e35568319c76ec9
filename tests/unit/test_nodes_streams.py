"""Streams and logs as files: who waits, who is ready, which sizes are true, what is gone."""

import select

import pytest
import trio
import trio.testing
from tree_client import Descriptor, World

from zeventfs.errors import Closing, Denied, Interrupted, Stale, WouldBlock
from zeventfs.nodes.streams import LogFile

IN = select.POLLIN | select.POLLRDNORM
STREAMS = ["events/stream", "events/stream.txt", "events/stream.nvl"]
LOGS = ["events/log", "events/log.txt", "events/log.nvl"]


@pytest.fixture
def world() -> World:
    return World()


class Blocked:
    """A read in a task of its own."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.got: bytes | Exception | None = None

    async def run(self) -> None:
        try:
            self.got = await self.descriptor.read()
        except Exception as error:  # noqa: BLE001 - the tests look which
            self.got = error


@pytest.mark.parametrize("path", STREAMS)
async def test_an_event_wakes_every_blocked_reader(world: World, path: str) -> None:
    readers = [Blocked(await world.client.open(path)) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(reader.run)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.arrival) == 3
        world.post("first")
    got = {reader.got for reader in readers if isinstance(reader.got, bytes)}
    assert len(got) == 1
    assert b"first" in got.pop()


async def test_a_signal_and_the_end_of_the_mount_end_a_blocked_read(world: World) -> None:
    first, second = [Blocked(await world.client.open("events/stream")) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        await trio.testing.wait_all_tasks_blocked()
        world.client.waits.interrupt(1)
        nursery.start_soon(second.run)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(first.got, Interrupted)
        world.client.waits.end()
    assert isinstance(second.got, Closing)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_nonblocking_read_at_the_end_says_so(world: World, path: str) -> None:
    world.post()
    stream = await world.client.open(path)
    assert await stream.read(nonblock=True)
    with pytest.raises(WouldBlock):
        await stream.read(nonblock=True)
    with pytest.raises(Denied):
        await stream.write(b"x")


@pytest.mark.parametrize("path", STREAMS)
async def test_ready_says_what_a_read_would_get(world: World, path: str) -> None:
    stream = await world.client.open(path)
    assert stream.ready() == 0
    world.post()
    assert stream.ready() == IN
    await stream.read()
    assert stream.ready() == 0


@pytest.mark.parametrize("path", STREAMS)
async def test_after_a_seek_to_the_end_only_what_comes_later_is_ready(
    world: World, path: str
) -> None:
    stream = await world.client.open(path)
    for _ in range(200):
        world.post("old")
    await stream.seek_to_end()
    assert stream.ready() == 0
    world.post("new")
    assert stream.ready() == IN
    got = await stream.read(nonblock=True)
    assert b"new" in got
    assert b"old" not in got


async def test_each_open_has_its_own_cursor(world: World) -> None:
    world.post("a")
    early = await world.client.open("events/stream")
    assert len(await early.events()) == 1
    world.post("b")
    late = await world.client.open("events/stream")
    assert [each["seq"] for each in await late.events()] == [1, 2]
    assert [each["seq"] for each in await early.events()] == [2]


@pytest.mark.parametrize("path", STREAMS)
async def test_small_reads_give_the_same_bytes_and_the_size_is_true(
    world: World, path: str
) -> None:
    stream = await world.client.open(path)
    for number in range(10):
        world.post(str(number))
    content = b""
    while stream.ready():
        content += await stream.read(7, nonblock=True)
    assert (await world.client.stat(path)).size == len(content)
    assert await world.client.content(path.replace("stream", "log")) == content


async def test_text_costs_nothing_until_somebody_asks(world: World) -> None:
    for _ in range(100):
        world.post()
    assert (await world.client.stat("events/stream.txt")).size == 0
    assert (await world.client.stat("events/log.txt")).size == 0
    assert world.rendered == 0
    stream = await world.client.open("events/stream.txt")
    assert world.rendered == 0
    await stream.read(1000)
    assert 0 < world.rendered < 100
    size = (await world.client.stat("events/log.txt")).size
    assert world.rendered == 100
    assert size == (await world.client.stat("events/stream.txt")).size
    assert world.rendered == 100, "each event is rendered once"


@pytest.mark.parametrize("path", ["events/log.txt", "events/stream.txt"])
async def test_the_size_of_much_text_leaves_others_their_turn(path: str) -> None:
    world = World(segment=1 << 20, retain=4 << 20)
    await world.client.open("events/stream.txt")
    for _ in range(500):
        world.post()
    turns = 0
    done = False

    async def count() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await world.client.stat(path)
        done = True
    assert turns >= 5


async def test_a_seek_into_text_that_is_not_rendered_yet_is_not_cut_short(world: World) -> None:
    for number in range(300):
        world.post(str(number))
    whole = await world.client.content("events/log.txt")
    fresh = World()
    for number in range(300):
        fresh.post(str(number))
    stream = await fresh.client.open("events/stream.txt")
    stream.offset = 1 << 40
    with pytest.raises(WouldBlock):
        await stream.read(nonblock=True)
    fresh.post("last")
    stream.offset = len(whole) - 30
    assert await stream.read(30, nonblock=True) == whole[-30:]


@pytest.mark.parametrize("path", LOGS)
async def test_a_log_ends_and_grows(world: World, path: str) -> None:
    log = await world.client.open(path)
    assert await log.read() == b""
    world.post("a")
    first = await log.read()
    assert b"a" in first
    assert await log.read() == b""
    assert (await world.client.stat(path)).size == len(first)
    log.offset = 1 << 40
    assert await log.read() == b""
    log.close()


@pytest.mark.parametrize("path", LOGS)
async def test_a_rotated_log_keeps_its_inode_and_is_read_to_its_end(path: str) -> None:
    world = World(segment=3000)
    log = await world.client.open(path)
    number = world.client.node(path).ino
    while len(world.journal.segments) == 1:
        world.post()
    assert world.client.node(path).ino != number
    assert world.client.node(f"{path}.1").ino == number
    assert await world.client.content(f"{path}.1") == await log.read()
    log.close()


@pytest.mark.parametrize("path", LOGS)
async def test_a_cleared_log_is_a_new_empty_one(world: World, path: str) -> None:
    log = await world.client.open(path)
    world.post("a")
    await world.client.write("events/clear", b"1")
    assert await world.client.content(path) == b""
    assert b"a" in await log.read()
    log.close()


@pytest.mark.parametrize("path", LOGS)
async def test_an_evicted_log_is_there_for_its_holders_until_retain_is_used_up_again(
    path: str,
) -> None:
    world = World(retain=6000, segment=1000)
    world.post("held")
    node = world.client.node(path)
    assert isinstance(node, LogFile)
    log = await world.client.open(path)
    while node.segment in world.journal.segments:
        world.post()
    held = await log.read()
    assert b"held" in held
    assert (await node.measure()).size == len(held)
    again = await node.open(1)  # through /proc/PID/fd
    again.close()
    others = []
    while not node.segment.stale:
        others.append(await world.client.open(path))
        world.post(size=500)
    with pytest.raises(Stale):
        await log.read()
    with pytest.raises(Stale):
        await node.measure()
    with pytest.raises(Stale):
        await node.open(1)
    for each in (log, *others):
        each.close()


@pytest.mark.parametrize("path", LOGS)
async def test_an_evicted_log_that_nobody_holds_is_gone(path: str) -> None:
    world = World(retain=6000, segment=1000)
    (await world.client.open("events/log.txt")).close()
    world.post("x")
    node = world.client.node(path)
    assert isinstance(node, LogFile)
    while node.segment in world.journal.segments:
        world.post()
    with pytest.raises(Stale):
        await node.measure()
    with pytest.raises(Stale):
        await node.open(1)


async def test_a_log_evicted_while_its_text_is_rendered_is_gone() -> None:
    world = World(retain=1 << 20, segment=1 << 17)
    (await world.client.open("events/log.txt")).close()
    for _ in range(200):
        world.post()
    node = world.client.node("events/log.txt")
    refused: list[Exception] = []

    async def measure() -> None:
        try:
            await node.measure()
        except Stale as error:
            refused.append(error)

    async def evict() -> None:
        assert isinstance(node, LogFile)
        while not node.segment.stale:
            world.post(size=100_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure)
        nursery.start_soon(evict)
    # whichever task was first: an answer or ESTALE, and never a damaged one
    assert len(refused) <= 1
    with pytest.raises(Stale):
        await node.measure()
