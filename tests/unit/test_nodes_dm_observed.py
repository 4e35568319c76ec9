"""dm/ over the observer: the events of a device are found in its directory, and no other's."""

import json

import pytest
from dm_facts import device, mp, other
from tree_client import Client, World

from zeventfs.dm.observer import Observer
from zeventfs.errors import NotFound, Stale
from zeventfs.event import Event
from zeventfs.nodes.dm import dm_directory
from zeventfs.nodes.tree import tree


class ObservedWorld(World):
    """The tree with dm/ over an observer, whose events are posted."""

    def __init__(self) -> None:
        super().__init__()
        self.observer = Observer()
        around = self.events.around
        directory = dm_directory(self.observer.devices, self.events.views, around)
        self.root = tree(self.events, {"dm": directory}, self.clock_ns)
        self.client = Client(self.root)
        self.posted(self.observer.take_all([mp()], self.now_ns))
        self.posted(self.observer.take_uevent(other(100), self.now_ns))

    def posted(self, events: list[Event]) -> None:
        for event in events:
            self.journal.append(event)

    async def told(self, name: str) -> list[str]:
        """The classes of what is told of the device that is called so now."""
        log = await self.client.content(f"dm/{name}/log")
        return [json.loads(line)["class"] for line in log.splitlines()]


@pytest.fixture
def world() -> ObservedWorld:
    return ObservedWorld()


async def test_what_is_told_of_a_device_is_in_its_directory_under_all_its_names(
    world: ObservedWorld,
) -> None:
    observer = world.observer
    stream = await world.client.open("dm/mp/stream")
    ino = world.client.node("dm/mp").ino
    world.posted(observer.take("253:3", mp(suspended=True), 1))
    world.posted(observer.take("253:3", mp("F 1")._replace(name="new"), 2))
    told = ["dm.suspended", "dm.renamed", "dm.resumed", "dm.path.failed"]
    assert await world.told("new") == told
    assert [event["class"] for event in await stream.events()] == told
    assert world.client.node("dm/new").ino == ino
    with pytest.raises(NotFound):
        world.client.node("dm/mp")
    assert b"FAILED      1  1970-01-01T00:00:00.000000002Z\n" in (
        await world.client.content("dm/new/paths")
    )
    stream.close()


async def test_who_takes_name_and_number_has_nothing_of_who_had_them(world: ObservedWorld) -> None:
    observer = world.observer
    stream = await world.client.open("dm/mp/stream")
    ino = world.client.node("dm/mp").ino
    world.posted(observer.take("253:3", None, 1))
    world.posted(observer.take("253:3", device("mp", minor=3), 2))
    assert world.client.node("dm/mp").ino != ino
    assert await world.told("mp") == ["dm.created", "dm.table.live"]
    assert b'"dm.removed"' in await stream.read()
    with pytest.raises(Stale):
        await stream.read(nonblock=True)
    stream.close()


async def test_events_of_a_daemon_before_are_no_device_s_of_this_one() -> None:
    before, after = Observer(), Observer()
    for observer, now_ns in ((before, 1000), (after, 2000)):
        observer.take_all([device(), mp()], now_ns)
    serials = [
        found.serial
        for observer in (before, after)
        for name in observer.devices
        if (found := observer.devices.get(name)) is not None
    ]
    assert serials == [1000, 1001, 2000, 2001]
