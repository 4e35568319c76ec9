"""Blocked requests: what each waits for, so that a signal or the end of the mount ends it.

Every wait of a request goes through here. The request is known by its `unique` from before it waits
until it needs to wait no more, so that no FUSE_INTERRUPT can fall between two of its waits.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import trio

from zeventfs.bell import Bell
from zeventfs.errors import Closing, Interrupted, TooMany, WouldBlock

__all__ = ["Waits"]

T = TypeVar("T")


class _Waiting:
    __slots__ = ("bell", "error", "task")

    def __init__(self, task: trio.lowlevel.Task, bell: Bell) -> None:
        self.task = task
        self.bell = bell
        self.error: Exception | None = None

    def end(self, error: Exception) -> None:
        """End the wait with *error*: where it waits, or where it would wait next."""
        self.error = error
        self.bell.end(self.task, error)


class Waits:
    """At most *most* requests that wait, for *longest_s* seconds each at most."""

    __slots__ = ("_longest_s", "_most", "_waiting", "closing")

    def __init__(self, most: int, longest_s: float = math.inf) -> None:
        self._most = most
        self._longest_s = longest_s
        self._waiting: dict[int, _Waiting] = {}
        self.closing = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def until(self, unique: int, bell: Bell, attempt: Callable[[], T | None]) -> T:
        """Try *attempt* after each ring of *bell* until it gives something, for request *unique*.

        Raises TooMany at once when as many wait as may, Interrupted when the reader got a signal,
        Closing at the end of the mount, WouldBlock when the kernel would wait no longer.
        """
        if self.closing:
            raise Closing("the mount is at its end")
        if len(self._waiting) >= self._most:
            raise TooMany(f"{self._most} readers wait already")
        waiting = _Waiting(trio.lowlevel.current_task(), bell)
        self._waiting[unique] = waiting
        try:
            if self._longest_s == math.inf:
                return await _rings(waiting, attempt)
            with trio.move_on_after(self._longest_s):
                return await _rings(waiting, attempt)
            raise WouldBlock("the kernel's request timeout is near")
        finally:
            del self._waiting[unique]

    def interrupt(self, unique: int) -> None:
        """End the wait of request *unique*, if it waits."""
        if unique in self._waiting:
            self._waiting[unique].end(Interrupted("by a signal"))

    def end(self) -> None:
        """End all waits, and all that would begin."""
        self.closing = True
        for waiting in list(self._waiting.values()):
            waiting.end(Closing("the mount is at its end"))


async def _rings(waiting: _Waiting, attempt: Callable[[], T | None]) -> T:
    while True:
        await waiting.bell.wait()
        answer = attempt()
        if answer is not None:
            return answer
        if waiting.error is not None:
            raise waiting.error
