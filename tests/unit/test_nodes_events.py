"""events/: clear, status, and which names there are."""

import pytest
from tree_client import NOW_NS, World

from zeventfs.errors import NotFound


async def status(world: World) -> dict[str, str]:
    lines = (await world.client.content("events/status")).decode().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("reader="))


async def test_names_follow_the_segments() -> None:
    world = World(segment=2000)
    fixed = {"stream", "stream.txt", "stream.nvl", "clear", "latest", "status", "summary"}
    fixed |= {"class", "source", "where"}
    assert set(world.client.names("events")) == fixed | {"log", "log.txt", "log.nvl"}
    for _ in range(20):
        world.post()
    names = world.client.names("events")
    assert len(names) == len(set(names))
    assert {"log.1", "log.txt.1", "log.nvl.1"} <= set(names)
    assert len(names) == len(fixed) + 3 * len(world.journal.segments)
    oldest = len(world.journal.segments) - 1
    world.client.node(f"events/log.{oldest}")
    for name in (f"log.{oldest + 1}", "log.0", "log.", "log.01", "logs", "log.txt.x"):
        with pytest.raises(NotFound):
            world.client.node(f"events/{name}")


async def test_a_write_to_clear_flushes_and_an_empty_one_does_not() -> None:
    world = World()
    world.post()
    await world.client.write("events/clear", b"")
    assert (await status(world))["queued"] == "1"
    assert await world.client.write("events/clear", b"whatever\n") == 9
    assert (await status(world))["queued"] == "0"


async def test_status_counts() -> None:
    world = World(retain=4000, segment=1000)
    slow = await world.client.open("events/stream", pid=42)
    world.post()
    world.post()
    now = await status(world)
    assert now["epoch"] == "epoch"
    assert (now["queued"], now["first_seq"], now["last_seq"]) == ("2", "1", "2")
    assert b"reader=stream pid=42 lag=2\n" in await world.client.content("events/status")
    for _ in range(40):
        world.post()
    first = int((await status(world))["first_seq"])
    assert first > 1
    gap, *rest = await slow.events()
    assert gap["payload"]["dropped"] == first - 1
    assert len(rest) == 42 - (first - 1)
    now = await status(world)
    assert (now["gaps_evicted"], now["dropped_evicted"]) == ("1", str(first - 1))
    assert now["readers"] == "1"
    assert b"lag=0\n" in await world.client.content("events/status")
    slow.close()
    assert (await status(world))["readers"] == "0"


async def test_times_are_those_of_events() -> None:
    world = World()
    assert (await world.client.stat("events")).mtime_ns == NOW_NS
    world.post()
    files = ("stream", "stream.nvl", "log", "log.nvl", "latest", "summary", "status")
    for path in ("events", *(f"events/{name}" for name in files)):
        assert (await world.client.stat(path)).mtime_ns == NOW_NS + 10**9, path
    assert (await world.client.stat("events/clear")).mtime_ns == NOW_NS
