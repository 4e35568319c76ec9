"""Work done step by step in an event loop's thread, so that others get their turns in between.

Invariant: at most one turn is due at a time, and none while there is nothing to do; an alarm is set
only for an earlier time than those that are set.
"""

import itertools
from collections.abc import Callable

from zeventfs.event import NS

__all__ = ["Later", "Turns"]

Later = Callable[[float, Callable[[], None]], object]
"""Call something after so many seconds, in the event loop's thread, never at once."""

_STEPS = 128


class Turns:
    """Calls *step* until it answers False, *later* giving others their turns.

    Without *later* that is until all is done, at once. *due_ns* says when there will be something
    to do that nobody will announce, in the time of *monotonic_ns*; None: never.
    """

    def __init__(
        self,
        step: Callable[[], bool],
        due_ns: Callable[[], int | None],
        later: Later | None,
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._step = step
        self._due_ns = due_ns
        self._later = later
        self._monotonic_ns = monotonic_ns
        self._busy = False
        self._turn_due = False
        self._alarms: list[int] = []  # when they are due, the next one last

    def go(self) -> None:
        """Do what there is to do, or a turn's worth of it; nothing while that is being done."""
        if not self._busy and not self._turn_due:
            self.do(_STEPS)

    def do(self, most: int) -> None:
        """Do at most *most* steps, of which a turn has many; what is left is for other turns.

        Not to be called by a step.
        """
        self._busy = True
        try:
            for _ in itertools.count() if self._later is None else range(most):
                if not self._step():
                    break
            else:
                self._have_a_turn()
        finally:
            self._busy = False
        self._set_alarm()

    def _have_a_turn(self) -> None:
        if self._later is not None and not self._turn_due:
            self._turn_due = True
            self._later(0, self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        self.go()

    def _set_alarm(self) -> None:
        due_ns = self._due_ns()
        if self._later is None or due_ns is None or self._turn_due:
            return
        if self._alarms and self._alarms[-1] <= due_ns:
            return
        self._alarms.append(due_ns)
        self._later(max(0, due_ns - self._monotonic_ns()) / NS, self._alarm)

    def _alarm(self) -> None:
        self._alarms.pop()
        self.go()
