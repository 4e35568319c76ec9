"""Real mapped devices on loop devices, and a source that watches them in the test's own loop."""

import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from zeventfs.bell import Bell
from zeventfs.event import Event
from zeventfs.sources.dm.kernel import KernelDeviceMapper
from zeventfs.sources.dm.source import DmSource

__all__ = ["MODULES", "MappedDevices", "Told", "dmsetup"]

MODULES = ("dm_mod", "dm_multipath", "dm_round_robin", "dm_mirror", "dm_snapshot", "loop")
_LOOP_BYTES = 32 << 20
_LIMIT_S = 60.0  # the machine may be emulated

Told = dict[str, Any]


def dmsetup(*arguments: str) -> str:
    """What dmsetup printed."""
    return _run("dmsetup", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


class MappedDevices:
    """Devices that `close` removes, and what a source has told of them."""

    def __init__(self, directory: Path) -> None:
        self.posted: list[Event] = []
        self.at: list[float] = []
        """When each was posted, in seconds of time.monotonic()."""
        self._came = Bell()
        self.source = DmSource("dm", KernelDeviceMapper(), self._post)
        self._directory = directory
        self._loops: list[str] = []
        self._names: list[str] = []

    def _post(self, event: Event) -> None:
        self.posted.append(event)
        self.at.append(time.monotonic())
        self._came.ring()

    def close(self) -> None:
        for name in reversed(self._names):
            subprocess.run(
                ["dmsetup", "remove", "--force", "--retry", "--noudevsync", name],
                capture_output=True,
                timeout=_LIMIT_S,
                check=False,
            )
        for loop in self._loops:
            _run("losetup", "-d", loop)

    def loop(self, size: int = _LOOP_BYTES) -> str:
        """A new loop device: /dev/loopN."""
        file = self._directory / f"disk{len(self._loops)}"
        with file.open("wb") as opened:
            opened.truncate(size)
        loop = _run("losetup", "-f", "--show", str(file))
        self._loops.append(loop)
        return loop

    def create(self, name: str, table: str, *options: str) -> str:
        """A new device; its path."""
        dmsetup("create", name, *options, "--table", table)
        self._names.append(name)
        return f"/dev/mapper/{name}"

    def renamed(self, name: str, new: str) -> None:
        """Take note of another name."""
        self._names[self._names.index(name)] = new

    def multipath(self, name: str) -> tuple[str, str]:
        """One with two groups of one path each; the paths, major:minor."""
        paths = self.loop(), self.loop()
        groups = " ".join(f"round-robin 0 1 1 {path} 1" for path in paths)
        self.create(name, f"0 65536 multipath 0 0 2 1 {groups}", "--uuid", f"mpath-{name}")
        first, second = (f"7:{path.removeprefix('/dev/loop')}" for path in paths)
        return first, second

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.source.run)
            yield
            nursery.cancel_scope.cancel()

    def told(self) -> list[tuple[str, Told]]:
        """Class and payload of all events so far."""
        return [
            (event.name, {key: value for key, _, value in event.payload.pairs()})
            for event in self.posted
        ]

    async def do(self, *arguments: str) -> None:
        """Have dmsetup do something, while the source watches."""
        await trio.to_thread.run_sync(dmsetup, *arguments)

    async def run(self, *command: str) -> int:
        """Have a program do something; its status."""
        done = await trio.run_process(
            command, check=False, capture_stdout=True, capture_stderr=True
        )
        return done.returncode

    async def posted_or_dropped(self, count: int) -> None:
        """Wait until so many events were posted, or counted as missing."""
        while len(self.posted) + self.source.status().dropped < count:
            await self._came.wait()

    async def until(self, name: str, /, **expected: object) -> Told:
        """Wait for an event of class *name* that says what is *expected*; its payload."""
        return await self.until_any(
            lambda told: [
                payload
                for each, payload in told
                if each == name and expected.items() <= payload.items()
            ],
            f"{name} {expected}",
        )

    async def until_any(
        self, find: Callable[[list[tuple[str, Told]]], list[Told]], what: str
    ) -> Told:
        with trio.move_on_after(_LIMIT_S):
            while not (found := find(self.told())):
                await self._came.wait()
            return found[-1]
        raise AssertionError(f"not told: {what}; but {self.told()}")
