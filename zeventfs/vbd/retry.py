"""A VBD's requests on their way: which are to be tried now, and which of those that failed again.

A request that fails is tried again a second later, for 120 seconds in all, but for the errors that
can't pass: those are its answer at once. Each stands for itself: one that fails, or waits to be
tried again, holds up none of those behind it. Nothing here calls back, so a queue that is checked
at a shutdown, and a shutdown that waits for the queue, can't recurse: both look, and come again.
"""

import errno
from collections import deque
from typing import NamedTuple

from zeventfs.vbd.counters import Queue

__all__ = ["INTERVAL_NS", "LASTING", "TOTAL_NS", "Answer", "Requests"]

INTERVAL_NS = 10**9
TOTAL_NS = 120 * 10**9
LASTING = frozenset({errno.EPERM, errno.ENOSYS, errno.ESTALE, errno.ENOSPC})


class Answer(NamedTuple):
    """A request is done: with that errno, or with none."""

    request: int
    errno: int | None


class Requests:
    """The requests of one VBD, by numbers that the caller gives and doesn't give again till done.

    Times are ns of a clock that doesn't go back.
    """

    __slots__ = ("_completed", "_failed", "_new", "_pending")

    def __init__(self) -> None:
        self._new: deque[int] = deque()
        self._pending: dict[int, int] = {}  # and when each was first tried
        self._failed: deque[tuple[int, int, int]] = deque()  # due, request, when first tried
        self._completed = 0

    def add(self, request: int) -> None:
        """A request has come in."""
        self._new.append(request)

    def take(self, now_ns: int) -> list[int]:
        """Those to be tried now: the ones whose second is over, then the new ones, in order."""
        taken: list[int] = []
        while self._failed and self._failed[0][0] <= now_ns:
            _, request, first_ns = self._failed.popleft()
            self._pending[request] = first_ns
            taken.append(request)
        for request in self._new:
            self._pending[request] = now_ns
            taken.append(request)
        self._new.clear()
        return taken

    def tried(self, request: int, error: int | None, now_ns: int) -> Answer | None:
        """A request that was taken has been tried; None if it will be again.

        Raises KeyError for one that was not taken.
        """
        first_ns = self._pending.pop(request)
        again_ns = now_ns + INTERVAL_NS
        if error is not None and error not in LASTING and again_ns <= first_ns + TOTAL_NS:
            self._failed.append((again_ns, request, first_ns))
            return None
        self._completed += 1
        return Answer(request, error)

    @property
    def due_ns(self) -> int | None:
        """When the next is to be tried again, if any is."""
        return self._failed[0][0] if self._failed else None

    @property
    def quiet(self) -> bool:
        """Whether none is being tried, so that a pause may be answered."""
        return not self._pending

    @property
    def empty(self) -> bool:
        """Whether all are done, so that a close may be answered."""
        return not (self._new or self._pending or self._failed)

    @property
    def counts(self) -> Queue:
        """How many stand where."""
        return Queue(len(self._new), len(self._pending), len(self._failed), self._completed)
