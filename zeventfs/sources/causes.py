"""Splits what is missing of a device's events by cause, with the device's own count of failures.

Failures among what was evicted or cleared are known by the kstat's rise since the last hole, less
what the holes behind need of it that can have no other cause. This can credit a failure of a moment
ago to the hole before it, and never more failures than there were.
"""

from typing import NamedTuple, TypeVar

from zeventfs.sources.eids import Behind, Missing

__all__ = ["Causes", "Split"]

T = TypeVar("T")


class Split(NamedTuple):
    """How many of what is missing were lost by which cause."""

    evicted: int = 0
    failed: int = 0
    cleared: int = 0
    unknown: int = 0

    @property
    def cause(self) -> str:
        """The word for all of it: `cleared` if nothing else, else `source`."""
        return "cleared" if self.cleared == sum(self) else "source"


class Causes:
    """Splits what is missing by cause; never more `failed` than the device says there were.

    `failed` is its count at the last question, or when we began, and `told` how many of these were
    told, or are too old to explain anything, in one life of the device.
    """

    def __init__(self, failed: int, told: int = 0) -> None:
        self.failed = failed
        self.told = told

    def caught_up(self) -> None:
        """Know that nothing is missing: no failure that was counted until now explains anything."""
        self.told = max(self.told, self.failed)

    def split(self, missing: Missing[T], failed: int, needed: int) -> Split:
        """Split *missing*, the device having counted *failed*; *needed* of these are elsewhere."""
        unknown = missing.undecoded
        lost = missing.eids.size - unknown
        budget = failed - self.told
        if missing.reset:
            budget = min(budget, failed - self.failed - needed)
        did_fail = min(lost, max(0, budget))
        lost -= did_fail
        self.told += did_fail
        self.failed = max(self.failed, failed)
        if missing.reset and missing.behind is Behind.FULL:
            return Split(evicted=lost, failed=did_fail, unknown=unknown)
        if missing.reset and missing.behind is Behind.LESS:
            return Split(cleared=lost, failed=did_fail, unknown=unknown)
        return Split(failed=did_fail, unknown=unknown + lost)
