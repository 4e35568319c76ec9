"""Tapdisks that are only watched: how their VBDs stand, whatever they do."""

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_tapdisk import Simulated
from tapdisk_sources import World, created, until

from zeventfs.errors import Fixed
from zeventfs.sources.status import SourceState
from zeventfs.sources.tapdisk.inotify import Change, Inotify, Mask
from zeventfs.sources.tapdisk.vbds import TapdiskSource
from zeventfs.tapdisk.client import Tapdisk
from zeventfs.vbd.observed import ATTACHED, ORPHAN, RUNNING
from zeventfs.vbd.states import Channel, Request, Shutdown, States, Vbd

VHDS = Path(__file__).parents[1] / "corpus" / "vhd"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def states(source: TapdiskSource, vbd: str) -> States | None:
    shown = source.get(vbd)
    return None if shown is None else shown.status().states


async def running(world: World, source: TapdiskSource, minor: int) -> Simulated:
    simulated = world.tapdisks.start()
    await created(simulated, minor)
    await until(lambda: states(source, str(minor)) == RUNNING)
    return simulated


async def test_one_that_is_there_is_found_with_its_image(world: World) -> None:
    simulated = world.tapdisks.start()
    await created(simulated, 7, "aio:/some/image")
    async with world.watching() as source:
        await until(lambda: states(source, "7") == RUNNING)
        shown = source.get("7")
        assert shown is not None
        status = shown.status()
        assert (status.pid, status.image) == (simulated.pid, "aio:/some/image")
        assert shown.info()["flags"] == "0x0"
        assert list(source) == ["7"]
        assert not source.steerable
    assert world.posted.path("tapdisk.channel", "7") == ["RUNNING"]
    assert world.posted.of("tapdisk.channel", "7")[0]["pid"] == simulated.pid


async def test_a_directory_and_tapdisks_that_come_later_are_found(world: World) -> None:
    async with world.watching() as source:
        assert source.status().state is SourceState.LOST
        assert "no directory" in source.status().reason
        first = await running(world, source, 1)
        assert source.status().state is SourceState.READY
        second = await running(world, source, 0)
        assert list(source) == ["0", "1"]
        assert first.pid != second.pid
    assert world.posted.events[0][0] == "zeventfs.source.lost"
    assert len(world.posted.of("zeventfs.source.ready")) == 1


async def test_a_directory_that_goes_and_comes_is_two_events(world: World) -> None:
    world.directory.mkdir(parents=True)
    async with world.watching() as source:
        simulated = await running(world, source, 1)
        shutil.rmtree(world.directory)
        await until(lambda: source.status().state is SourceState.LOST)
        assert states(source, "1") == RUNNING  # it is a process, and not a file
        world.directory.mkdir()
        await until(lambda: source.status().state is SourceState.READY)
        await running(world, source, 2)
        assert simulated.pid in [shown.status().pid for shown in [source.get("1")] if shown]
    assert len(world.posted.of("zeventfs.source.lost")) == 1


async def test_a_pause_that_sticks_and_ends_is_seen(world: World) -> None:
    async with world.watching() as source:
        simulated = await running(world, source, 3)
        simulated.tell("io stick")
        client = Tapdisk(simulated.path, order_s=0.2)
        with pytest.raises(Exception, match="no answer to pause"):
            await client.pause(3)
        await until(
            lambda: states(source, "3") == States(Channel.WAIT_PAUSE, Vbd.PAUSING, Shutdown.UP)
        )
        simulated.tell("io ok")
        await client.pause(3)
        await until(lambda: states(source, "3") == States(Channel.PAUSED, Vbd.PAUSED, Shutdown.UP))
        await client.resume(3)
        await until(lambda: states(source, "3") == RUNNING)
    assert world.posted.path("tapdisk.vbd", "3") == ["PAUSING", "PAUSED", "UNPAUSED"]


async def test_one_that_is_killed_breaks_its_vbds_until_their_minors_are_freed(
    world: World,
) -> None:
    async with world.watching() as source:
        simulated = await running(world, source, 3)
        shown = source.get("3")
        assert shown is not None
        os.kill(simulated.pid, signal.SIGKILL)
        await until(lambda: states(source, "3") == ORPHAN)
        assert shown.status().pid is None
        assert "left its control socket behind" in shown.status().reason
        assert [bucket.place for bucket in shown.errors] == ["RUNNING"]
        (world.directory / "tapdisk/tapdisk-3").unlink()
        await until(lambda: source.get("3") is None)
        assert shown.gone
    assert world.posted.of("tapdisk.error", "3")[0]["errno_name"] == "EPIPE"


async def test_one_that_ends_as_it_should_breaks_nothing(world: World) -> None:
    async with world.watching() as source:
        simulated = await running(world, source, 3)
        client = Tapdisk(simulated.path)
        await client.close(3)
        await client.detach(3)
        assert simulated.wait() == 0
        (world.directory / "tapdisk/tapdisk-3").unlink()
        await until(lambda: source.get("3") is None)
    assert not world.posted.of("tapdisk.error")
    assert "BROKEN" not in world.posted.path("tapdisk.vbd", "3")


async def test_a_minor_that_is_marked_and_nobodys_is_an_orphan(world: World) -> None:
    (world.directory / "tapdisk").mkdir(parents=True)
    (world.directory / "tapdisk/tapdisk-2").touch()
    (world.directory / "ctl99999999").touch()
    async with world.watching() as source:
        await until(lambda: states(source, "2") == ORPHAN)
        await running(world, source, 1)
        assert list(source) == ["1", "2"]


async def test_one_that_hangs_delays_nobody_and_is_told_once(world: World) -> None:
    async with world.watching() as source:
        hanging = await running(world, source, 0)
        other = await running(world, source, 1)
        os.kill(hanging.pid, signal.SIGSTOP)
        await until(lambda: world.posted.of("tapdisk.error", "0"))
        assert states(source, "0") == RUNNING
        assert f"tapdisk {hanging.pid}: no answer to list" in source.status().reason
        shown = source.get("0")
        assert shown is not None
        assert "no answer" in shown.info()["trouble"]
        for _ in range(3):
            await Tapdisk(other.path).pause(1)
            await until(lambda: states(source, "1") != RUNNING)
            await Tapdisk(other.path).resume(1)
            await until(lambda: states(source, "1") == RUNNING)
        os.kill(hanging.pid, signal.SIGCONT)
        await until(lambda: not source.status().reason)
    assert [each["errno_name"] for each in world.posted.of("tapdisk.error")] == ["ETIMEDOUT"]


@pytest.mark.parametrize(
    "line", ["list:wrong type", "list:wrong garbage", "list:wrong size", "list:partial 200"]
)
async def test_one_that_lies_changes_nothing(world: World, line: str) -> None:
    async with world.watching() as source:
        simulated = await running(world, source, 0)
        simulated.tell(line)
        await until(lambda: world.posted.of("tapdisk.error", "0"))
        assert states(source, "0") == RUNNING
        assert source.status().malformed >= 1
        simulated.tell("well")
        await until(lambda: not source.status().reason)
    assert {each["errno_name"] for each in world.posted.of("tapdisk.error")} == {"EPROTO"}


async def test_one_that_is_another_than_its_socket_says_is_told(world: World) -> None:
    async with world.watching() as source:
        await running(world, source, 0)
        world.tapdisks.start("--tell", "pid:wrong garbage")
        await until(lambda: world.posted.of("tapdisk.error"))
    assert "vbd" not in world.posted.of("tapdisk.error")[0]


async def test_a_socket_that_is_anothers_is_told(world: World) -> None:
    async with world.watching() as source:
        simulated = await running(world, source, 0)
        (world.directory / f"ctl{os.getpid()}").symlink_to(simulated.path)
        await until(lambda: world.posted.of("tapdisk.error"))
    reason = world.posted.of("tapdisk.error")[0]["reason"]
    assert reason == f"process {os.getpid()} says that it is {simulated.pid}"


async def test_a_socket_that_was_left_by_one_whose_pid_is_anothers_now_is_nobodys(
    world: World,
) -> None:
    world.directory.mkdir(parents=True)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(world.directory / f"ctl{os.getpid()}"))
    left.close()
    async with world.watching() as source:
        await until(lambda: os.getpid() in source._watch.found)
        await until(lambda: not source._watch.found)
        await running(world, source, 0)
    assert not world.posted.of("tapdisk.error")


async def test_where_changes_were_lost_it_is_looked_around(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Inotify.changes

    async def lose(inotify: Inotify) -> list[Change]:
        await changes(inotify)
        return [Change(-1, "", Mask.Q_OVERFLOW)]

    monkeypatch.setattr(Inotify, "changes", lose)
    async with world.watching() as source:
        simulated = await running(world, source, 0)
        await running(world, source, 1)
        os.kill(simulated.pid, signal.SIGKILL)
        await until(lambda: states(source, "0") == ORPHAN)
        (world.directory / "tapdisk/tapdisk-0").unlink()
        await until(lambda: list(source) == ["1"])


async def test_a_vbd_that_two_claim_stays_with_the_first(world: World) -> None:
    async with world.watching() as source:
        first = await running(world, source, 0)
        second = world.tapdisks.start()
        await created(second, 0)
        await until(lambda: world.posted.of("tapdisk.error"))
        shown = source.get("0")
        assert shown is not None
        assert shown.status().pid == first.pid
    assert f"minor 0 of {first.pid}" in world.posted.of("tapdisk.error")[0]["reason"]


async def test_several_vbds_of_one_tapdisk_go_with_it(world: World) -> None:
    async with world.watching() as source:
        simulated = await running(world, source, 0)
        await created(simulated, 1)
        simulated.mark(2)
        await Tapdisk(simulated.path).attach(2)
        await until(lambda: states(source, "2") == ATTACHED)
        os.kill(simulated.pid, signal.SIGKILL)
        await until(lambda: {states(source, each) for each in "012"} == {ORPHAN})


async def test_what_is_only_watched_is_not_steered(world: World) -> None:
    async with world.watching() as source:
        await running(world, source, 0)
        shown = source.get("0")
        assert shown is not None
        with pytest.raises(Fixed):
            source.appear("1")
        with pytest.raises(Fixed):
            source.vanish("0")
        with pytest.raises(Fixed):
            shown.ask(Request.PAUSE)
        with pytest.raises(Fixed):
            shown.set_image("aio:/x")


async def test_requests_are_counted_by_what_a_tapdisk_tells(world: World) -> None:
    async with world.watching() as source:
        simulated = await running(world, source, 0)
        shown = source.get("0")
        assert shown is not None
        queue = await shown.queue()
        assert (queue.new, queue.pending, queue.failed, queue.completed) == (None, 0, None, 0)
        assert await shown.kicks() is None
        simulated.tell("stats:silent")
        assert (await shown.queue()).pending is None
        simulated.tell("well")
        os.kill(simulated.pid, signal.SIGKILL)
        await until(lambda: states(source, "0") == ORPHAN)
        assert set(await shown.queue()) == {None}


async def test_a_broken_chain_is_told_when_its_image_is_seen(world: World, tmp_path: Path) -> None:
    simulated = world.tapdisks.start()
    await created(simulated, 0, f"vhd:{tmp_path}/missing.vhd")
    async with world.watching():
        await until(lambda: world.posted.of("tapdisk.chain.broken", "0"))
    [event] = world.posted.of("tapdisk.chain.broken", "0")
    assert (event["reason"], event["depth"]) == ("missing", 0)


async def test_a_parent_that_was_changed_after_its_child_was_made_is_told(
    world: World, tmp_path: Path
) -> None:
    shutil.copy(VHDS / "base.vhd", tmp_path)
    child = bytearray((VHDS / "child.vhd").read_bytes())
    header = memoryview(child)[512:1536]
    header[56:60] = (12345).to_bytes(4, "big")  # the parent's time stamp
    header[36:40] = bytes(4)
    header[36:40] = (~sum(header) & 0xFFFFFFFF).to_bytes(4, "big")
    (tmp_path / "child.vhd").write_bytes(child)
    simulated = world.tapdisks.start()
    await created(simulated, 0, f"vhd:{tmp_path}/child.vhd")
    async with world.watching():
        await until(lambda: world.posted.of("tapdisk.chain.broken", "0"))
    [event] = world.posted.of("tapdisk.chain.broken", "0")
    assert (event["reason"], event["depth"]) == ("timestamp", 1)


async def test_a_bug_in_the_source_is_not_the_end_of_the_tree(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.steering() as source:
        await running(world, source, 0)

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(source._watch, "_miss", fail)
        await until(lambda: source.status().state is SourceState.LOST)
        assert "ZeroDivisionError" in source.status().reason
        assert states(source, "0") == RUNNING
        with pytest.raises(Fixed):
            source.appear("1")
    assert len(caplog.records) == 1
