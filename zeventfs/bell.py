"""Where tasks wait for something to happen to the journal or a file; a ring wakes all of them.

Ringing does nothing for each one who waits but waking it: no cancel scope, no timer, no look at
what it waits for. Who was woken looks for itself, and comes back when it was for nothing.
"""

from collections.abc import Callable

import outcome
import trio

__all__ = ["Bell"]


class Bell:
    """A set of waiting tasks and of calls to make once."""

    __slots__ = ("_calls", "_tasks")

    def __init__(self) -> None:
        self._tasks: dict[trio.lowlevel.Task, None] = {}
        self._calls: dict[object, Callable[[], None]] = {}

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._tasks)

    async def wait(self) -> None:
        """Wait for the next ring; a checkpoint, which cancellation and `end` may end."""
        task = trio.lowlevel.current_task()
        self._tasks[task] = None

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            del self._tasks[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def call(self, key: object, ring: Callable[[], None]) -> None:
        """Have *ring* called at the next ring, in place of what was to be called for *key*.

        It must not raise: who rings has nothing to do with it.
        """
        self._calls[key] = ring

    def forget(self, key: object) -> None:
        """Don't call what was to be called for *key*."""
        self._calls.pop(key, None)

    def ring(self) -> None:
        """Wake all that wait, and make all calls."""
        if self._tasks:
            tasks, self._tasks = self._tasks, {}
            for task in tasks:
                trio.lowlevel.reschedule(task)
        if self._calls:
            calls, self._calls = self._calls, {}
            for call in calls.values():
                call()

    def end(self, task: trio.lowlevel.Task, error: BaseException) -> None:
        """Wake *task* alone, with *error* raised where it waits; nothing if it waits no more."""
        if task in self._tasks:
            del self._tasks[task]
            trio.lowlevel.reschedule(task, outcome.Error(error))
