"""Simulated mapped devices, a source that watches them, and what it tells."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio
import trio.testing

from zeventfs.event import Event
from zeventfs.simulator.dm.boundary import SimulatedDeviceMapper
from zeventfs.simulator.dm.devices import Devices
from zeventfs.simulator.dm.targets import Group, Multipath, Path
from zeventfs.sources.dm.source import DmSource

__all__ = ["World", "multipath"]


def multipath(length: int = 65536) -> Multipath:
    return Multipath(length, [Group([Path("7:1")]), Group([Path("7:2"), Path("7:3")])])


class World:
    """Its clock stands still unless `now_ns` is set."""

    def __init__(self) -> None:
        self.devices = Devices(Random(1))
        self.mapper = SimulatedDeviceMapper(self.devices)
        self.now_ns = 10**18
        self.posted: list[Event] = []
        self.source = DmSource("dm", self.mapper, self.posted.append, lambda: self.now_ns)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.source.run)
            yield
            nursery.cancel_scope.cancel()

    async def told(self) -> list[tuple[str, dict[str, Any]]]:
        """What was posted since this was last asked, classes and payloads, when all is quiet."""
        await trio.testing.wait_all_tasks_blocked(0.02)
        taken = [
            (event.name, {key: value for key, _, value in event.payload.pairs()})
            for event in self.posted
        ]
        self.posted.clear()
        return taken

    async def classes(self) -> list[str]:
        return [name for name, _ in await self.told()]
