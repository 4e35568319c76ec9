"""The simulator's mapped devices: a source of them as of real ones, and a story that they live.

Whatever is told can be told by hand as well, in lines like those of dmsetup's messages.
"""

import logging
from collections.abc import Callable
from random import Random
from typing import Final

import trio

from zeventfs.errors import Invalid
from zeventfs.event import Event
from zeventfs.simulator.dm.boundary import SimulatedDeviceMapper
from zeventfs.simulator.dm.deeds import DEEDS
from zeventfs.simulator.dm.devices import Devices
from zeventfs.simulator.dm.story import tell
from zeventfs.sources.dm.source import DmSource

__all__ = ["SimulatedMapped"]

log = logging.getLogger(__name__)

_BEATS: Final = 8  # events that the rest of the story has while one thing happens to a device
_STOPPED_S: Final = 0.5


class SimulatedMapped:
    """Mapped devices told from *seed*, at a *rate* that is the rest of the story's.

    A rate of 0 at the start tells no story, and begins with no device. *post* and *clock_ns* as in
    DmSource. `source` is what watches them.
    """

    def __init__(
        self,
        post: Callable[[Event], object],
        clock_ns: Callable[[], int],
        seed: int,
        rate: Callable[[], float],
    ) -> None:
        self._random = Random(f"dm {seed}")  # noqa: S311 - a story, no secret
        self._rate = rate
        self.devices = Devices(self._random)
        self.source = DmSource("dm", SimulatedDeviceMapper(self.devices), post, clock_ns)

    async def run(
        self,
        answers: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Tell the story until cancelled; it begins with *answers*, when the mount does."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.source.run)
            task_status.started()
            await answers.wait()
            if self._rate():
                await self._tell_story()
            await trio.sleep_forever()

    async def _tell_story(self) -> None:
        try:
            for beats in tell(self.devices, self._random):
                await self._wait(_BEATS * beats)
        except Exception:  # a bug in the story is not the end of the tree
            log.exception("the story of the simulator's mapped devices broke off")

    async def _wait(self, events: float) -> None:
        """As long as so many *events* of the rest of the story take; for ever while none happen."""
        while events > 0:
            rate = self._rate()
            seconds = min(events / rate, _STOPPED_S) if rate else _STOPPED_S
            await trio.sleep(seconds)
            events -= seconds * rate + (1e-9 if rate else 0)

    async def act(self, written: bytes) -> None:
        """Carry out lines that say what is to happen, each before the next: see `deeds`.

        Raises Invalid with a sentence at the first that can't be done.
        """
        for line in written.decode(errors="surrogateescape").splitlines():
            words = line.split()
            if words and not words[0].startswith("#"):
                try:
                    DEEDS[words[0]](self.devices, *words[1:])
                except (OSError, KeyError, ValueError, TypeError):  # TypeError: too few, too many
                    raise Invalid(f"can't be done: {line.strip()[:60]!r}") from None
                await trio.lowlevel.checkpoint()
