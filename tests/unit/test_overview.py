"""events/latest and events/summary, as a person and awk see them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_client import World

from zeventfs.event import Event
from zeventfs.journal.summary import Summary
from zeventfs.nodes.overview import summary_table
from zeventfs.nvlist import NVList, Type

NS = 10**9


@pytest.fixture
def world() -> World:
    return World()


async def test_latest_is_empty_before_the_first_event(world: World) -> None:
    assert await world.client.content("events/latest") == b""
    assert (await world.client.stat("events/latest")).size == 0


async def test_latest_has_the_keys_and_values_of_the_newest_line(world: World) -> None:
    inner = NVList.of([("b\u2028", Type.UINT64, 2**64 - 1)])
    pairs = [("label", Type.STRING, 'x\x85\\"{,'), ("list", Type.NVLIST, inner)]
    for name in ("a", "b"):
        world.journal.append(Event.make("zfs", name, 1, pairs))
        line = (await world.client.content("events/log")).splitlines()[-1]
        shown = await world.client.content("events/latest")
        assert json.loads(shown, object_pairs_hook=list) == json.loads(line, object_pairs_hook=list)
        assert shown.startswith(b'{\n  "seq": ')
        assert shown.endswith(b"\n}\n")
        assert b'\n    "label": "x\\u0085' in shown, "escapes stay, so lines are lines"
        assert (await world.client.stat("events/latest")).size == len(shown)


async def test_an_open_latest_stays_as_it_was(world: World) -> None:
    world.post("old")
    opened = await world.client.open("events/latest")
    world.post("new")
    assert b"old" in await opened.read()
    assert b"new" in await world.client.content("events/latest")


async def test_latest_outlives_a_clear_and_rotations() -> None:
    world = World(retain=4000, segment=1000)
    for number in range(40):
        world.post(f"n{number}")
        assert b'"n%d"' % number in await world.client.content("events/latest")
    await world.client.write("events/clear", b"1")
    assert b'"n39"' in await world.client.content("events/latest")


async def test_the_summary_is_a_line_a_class_in_columns(world: World) -> None:
    assert await world.client.content("events/summary") == b""
    for name, time_ns in (("b", 0), ("a longer one", NS), ("b", 2 * NS + 5)):
        world.journal.append(Event.make("zfs", name, time_ns))
    assert (await world.client.content("events/summary")).decode().splitlines() == [
        "a%20longer%20one  1  1970-01-01T00:00:01.000000000Z  1970-01-01T00:00:01.000000000Z",
        "b                 2  1970-01-01T00:00:00.000000000Z  1970-01-01T00:00:02.000000005Z",
    ]


async def test_the_counts_add_up_to_the_events_since_the_first_that_was_counted(
    world: World,
) -> None:
    for _ in range(12):
        world.post()
    status = dict(
        line.split("=", 1)
        for line in (await world.client.content("events/status")).decode().split()
    )
    table = (await world.client.content("events/summary")).decode().splitlines()
    counted = sum(int(line.split()[1]) for line in table)
    assert counted == int(status["last_seq"]) - int(status["summary_first_seq"]) + 1 == 12


def test_classes_without_room_are_one_line_the_last() -> None:
    summary = Summary()
    for number in range(1010):
        summary.count(f"{number}", 0)
    summary.count("(others)", 0)
    lines = summary_table(summary).decode().splitlines()
    assert len(lines) == 1001
    assert lines[-1].split()[:2] == ["(others)", "11"]


def test_a_long_name_is_whole_and_the_only_one_out_of_line() -> None:
    summary = Summary()
    for name in ("a", "b" * 200):
        summary.count(name, 0)
    short, long = summary_table(summary).decode().splitlines()
    assert short.startswith("a" + " " * 61 + "1  1970")
    assert long.startswith("b" * 200 + "  1  1970")


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=20), st.integers(1, 20), max_size=8))
def test_whatever_the_classes_are_called_each_line_has_four_fields(counts: dict[str, int]) -> None:
    summary = Summary()
    for name, count in counts.items():
        for _ in range(count):
            summary.count(name, -(2**63) * NS)
    lines = summary_table(summary).decode().split("\n")[:-1]
    assert [len(line.split()) for line in lines] == [4] * len(counts)
    assert sorted(int(line.split()[1]) for line in lines) == sorted(counts.values())
