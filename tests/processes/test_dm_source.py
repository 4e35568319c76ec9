"""What happens to mapped devices is told, whatever device-mapper does."""

import errno
import functools
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from dm_world import World, multipath

from zeventfs.dm.ioctl import Command, Version
from zeventfs.event import NS
from zeventfs.simulator.dm.targets import Linear, Mirror, Multipath, Snapshot, ThinPool
from zeventfs.sources.dm.boundary import Control, Received, Uevents, Uses
from zeventfs.sources.dm.source import DmSource
from zeventfs.sources.status import SourceState


@pytest.fixture
def world() -> World:
    return World()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return said


async def test_devices_that_are_there_are_known_and_not_told(world: World) -> None:
    world.devices.create("mp", [multipath()], "mpath-1")
    world.devices.create("lin", [Linear(8), Linear(16)])
    async with world.watching():
        assert list(world.source.devices) == ["lin", "mp"]
        shown = world.source.devices.get("mp")
        assert shown is not None
        assert (shown.facts.uuid, shown.facts.dev, shown.facts.sectors) == (
            "mpath-1",
            "253:0",
            65536,
        )
        assert [target.kind for target in shown.facts.targets] == ["multipath"]
        assert await world.classes() == []
    status = world.source.status()
    assert (status.state, status.reason, status.events) == (SourceState.READY, "", 0)


async def test_a_device_is_told_from_its_creation_to_its_removal(world: World) -> None:
    devices = world.devices
    async with world.watching():
        devices.create("lin", [Linear(8)], "LVM-1")
        assert await world.classes() == ["dm.created", "dm.table.live"]
        devices.suspend("lin")
        assert await world.classes() == ["dm.suspended"]
        devices.resume("lin")
        assert await world.classes() == ["dm.resumed"]
        devices.load("lin", [Linear(16)])
        assert await world.classes() == []
        shown = world.source.devices.get("lin")
        assert shown is not None
        assert shown.facts.inactive
        devices.resume("lin")
        assert await world.classes() == ["dm.table.live"]
        devices.rename("lin", "lin2")
        assert await world.classes() == ["dm.renamed"]
        devices.remove("lin2")
        assert await world.classes() == ["dm.removed"]
        assert shown.gone
    assert world.source.status().events == 7


async def test_paths_and_groups_are_told(world: World) -> None:
    devices = world.devices
    devices.create("mp", [multipath()])
    async with world.watching():
        devices.fail_path("mp", "7:2")
        [(name, payload)] = await world.told()
        assert name == "dm.path.failed"
        assert (payload["path"], payload["valid_paths"], payload["fail_count"]) == ("7:2", 2, 1)
        devices.fail_path("mp", "7:2")
        assert await world.classes() == []
        devices.reinstate_path("mp", "7:2")
        assert await world.classes() == ["dm.path.reinstated"]
        devices.use_group("mp", 2)
        assert await world.classes() == ["dm.group.switched"]
        devices.bypass_group("mp", 1, bypassed=True)
        assert await world.classes() == ["dm.group.bypassed"]
        devices.bypass_group("mp", 1, bypassed=False)
        assert await world.classes() == ["dm.group.enabled"]


async def test_mirrors_snapshots_and_pools_are_told(world: World) -> None:
    devices = world.devices
    devices.create("mir", [Mirror(8192, ["7:1", "7:2"], 8, 0, log="7:3")])
    devices.create("snap", [Snapshot(8192, "253:0", "7:4", 1024)])
    devices.create("pool", [ThinPool(8192, "7:5", "7:6", 100, 200, 20)])
    async with world.watching():
        devices.sync_mirror("mir", 4)
        assert await world.classes() == []
        devices.sync_mirror("mir", 9)
        assert await world.classes() == ["dm.mirror.recovered"]
        devices.fail_leg("mir", 1)
        assert await world.classes() == ["dm.mirror.leg_failed"]
        devices.fail_log("mir")
        assert await world.classes() == ["dm.mirror.log_failed"]
        devices.fill_snapshot("snap", 1000)
        assert await world.classes() == []
        devices.fill_snapshot("snap", 1025)
        assert await world.classes() == ["dm.snapshot.invalid"]
        devices.fill_pool("pool", 100)
        assert await world.classes() == []
        devices.fill_pool("pool", 185, 40)
        assert await world.classes() == ["dm.thin.low_water"]
        devices.fill_pool("pool", 300)
        assert "dm.thin.state" in await world.classes()
        devices.extend_pool("pool", 400)
        assert await world.classes() == ["dm.thin.state"]


async def test_nothing_is_asked_while_nothing_happens(world: World) -> None:
    asked: list[Command] = []
    world.mapper.spoil = lambda command, _: asked.append(command)
    world.devices.create("mp", [multipath()])
    async with world.watching():
        assert Command.TABLE_STATUS in asked
        asked.clear()
        for _ in range(100):
            world.devices.elsewhere()
        await world.told()
        assert asked == []


async def test_a_storm_of_flaps_is_told_whole_and_asks_little(world: World) -> None:
    asked: Counter[Command] = Counter()
    world.mapper.spoil = lambda command, _: asked.update([command])
    world.devices.create("mp", [multipath()])
    async with world.watching():
        asked.clear()
        for _ in range(10_000):
            world.devices.fail_path("mp", "7:1")
            world.devices.reinstate_path("mp", "7:1")
        told = Counter(await world.classes())
    assert told == {"dm.path.failed": 10_000, "dm.path.reinstated": 10_000}
    assert asked.total() < 50
    assert world.source.status().gaps == 0


@pytest.mark.parametrize("seed", range(20))
async def test_flaps_that_are_told_together_are_all_told_and_no_more(
    world: World, seed: int
) -> None:
    random = Random(seed)
    world.devices.create("mp", [multipath()])
    paths = [path.dev for path in world.devices.target("mp", Multipath).paths()]
    count = 0
    async with world.watching():
        for _ in range(random.randint(1, 10)):
            with world.devices.together():
                for _ in range(random.randint(1, 8)):
                    before = world.devices.device("mp").path_seqnum
                    flap = random.choice((world.devices.fail_path, world.devices.reinstate_path))
                    flap("mp", random.choice(paths))
                    count += world.devices.device("mp").path_seqnum - before
            if random.random() < 0.5:
                await trio.testing.wait_all_tasks_blocked(0.01)
        told = Counter(await world.classes())
    assert told["dm.path.failed"] + told["dm.path.reinstated"] == count
    assert told.total() == count


async def test_many_flaps_that_are_told_together_end_as_they_did(world: World) -> None:
    world.devices.create("mp", [multipath()])
    async with world.watching():
        with world.devices.together():
            for _ in range(50):
                world.devices.fail_path("mp", "7:1")
                world.devices.reinstate_path("mp", "7:1")
        assert await world.classes() == ["dm.path.failed", "dm.path.reinstated"] * 50


async def test_others_get_their_turn_in_a_storm(world: World) -> None:
    world.devices.create("mp", [multipath()])
    turns = 0
    async with world.watching():
        for _ in range(1000):
            world.devices.fail_path("mp", "7:1")
            world.devices.reinstate_path("mp", "7:1")
        while len(world.posted) < 2000:
            turns += 1
            await trio.lowlevel.checkpoint()
    assert turns > 2000 // 64


# Loss


async def test_uevents_that_are_missing_are_a_gap_and_the_state_is_read(world: World) -> None:
    world.devices.create("mp", [multipath()])
    async with world.watching():
        world.devices.elsewhere()
        path = world.devices.target("mp", Multipath).paths()[0]
        path.active, path.fails = False, 1
        world.devices.lose(3)
        world.devices.elsewhere()
        told = await world.told()
        assert [name for name, _ in told] == ["zeventfs.gap", "dm.path.failed"]
        assert (told[0][1]["dropped"], told[0][1]["cause"]) == (3, "source")
    assert (world.source.status().gaps, world.source.status().dropped) == (1, 3)


async def test_a_socket_that_overflows_is_a_gap_and_the_state_is_read(world: World) -> None:
    world.devices.create("mp", [multipath()])
    world.mapper.most = 5
    async with world.watching():
        for _ in range(10):
            world.devices.fail_path("mp", "7:1")
            world.devices.reinstate_path("mp", "7:1")
        world.devices.fail_path("mp", "7:3")
        told = await world.told()
        names = Counter(name for name, _ in told)
        assert names["zeventfs.gap"] == 1
        dropped = world.source.status().dropped
        assert dropped == 16
        shown = world.source.devices.get("mp")
        assert shown is not None
        assert "7:3 F" in shown.facts.targets[0].status


async def test_a_control_device_that_goes_and_comes_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.devices.create("mp", [multipath()])
    async with world.watching():
        world.mapper.away = True
        world.devices.fail_path("mp", "7:1")
        told = await world.told()
        assert [name for name, _ in told] == ["dm.path.failed", "zeventfs.source.lost"]
        assert told[1][1]["source"] == "dm"
        assert "No such device" in told[1][1]["reason"]
        assert world.source.status().state is SourceState.LOST
        world.devices.fail_path("mp", "7:2")  # uevents are taken meanwhile
        assert await world.classes() == ["dm.path.failed"]
        world.devices.create("new", [Linear(8)])
        assert await world.classes() == []
        world.mapper.away = False
        world.devices.appear()
        names = await world.classes()
        assert sorted(names) == ["dm.created", "dm.table.live", "zeventfs.source.ready"]
        assert world.source.status().state is SourceState.READY
        assert world.source.status().reason == ""
    assert len(warnings(caplog)) == 1


async def test_a_device_mapper_that_is_not_there_yet_is_awaited(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.mapper.away = True
    async with world.watching():
        assert world.source.status().state is SourceState.LOST
        world.mapper.away = False
        await trio.sleep(6)  # nothing has told that it is there
        assert world.source.status().state is SourceState.READY
    assert [event.name for event in world.posted] == [
        "zeventfs.source.lost",
        "zeventfs.source.ready",
    ]
    assert autojump_clock.current_time() == pytest.approx(6)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (Version(5, 0, 0), "of version 5.0.0, and not 4.x"),
        (Version(3, 9, 9), "of version 3.9.9, and not 4.x"),
        (Version(4, 36, 0), "of version 4.36.0, and tells events from 4.37.0 on"),
    ],
)
async def test_another_interface_is_a_loss_with_its_version(
    world: World, version: Version, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.mapper.version = version
    async with world.watching():
        assert reason in world.source.status().reason
    assert world.source.status().malformed == 1
    assert len(warnings(caplog)) == 2


class NoUevents:
    """A device-mapper whose uevents fail."""

    def __init__(self, world: World, number: int) -> None:
        self._mapper = world.mapper
        self._number = number
        self.refusing = True

    def uevents(self) -> Uevents:
        if self.refusing:
            raise OSError(self._number, os.strerror(self._number))
        return self._mapper.uevents()

    def control(self) -> Control:
        return self._mapper.control()

    def uses(self) -> Uses:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_without_uevents_there_is_no_source_until_there_are(
    world: World, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = NoUevents(world, errno.EAFNOSUPPORT)
    source = DmSource("dm", mapper, world.posted.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        assert "uevents: Address family not supported" in source.status().reason
        mapper.refusing = False
        await trio.sleep(6)
        assert source.status().state is SourceState.READY
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() == pytest.approx(6)
    said = warnings(caplog)
    assert len(said) == 2
    assert "suspended devices are noticed late" in said[1]


# What can't be so


@pytest.mark.parametrize(
    "spoil",
    [
        lambda datagram: datagram[:60],
        lambda datagram: datagram.partition(b"\0")[2],
        lambda datagram: datagram.replace(b"SEQNUM=", b"SEQNUM=9" * 99),
        lambda datagram: datagram.replace(b"MAJOR=253", b"MAJOR=x"),
        lambda datagram: datagram + b"A=B\0" * 10_000,
        lambda _: b"",
        lambda _: b"libudev\0\xfe\xed\xca\xfe",
        lambda _: os.urandom(200),
    ],
)
async def test_a_datagram_that_is_none_is_counted_and_said_once(
    world: World, spoil: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    device = world.devices.create("mp", [multipath()])
    datagram = "".join(f"{line}\0" for line in (*device.uevent("change"), "SEQNUM=3")).encode()
    async with world.watching():
        for _ in range(3):
            world.mapper.strays.append(Received(spoil(datagram), 0))
        world.devices.fail_path("mp", "7:1")
        assert await world.classes() == ["dm.path.failed"]
    assert world.source.status().malformed == 3
    assert len(warnings(caplog)) == 1


async def test_what_another_process_sends_is_not_believed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    device = world.devices.create("mp", [multipath()])
    lines = (*device.path_uevent("PATH_FAILED", "7:1", 0), "SEQNUM=3")
    async with world.watching():
        world.mapper.strays.append(Received("".join(f"{each}\0" for each in lines).encode(), 4711))
        world.devices.elsewhere()
        assert await world.classes() == []
        world.mapper.strays.append(Received(b"", 4711))
        world.now_ns += 61 * NS
        world.devices.elsewhere()
        assert await world.classes() == []
    assert world.source.status().malformed == 2
    assert world.source.status().gaps == 0
    first, second = warnings(caplog)
    assert first == second
    assert "process 4711 has sent" in first


def damage(command: Command, at: int, value: int) -> Callable[[Command, bytearray], None]:
    def spoil(asked: Command, buffer: bytearray) -> None:
        if asked is command:
            buffer[at] = value

    return spoil


async def test_a_device_that_answers_nonsense_is_left_as_it_was_and_asked_again(
    world: World, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    world.devices.create("mp", [multipath()])
    world.devices.create("lin", [Linear(8)])
    async with world.watching():
        world.mapper.spoil = damage(Command.TABLE_STATUS, 15, 0xFF)  # data_size
        world.devices.use_group("mp", 2)
        assert await world.classes() == []
        assert list(world.source.devices) == ["lin", "mp"]
        assert world.source.status().malformed > 0
        await trio.sleep(3)
        world.mapper.spoil = lambda *_: None
        await trio.sleep(1.5)
        assert await world.classes() == ["dm.group.switched"]
    [said] = warnings(caplog)
    assert "device 253:0: the answer stands at" in said
    assert autojump_clock.current_time() < 6


async def test_a_device_that_could_not_be_read_at_first_is_known_later(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.devices.create("lin", [Linear(8)])
    world.mapper.spoil = damage(Command.TABLE_STATUS, 15, 0xFF)
    async with world.watching():
        assert list(world.source.devices) == []
        assert world.source.status().state is SourceState.READY
        world.mapper.spoil = lambda *_: None
        await trio.sleep(1.5)
        assert list(world.source.devices) == ["lin"]
    assert autojump_clock.current_time() < 3


async def test_a_device_that_could_not_be_read_at_first_was_there_and_is_heard_later(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.devices.create("mp", [multipath()])
    world.mapper.spoil = refuse(errno.EBUSY, [1])
    async with world.watching():
        await trio.sleep(1.5)
        assert await world.classes() == [], "it isn't new"
        world.devices.suspend("mp")
        world.devices.resume("mp")
        world.devices.fail_path("mp", "7:1")
        assert sorted(await world.classes()) == ["dm.path.failed", "dm.resumed"]
    assert autojump_clock.current_time() < 3


async def test_a_device_that_is_renamed_while_it_does_not_answer_stays_the_same(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.devices.create("mp", [multipath()])
    async with world.watching():
        known = world.source.devices.get("mp")
        world.mapper.spoil = refuse(errno.EBUSY, [1, 2])
        world.devices.lose(1)
        world.devices.rename("mp", "mpatha")
        world.devices.fail_path("mpatha", "7:1")
        await trio.sleep(3)
        assert world.source.devices.get("mpatha") is known
        assert "dm.removed" not in await world.classes()
    assert autojump_clock.current_time() < 6


async def test_what_is_asked_of_a_device_in_short_may_be_nonsense(world: World) -> None:
    world.devices.create("mp", [multipath()])
    async with world.watching():
        world.mapper.spoil = damage(Command.DEV_STATUS, 0, 5)  # the version
        world.devices.suspend("mp")
        assert await world.classes() == ["dm.suspended"]
        assert world.source.status().state is SourceState.READY


class Deaf:
    """Uevents that fail with EBADF once they are told to."""

    def __init__(self, uevents: Uevents) -> None:
        self._uevents = uevents
        self.failing = False
        self.fileno = uevents.fileno
        self.close = uevents.close
        self.seqnum = uevents.seqnum

    def receive(self) -> Received | None:
        if self.failing:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._uevents.receive()


async def test_uevents_that_fail_are_a_loss_until_they_are_opened_again(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    opened = [Deaf(world.mapper.uevents()), Deaf(world.mapper.uevents())]
    waiting = iter(opened)
    monkeypatch.setattr(world.mapper, "uevents", lambda: next(waiting))
    async with world.watching():
        opened[0].failing = True
        world.devices.create("lin", [Linear(8)])
        assert await world.classes() == ["zeventfs.source.lost"]
        assert world.source.status().reason == "there are no uevents: Bad file descriptor"
        await trio.sleep(6)
        assert "zeventfs.source.ready" in await world.classes()
        assert list(world.source.devices) == ["lin"]
    assert autojump_clock.current_time() < 7


async def test_a_table_that_is_exchanged_while_it_is_read_is_read_again(world: World) -> None:
    world.devices.create("lin", [Linear(8)])
    tables = iter([[Linear(8, kind="zero")], [Linear(16)]])

    def exchange(command: Command, _: bytearray) -> None:
        if command is Command.TABLE_STATUS:
            with suppress(StopIteration):
                world.devices.device("lin").table = next(tables)

    async with world.watching():
        world.mapper.spoil = exchange
        world.devices.suspend("lin")
        await world.told()
        shown = world.source.devices.get("lin")
        assert shown is not None
        assert shown.facts.sectors == 16
    assert world.source.status().malformed == 0


async def test_answers_of_any_size_are_read(world: World) -> None:
    world.devices.create("many", [Linear(8) for _ in range(2000)])
    async with world.watching():
        shown = world.source.devices.get("many")
        assert shown is not None
        assert len(shown.facts.targets) == 2000
        world.mapper.spoil = damage(Command.TABLE_STATUS, 29, 1)  # as if there never were room
        world.devices.suspend("many")
        assert await world.classes() == []
    assert world.source.status().malformed == 1


async def test_an_answer_of_another_device_is_refused(world: World) -> None:
    world.devices.create("lin", [Linear(8)])
    async with world.watching():
        world.mapper.spoil = damage(Command.TABLE_STATUS, 40, 7)
        world.devices.suspend("lin")
        assert await world.classes() == []
        assert world.source.status().malformed == 1


async def test_a_device_that_goes_while_it_is_read_is_gone(world: World) -> None:
    world.devices.create("lin", [Linear(8)])
    world.devices.create("mp", [multipath()])

    def remove(command: Command, _: bytearray) -> None:
        if command is Command.LIST_DEVICES and world.devices.at(0) is not None:
            world.devices.remove("lin")

    world.mapper.spoil = remove
    async with world.watching():
        assert list(world.source.devices) == ["mp"]
    assert await world.classes() == []


async def test_a_list_that_is_nonsense_is_a_loss(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.devices.create("lin", [Linear(8)])
    async with world.watching():
        world.mapper.spoil = damage(Command.LIST_DEVICES, 15, 0xFF)
        world.devices.create("other", [Linear(8)])
        await trio.sleep(0.1)
        assert "the answer stands at" in world.source.status().reason
        world.mapper.spoil = lambda *_: None
        await trio.sleep(6)
        assert world.source.status().state is SourceState.READY
        assert list(world.source.devices) == ["lin", "other"]
    assert autojump_clock.current_time() < 7


def refuse(number: int, times: list[int]) -> Callable[[Command, bytearray], None]:
    """Refuse statuses with errno *number*, as long as *times* has something to pop."""

    def spoil(command: Command, _: bytearray) -> None:
        if command is Command.TABLE_STATUS and times:
            times.pop()
            raise OSError(number, os.strerror(number))

    return spoil


async def test_a_kernel_without_memory_is_asked_again(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.devices.create("mp", [multipath()])
    async with world.watching():
        world.mapper.spoil = refuse(errno.ENOMEM, [1, 2, 3])
        world.devices.use_group("mp", 2)
        await trio.sleep(5)
        assert await world.classes() == ["dm.group.switched"]
    assert world.source.status().malformed == 0
    assert autojump_clock.current_time() < 6


async def test_a_control_device_that_fails_is_a_loss(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.devices.create("mp", [multipath()])
    async with world.watching():
        world.mapper.spoil = refuse(errno.ENOTTY, [1])
        world.devices.use_group("mp", 2)
        await trio.sleep(6)
    assert [event.name for event in world.posted] == [
        "zeventfs.source.lost",
        "dm.group.switched",
        "zeventfs.source.ready",
    ]
    assert autojump_clock.current_time() < 7


def slow_pools(world: World, wait: Callable[[], Awaitable[object]]) -> Callable[[], Control]:
    """Open a control device that answers for a pool of thin volumes after *wait* alone."""
    original = world.mapper.control

    class Slow:
        def __init__(self) -> None:
            self._control = original()
            self.fileno = self._control.fileno
            self.close = self._control.close

        async def ioctl(self, command: int, buffer: bytearray) -> None:
            await self._control.ioctl(command, buffer)
            if command == Command.TABLE_STATUS and b"thin-pool" in buffer:
                await wait()

    return Slow


async def test_a_device_that_does_not_answer_holds_up_nobody_for_long(
    world: World,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.devices.create("pool", [ThinPool(8192, "7:5", "7:6", 100, 200, 20)])
    world.devices.create("mp", [multipath()])
    hanging = trio.Event()
    monkeypatch.setattr(world.mapper, "control", slow_pools(world, hanging.wait))
    async with world.watching():
        assert list(world.source.devices) == ["mp"]
        world.devices.fail_path("mp", "7:1")
        await trio.sleep(3)
        assert [event.name for event in world.posted] == ["dm.path.failed"]
        hanging.set()
        await trio.sleep(3)
        assert list(world.source.devices) == ["mp", "pool"]
    assert "device 253:0 does not say how it stands" in warnings(caplog)[0]
    assert autojump_clock.current_time() < 10


async def test_a_device_that_always_takes_its_time_is_read_and_delays_no_other(
    world: World, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.devices.create("pool", [ThinPool(8192, "7:5", "7:6", 100, 200, 20)])
    world.devices.create("mp", [multipath()])
    control = slow_pools(world, functools.partial(trio.sleep, 1.5))
    async with world.watching():
        monkeypatch.setattr(world.mapper, "control", control)
        world.mapper.spoil = refuse(errno.ENOTTY, [1])
        world.devices.use_group("mp", 2)  # and so all is opened anew
        await trio.sleep(20)
        assert world.source.status().state is SourceState.READY
        world.posted.clear()
        world.devices.fill_pool("pool", 190)
        begun = trio.current_time()
        for _ in range(3):
            world.devices.fail_path("mp", "7:1")
            world.devices.reinstate_path("mp", "7:1")
            await trio.sleep(1)
        await trio.sleep(3)
        told = [event.name for event in world.posted]
        assert told.count("dm.path.failed") == told.count("dm.path.reinstated") == 3
        assert told.count("dm.thin.low_water") == 1
        assert trio.current_time() < begun + 7
    assert autojump_clock.current_time() < 60


async def test_what_cannot_be_posted_does_not_end_the_source(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def post(_: object) -> None:
        raise RuntimeError("no room")

    world.devices.create("mp", [multipath()])
    source = DmSource("dm", world.mapper, post)
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        world.devices.fail_path("mp", "7:1")
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert source.status().events == 0
        assert source.status().state is SourceState.READY
        nursery.cancel_scope.cancel()
    assert "dm.path.failed was lost" in caplog.text


def broken(*_: object) -> None:
    raise RuntimeError("oops")


async def test_a_bug_is_a_loss_from_which_the_source_comes_back(
    world: World, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.watching():
        world.mapper.spoil = broken
        world.devices.create("mp", [multipath()])
        await trio.sleep(1)
        assert world.posted[-1].name == "zeventfs.source.lost"
        assert "oops" in world.posted[-1].payload.get("reason")
        assert "watching the devices broke off" in caplog.text
        world.mapper.spoil = lambda _command, _buffer: None
        await trio.sleep(6)
        assert world.posted[-1].name == "zeventfs.source.ready"
        assert list(world.source.devices) == ["mp"]
    assert autojump_clock.current_time() < 10


async def test_a_bug_in_a_slow_reading_ends_that_alone(
    world: World,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def break_late() -> None:
        await trio.sleep(1.5)
        raise RuntimeError("oops")

    world.devices.create("pool", [ThinPool(8192, "7:5", "7:6", 100, 200, 20)])
    world.devices.create("mp", [multipath()])
    monkeypatch.setattr(world.mapper, "control", slow_pools(world, break_late))
    async with world.watching():
        await trio.sleep(3)
        assert "reading device 253:0 broke off" in caplog.text
        world.devices.fail_path("mp", "7:1")
        await trio.sleep(1)
        assert [event.name for event in world.posted] == ["dm.path.failed"]
    assert autojump_clock.current_time() < 10


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


async def test_closing_closes_all_descriptors(world: World) -> None:
    before = descriptors()
    async with world.watching():
        await world.told()
    assert descriptors() == before
    assert world.devices.listeners == []
