"""A lighter lock for pyfuse3's workers: whose turn it is to wait for the kernel's next request.

pyfuse3 takes a `trio.Lock` around every wait for a request. That lock goes to the scheduler even
when nobody else wants it, and passes to another worker at each request, although most requests are
answered at once by the one that took them. Here, who comes back for its turn within the same step
has it again, and it passes on only when the step ends without that.

pyfuse3's `trio` is a global of its own, which pyfuse3.asyncio replaces to run on another loop; here
it is trio but for the lock.
"""

import types

import trio

__all__ = ["Turn", "trio_with_turns"]


class Turn(trio.abc.Instrument):
    """Held by one task at a time; the last to come is the next to go, so that few stay awake.

    Made within the event loop, of which it sees the ends of steps.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[trio.lowlevel.Task] = []
        trio.lowlevel.add_instrument(self)

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
        """Give the turn up, for this step's end or for whoever comes before it."""
        self._taken = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Pass a turn on that nobody took."""
        del task
        if not self._taken and self._waiting:
            self._taken = True
            trio.lowlevel.reschedule(self._waiting.pop())


trio_with_turns = types.ModuleType("trio")
vars(trio_with_turns).update(vars(trio) | {"Lock": Turn})
