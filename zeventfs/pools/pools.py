"""All pools that events speak of, by name, each as its events tell it, or the kernel when asked.

Bounded in number: when there is no room, a pool that was exported or destroyed makes some, and a
further one is not known. It knows no journal, but for the seqs of events.

What is taken is learnt from when somebody looks, or else some at a time: an event's readers don't
wait for it, and many in a row take half as long as one now and then.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from zeventfs.event import Event
from zeventfs.pools.facts import Facts, Plans
from zeventfs.pools.pool import ACTS, STANDING, Pool
from zeventfs.pools.seed import is_another, miss_pool, seed_pool
from zeventfs.pools.status import PoolStatus, Question
from zeventfs.printable import printable

__all__ = ["Pools"]

_MOST_POOLS = 128
_LONGEST_NAME: Final = 255  # bytes, NAME_MAX
_CREATE: Final = "sysevent.fs.zfs.pool_create"
_REGUID: Final = "sysevent.fs.zfs.pool_reguid"
_REPLACING: Final = b"vdev attach"
_AT_ONCE: Final = 128  # events, half a millisecond
_PLAIN: Final = frozenset({"sysevent.fs.zfs.config_sync", "sysevent.fs.zfs.history_event"})
_LOSSES: Final = frozenset({"zeventfs.gap", "zeventfs.source.ready"})


class Pools:
    """The pools."""

    __slots__ = ("_doubted", "_gone", "_plans", "_pools", "_taken", "_unknown")

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}
        self._gone: dict[str, None] = {}  # in the order in which they went
        self._plans = Plans()
        self._taken: list[tuple[Event, int]] = []
        self._unknown = 0
        self._doubted: Callable[[], None] | None = None

    def subscribe(self, doubted: Callable[[], None]) -> None:
        """Have *doubted* called at each event after which the kernel knows more than events told.

        That is at events that were lost, and at all but those of a pool's everyday life.
        """
        self._doubted = doubted

    @property
    def unknown(self) -> int:
        """How many events there were of pools that there was no room for."""
        self._catch_up()
        return self._unknown

    def take(self, event: Event, seq: int) -> None:
        """Have the journal's event *seq* learnt from; in their order."""
        if event.pool:
            self._taken.append((event, seq))
            if len(self._taken) >= _AT_ONCE:
                self._catch_up()
            if self._doubted is not None and event.name not in _PLAIN:
                self._doubted()
        elif self._doubted is not None and event.name in _LOSSES:
            self._doubted()

    def seed(self, statuses: Iterable[PoolStatus], question: Question) -> None:
        """Have the pools be as *statuses* say, which the kernel answered to *question*.

        Events that happened after the question are newer, whether they have been taken or not.
        """
        self._catch_up()
        for status in statuses:
            name = status.name
            pool = self._pools.get(name)
            if pool is None and not self._has_room(name):
                continue
            if pool is None or is_another(pool, status):
                if pool is not None and question.before(pool.stood_ns):
                    continue
                pool = self._pools[name] = Pool(name, question.asked_ns)
            seed_pool(pool, status, question)
            self._know_gone(pool)

    def miss(self, there: Iterable[str], question: Question) -> None:
        """Have all pools be gone but those *there*, which were all in the answer to *question*."""
        self._catch_up()
        for name in self._pools.keys() - set(there):
            pool = self._pools[name]
            miss_pool(pool, question)
            self._know_gone(pool)

    def _catch_up(self) -> None:
        taken, self._taken = self._taken, []
        for event, seq in taken:
            self._learn(event, seq)

    def _learn(self, event: Event, seq: int) -> None:
        payload, name = event.payload, event.name
        values = payload.values
        plan = self._plans[payload.layout]
        guid, state, history, _ = plan
        pool = self._pools.get(event.pool or "")
        act = ACTS.get(name)
        if (
            pool is None
            or (guid is not None and values[guid] != pool.guid)
            or (state is not None and values[state] != pool.state)
            or (act is not None and name in STANDING)
        ):
            pool = self._place(pool, event, plan.facts(values))
            if pool is None:
                self._unknown += 1
                return
        pool.last_seq = seq
        if not pool.events:
            pool.first_ns = event.time_ns
        pool.last_ns = event.time_ns
        pool.events += 1
        if act is None:
            if history is not None:
                if not pool.suspended and values[history] != _REPLACING:
                    return
                act = Pool.note_history
            elif name.startswith("ereport."):
                act = Pool.note_ereport
            else:
                return
        act(pool, event, plan.facts(values))

    def _place(self, pool: Pool | None, event: Event, facts: Facts) -> Pool | None:
        """The pool whose event it is, now standing as the event says; None if it has no room."""
        name = event.pool or ""
        if pool is None or _is_another(pool, event.name, facts):
            if pool is None and not self._has_room(name):
                return None
            pool = self._pools[name] = Pool(name, event.time_ns)
        pool.stand(event, facts)
        self._know_gone(pool)
        return pool

    def _know_gone(self, pool: Pool) -> None:
        if not pool.gone:
            self._gone.pop(pool.name, None)
        else:
            self._gone.setdefault(pool.name)

    def _has_room(self, name: str) -> bool:
        """Tell whether a pool of that *name* can be known, and have it so."""
        if len(name) > _LONGEST_NAME or len(printable(name)) > _LONGEST_NAME:
            return False
        if len(self._pools) >= _MOST_POOLS:
            if not self._gone:
                return False
            self._forget(next(iter(self._gone)))
        return True

    def _forget(self, name: str) -> None:
        del self._gone[name]
        del self._pools[name]

    def current(self, oldest_seq: int) -> Mapping[str, Pool]:
        """The pools by name, without those that are gone and of which no event is kept any more.

        *oldest_seq* is the seq of the oldest event kept. No name is longer than 255 bytes when
        it is printable.
        """
        self._catch_up()
        for name in [name for name in self._gone if self._pools[name].last_seq < oldest_seq]:
            self._forget(name)
        return self._pools


def _is_another(pool: Pool, name: str, facts: Facts) -> bool:
    """Whether an event of class *name* is of another pool than *pool*, whose name it has."""
    if name == _CREATE and pool.gone:
        return True
    if pool.guid is None or facts.pool_guid in (None, pool.guid):
        return False
    # zpool-reguid(8) is recorded first, then told
    return name != _REGUID and facts.history_internal_name != b"guid change"
