"""Sources of VBDs over simulated tapdisks: what they posted, and a sure end for every process."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import trio
from simulated_tapdisk import Simulated, Tapdisks

from zeventfs.event import Event
from zeventfs.simulator.tapdisk import command, tell
from zeventfs.sources.tapdisk.vbds import Settings, TapdiskSource
from zeventfs.tapdisk.client import Tapdisk
from zeventfs.tapdisk.protocol import control_pid
from zeventfs.vbd.machine import LIMITS
from zeventfs.vbd.shown import ShownVbd
from zeventfs.vbd.states import Channel, Request

__all__ = ["Posted", "World", "created", "started", "until"]

LIMIT_S = 30
POLL_S = 0.1


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    with trio.fail_after(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - of processes
            await trio.sleep(0.01)


async def created(simulated: Simulated, minor: int, image: str = "ram:/x") -> Tapdisk:
    """A VBD of *simulated*, made as tap-ctl create does."""
    simulated.mark(minor)
    client = Tapdisk(simulated.path)
    await client.attach(minor)
    await client.open(minor, image)
    return client


class Posted:
    """Events, as their class and payload."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def post(self, event: Event) -> None:
        values = {name: value for name, _, value in event.payload.pairs()}
        self.events.append((event.name, values))

    def of(self, name: str, vbd: str | None = None) -> list[dict[str, Any]]:
        return [
            values
            for each, values in self.events
            if each == name and (vbd is None or values.get("vbd") == vbd)
        ]

    def path(self, name: str, vbd: str) -> list[str]:
        """The states that one machine of a VBD went through."""
        steps = self.of(name, vbd)
        for one, other in pairwise(steps):
            assert one["to"] == other["from"]
        return [each["to"] for each in steps]


class World:
    """A control directory below *place*; as context, no process of it is left."""

    def __init__(self, place: Path) -> None:
        self.tapdisks = Tapdisks(place)
        self.directory = self.tapdisks.directory
        self.shared = self.tapdisks.shared
        self.posted = Posted()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        names = [each.name for each in self.directory.glob("ctl*")]
        pids = {pid for name in names if (pid := control_pid(name)) is not None}
        for pid in pids - {os.getpid()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.tapdisks.__exit__(None, None, None)

    def command(self, *arguments: str) -> list[str]:
        return command("-D", "--dir", str(self.directory), "--shm", str(self.shared), *arguments)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[TapdiskSource]:
        async with self._running(Settings(**self._places())) as source:
            yield source

    @asynccontextmanager
    async def steering(
        self, *arguments: str, limits: Mapping[Channel, float] = LIMITS, program: str = ""
    ) -> AsyncIterator[TapdiskSource]:
        started = [program] if program else self.command(*arguments)
        settings = Settings(**self._places(), command=started, limits=limits)
        async with self._running(settings) as source:
            yield source

    def _places(self) -> dict[str, Any]:
        return {
            "directory": str(self.directory),
            "shared_memory": str(self.shared),
            "poll_s": POLL_S,
        }

    @asynccontextmanager
    async def _running(self, settings: Settings) -> AsyncIterator[TapdiskSource]:
        source = TapdiskSource("tapdisk", settings, self.posted.post)
        async with trio.open_nursery() as nursery:
            await nursery.start(source.run)
            yield source
            nursery.cancel_scope.cancel()

    def tell(self, vbd: ShownVbd, line: str) -> None:
        pid = vbd.status().pid
        assert pid is not None
        said = tell(str(self.directory), pid, line, LIMIT_S)
        assert not said.startswith("error"), said


async def started(source: TapdiskSource, vbd: str, image: str = "ram:/x") -> ShownVbd:
    """A VBD that was made and runs."""
    source.appear(vbd)
    shown = source.get(vbd)
    assert shown is not None
    shown.set_image(image)
    shown.ask(Request.START)
    await until(lambda: shown.status().states.channel is Channel.RUNNING)
    return shown
