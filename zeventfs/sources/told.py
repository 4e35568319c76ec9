"""The events by which a source of ZFS events tells of itself: what is missing, lost, ready again.

What is missing is of source `zfs`, in its place among the others. The rest is zeventfs's own word.
"""

from collections.abc import Iterable

from zeventfs.event import NS, Event
from zeventfs.journal.journal import GAP
from zeventfs.nvlist import Type
from zeventfs.sources.causes import Split
from zeventfs.sources.eids import EidRange
from zeventfs.sources.standing import LOST, READY, standing

__all__ = ["lost", "missing", "rate_limited", "ready"]

_LONGEST_NS = (2**63 - 1) * NS  # what an event's time can be: seconds are an INT64

_Pairs = Iterable[tuple[str, Type, object]]


def missing(eids: EidRange, split: Split, time_ns: int) -> Event:
    """Events *eids* never came; *split* says why, as far as that is known."""
    return _gap(
        time_ns,
        (
            ("dropped", Type.UINT64, eids.size),
            ("first_eid", Type.UINT64, eids.first),
            ("last_eid", Type.UINT64, eids.last),
            ("cause", Type.STRING, split.cause),
            *((cause, Type.UINT64, count) for cause, count in split._asdict().items() if count),
        ),
    )


def rate_limited(count: int, time_ns: int) -> Event:
    """A rate limit kept at least *count* ereports from being posted, which had no EIDs."""
    return _gap(
        time_ns,
        (
            ("dropped", Type.UINT64, count),
            ("cause", Type.STRING, "source"),
            ("rate_limited", Type.UINT64, count),
        ),
    )


def lost(source: str, reason: str, time_ns: int) -> Event:
    """*source* gives no events, for *reason*."""
    return standing(LOST, source, reason, time_ns)


def ready(source: str, reason: str, life: str, first_eid: int | None, time_ns: int) -> Event:
    """*source* gives events again, or others: those of *life*, from *first_eid* on if known."""
    first = () if first_eid is None else (("first_eid", Type.UINT64, first_eid),)
    return standing(READY, source, reason, time_ns, (("life", Type.STRING, life), *first))


def _gap(time_ns: int, pairs: _Pairs) -> Event:
    # A recording may say anything of its times.
    return Event.make("zfs", GAP, min(max(time_ns, -_LONGEST_NS), _LONGEST_NS), pairs)
