"""dm/: a directory for each mapped device, which stays its own whatever it is called."""

import errno
import os
import select
from collections.abc import Awaitable, Callable

import pytest
import trio.testing
from kernel_client import CONTEXT, Kernel, error_of
from shown_devices import BEGIN_NS, MULTIPATH, Devices, Mapped
from tree_client import Client, World, blocked

from zeventfs.dm.shown import PathSince
from zeventfs.errors import NotFound, Stale
from zeventfs.nodes.base import Directory
from zeventfs.nodes.dm import dm_directory
from zeventfs.nodes.tree import tree

FILES = ["state", "table", "status", "paths", "stream", "log"]
CHANGED = select.POLLPRI | select.POLLERR


class DmWorld(World):
    """The tree with dm/ over devices of which a test says what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.devices = Devices(self.journal)
        self.dm = dm_directory(self.devices, self.events.views, self.events.around)
        self.root = tree(self.events, {"dm": self.dm}, self.clock_ns)
        self.client = Client(self.root)

    async def classes(self, path: str) -> list[str]:
        """The classes of the events of a stream."""
        opened = await self.client.open(path)
        try:
            return [event["class"] for event in await opened.events()]
        finally:
            opened.close()


@pytest.fixture
def world() -> DmWorld:
    return DmWorld()


@pytest.fixture
def mp(world: DmWorld) -> Mapped:
    return world.devices.create("mp", MULTIPATH)


@pytest.fixture
def kernel(world: DmWorld, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(world)
    kernel.install(monkeypatch)
    return kernel


def suspend(device: Mapped) -> None:
    device.become("dm.suspended", device.facts._replace(suspended=True))


# What there is


def test_each_device_has_a_directory(world: DmWorld) -> None:
    assert world.client.names("dm") == []
    for name in ("lin", "mp"):
        world.devices.create(name)
    assert world.client.names("dm") == ["lin", "mp"]
    assert world.client.names("dm/mp") == FILES
    assert world.client.node("dm/mp/state").key == "dm/device-2/state"
    with pytest.raises(NotFound):
        world.client.node("dm/other")
    with pytest.raises(NotFound):
        world.client.node("dm/mp/other")


async def test_files_say_how_it_stands_and_their_sizes_are_true(world: DmWorld, mp: Mapped) -> None:
    mp.since["7:1"] = PathSince(BEGIN_NS, "EIO")
    read = world.client.content
    assert (await read("dm/mp/state")).startswith(b"NAME=mp\nUUID=LVM-abc\nDEV=253:1\n")
    assert (await read("dm/mp/table")).startswith(b"0 65536 multipath 0 0 2 1 round-robin")
    assert (await read("dm/mp/status")).startswith(b"0 65536 multipath 2 1 0 0 2 1 E")
    assert (await read("dm/mp/paths")).splitlines()[1].endswith(b"Z  EIO")
    for name in FILES:
        path = f"dm/mp/{name}"
        size = len(await read(path)) if name != "stream" else len(await read("dm/mp/log"))
        assert (await world.client.stat(path)).size == size, name


def test_nothing_of_a_device_is_for_good(world: DmWorld, mp: Mapped) -> None:
    del mp
    directory = world.client.node("dm/mp")
    assert isinstance(directory, Directory)
    nodes = [directory, *(node for _, node in directory.entries())]
    assert not any(node.fixed for node in nodes)
    assert world.client.node("dm/mp") is directory
    assert world.dm.fixed


async def test_times_are_those_of_changes(world: DmWorld, mp: Mapped) -> None:
    for path in ("dm/mp", "dm/mp/paths"):
        assert (await world.client.stat(path)).mtime_ns == BEGIN_NS
    suspend(mp)
    assert (await world.client.stat("dm/mp")).mtime_ns == BEGIN_NS + 10**9
    assert (await world.client.stat("dm/mp/state")).mtime_ns == BEGIN_NS + 10**9


def test_a_device_that_goes_while_it_is_listed_is_left_out(
    world: DmWorld, mp: Mapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    del mp
    monkeypatch.setattr(Devices, "get", lambda *_: None)
    assert world.client.names("dm") == []


def test_whoever_waits_for_a_device_is_known_by_its_bell(world: DmWorld, mp: Mapped) -> None:
    assert list(world.dm.bells()) == [mp.changed]


# Names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("we ird", "we%20ird"),
        ("100%", "100%25"),
        ("%2E", "%252E"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("a/b", "a%2Fb"),
        ("sl@sh:colon=é", "sl@sh:colon=%C3%A9"),
        ("\udcff\n", "%FF%0A"),
        ("stream", "stream"),
        ("log", "log"),
    ],
)
def test_a_name_is_always_one_that_can_be_printed_and_looked_up(
    world: DmWorld, name: str, shown: str
) -> None:
    device = world.devices.create(name)
    assert world.client.names("dm") == [shown]
    assert world.client.node(f"dm/{shown}").key == f"dm/device-{device.serial}"


@pytest.mark.parametrize("other", ["we ird", "%77e%20ird", "we%20ird%", "\udcff"])
def test_there_is_one_way_only_to_write_a_name(world: DmWorld, other: str) -> None:
    world.devices.create("we ird")
    with pytest.raises(NotFound):
        world.client.node(f"dm/{other}")


def test_a_name_that_is_too_long_for_a_file_ends_with_the_serial(world: DmWorld) -> None:
    long = "é" * 63
    for end in "ab":
        world.devices.create(long + end)
    assert world.client.names("dm") == [("%C3%A9" * 63)[:253] + end for end in ("~1", "~2")]
    for name, node in world.dm.entries():
        assert len(name) == 255
        assert world.dm.lookup(name) is node
    for name in ("x" * 255, "%C3%A9" * 63 + "a"):
        with pytest.raises(NotFound):
            world.dm.lookup(name)


def test_a_name_of_the_most_bytes_is_looked_up_as_it_is(world: DmWorld) -> None:
    name = "%" * 64 + "x" * 63
    device = world.devices.create(name)
    (shown,) = world.client.names("dm")
    assert len(shown) == 255
    assert world.dm.lookup(shown).key == f"dm/device-{device.serial}"


# A change


async def test_poll_on_state_tells_of_a_change_until_it_is_read_anew(
    world: DmWorld, mp: Mapped
) -> None:
    opened = await world.client.open("dm/mp/state")
    assert opened.ready() & (select.POLLIN | CHANGED) == select.POLLIN
    rings: list[int] = []
    assert opened.opened.bell is not None
    opened.opened.bell.call("a poller", lambda: rings.append(1))
    suspend(mp)
    assert rings == [1]
    assert opened.ready() & CHANGED == CHANGED
    assert b"STATE=SUSPENDED\n" in await opened.read()
    assert not opened.ready() & CHANGED


async def test_a_stream_waits_for_its_own_device(world: DmWorld, mp: Mapped) -> None:
    opened = await world.client.open("dm/mp/stream")
    assert b'"dm.created"' in await opened.read()
    answer = await blocked(opened.read)
    suspend(world.devices.create("other"))
    assert opened.ready() == 0
    suspend(mp)
    assert b'"dm.suspended"' in await answer()
    opened.close()


# Renaming


async def test_a_renamed_device_keeps_its_inodes_and_what_is_open(
    world: DmWorld, mp: Mapped
) -> None:
    before = {name: world.client.node(f"dm/mp/{name}").ino for name in FILES}
    directory = world.client.node("dm/mp")
    state = await world.client.open("dm/mp/state")
    stream = await world.client.open("dm/mp/stream")
    await stream.read()
    answer = await blocked(stream.read)
    world.devices.rename("mp", "new")
    assert b'"dm.renamed"' in await answer()
    assert world.client.names("dm") == ["new"]
    assert world.client.node("dm/new") is directory
    assert {name: world.client.node(f"dm/new/{name}").ino for name in FILES} == before
    with pytest.raises(NotFound):
        world.client.node("dm/mp")
    assert state.ready() & CHANGED
    assert (await state.read()).startswith(b"NAME=new\n")
    suspend(mp)
    assert b'"dm.suspended"' in await stream.read()
    assert await world.classes("dm/new/stream") == ["dm.created", "dm.renamed", "dm.suspended"]
    stream.close()


async def test_who_takes_a_name_has_nothing_of_who_had_it(world: DmWorld, mp: Mapped) -> None:
    del mp
    old = world.client.node("dm/mp")
    state = await world.client.open("dm/mp/state")
    world.devices.rename("mp", "first")
    second = world.devices.create("mp")
    assert world.client.node("dm/mp").ino != old.ino
    assert world.client.node("dm/mp/state").ino != state.node.ino
    suspend(second)
    assert b"NAME=first\n" in await state.read()
    assert await world.classes("dm/first/log") == ["dm.created", "dm.renamed"]
    assert await world.classes("dm/mp/stream") == ["dm.created", "dm.suspended"]


async def test_the_kernel_asks_anew_for_names_and_finds_a_renamed_device_where_it_was(
    kernel: Kernel, world: DmWorld, mp: Mapped
) -> None:
    del mp
    parent = await kernel.lookup("dm")
    entry = await kernel.ops.lookup(parent, b"mp", CONTEXT)
    assert entry.entry_timeout == 0, "the kernel asks anew for the name"
    listing = await kernel.ops.opendir(entry.st_ino, CONTEXT)
    fh = await kernel.open("dm/mp/state")
    world.devices.rename("mp", "n w")
    assert await error_of(kernel.ops.lookup(parent, b"mp", CONTEXT)) == errno.ENOENT
    assert await kernel.lookup("dm/n%20w") == entry.st_ino
    assert (await kernel.ops.lookup(entry.st_ino, b"state", CONTEXT)).entry_timeout == 0
    assert await kernel.list(listing) == FILES
    assert (await kernel.ops.read(fh, 0, 100)).startswith(b"NAME=n w\n")
    world.devices.remove("n w")
    assert await error_of(kernel.ops.getattr(entry.st_ino, CONTEXT)) == errno.ESTALE
    assert await error_of(kernel.ops.read(fh, 0, 100)) == errno.ESTALE
    assert await error_of(kernel.open("dm/n%20w/state", os.O_RDONLY)) == errno.ENOENT


# Removal under those who have it open


@pytest.mark.parametrize("name", ["state", "table", "status", "paths"])
async def test_files_of_a_removed_device_are_stale(world: DmWorld, mp: Mapped, name: str) -> None:
    del mp
    opened = await world.client.open(f"dm/mp/{name}")
    world.devices.remove("mp")
    assert opened.ready() & CHANGED
    node = opened.node
    uses: list[Callable[[], Awaitable[object]]] = [opened.read, node.measure, lambda: node.open(1)]
    for use in uses:
        with pytest.raises(Stale):
            await use()


async def test_a_removed_devices_directory_is_stale(world: DmWorld, mp: Mapped) -> None:
    del mp
    directory = world.client.node("dm/mp")
    assert isinstance(directory, Directory)
    world.devices.remove("mp")
    with pytest.raises(Stale):
        await directory.measure()
    with pytest.raises(Stale):
        directory.lookup("state")
    with pytest.raises(Stale):
        list(directory.entries())


async def test_a_removed_devices_stream_tells_of_its_removal_then_ends_stale(
    world: DmWorld, mp: Mapped
) -> None:
    del mp
    opened = await world.client.open("dm/mp/stream")
    await opened.read()
    answer = await blocked(opened.read)
    world.devices.remove("mp")
    world.devices.create("mp")
    assert b'"dm.removed"' in await answer()
    with pytest.raises(Stale):
        await opened.read()
    await trio.testing.wait_all_tasks_blocked()
    assert await world.classes("dm/mp/stream") == ["dm.created"], "the new one has its own"
    opened.close()
