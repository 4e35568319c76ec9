"""What the kernel said of a pool when it was asked, put in place of what events had told of it.

Counts of ereports and delays are the events' alone and stay. All else is from then on as the kernel
said, but for what events told that happened after it was asked: those are newer.
"""

from collections.abc import Sequence
from typing import Final

from zeventfs.pools.pool import ABSENT, ACTIVE, UNAVAIL, Pool, Scan
from zeventfs.pools.status import PoolStatus, Question, ScanStatus, VdevStatus

__all__ = ["is_another", "miss_pool", "seed_pool"]

_SUSPENDED: Final = "SUSPENDED"
_LEFT: Final = "left it unseen"


def is_another(pool: Pool, status: PoolStatus) -> bool:
    """Whether *status* is of another pool than *pool*, whose name it has.

    One with the same vdevs is the same after a zpool-reguid(8).
    """
    if status.guid is None or pool.guid in (None, status.guid):
        return False
    return not any(pool.find(vdev.guid) for vdev in status.vdevs or ())


def seed_pool(pool: Pool, status: PoolStatus, question: Question) -> None:
    """Have *pool* be as *status* says, which the kernel answered to *question*."""
    if not question.before(pool.stood_ns):
        _stand(pool, status, question.asked_ns)
    elif pool.gone:
        return
    if status.vdevs is None:
        return
    pool.scan = _scan(pool.scan, status.scan, question)
    _seed_vdevs(pool, status.vdevs, question)


def _stand(pool: Pool, status: PoolStatus, asked_ns: int) -> None:
    if status.guid is not None:
        pool.guid = status.guid
    pool.become(UNAVAIL if status.health == "UNAVAIL" else ACTIVE)
    pool.health = status.health
    pool.asked_ns = asked_ns
    if not status.health:
        return
    if status.health == _SUSPENDED:
        if not pool.suspended:
            pool.suspended_ns = asked_ns
        pool.suspended = True
    elif status.vdevs is not None or pool.suspended is None:
        pool.suspended = False  # with failmode=continue only zpool says that it is, no kstat


def _scan(before: Scan | None, said: ScanStatus | None, question: Question) -> Scan | None:
    """The scan there is, and since when: an event's time is the more precise one."""
    if before is not None and question.before(before.since_ns):
        return before
    if said is None:
        return None
    if before is not None and (before.kind, before.state) == (said.kind, said.state):
        return before
    return Scan(*said)


def _seed_vdevs(pool: Pool, vdevs: Sequence[VdevStatus], question: Question) -> None:
    said = dict[int, tuple[int, VdevStatus]]()
    for rank, each in enumerate(vdevs):
        said.setdefault(each.guid, (rank, each))  # a spare in use is said to be a spare after that
    for guid, (rank, each) in said.items():
        vdev = pool.vdev(guid)
        if vdev.guid is not None:
            vdev.settle(each, rank, question)
    for vdev in list(pool.vdevs()):
        newer = question.before(vdev.told_ns)
        if vdev.guid is None or vdev.guid in said or vdev.gone or newer:
            continue
        if vdev.path:
            vdev.leave(_LEFT, question.asked_ns)
        else:  # a mirror, say, of which nothing is left
            pool.forget_vdev(vdev.guid)


def miss_pool(pool: Pool, question: Question) -> None:
    """Have *pool* be gone, as the kernel's answer to *question* was without it."""
    if pool.gone or question.before(pool.last_ns):
        return
    pool.become(ABSENT)
    pool.suspended = None
    pool.health = ""
