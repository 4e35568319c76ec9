"""Tapdisks that the agent starts and drives, and those that it finds again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from tapdisk_sources import World, created, started, until

from zeventfs.errors import Busy, Down, Exists, Invalid, NotFound
from zeventfs.sources.tapdisk.vbd import AT_REST
from zeventfs.sources.tapdisk.vbds import TapdiskSource
from zeventfs.tapdisk.client import Tapdisk
from zeventfs.vbd.machine import LIMITS
from zeventfs.vbd.observed import RUNNING
from zeventfs.vbd.shown import ShownVbd
from zeventfs.vbd.states import Channel, Request, Shutdown, States, Vbd

SHORT = {**dict.fromkeys(LIMITS, 0.5), Channel.LAUNCHED: 20.0}
PAUSED = States(Channel.PAUSED, Vbd.PAUSED, Shutdown.UP)
DEAD = States(Channel.DEAD, Vbd.BROKEN, Shutdown.UP)
LAUNCH = ["LAUNCHED", "WAIT_PID", "PID", "WAIT_OPEN", "RUNNING"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def markers(world: World) -> list[str]:
    return sorted(each.name for each in (world.directory / "tapdisk").iterdir())


def begun(source: TapdiskSource, vbd: str = "0") -> ShownVbd:
    source.appear(vbd)
    shown = source.get(vbd)
    assert shown is not None
    shown.set_image("ram:/x")
    shown.ask(Request.START)
    return shown


def process(shown: ShownVbd) -> int:
    pid = shown.status().pid
    assert pid is not None
    return pid


async def test_one_life_from_mkdir_to_rmdir(world: World) -> None:
    async with world.steering() as source:
        assert source.steerable
        shown = await started(source, "5")
        assert shown.info()["sectors"] == "32768"
        assert markers(world) == ["tapdisk-5"]
        shown.ask(Request.PAUSE)
        await until(lambda: shown.status().states == PAUSED)
        shown.ask(Request.UNPAUSE)
        await until(lambda: shown.status().states == RUNNING)
        shown.ask(Request.SHUTDOWN)
        await until(lambda: shown.status().states == AT_REST)
        assert shown.status().pid is None
        assert markers(world) == []
        shown.set_image("ram:/y")
        shown.ask(Request.START)
        await until(lambda: shown.status().states == RUNNING)
        source.vanish("5")
        assert list(source) == []
        assert shown.gone
        await until(lambda: markers(world) == [])
        await until(lambda: world.posted.path("tapdisk.channel", "5")[-1] == "DEAD")
    posted = world.posted
    assert posted.path("tapdisk.channel", "5") == [
        *LAUNCH,
        "WAIT_PAUSE",
        "PAUSED",
        "WAIT_RESUME",
        "RUNNING",
        "WAIT_CLOSE",
        "CLOSED",
        "DEAD",
        *LAUNCH,
        "WAIT_CLOSE",
        "CLOSED",
        "DEAD",
    ]
    assert posted.path("tapdisk.vbd", "5") == ["PAUSING", "PAUSED", "UNPAUSED", "DEAD"]
    assert posted.path("tapdisk.shutdown", "5") == ["UP", "DOWN", "UP"]
    assert not posted.of("tapdisk.error")


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (37, "signal 37")])
async def test_the_signal_that_ends_a_tapdisk_is_named(
    world: World, number: int, name: str
) -> None:
    async with world.steering() as source:
        shown = await started(source, "0")
        pid = process(shown)
        os.kill(pid, number)
        await until(lambda: shown.status().states == DEAD)
        assert shown.status().reason == f"killed by {name}"
        [bucket] = shown.errors
        assert (bucket.place, bucket.reason) == ("RUNNING", f"killed by {name}")
        for request in (Request.START, Request.PAUSE, Request.SHUTDOWN):
            with pytest.raises(Down, match=name):
                shown.ask(request)
        [event] = world.posted.of("tapdisk.error", "0")
        assert (event["reason"], event["pid"]) == (f"killed by {name}", pid)
        assert markers(world) == ["tapdisk-0"]
        source.vanish("0")
        again = await started(source, "0")
        assert again is not shown
        assert process(again) != pid


@pytest.mark.parametrize(
    ("told", "name", "reason"),
    [
        ("open:refuse ENOENT gone", "ENOENT", "OPEN: ENOENT: gone"),
        ("open:wrong type", "EPROTO", "OPEN: the answer to open is of type"),
        ("open:partial 100", "EPROTO", "OPEN: the answer ends after 100"),
        ("open:exit 3", "EPIPE", "exited with status 3"),
        ("open:silent", "ETIMEDOUT", "did not answer within 0.5 s"),
        ("open:stop", "ETIMEDOUT", "did not answer within 0.5 s"),
        ("attach:refuse EBUSY", "EBUSY", "PID: EBUSY"),
        ("pid:wrong garbage", "EPROTO", "PID: "),
        ("start:exit 4", "EPIPE", "exited with status 4"),
    ],
)
async def test_one_that_fails_breaks_its_vbd(
    world: World, told: str, name: str, reason: str
) -> None:
    async with world.steering("--tell", told, limits=SHORT) as source:
        shown = begun(source)
        await until(lambda: shown.status().states.vbd is Vbd.BROKEN)
        event = world.posted.of("tapdisk.error", "0")[0]
        assert event["errno_name"] == name
        assert reason in event["reason"]
        assert next(iter(shown.errors)).errno == event["errno"]
        source.vanish("0")
        assert source.get("0") is None


async def test_one_that_is_never_ready_is_killed_when_its_path_goes(world: World) -> None:
    limits = {**SHORT, Channel.LAUNCHED: 0.3}
    async with world.steering("--tell", "start:silent", limits=limits) as source:
        shown = begun(source)
        await until(lambda: shown.status().states.vbd is Vbd.BROKEN)
        source.vanish("0")
        await until(lambda: "DEAD" in world.posted.path("tapdisk.channel", "0"))
    assert world.posted.of("tapdisk.channel", "0")[-1]["reason"] == "killed by SIGKILL"


async def test_one_that_hangs_is_killed_when_its_path_goes(world: World) -> None:
    async with world.steering(limits=SHORT) as source:
        shown = await started(source, "0")
        os.kill(process(shown), signal.SIGSTOP)
        source.vanish("0")
        assert list(source) == []
        await until(lambda: "DEAD" in world.posted.path("tapdisk.channel", "0"))
    assert markers(world) == []


async def test_a_pause_that_sticks_breaks_the_vbd_in_its_time(world: World) -> None:
    async with world.steering(limits=SHORT) as source:
        shown = await started(source, "0")
        world.tell(shown, "io stick")
        shown.ask(Request.PAUSE)
        await until(lambda: shown.status().states.vbd is Vbd.BROKEN)
        errors = world.posted.of("tapdisk.error", "0")
        assert errors[0]["place"] == "WAIT_PAUSE"
        assert errors[0]["errno_name"] == "ETIMEDOUT"


async def test_a_path_that_comes_again_too_early_waits(world: World) -> None:
    async with world.steering() as source:
        shown = await started(source, "0")
        world.tell(shown, "close:slow 0.5")
        source.vanish("0")
        source.appear("0")
        again = source.get("0")
        assert again is not None
        assert again is not shown
        assert again.status().states.vbd is Vbd.RECYCLED
        with pytest.raises(Down):
            again.ask(Request.SHUTDOWN)
        with pytest.raises(Busy):
            again.set_image("ram:/z")
        await until(lambda: again.status().states == AT_REST)
        again.set_image("ram:/z")
        again.ask(Request.START)
        await until(lambda: again.status().states == RUNNING)
        assert shown.gone
        assert not again.gone


async def test_remove_hides_it_like_rmdir(world: World) -> None:
    async with world.steering() as source:
        shown = await started(source, "0")
        shown.ask(Request.REMOVE)
        assert list(source) == []
        await until(lambda: markers(world) == [])


async def test_what_makes_no_sense_is_refused_and_changes_nothing(world: World) -> None:
    async with world.steering() as source:
        for name in ("", "x", "-1", "01", "65535", "\uff11", "stream"):
            with pytest.raises(Invalid):
                source.appear(name)
            with pytest.raises(NotFound):
                source.vanish(name)
            assert source.get(name) is None
        source.appear("0")
        with pytest.raises(Exists):
            source.appear("0")
        shown = source.get("0")
        assert shown is not None
        with pytest.raises(Invalid, match="no image"):
            shown.ask(Request.START)
        for image in ("", "x", "aio:", ":x", "aio:" + "x" * 300, "aio:a\0b"):
            with pytest.raises(Invalid):
                shown.set_image(image)
        assert shown.status().changes == 0
        shown.set_image("ram:/x")
        shown.ask(Request.START)
        with pytest.raises(Busy):
            shown.set_image("ram:/y")
        await until(lambda: shown.status().states == RUNNING)


async def test_a_minor_that_is_taken_is_left_alone(world: World) -> None:
    (world.directory / "tapdisk").mkdir(parents=True)
    async with world.steering() as source:
        shown = begun(source)
        source.appear("1")
        taken = source.get("1")
        assert taken is not None
        (world.directory / "tapdisk/tapdisk-1").touch()
        with pytest.raises(Exists):
            source.appear("1")
        taken.set_image("ram:/x")
        taken.ask(Request.START)
        await until(lambda: taken.status().states.vbd is Vbd.BROKEN)
        assert next(iter(taken.errors)).errno == 17
        source.vanish("1")
        assert "tapdisk-1" in markers(world)
        await until(lambda: shown.status().states == RUNNING)


async def test_a_program_that_is_not_there_breaks_the_vbd(world: World) -> None:
    world.directory.mkdir(parents=True)
    async with world.steering(program="no-such-tapdisk") as source:
        shown = begun(source)
        await until(lambda: shown.status().states == DEAD)
        assert "can't start no-such-tapdisk" in shown.status().reason
        assert markers(world) == []
        assert [each["errno_name"] for each in world.posted.of("tapdisk.error")] == ["ENOENT"]


async def test_a_broken_chain_is_told_when_it_is_opened_and_once(
    world: World, tmp_path: Path
) -> None:
    image = tmp_path / "damaged.vhd"
    image.write_bytes(b"nothing of the kind" * 100)
    async with world.steering() as source:
        shown = await started(source, "0", f"vhd:{image}")
        await until(lambda: world.posted.of("tapdisk.chain.broken", "0"))
        told = len(world.posted.of("tapdisk.chain.broken"))
        chain = await shown.chain()
        assert chain is not None
        assert len(chain.levels) == 1
        assert len(world.posted.of("tapdisk.chain.broken")) == told
        image.unlink()
        await shown.chain()
        assert world.posted.of("tapdisk.chain.broken")[-1]["reason"] == "missing"


async def test_the_next_agent_adopts_what_goes_on(world: World) -> None:
    async with world.steering() as source:
        pids = [process(await started(source, vbd)) for vbd in ("0", "1", "2")]
        paused = source.get("1")
        assert paused is not None
        paused.ask(Request.PAUSE)
        await until(lambda: paused.status().states == PAUSED)
    for pid in pids:
        os.kill(pid, 0)
    async with world.steering() as source:
        await until(lambda: list(source) == ["0", "1", "2"])
        shown = [source.get(vbd) for vbd in source]
        vbds = [vbd for vbd in shown if vbd is not None]
        assert [vbd.status().pid for vbd in vbds] == pids
        assert [vbd.status().states for vbd in vbds] == [RUNNING, PAUSED, RUNNING]
        assert all(vbd.info()["steered"] == "yes" for vbd in vbds)
        vbds[1].ask(Request.UNPAUSE)
        await until(lambda: vbds[1].status().states == RUNNING)
        os.kill(pids[0], signal.SIGKILL)
        await until(lambda: vbds[0].status().states == DEAD)
        assert vbds[0].status().reason == "exited"  # nobody tells us how
        vbds[2].ask(Request.SHUTDOWN)
        await until(lambda: vbds[2].status().states == AT_REST)
        assert markers(world) == ["tapdisk-0", "tapdisk-1"]
        vbds[2].ask(Request.START)
        await until(lambda: vbds[2].status().states == RUNNING)


AGENT = """
import sys, trio
from zeventfs.sources.tapdisk.vbds import Settings, TapdiskSource
from zeventfs.vbd.states import Channel, Request

async def main(directory, *command):
    source = TapdiskSource("t", Settings(directory=directory, command=command), lambda _: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        source.appear("0")
        source.get("0").set_image("ram:/x")
        source.get("0").ask(Request.START)
        while source.get("0").status().states.channel is not Channel.RUNNING:
            await trio.sleep(0.01)
        print(source.get("0").status().pid, flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


async def test_tapdisks_outlive_an_agent_that_is_killed(world: World) -> None:
    world.directory.mkdir(parents=True)
    agent = subprocess.Popen(  # noqa: ASYNC220 - a short wait
        [sys.executable, "-c", AGENT, str(world.directory), *world.command()],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        assert agent.stdout is not None
        pid = int(await trio.to_thread.run_sync(agent.stdout.readline))
    finally:
        os.killpg(agent.pid, signal.SIGKILL)  # as when a terminal is closed
        agent.wait()
        agent.stdout.close()  # type: ignore[union-attr]  # it is a pipe
    async with world.steering() as source:
        await until(lambda: list(source) == ["0"])
        shown = source.get("0")
        assert shown is not None
        assert shown.info()["steered"] == "yes"
        assert process(shown) == pid
        shown.ask(Request.SHUTDOWN)
        await until(lambda: shown.status().states == AT_REST)


async def test_others_tapdisks_are_adopted_once_their_image_is_open(world: World) -> None:
    async with world.steering() as source:
        simulated = world.tapdisks.start()
        simulated.mark(8)
        client = Tapdisk(simulated.path)
        await client.attach(8)
        await until(lambda: list(source) == ["8"])
        shown = source.get("8")
        assert shown is not None
        assert shown.info()["steered"] == "no"
        with pytest.raises(Busy):
            source.vanish("8")
        await client.open(8, "ram:/x")
        await created(simulated, 9)
        await until(lambda: list(source) == ["8", "9"])
        await until(lambda: shown.info()["steered"] == "yes")
        source.vanish("8")
        await until(lambda: "tapdisk-8" not in markers(world))
        assert list(source) == ["9"]
        other = source.get("9")
        assert other is not None
        assert process(other) == simulated.pid  # it lives on for the other
        again = await started(source, "8")
        assert process(again) != simulated.pid


async def test_an_orphan_is_freed_by_rmdir(world: World) -> None:
    (world.directory / "tapdisk").mkdir(parents=True)
    (world.directory / "tapdisk/tapdisk-2").touch()
    async with world.steering() as source:
        await until(lambda: list(source) == ["2"])
        shown = source.get("2")
        assert shown is not None
        await until(lambda: shown.status().states == DEAD)
        with pytest.raises(Down, match="no tapdisk has it"):
            shown.ask(Request.START)
        source.vanish("2")
        assert list(source) == markers(world) == []
        await started(source, "2")


async def test_fifty_at_once(world: World) -> None:
    async with world.steering() as source:
        vbds = [begun(source, str(minor)) for minor in range(50)]
        await until(lambda: all(vbd.status().states == RUNNING for vbd in vbds))
        pids = [process(vbd) for vbd in vbds]
        assert len(set(pids)) == 50
        for vbd in vbds[::2]:
            vbd.ask(Request.PAUSE)
        for pid in pids[1::2]:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: all(vbd.status().states == PAUSED for vbd in vbds[::2]))
        await until(lambda: all(vbd.status().states == DEAD for vbd in vbds[1::2]))
        for minor in range(50):
            source.vanish(str(minor))
        await until(lambda: not markers(world))
    for minor in range(50):
        assert world.posted.path("tapdisk.channel", str(minor))[-1] == "DEAD"
