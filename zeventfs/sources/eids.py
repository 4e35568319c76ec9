"""Puts events in order by their EIDs, and tells which are missing and why: nothing is told twice.

What is known. The kernel (module/zfs/fm.c) gives an event its EID, one more than the last, and
only then takes the list's lock and puts it into the queue. So every number is either queued once or
its post has failed, which the kstat `fm` counts; and two CPUs may queue theirs in the opposite
order of their numbers, so the queue's order is nearly that of the EIDs, and a number that is
missing may follow a moment later. What is in the queue is lost to a reader in two ways: the queue
holds so many events (zfs_zevent_len_max) and lets the oldest go, or somebody clears it.

The order. A *hole* opens before an event whose EID is more than one above all before. What comes
from then on stands in a line behind the hole until that is settled: filled by the late ones, which
keep the places in the line where they came; or given up, when `PATIENCE` events have come since, or
`PATIENCE_NS` have passed. Then what is missing takes the hole's place in the line. So the line
begins with a hole or is empty, and everything leaves it in the queue's order.

A poster may be kept from its CPU between the two steps for as long as a busy host likes. So a hole
is given up so soon only where something explains it: a reset (below), or as many failures as events
are missing. Any other is *awaited* while the line moves on: until it is filled, or is explained, or
`LAST_PATIENCE_NS` have passed. What is missing of it then is told where the others have come to.

An EID that comes after it was given up is passed on all the same and counted as `late`: it was told
as lost, and is there. Any other EID that isn't above all before is, in a life that is known,
something from before we began, and means nothing. Where EIDs may begin anew unsaid (a recording),
it is a beginning, and nobody is kept: everything explains a hole.

The cause. `next` tells how many were `dropped`: 1 if the event that the cursor stood on has left
the queue, however many went with it or after it, and the ereports that a rate limit kept from
being posted since anybody asked last. So 0 says that the cursor was not *reset*, that nothing
behind it has left the queue, and that what is missing has failed or is late. If it was reset, the
queue was either full or cleared. When a full queue lets go of the event that the cursor stands on,
there are len_max events behind it, and will be until somebody clears the queue. So it was cleared
if the queue's end is seen earlier than that; if it isn't, it was full behind the hole, and a clear
that might have come before can't be told. Therefore a hole after a reset is given up only when
either is known. (A cursor that was opened after events were missed stands nowhere: as if it was
reset.) An event that can't be decoded has no EID that we could know, so its number is missing, and
of unknown cause. `causes` splits what is missing by all this.

What can't be known: whether 1 without a hole is a reset that cost nothing (a clear of what was read
says 1 too) or one rate-limited ereport; it is taken for a reset, so that rate-limited ereports are
at least as many as are told. And whether something is lost or only later than our patience: it is
told as lost by what would explain it then.
"""

import enum
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = [
    "LAST_PATIENCE_NS",
    "PATIENCE",
    "PATIENCE_NS",
    "Behind",
    "EidRange",
    "Eids",
    "Missing",
    "without",
]

PATIENCE = 64  # events, the one that opens the hole among them
PATIENCE_NS = 50_000_000
LAST_PATIENCE_NS = 5_000_000_000
_LONGEST = 4096  # events in the line: where a queue holds more than that, its causes aren't sought
_REMEMBERED = 256  # holes given up that a late EID is still known to be of
_MOST_AWAITED = 64  # holes; a device that has more of them doesn't count as the kernel does

T = TypeVar("T")


class EidRange(NamedTuple):
    """EIDs *first* to *last*, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


def without(ranges: Iterable[EidRange], gone: EidRange) -> list[EidRange]:
    """Return what is in *ranges* and not in *gone*."""
    left = []
    for each in ranges:
        if gone.last < each.first or each.last < gone.first:
            left.append(each)
            continue
        if each.first < gone.first:
            left.append(EidRange(each.first, gone.first - 1))
        if gone.last < each.last:
            left.append(EidRange(gone.last + 1, each.last))
    return left


class Behind(enum.Enum):
    """How many events stood in the queue behind a hole."""

    FULL = "as many as it holds"
    LESS = "fewer"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Missing(Generic[T]):
    """EIDs that did not come; *before* is the first that came of those after them, if known.

    `reset` says that the cursor may have been reset in between, `undecoded` how many events of
    unknown EIDs came there.
    """

    eids: EidRange
    before: T | None
    reset: bool
    behind: Behind
    undecoded: int


@dataclass(slots=True)
class _Hole(Generic[T]):
    missing: list[EidRange]
    before: T | None
    reset: bool
    undecoded: int
    opened: int  # how many events were taken before the one that opened it
    opened_ns: int
    due_ns: int  # when it is looked at again
    end: int | None = None  # how many were taken when the queue's end was first seen behind it


class _GivenUp(NamedTuple):
    eids: EidRange
    taken: int


class Eids(Generic[T]):
    """Takes events in the queue's order; `ready` is what may be passed on, in its order.

    `highest` is the highest EID that came, None before the first: whatever that is, nothing is
    missing before it. `restarts` says that EIDs may begin anew unsaid, `full` how many events the
    queue holds, 0 if that isn't known. `late` counts EIDs that came after they were given up.
    *failed* is asked how many posts have failed of which nothing was told yet.
    """

    def __init__(self, failed: Callable[[], int], *, restarts: bool = False, full: int = 0) -> None:
        self.ready: deque[T | Missing[T]] = deque()
        self.restarts = restarts
        self.full = full
        self.highest: int | None = None
        self.late = 0
        self._failed = failed
        self._line: deque[T | _Hole[T]] = deque()
        self._awaited: list[_Hole[T]] = []
        self._given_up: deque[_GivenUp] = deque(maxlen=_REMEMBERED)
        self._taken = 0
        self._reset = False
        self._cleared = False
        self._undecoded = 0

    def begin(self, highest: int | None, missing: Iterable[EidRange] = (), now_ns: int = 0) -> None:
        """Go on after *highest*, all up to it being known but for *missing*; give up all else."""
        self.release(now_ns, give_up=True)
        self._given_up.clear()
        self.highest = highest
        self._reset, self._cleared, self._undecoded = False, False, 0
        if ranges := list(missing):
            self._open(ranges, None, self._taken, now_ns)

    def took(self, *, reset: bool, after_end: bool) -> None:
        """Count one more event that was taken, whatever is in it.

        *reset*: the cursor may have been reset before it. *after_end*: the queue's end was seen
        between the event before and this one.
        """
        if after_end:
            self._see_end()
        self._taken += 1
        self._reset |= reset

    def cleared(self) -> None:
        """Know that the queue was cleared, with all that is missing before the next event."""
        self._reset = self._cleared = True

    def not_decoded(self) -> None:
        """Know that the event which was counted last has an EID that can't be known."""
        self._undecoded += 1

    def pass_by(self, what: T) -> None:
        """Have *what*, which has no EID, keep its place in the order."""
        (self._line or self.ready).append(what)

    def take(self, eid: int, what: T, now_ns: int) -> bool:
        """Take event *eid*, having counted it; whether a hole has opened before it."""
        highest = self.highest
        opened = False
        if highest is None or eid > highest:
            opened = highest is not None and eid > highest + 1
            if highest is not None and opened:
                hole = self._open([EidRange(highest + 1, eid - 1)], what, self._taken - 1, now_ns)
                if self._cleared:
                    hole.end = hole.opened
            self.highest = eid
            self._reset, self._cleared, self._undecoded = False, False, 0
        elif not self._fill(eid) and not self._was_given_up(eid) and self.restarts:
            self.begin(eid)
        self.pass_by(what)
        self.release(now_ns)
        return opened

    def _open(
        self, missing: list[EidRange], before: T | None, opened: int, now_ns: int
    ) -> _Hole[T]:
        due_ns = now_ns + PATIENCE_NS
        hole = _Hole(missing, before, self._reset, self._undecoded, opened, now_ns, due_ns)
        self._line.append(hole)
        return hole

    def _fill(self, eid: int) -> bool:
        """Whether *eid* was missing in a hole, as it isn't now."""
        for each in itertools.chain(self._awaited, self._line):
            if isinstance(each, _Hole):
                left = without(each.missing, EidRange(eid, eid))
                if left != each.missing:
                    each.missing = left
                    return True
        return False

    def _was_given_up(self, eid: int) -> bool:
        for each in self._given_up:
            if each.eids.first <= eid <= each.eids.last and (
                not self.restarts or self._taken - each.taken <= PATIENCE
            ):
                self.late += 1
                return True
        return False

    @property
    def deadline_ns(self) -> int | None:
        """When `at_end` is due at the latest; None while nothing waits."""
        if not self._line and not self._awaited:
            return None
        due_ns = [each.due_ns for each in self._awaited]
        if self._line:
            first = self._line[0]
            assert isinstance(first, _Hole)  # as the line always begins with one
            due_ns.append(first.due_ns)
        return min(due_ns)

    def at_end(self, now_ns: int) -> None:
        """Settle what has waited long enough: there is nothing more to take just now.

        A device that reads ahead may have nothing to give before it has reached the queue's end. If
        there still is nothing when patience is over, that end was seen.
        """
        self._see_end(now_ns - PATIENCE_NS)
        self.release(now_ns)

    def _see_end(self, opened_ns: float = math.inf) -> None:
        """See the queue's end behind all holes that were opened by then."""
        for each in self._line:
            if isinstance(each, _Hole) and each.end is None and each.opened_ns <= opened_ns:
                each.end = self._taken

    def end(self, now_ns: int) -> None:
        """Give up all holes: the queue's end was seen, and nothing can come late."""
        self._see_end()
        self.release(now_ns, give_up=True)

    def move_on(self, now_ns: int) -> None:
        """Have nothing wait in the line: what is missing without a reset may still come."""
        self.release(now_ns, hold=False)

    def release(self, now_ns: int, *, hold: bool = True, give_up: bool = False) -> None:
        """Move to `ready` what may go there; without *hold* the whole line; *give_up*: all."""
        if self._awaited:
            self._settle_awaited(now_ns, give_up=give_up)
        explained: bool | None = None  # asked once: it costs, and nothing that is moved changes it
        while self._line:
            first = self._line[0]
            if not isinstance(first, _Hole):
                self.ready.append(first)
            elif first.missing:
                behind = self._behind(first)
                if hold and not give_up and not self._is_over(first, behind, now_ns):
                    return
                if not give_up and not first.reset and explained is None:
                    explained = self._is_explained()
                if give_up or first.reset or explained:
                    self._give_up(first, behind or Behind.UNKNOWN)
                else:
                    self._await(first, now_ns)
            self._line.popleft()

    def _is_over(self, hole: _Hole[T], behind: Behind | None, now_ns: int) -> bool:
        if self._taken - hole.opened < PATIENCE and now_ns < hole.due_ns:
            return False
        return not hole.reset or behind is not None

    def _is_explained(self) -> bool:
        """Whether so many have failed as are missing, so that nothing can be on its way."""
        return self.restarts or self._failed() >= self.failed_or_late()

    def _await(self, hole: _Hole[T], now_ns: int) -> None:
        if len(self._awaited) == _MOST_AWAITED:
            self._give_up(self._awaited.pop(0), Behind.UNKNOWN)
        self._awaited.append(hole)
        self._put_off(hole, now_ns)

    @staticmethod
    def _put_off(hole: _Hole[T], now_ns: int) -> None:
        waited = max(now_ns - hole.opened_ns, PATIENCE_NS)
        hole.due_ns = min(now_ns + waited, hole.opened_ns + LAST_PATIENCE_NS)

    def _settle_awaited(self, now_ns: int, *, give_up: bool) -> None:
        self._awaited = [each for each in self._awaited if each.missing]
        if not give_up and all(now_ns < each.due_ns for each in self._awaited):
            return
        give_up = give_up or self._is_explained()
        kept = []
        for each in self._awaited:
            if give_up or now_ns - each.opened_ns >= LAST_PATIENCE_NS:
                self._give_up(each, Behind.UNKNOWN)
            else:
                self._put_off(each, now_ns)
                kept.append(each)
        self._awaited = kept

    def _behind(self, hole: _Hole[T]) -> Behind | None:
        """How many events stood behind *hole*; None while that may still come out."""
        count = (self._taken if hole.end is None else hole.end) - hole.opened
        if self.full and count >= self.full:
            return Behind.FULL
        if hole.end is not None and self.full:
            return Behind.LESS
        seen_all = hole.end is not None or not self.full or count >= _LONGEST
        return Behind.UNKNOWN if seen_all else None

    def _give_up(self, hole: _Hole[T], behind: Behind) -> None:
        undecoded = hole.undecoded
        for eids in hole.missing:
            here = min(undecoded, eids.size)
            undecoded -= here
            self.ready.append(Missing(eids, hole.before, hole.reset, behind, here))
            self._given_up.append(_GivenUp(eids, self._taken))

    def failed_or_late(self) -> int:
        """How many are missing without a reset, of which nothing was told yet."""
        ready = [each for each in self.ready if isinstance(each, Missing) and not each.reset]
        waiting = itertools.chain(self._awaited, self._line)
        holes = [each for each in waiting if isinstance(each, _Hole) and not each.reset]
        return sum(each.eids.size - each.undecoded for each in ready) + sum(
            max(0, sum(eids.size for eids in each.missing) - each.undecoded) for each in holes
        )
