"""class/, source/, where/: which names there are, whom an event wakes, where a stream begins."""

import logging
import select

import pytest
import trio
import trio.testing
from tree_client import Descriptor, World

from zeventfs.errors import Full, Interrupted, NotFound, Stale, WouldBlock
from zeventfs.event import Event
from zeventfs.filter import Expression
from zeventfs.nodes.base import Directory, File
from zeventfs.nodes.filtered import MOST_EXPRESSIONS, pool_view
from zeventfs.nodes.streams import LogFile
from zeventfs.nodes.views import _MOST_KINDS
from zeventfs.nvlist import Type

IN = select.POLLIN | select.POLLRDNORM


@pytest.fixture
def world() -> World:
    return World(segment=4000)


def post(world: World, name: str = "a", n: int = 1, source: str = "zfs", size: int = 0) -> int:
    world.now_ns += 10**9
    pairs = [("n", Type.INT32, n), ("filler", Type.STRING, "." * size)]
    return world.journal.append(Event.make(source, name, world.now_ns, pairs))


async def seqs(world: World, path: str) -> list[int]:
    stream = await world.client.open(path)
    try:
        return [each["seq"] for each in await stream.events()]
    finally:
        stream.close()


async def refused(descriptor: Descriptor) -> None:
    with pytest.raises(WouldBlock):
        await descriptor.read(nonblock=True)


# Names


def test_a_directory_for_each_class_seen_whatever_it_is_called(world: World) -> None:
    names = ["ereport.fs.zfs.io", "two words", "a/b", "caf\udce9", "é", ".", "..", "", "100%"]
    for name in [*names, "x" * 300, " " * 100]:
        post(world, name)
    listed = world.client.names("events/class")
    shown = "ereport.fs.zfs.io two%20words a%2Fb caf%E9 %C3%A9 %2E %2E%2E %00 100%25"
    assert sorted(listed) == sorted(shown.split())
    for each in listed:
        assert world.client.names(f"events/class/{each}") == ["stream", "log"]
    classes = world.client.node("events/class")
    assert isinstance(classes, Directory)
    for each in ("two words", "a%2fb", "ereport", "x" * 300, "caf\udce9", "", "100%"):
        with pytest.raises(NotFound):
            classes.lookup(each)


async def test_a_class_directory_has_its_own_events_only(world: World) -> None:
    for name in ("a", "b", "a b", "a", "*"):
        post(world, name)
    assert await seqs(world, "events/class/a/stream") == [1, 4]
    assert await seqs(world, "events/class/a%20b/stream") == [3]
    assert await seqs(world, "events/class/%2A/stream") == [5]


async def test_a_directory_for_each_source_whatever_it_is_called(world: World) -> None:
    assert world.client.names("events/source") == ["zfs"]
    for source in ("tapdisk", "a/b", "", "\udcff", "y" * 300):
        post(world, source=source)
    listed = world.client.names("events/source")
    assert listed == ["zfs", "tapdisk", "a%2Fb", "%FF"]
    for seq, each in zip((1, 2, 4), listed[1:], strict=True):
        assert await seqs(world, f"events/source/{each}/stream") == [seq]
    with pytest.raises(NotFound):
        world.client.node("events/source/dm")


async def test_a_source_has_all_formats_and_they_say_the_same(world: World) -> None:
    for _ in range(30):
        post(world)
    names = world.client.names("events/source/zfs")
    assert {"stream", "stream.txt", "stream.nvl", "log", "log.txt", "log.nvl", "log.1"} <= set(
        names
    )
    for name in names:
        if name.startswith("log"):
            whole = await world.client.content(f"events/{name}")
            assert await world.client.content(f"events/source/zfs/{name}") == whole
            assert (await world.client.stat(f"events/source/zfs/{name}")).size == len(whole)


async def test_where_lists_its_grammar_only(world: World) -> None:
    where = world.client.node("events/where/class=a")
    assert world.client.names("events/where") == ["README"]
    assert b"key=glob" in await world.client.content("events/where/README")
    assert world.client.node("events/where/class=a") is where


def test_what_is_no_expression_is_not_there_and_the_log_says_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    where = world.client.node("events/where")
    assert isinstance(where, Directory)
    for name in ("pool==x", "x", "", "a=%zz", "since=5x", "\udcff", "a\nroot: panic"):
        caplog.clear()
        with caplog.at_level(logging.WARNING), pytest.raises(NotFound):
            where.lookup(name)
        assert len(caplog.messages) == 1
        assert caplog.messages[0].isprintable()
    assert where.lookup("a=1\nroot: panic").key.endswith("/a=1%0Aroot:%20panic")


async def test_so_many_expressions_are_in_use_at_once_and_no_more(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    where = world.client.node("events/where")
    assert isinstance(where, Directory)
    directories = [where.lookup(f"n={number}") for number in range(MOST_EXPRESSIONS)]
    assert not any(each.in_use for each in directories)
    where.lookup("one=more")
    opened = []
    for number, each in enumerate(directories):
        assert isinstance(each, Directory)
        node = each.lookup("log" if number % 2 else "stream")
        assert isinstance(node, File)
        opened.append(await node.open(1))
    assert all(each.in_use for each in directories)
    with pytest.raises(Full):
        where.lookup("one=more")
    assert "too many others are in use" in caplog.text
    assert where.lookup("n=5") is directories[5]
    assert where.lookup("README").in_use
    opened.pop().close()
    where.lookup("one=more")
    while opened:
        opened.pop().close()


def test_expressions_that_the_kernel_knows_are_bounded_used_or_not(world: World) -> None:
    where = world.client.node("events/where")
    assert isinstance(where, Directory)
    known = [where.lookup(f"n={number}") for number in range(2 * MOST_EXPRESSIONS)]
    with pytest.raises(Full):
        where.lookup("one=more")
    known.pop()
    where.lookup("one=more")


async def test_a_since_is_in_use_while_its_own_stream_is_open(world: World) -> None:
    one = world.client.node("events/where/since=1s")
    other = world.client.node("events/where/since=2s")
    assert isinstance(one, Directory)
    node = one.lookup("stream")
    assert isinstance(node, File)
    opened = await node.open(1)
    assert one.in_use
    assert not other.in_use
    opened.close()
    del opened
    assert not one.in_use


# Reading and waiting


async def test_an_event_wakes_those_only_whose_view_it_is_in(world: World) -> None:
    got: list[str] = []
    paths = ["events/where/class=a/stream", "events/where/n>=5/stream", "events/class/a/stream"]
    post(world, "a", 0)
    known = [world.client.node(path.rpartition("/")[0]) for path in paths]  # by the kernel

    async def read(path: str) -> None:
        stream = await world.client.open(path)
        await stream.events()
        await stream.read()
        got.append(path)
        stream.close()

    async with trio.open_nursery() as nursery:
        for path in paths:
            nursery.start_soon(read, path)
        await trio.testing.wait_all_tasks_blocked()
        assert len(known) > len(list(world.events.views.bells())) == 2, "class=a is one view"
        post(world, "b", 1)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        post(world, "a", 1)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(got) == sorted([paths[0], paths[2]])
        post(world, "b", 5)
    assert got[-1] == paths[1]
    assert list(world.events.views.bells()) == []


async def test_a_signal_ends_a_blocked_read_and_close_releases_the_view(world: World) -> None:
    stream = await world.client.open("events/where/class=a/stream")

    async def read() -> None:
        with pytest.raises(Interrupted):
            await stream.read()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        world.client.waits.interrupt(world.client.unique)
    stream.close()
    assert list(world.events.views.bells()) == []


async def test_ready_is_for_events_of_the_view_only(world: World) -> None:
    stream = await world.client.open("events/where/n>=5/stream")
    post(world, n=1)
    assert stream.ready() == 0
    await refused(stream)
    post(world, n=5)
    assert stream.ready() == IN
    assert b'"n":5' in await stream.read(nonblock=True)
    post(world, n=6)
    await stream.seek_to_end()
    assert stream.ready() == 0
    post(world, n=7)
    assert stream.ready() == IN
    assert b'"n":7' in await stream.read(nonblock=True)


async def test_lag_counts_the_views_own_events(world: World) -> None:
    stream = await world.client.open("events/where/n>=5/stream")
    text = await world.client.open("events/source/zfs/stream.txt")
    rendered = world.rendered
    for number in range(300):
        post(world, n=number % 10)
    status = (await world.client.content("events/status")).decode()
    assert "reader=where/n>=5/stream pid=1 lag=150\n" in status
    assert "reader=source/zfs/stream.txt pid=1 lag=300\n" in status
    assert world.rendered - rendered <= 300
    for each in (stream, text):
        while each.ready():
            await each.read()
    status = (await world.client.content("events/status")).decode()
    assert status.count(" lag=0\n") == 2


async def test_a_view_opened_after_segments_came_and_went_begins_without_a_gap() -> None:
    world = World(retain=20_000, segment=4000)
    post(world)
    where = world.client.node("events/where/class=a")
    assert isinstance(where, Directory)
    node = where.lookup("stream")
    assert isinstance(node, File)
    size = (await node.measure()).size
    for _ in range(100):
        post(world)
    stream = Descriptor(world.client, node, await node.open(1))
    found = await stream.events()
    assert [each["seq"] for each in found] == list(
        range(world.journal.segments[0].lines.first_seq, 102)
    )
    assert (await node.measure()).size > size


async def test_a_view_that_nobody_has_open_forgets_what_is_evicted() -> None:
    world = World(retain=20_000, segment=4000)
    post(world)
    where = world.client.node("events/where/class=a")
    assert isinstance(where, Directory)
    first = world.journal.current
    await where.lookup("stream").measure()
    while not first.stale:
        post(world)
    view = world.events.views.view(Expression.parse("class=a"))
    columns = view.formats[0].rendition().columns
    assert columns[0].first_seq == world.journal.segments[0].lines.first_seq


async def test_a_log_evicted_and_held_is_what_it_was_for_whoever_asks() -> None:
    world = World(retain=20_000, segment=4000)
    post(world, n=5)
    path = "events/where/n=5/log"
    node = world.client.node(path)
    other = world.client.node("events/where/n!=5/log")
    assert isinstance(node, LogFile)
    assert isinstance(other, LogFile)
    log = await world.client.open(path)
    while node.segment in world.journal.segments:
        post(world, n=6)
    for _ in range(3):
        held = await log.read()
        log.offset = 0
        assert held.count(b"\n") == 1
        assert (await node.measure()).size == len(held)
        again = await node.open(1)
        assert again.read(0, 10_000) == held
        again.close()
        assert (await other.measure()).size > len(held), "of which nothing was known before"
        while len(world.journal.segments) > 3:
            post(world, n=6, size=3000)
    log.close()
    with pytest.raises(Stale):
        await node.measure()
    with pytest.raises(Stale):
        await node.open(1)
    assert list(world.events.views.bells()) == []


async def test_a_log_of_a_view_rotates_with_the_log(world: World) -> None:
    log = await world.client.open("events/where/n=5/log")
    number = world.client.node("events/where/n=5/log").ino
    post(world, n=5)
    while len(world.journal.segments) == 1:
        post(world)
    assert world.client.node("events/where/n=5/log.1").ino == number
    assert await world.client.content("events/where/n=5/log") == b""
    assert (await log.read()).count(b"\n") == 1
    assert log.opened.following(0, 100) == b""
    with pytest.raises(NotFound):
        world.client.node("events/where/n=5/log.9")


@pytest.mark.parametrize("cause", ["evicted", "cleared"])
async def test_a_gap_counts_the_views_own_events(cause: str) -> None:
    world = World(retain=20_000, segment=4000)
    some = await world.client.open("events/where/n=5/stream")
    every = await world.client.open("events/where/n>=0/stream")
    for number in range(10):
        post(world, n=number)
    if cause == "cleared":
        world.journal.clear()
        first = 11
    else:
        while world.journal.segments[0].lines.first_seq <= 6:
            post(world, n=0)
        first = world.journal.segments[0].lines.first_seq
    gap = (await some.events())[0]["payload"]
    assert (gap["dropped"], gap["cause"]) == (1, cause)
    assert gap["first_seq"] <= 6 <= gap["last_seq"] == first - 1
    gap = (await every.events())[0]["payload"]
    assert (gap["dropped"], gap["first_seq"], gap["last_seq"]) == (first - 1, 1, first - 1)


async def test_the_text_of_a_rare_event_leaves_others_their_turn() -> None:
    world = World(retain=8 << 20, segment=1 << 20)
    for _ in range(2000):
        post(world)
    post(world, source="zeventfs")
    turns = 0
    done = False

    async def count() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        stream = await world.client.open("events/source/zeventfs/stream.txt")
        assert await stream.read()
        done = True
    assert turns >= 20
    rendered = world.rendered
    for _ in range(500):
        post(world)
    assert world.rendered - rendered >= 400, "bit by bit, while nobody reads"
    assert stream.ready() == 0


async def test_the_text_of_a_source_costs_nothing_until_somebody_asks(world: World) -> None:
    post(world)
    for name in ("stream.txt", "log.txt"):
        assert (await world.client.stat(f"events/source/zfs/{name}")).size == 0
    assert world.rendered == 0
    (await world.client.open("events/log.txt")).close()
    assert (await world.client.stat("events/source/zfs/log.txt")).size > 0


async def test_a_log_that_is_evicted_while_it_is_measured_is_gone() -> None:
    world = World(retain=1 << 20, segment=1 << 17)
    for _ in range(200):
        post(world)
    node = world.client.node("events/where/n=1/log")
    refusals = 0

    async def measure() -> None:
        nonlocal refusals
        try:
            await node.measure()
        except Stale:
            refusals += 1

    async def evict() -> None:
        assert isinstance(node, LogFile)
        while not node.segment.stale:
            post(world, size=100_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure)
        nursery.start_soon(evict)
    assert refusals <= 1
    with pytest.raises(Stale):
        await node.measure()


async def test_a_damaged_line_is_in_no_view_that_has_to_look_into_it(world: World) -> None:
    post(world, n=5)
    lines = world.journal.current.lines
    lines.buffer[2:6] = b"\xff" * 4
    assert await world.client.content("events/where/n!=9/log") == b""
    stream = await world.client.open("events/where/n!=9/stream")
    damaged = world.journal.current.append

    def append(line: bytes, packed: bytes, time_ns: int) -> None:
        damaged(b"[]".ljust(len(line) - 1) + b"\n", packed, time_ns)

    type(world.journal.current).append, kept = (  # type: ignore[method-assign]
        lambda _, line, packed, time_ns: append(line, packed, time_ns),  # type: ignore[assignment]
        type(world.journal.current).append,
    )
    try:
        post(world, n=5)
    finally:
        type(world.journal.current).append = kept  # type: ignore[method-assign]
    assert stream.ready() == 0


async def test_a_pools_view_is_that_of_its_name(world: World) -> None:
    directory = pool_view("ta,nk", world.events.around, world.events.views)
    assert [name for name, _ in directory.entries()] == ["stream", "log"]
    view = world.events.views.view(Expression.parse("pool=ta%2Cnk"))
    assert (await directory.measure()).mtime_ns == world.journal.current.mtime_ns
    assert directory.lookup("log").key == "pool=ta%2Cnk/segment/epoch/1"
    assert view.formats[0].name == "pool=ta%2Cnk"


async def test_two_formats_of_a_view_are_kept_apart(world: World) -> None:
    text = await world.client.open("events/source/zfs/stream.txt")
    first = await world.client.open("events/source/zfs/stream")
    second = await world.client.open("events/source/zfs/stream")
    first.close()
    post(world)
    assert text.ready() == second.ready() == IN
    second.close()
    text.close()
    assert list(world.events.views.bells()) == []


async def test_kinds_without_end_are_not_remembered(world: World) -> None:
    stream = await world.client.open("events/where/n=5/stream")
    for number in range(_MOST_KINDS + 10):
        post(world, f"k{number}")
    assert len(world.events.views._interested) == 10
    stream.close()


# Since


async def test_a_stream_begins_at_a_time_or_so_long_ago(world: World) -> None:
    for _ in range(10):
        post(world)
    assert await seqs(world, "events/where/since=3s/stream") == [7, 8, 9, 10]
    assert await seqs(world, "events/where/since=1h/stream") == list(range(1, 11))
    assert await seqs(world, "events/where/since=2023-11-14T22:13:29Z,n=1/stream") == [9, 10]
    assert await seqs(world, "events/where/since=2999-01-01/stream") == []
    directory = world.client.node("events/where/since=3s")
    assert isinstance(directory, Directory)
    assert [name for name, _ in directory.entries()] == ["stream"]
    with pytest.raises(NotFound):
        directory.lookup("log")


async def test_a_reader_goes_on_at_its_seq_with_nothing_twice_and_nothing_missed(
    world: World,
) -> None:
    for number in range(20):
        post(world, n=number)
    for seq in (1, 7, 20, 21):
        due = [each for each in range(1, 21) if each >= seq and each % 2 == 0]
        path = f"events/where/n=*[13579],since-seq=epoch:{seq}/stream"
        assert await seqs(world, path) == due
    stream = await world.client.open("events/where/since-seq=epoch:21/stream")
    await refused(stream)
    post(world)
    assert [each["seq"] for each in await stream.events()] == [21]


@pytest.mark.parametrize("cause", ["evicted", "cleared"])
async def test_a_seq_that_is_kept_no_more_is_a_gap_and_another_epoch_asks_for_all(
    cause: str,
) -> None:
    world = World(retain=20_000, segment=4000)
    while len(world.journal.segments) == 1 or world.journal.segments[0].lines.first_seq == 1:
        post(world)
    if cause == "cleared":
        world.journal.clear()
        post(world)
    oldest = world.journal.lines.oldest.seq
    for begin, first in (("epoch:3", 3), ("another:99999", 1), (f"epoch:{oldest - 1}", oldest - 1)):
        stream = await world.client.open(f"events/where/since-seq={begin}/stream")
        assert stream.ready() == IN
        gap, event, *_ = await stream.events()
        assert "seq" not in gap
        assert gap["payload"]["cause"] == cause
        assert gap["payload"]["first_seq"] == first
        assert gap["payload"]["last_seq"] == oldest - 1
        assert gap["payload"]["dropped"] == oldest - first
        assert event["seq"] == oldest
    assert (await seqs(world, f"events/where/since-seq=epoch:{oldest}/stream"))[0] == oldest


async def test_a_stream_that_cant_begin_holds_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.client.node("events/where/since=1s/stream")
    assert isinstance(node, File)

    def fail(_: int) -> None:
        raise RuntimeError

    view = world.events.views.view(Expression.parse("since=1s"))
    monkeypatch.setattr(type(view.formats[0].rendition()), "since_time", lambda _, ns: fail(ns))
    with pytest.raises(RuntimeError):
        await node.open(1)
    assert list(world.events.views.bells()) == []


async def test_a_view_is_one_for_as_long_as_any_file_of_it_is_known(world: World) -> None:
    stream = pool_view("tank", world.events.around, world.events.views).lookup("stream")
    first = world.events.views.view(Expression.equal("pool", "tank"))
    again = pool_view("tank", world.events.around, world.events.views)
    assert world.events.views.view(Expression.parse("pool=tank")) is first
    assert (await stream.measure()) == (await again.lookup("stream").measure())
    canonical = first.matches.expression.canonical
    del stream, again, first
    assert canonical not in world.events.views._views, "without the garbage collector's help"
