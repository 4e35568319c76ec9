"""What every node does, and the small files."""

import select
from pathlib import Path

import pytest
from tree_client import NOW_NS, World

from zeventfs.errors import Denied, NotFound
from zeventfs.nodes import base

BOTH = select.POLLIN | select.POLLOUT


@pytest.fixture
def world() -> World:
    return World()


def test_an_inode_number_follows_from_what_the_node_is(world: World) -> None:
    again = World()
    for path in ("events", "events/stream", "events/clear", "simulator/inject", "README"):
        assert world.client.node(path).ino == again.client.node(path).ino
    numbers = {world.client.node(f"events/{name}").ino for name in world.client.names("events")}
    assert len(numbers) == len(world.client.names("events"))
    assert all(0 < number < 2**63 for number in numbers)


async def test_a_directory_lists_what_can_be_looked_up(world: World) -> None:
    assert world.client.names("") == ["README", "events", "simulator"]
    for name in world.client.names("events"):
        await world.client.stat(f"events/{name}")
    assert await world.root.measure() == base.Attributes(0, NOW_NS)
    with pytest.raises(NotFound):
        world.client.node("nothing")
    with pytest.raises(NotFound):
        world.client.node("\udcff")


async def test_the_readme_is_what_its_size_says_and_names_every_file(world: World) -> None:
    content = await world.client.content("README")
    assert (await world.client.stat("README")).size == len(content)
    for name in (*world.client.names("events"), *world.client.names("simulator")):
        assert name.encode() in content
    assert content == (Path(base.__file__).parent / "README.md").read_bytes()


async def test_an_open_of_a_small_file_is_of_one_moment(world: World) -> None:
    early = await world.client.open("events/status")
    world.post()
    assert b"queued=0\n" in await early.read()
    assert b"queued=1\n" in await world.client.content("events/status")
    assert early.ready() & BOTH == BOTH
    assert early.opened.seek_to_end(9) == 9
    with pytest.raises(Denied):
        await early.write(b"x")
    early.close()


async def test_a_control_file_is_written_to_and_never_read(world: World) -> None:
    clear = await world.client.open("events/clear")
    assert (await world.client.stat("events/clear")).size == 0
    with pytest.raises(Denied):
        await clear.read()
    clear.close()


async def test_bare_nodes_and_files_have_nothing() -> None:
    with pytest.raises(NotImplementedError):
        await base.Node("key").measure()
    with pytest.raises(NotImplementedError):
        await base.File("key").open(1)
