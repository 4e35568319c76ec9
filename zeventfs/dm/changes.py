"""What happened to a mapped device between two readings: one change for each difference.

Paths and groups of multipath targets are `paths`' business, for uevents tell of them too. A target
that was not there before is compared with a healthy one, so what is wrong with it is told.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from zeventfs.dm.facts import DeviceFacts, TargetFacts
from zeventfs.dm.status import (
    Leg,
    Log,
    Mirror,
    ThinPool,
    Usage,
    mirror,
    multipath_shape,
    snapshot,
    thin_pool,
)
from zeventfs.nvlist import Type

__all__ = [
    "CREATED",
    "LIVE",
    "REMOVED",
    "RENAMED",
    "RESUMED",
    "SUSPENDED",
    "Change",
    "Pair",
    "changes",
]

CREATED: Final = "dm.created"
REMOVED: Final = "dm.removed"
RENAMED: Final = "dm.renamed"
SUSPENDED: Final = "dm.suspended"
RESUMED: Final = "dm.resumed"
LIVE: Final = "dm.table.live"

_MOST_TARGETS: Final = 64
_HOW: Final = {
    "D": "write failed",
    "S": "sync failed",
    "R": "read failed",
    "F": "flush failed",
    "U": "unknown",
}
_HOW_LOG: Final = {"D": "device failed", "F": "flush failed"}

Pair = tuple[str, Type, Any]


class Change(NamedTuple):
    """The class of an event, and what it says beside whose it is."""

    name: str
    pairs: tuple[Pair, ...] = ()


def changes(before: DeviceFacts | None, after: DeviceFacts) -> Iterator[Change]:
    """What the readings *before* and *after* differ in; None: it was just created."""
    if before is not None and (before.name, before.uuid) != (after.name, after.uuid):
        yield Change(RENAMED, (("old_name", Type.STRING, before.name),))
    was_suspended = before is not None and before.suspended
    if after.suspended and not was_suspended:
        yield Change(SUSPENDED)
    if after.live and (before is None or _table(before) != _table(after)):
        yield _live(after)
    if was_suspended and not after.suspended:
        yield Change(RESUMED)
    known = {} if before is None else {_place(target): target for target in before.targets}
    for target in after.targets:
        was = known.get(_place(target))
        yield from _mirror_changes(was, target)
        yield from _snapshot_changes(was, target)
        yield from _thin_changes(was, target)


def _place(target: TargetFacts) -> tuple[int, str]:
    return target.start, target.kind


def _table(facts: DeviceFacts) -> tuple[object, ...]:
    """What a new table has, or may have, different."""
    return (
        facts.live,
        facts.read_only,
        *[
            (
                target.start,
                target.length,
                target.kind,
                multipath_shape(target.table) if target.kind == "multipath" else target.table,
            )
            for target in facts.targets
        ],
    )


def _live(facts: DeviceFacts) -> Change:
    targets = [f"{each.start} {each.length} {each.kind}" for each in facts.targets[:_MOST_TARGETS]]
    return Change(
        LIVE,
        (
            ("targets", Type.STRING_ARRAY, targets),
            ("target_count", Type.UINT32, len(facts.targets)),
            ("read_only", Type.BOOLEAN_VALUE, facts.read_only),
            ("sectors", Type.UINT64, facts.sectors),
        ),
    )


# Mirrors


def _mirror_changes(before: TargetFacts | None, target: TargetFacts) -> Iterator[Change]:
    after = mirror(target)
    if after is None:
        return
    was = None if before is None else mirror(before)
    legs = () if was is None else was.legs
    for number, leg in enumerate(after.legs):
        # a leg of another device is another leg
        known = legs[number] if number < len(legs) else None
        if known is None or known.dev != leg.dev:
            known = Leg(leg.dev, "A")
        if leg.health not in ("A", known.health):
            yield Change("dm.mirror.leg_failed", _mirror_pairs("leg", leg.dev, leg.health, after))
    log = Log("", "", "A") if was is None or was.log.dev != after.log.dev else was.log
    if after.log.health not in ("A", log.health):
        how = _HOW_LOG.get(after.log.health, after.log.health)
        yield Change(
            "dm.mirror.log_failed",
            (("log", Type.STRING, after.log.dev), ("how", Type.STRING, how)),
        )
    if was is not None and was.in_sync < was.regions and after.in_sync == after.regions:
        yield Change("dm.mirror.recovered", (("regions", Type.UINT64, after.regions),))


def _mirror_pairs(key: str, dev: str, health: str, status: Mirror) -> tuple[Pair, ...]:
    return (
        (key, Type.STRING, dev),
        ("how", Type.STRING, _HOW[health]),
        ("legs_alive", Type.UINT32, sum(leg.health == "A" for leg in status.legs)),
        ("regions_in_sync", Type.UINT64, status.in_sync),
        ("regions", Type.UINT64, status.regions),
    )


# Snapshots


def _snapshot_changes(before: TargetFacts | None, target: TargetFacts) -> Iterator[Change]:
    after = snapshot(target)
    was = None if before is None else snapshot(before)
    if after is not None and after.invalid and (was is None or was.invalid != after.invalid):
        yield Change(
            "dm.snapshot.invalid",
            (
                ("origin", Type.STRING, after.origin),
                ("cow", Type.STRING, after.cow),
                ("reason", Type.STRING, after.invalid),
            ),
        )


# Thin pools


def _thin_changes(before: TargetFacts | None, target: TargetFacts) -> Iterator[Change]:
    after = thin_pool(target)
    if after is None:
        return
    was = None if before is None else thin_pool(before)
    if was is None:
        was = after._replace(mode="rw", needs_check=False, data=_NONE, metadata=_NONE)
    elif after.mode == "Fail":  # which has no figures: the last ones known say most
        after = after._replace(data=was.data, metadata=was.metadata)
    if _standing(was) != _standing(after):
        yield Change("dm.thin.state", (("from_mode", Type.STRING, was.mode), *_thin_pairs(after)))
    for kind, earlier, now, mark in (
        ("data", was.data, after.data, after.low_water),
        ("metadata", was.metadata, after.metadata, after.metadata_low_water),
    ):
        if _is_low(now, mark) and not _is_low(earlier, mark):
            yield Change(
                "dm.thin.low_water",
                (
                    ("low", Type.STRING, kind),
                    ("low_water", Type.UINT64, mark),
                    *_thin_pairs(after),
                ),
            )


_NONE: Final = Usage(0, 0)


def _standing(pool: ThinPool) -> tuple[str, bool]:
    return pool.mode, pool.needs_check


def _is_low(usage: Usage, mark: int) -> bool:
    return usage.total > 0 and usage.free <= mark


def _thin_pairs(pool: ThinPool) -> tuple[Pair, ...]:
    return (
        ("mode", Type.STRING, pool.mode),
        ("needs_check", Type.BOOLEAN_VALUE, pool.needs_check),
        ("no_space", Type.STRING, pool.no_space),
        ("data_used", Type.UINT64, pool.data.used),
        ("data_total", Type.UINT64, pool.data.total),
        ("metadata_used", Type.UINT64, pool.metadata.used),
        ("metadata_total", Type.UINT64, pool.metadata.total),
    )
