"""How pyfuse3's workers wait for the kernel's next request: whose turn it is, and whether to wait.

pyfuse3 takes a `trio.Lock` around every wait for a request. That lock goes to the scheduler even
when nobody else wants it, and passes to another worker at each request, although most requests are
answered at once by the one that took them. Here, who comes back for its turn within the same step
has it again, and it passes on only when the step ends without that.

Nor does it look whether there is a request already, but goes through the event loop for each; so
one request is answered for each turn that others have, and in a storm of events, whose every turn
is a long one, readers would starve. Here those that are there already are taken one after the
other, as long as they can be answered at once, up to a number.

pyfuse3's `trio` is a global of its own, which pyfuse3.asyncio replaces to run on another loop; here
it is trio but for these two.
"""

import select
import types

import trio

__all__ = ["MOST_AT_ONCE", "Readable", "Turn", "trio_with_turns"]

MOST_AT_ONCE = 16  # requests between two turns of the event loop: about a millisecond


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


class Readable:
    """Waits until the kernel's requests can be read."""

    __slots__ = ("_at_once", "_fd", "_poll")

    def __init__(self) -> None:
        self._at_once = 0
        self._fd = -1
        self._poll = select.poll()

    async def wait(self, fd: int) -> None:
        """As trio's wait_readable, but no checkpoint where *fd* is readable, up to MOST_AT_ONCE."""
        if self._at_once < MOST_AT_ONCE and self._is_ready(fd):
            self._at_once += 1
            return
        self._at_once = 0
        await trio.lowlevel.wait_readable(fd)

    def _is_ready(self, fd: int) -> bool:
        if fd != self._fd:  # another session's
            self._fd = fd
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        # what went wrong with it, trio shall say
        return self._poll.poll(0) == [(fd, select.POLLIN)]


_lowlevel = types.ModuleType("trio.lowlevel")
vars(_lowlevel).update(vars(trio.lowlevel) | {"wait_readable": Readable().wait})
trio_with_turns = types.ModuleType("trio")
vars(trio_with_turns).update(vars(trio) | {"Lock": Turn, "lowlevel": _lowlevel})
