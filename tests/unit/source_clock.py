"""What stands in for an event loop where a source is tested: a clock, and what is due by it."""

import heapq
import itertools
from collections.abc import Callable

from zeventfs.event import NS

__all__ = ["Clock"]


class Clock:
    """A monotonic clock that moves when it is told to, and calls what is due then."""

    def __init__(self) -> None:
        self.now_ns = 10**12
        self.due: list[tuple[int, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def __call__(self) -> int:
        return self.now_ns

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self.due, (self.now_ns + round(delay_s * NS), next(self._number), call))

    def turn(self) -> None:
        """Call what is due first, and nothing else."""
        self.now_ns, _, call = heapq.heappop(self.due)
        call()

    def advance(self, ns: int = 0) -> None:
        """Let *ns* pass, and call what becomes due, in its order."""
        end_ns = self.now_ns + ns
        while self.due and self.due[0][0] <= end_ns:
            self.now_ns, _, call = heapq.heappop(self.due)
            call()
        self.now_ns = end_ns
