"""pools/: directories that come and go with the pools."""

import json

import pytest
from pool_events import BEGIN, event, recorded, told
from tree_client import Client

from zeventfs.errors import NotFound, Stale
from zeventfs.event import NS, Event
from zeventfs.nodes.base import Directory, SnapshotFile
from zeventfs.nodes.pools import pools_directory
from zeventfs.pools.pools import Pools

FILES = ["state", "vdevs", "delays", "delays.json", "errors"]


class Told:
    """pools/ over what is told; `oldest` is the seq of the oldest event kept."""

    def __init__(self, *events: Event) -> None:
        self.oldest = 1
        self.seq = 0
        self.asked: list[str] = []
        self.pools = Pools()
        self.tell(*events)
        root = pools_directory(self.pools, self.view_of, lambda: self.oldest, lambda: 5 * NS)
        self.client = Client(root)

    def tell(self, *events: Event) -> None:
        for each in events:
            self.seq += 1
            self.pools.take(each, self.seq)

    def view_of(self, name: str) -> Directory:
        self.asked.append(name)
        log = SnapshotFile("log", lambda: b"lines", lambda: 0)
        return Directory("view", {"stream": log, "log": log}, 0)


async def test_each_pool_has_a_directory_sorted_by_name_with_its_files_and_its_views() -> None:
    tree = Told(*recorded())
    assert tree.client.names("") == [
        "my%20pool",
        "one",
        "pf",
        "pg",
        "rz",
        "sdp",
        "t2",
        "t4",
        "tank",
    ]
    assert tree.asked == [], "a listing of pools asks for no view"
    assert tree.client.names("my%20pool") == [*FILES, "stream", "log"]
    assert tree.asked == ["my pool"]
    assert await tree.client.content("my%20pool/log") == b"lines"


async def test_files_are_the_pools_own_without_asking_for_a_view() -> None:
    tree = Told(*recorded())
    for name in FILES:
        content = await tree.client.content(f"tank/{name}")
        assert (await tree.client.stat(f"tank/{name}")).size == len(content)
        assert content.endswith(b"\n")
    assert (await tree.client.content("my%20pool/state")).startswith(b"NAME=my pool\n")
    assert json.loads(await tree.client.content("tank/delays.json"))["timed"] == 22
    assert tree.asked == []


def test_keys_are_the_names_within_the_tree_and_nothing_is_for_good() -> None:
    tree = Told(*recorded())
    directory, file = tree.client.node("my%20pool"), tree.client.node("my%20pool/state")
    assert (directory.key, file.key) == ("pools/my%20pool", "pools/my%20pool/state")
    assert not directory.fixed
    assert not file.fixed
    assert tree.client.root.key == "pools"


async def test_times_are_those_of_the_pools_last_event() -> None:
    tree = Told(event("sysevent.config_sync", 1), event("sysevent.config_sync", 7))
    for path in ("tank", "tank/state"):
        assert (await tree.client.stat(path)).mtime_ns == (BEGIN + 7) * NS
    assert (await tree.client.root.measure()).mtime_ns == 5 * NS


@pytest.mark.parametrize(("second", "shown"), [(-(2**40), 0), (2**40, 2**63 - 1)])
async def test_a_time_that_no_file_can_have_is_the_nearest(second: int, shown: int) -> None:
    tree = Told(event("sysevent.config_sync", second))
    assert (await tree.client.stat("tank/state")).mtime_ns == shown


@pytest.mark.parametrize(
    ("name", "shown"), [("..", "%2E%2E"), ("a/b", "a%2Fb"), ("\udcff\u00e9", "%FF%C3%A9")]
)
def test_names_from_outside_are_printable(name: str, shown: str) -> None:
    tree = Told(event("sysevent.config_sync", pool=name))
    assert tree.client.names("") == [shown]
    assert tree.client.node(shown).key == f"pools/{shown}"


@pytest.mark.parametrize("name", ["tank", "my pool", "my%20Pool", "my%2520pool", "%6Dy%20pool"])
def test_there_is_no_other_name(name: str) -> None:
    tree = Told(event("sysevent.config_sync", pool="my pool"))
    with pytest.raises(NotFound):
        tree.client.node(name)


def test_what_neither_the_pool_nor_its_view_has_is_not_there() -> None:
    with pytest.raises(NotFound):
        Told(event("sysevent.config_sync")).client.node("tank/log.7")


async def test_a_pool_that_is_gone_says_so_and_goes_after_its_events() -> None:
    tree = Told(event("sysevent.pool_import"), event("sysevent.pool_destroy"))
    directory = tree.client.node("tank")
    assert isinstance(directory, Directory)
    file = tree.client.node("tank/state")
    opened = await tree.client.open("tank/state")
    tree.oldest = 2
    assert b"\nSTATE=DESTROYED\n" in await tree.client.content("tank/state")
    tree.oldest = 3
    assert tree.client.names("") == []
    with pytest.raises(NotFound):
        tree.client.node("tank")
    for node in (directory, file):
        with pytest.raises(Stale):
            await node.measure()
    with pytest.raises(Stale):
        directory.lookup("state")
    with pytest.raises(Stale):
        list(directory.entries())
    assert b"STATE=ACTIVE" not in await opened.read()
    assert tree.asked == []


async def test_what_is_held_follows_the_name_to_the_next_pool() -> None:
    tree = Told(event("sysevent.pool_import", pool_guid=1))
    held = tree.client.node("tank/state")
    assert isinstance(held, SnapshotFile)
    tree.tell(event("sysevent.pool_import", pool_guid=2))
    assert tree.client.node("tank/state").ino == held.ino
    assert b"GUID=2\n" in bytes((await held.open(1)).read(0, 100) or b"")


async def test_an_open_is_of_one_moment() -> None:
    tree = Told(*told("pools", 20))
    (name, *_) = tree.client.names("")
    opened = await tree.client.open(f"{name}/state")
    before = await opened.read()
    tree.tell(*told("pools", 80))
    opened.offset = 0
    assert await opened.read() == before
    assert await tree.client.content(f"{name}/state") != before
