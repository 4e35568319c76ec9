"""Tells a scenario into the simulated device, at its pace, and can be told otherwise meanwhile.

A story that is over, or that breaks off, leaves the tree as it is: the next change begins anew.
"""

import logging
import math
from collections.abc import Callable, Iterator

import trio

from zeventfs.errors import Invalid
from zeventfs.simulator.scenario import Scenario, builtin, decode, load
from zeventfs.simulator.story import Told, tell
from zeventfs.simulator.zfs import ZfsDevice

__all__ = ["Teller"]

log = logging.getLogger(__name__)

_AT_ONCE = 32  # events posted before others get a turn
_LATE_MOST_S = 1.0
_LONGEST_NAME = 100  # bytes; no scenario has such a one
_WRITTEN = "(written)"  # a scenario without a name


class Teller:
    """What is told (a scenario by its name, and a seed), and how fast: events a second.

    Raises Invalid for a scenario that there isn't. *clock_ns* as in `tell`.
    """

    def __init__(
        self,
        device: ZfsDevice,
        clock_ns: Callable[[], int],
        scenario: str,
        seed: int,
        rate: float,
    ) -> None:
        self.seed = seed
        self.rate = rate
        self._device = device
        self._clock_ns = clock_ns
        self._name = scenario
        self._scenario: Scenario = load(scenario)
        self._changed = trio.Event()
        self._due = 0.0  # when the last event was to come, on trio's clock
        self._begin()

    def _begin(self) -> None:
        self._story: Iterator[Told] = tell(self.seed, self._clock_ns, self._scenario)
        self._state = "telling"
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # What the files of simulator/ do

    def change_seed(self, seed: int) -> None:
        """Begin the story anew."""
        self.seed = seed
        self._begin()

    def change_rate(self, rate: float) -> None:
        """Go on at *rate* at once; 0 stops, and what was told so far is not told again."""
        self.rate = rate
        self._change()

    def change_scenario(self, written: bytes) -> None:
        """Begin the scenario whose name, or whose definition, was written.

        Raises Invalid with a sentence, and the running one goes on.
        """
        text = written.strip()
        if text.startswith(b"{"):
            name, scenario = _WRITTEN, decode(text)
        else:
            name = text[:_LONGEST_NAME].decode(errors="backslashreplace")
            if name.startswith("/"):
                raise Invalid("write a scenario's name or its JSON, not the path of a file")
            scenario = load(name)
        self._name, self._scenario = name, scenario
        self._begin()

    def show_scenario(self) -> bytes:
        """Return what simulator/scenario shows: one `key=value` a line."""
        lines = [
            f"scenario={self._name}",
            f"state={'stopped' if self._state == 'telling' and not self.rate else self._state}",
            f"pools={' '.join(self._scenario.pools)}",
            f"available={' '.join(builtin())}",
        ]
        return ("\n".join(lines) + "\n").encode()

    # The telling

    async def run(self) -> None:
        """Post the story's events when they are due, and those of the stories after it."""
        while True:
            self._due = trio.current_time()
            story, changed = self._story, self._changed
            try:
                over = await self._tell(story)
            except Exception:  # a bug in the story is not the end of the tree
                log.exception("the simulator's story broke off")
                self._state = "broken"
            else:
                if over:
                    log.info("scenario %s is over", self._name)
                    self._state = "over"
            while self._story is story:
                await changed.wait()
                changed = self._changed

    async def _tell(self, story: Iterator[Told]) -> bool:
        """Tell *story*; return whether it is over, and not merely another one's turn."""
        for count, told in enumerate(story, 1):
            if not await self._wait(story, told.wait):
                return False
            self._device.post(told.name, told.pairs)
            if count % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return self._story is story

    async def _wait(self, story: Iterator[Told], intervals: float) -> bool:
        """Wait so long after the event before; False when another story has begun meanwhile.

        Events that are late come at once, so that as many come in a second as are asked for; what
        is later than a second has been too much, and is not made up for.
        """
        left = intervals
        while True:
            if self._story is not story:
                return False
            rate, changed = self.rate, self._changed
            due = self._due + left / rate if rate else math.inf
            now = trio.current_time()
            if due <= now:
                self._due = max(due, now - _LATE_MOST_S)
                return True
            with trio.move_on_at(due):
                await changed.wait()
                now = trio.current_time()
                left = max(0.0, left - (now - self._due) * rate)
                self._due = now
