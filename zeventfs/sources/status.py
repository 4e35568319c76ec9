"""How a source stands: the facts that sources/ shows of it, of one moment."""

import enum
from typing import NamedTuple

__all__ = ["SourceState", "SourceStatus", "source_names"]


class SourceState(enum.Enum):
    """Whether events may still come; what a source has `reason` for, it stays."""

    READY = "ready"
    ENDED = "ended"
    LOST = "lost"


class SourceStatus(NamedTuple):
    """State and counts of a source since its daemon began; times are ns since 1970.

    `gaps` and `dropped` count the holes that were told and the events in them, which are also
    counted by cause: `evicted`, `failed`, `cleared` and `unknown` add up to `dropped`. `late` are
    those of them that came after all, so that events + dropped - late = posted. `rate_limited` are
    ereports that were never numbered; `kernel_dropped` is the sum of the device's own hints.
    `waiting` is how many events the device holds that were not taken, None if it can't say. What is
    None of the last event is not known, or there was none.
    """

    state: SourceState
    reason: str
    events: int
    gaps: int
    dropped: int
    malformed: int
    kernel_dropped: int
    last_eid: int | None
    last_time_ns: int | None
    last_arrival_ns: int | None
    waiting: int | None
    evicted: int = 0
    failed: int = 0
    cleared: int = 0
    unknown: int = 0
    late: int = 0
    rate_limited: int = 0


def source_names(sources: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each of *sources*: its kind, and a number from the second of that kind on.

    They stay the same for the same sources in the same order: `sim`, `replay`, `replay.2`.
    """
    kinds = [source.partition(":")[0] for source in sources]
    counts = [kinds[: at + 1].count(kind) for at, kind in enumerate(kinds)]
    return tuple(
        kind if count == 1 else f"{kind}.{count}" for kind, count in zip(kinds, counts, strict=True)
    )
