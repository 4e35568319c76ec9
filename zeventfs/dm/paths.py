"""The paths and groups of one multipath target, as they were told: from uevents and from status.

Each failure adds one to a path's fail count, so the count and the state together are the path's
place in its history: active with 0, failed with 1, active with 1, failed with 2... A status line
that is two places further saw a flap. And each step of a path is one path event of the device, so
the number of the last one told (DM_SEQNUM) says which uevents only repeat what a status line has
told already. What neither can say any more is counted in a gap.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from zeventfs.dm.changes import Change, Pair
from zeventfs.dm.numbers import Missing, Numbers
from zeventfs.dm.shown import PathSince
from zeventfs.dm.status import Group, Multipath, Path
from zeventfs.dm.uevent import PathAction
from zeventfs.journal.journal import GAP
from zeventfs.nvlist import Type

__all__ = ["Paths", "gap_pairs"]

_U32: Final = 2**32 - 1
_MOST_STEPS: Final = 256  # of one path that one status line tells; more are counted


class _Told(NamedTuple):
    active: bool
    fail_count: int
    group: int
    since_ns: int
    number: int = 0
    """Of the last path event that was heard of it; 0 if what stands here was read."""

    @property
    def place(self) -> int:
        """How many steps there were since its table was loaded."""
        return 2 * self.fail_count - (not self.active)


def gap_pairs(dropped: int, reason: str) -> tuple[Pair, ...]:
    """What every gap of the source says first: how many were lost, and what shows it."""
    return (
        ("dropped", Type.UINT64, dropped),
        ("cause", Type.STRING, "source"),
        ("reason", Type.STRING, reason),
    )


class Paths:
    """The paths; *number* is the last path event's of the device, None if that is not known.

    Of a device that was there before, *status* is what it all begins with, and is not told.
    """

    def __init__(self, number: int | None, status: Multipath | None, now_ns: int) -> None:
        self._numbers = Numbers(number)
        self._told: dict[str, _Told] = {}
        self._groups: tuple[Group, ...] = ()
        self._current: int | None = None
        self.since: Mapping[str, PathSince] = {}
        if status is not None:
            self._told = {path.dev: _told(path, now_ns) for path in _paths(status)}
            self._groups, self._current = status.groups, status.next_group
            self._show()

    def _show(self) -> None:
        self.since = {dev: PathSince(told.since_ns, "") for dev, told in self._told.items()}

    def hear(self, action: PathAction, now_ns: int, *, reloaded: bool) -> Change | None:
        """What a uevent tells, None if it was told already; a reading is to follow in any case.

        *reloaded*: the table may have become another since the last reading.
        """
        if not self._numbers.take(action.number):
            return None
        told = self._told.get(action.path, _Told(True, 0, 0, now_ns))  # noqa: FBT003 - active
        count = told.fail_count
        if action.number < told.number:
            # What waits in the kernel to be sent is sent in the opposite order (dm_uevent_add in
            # dm.c): this happened before what was heard already, and only its count is news.
            count = min(count + action.failed, _U32)
            self._told[action.path] = told._replace(fail_count=count)
            return _change(action.path, told.group, action.valid_paths, count, failed=action.failed)
        if told.active is not action.failed:
            # A failed path doesn't fail. Either it was told, and only its number was not known; or
            # in between there was what is missing, or another table, whose counts begin at 0.
            if not self._numbers and not reloaded:
                return None
            count = count if self._numbers else 0
        count = min(count + action.failed, _U32)
        active, group = not action.failed, told.group
        self._told[action.path] = _Told(active, count, group, now_ns, action.number)
        return _change(action.path, told.group, action.valid_paths, count, failed=action.failed)

    def compare(self, status: Multipath, now_ns: int) -> Iterator[Change]:
        """What a status line tells that was not told yet; first what can't be told any more."""
        now = {path.dev: path for path in _paths(status)}
        before = {
            dev: self._told.get(dev, _Told(True, 0, path.group, now_ns))  # noqa: FBT003 - active
            for dev, path in now.items()
        }
        steps = {dev: _told(path, now_ns).place - before[dev].place for dev, path in now.items()}
        yield from self._count(now, before, steps)
        valid = sum(told.active for told in before.values())
        for dev, path in now.items():
            place = _told(path, now_ns).place
            for at in range(place - steps[dev] + 1, place + 1):
                failed = at % 2 == 1
                valid += -1 if failed else 1
                yield _change(dev, path.group, valid, (at + 1) // 2, failed=failed)
        self._told = {
            dev: _told(path, now_ns if steps[dev] else before[dev].since_ns)
            for dev, path in now.items()
        }
        yield from self._compare_groups(status)
        self._show()

    def _count(
        self, now: Mapping[str, Path], before: Mapping[str, _Told], steps: dict[str, int]
    ) -> Iterator[Change]:
        """Leave in *steps*, by path, those that are to be told; tell of the others as gaps."""
        lost = self._numbers.settle()
        counted = 0 if lost is None else lost.number
        yield from _gap(lost)
        if min(steps.values(), default=0) < 0:
            # Counts only grow: it is another table, and only the states can be compared.
            for dev, path in now.items():
                steps[dev] = int(path.active is not before[dev].active)
            return
        all_steps = sum(steps.values())
        self._numbers.skip(max(all_steps - counted, 0))
        most = _MOST_STEPS if lost is None else 1
        for dev, number in steps.items():
            if number > most:
                steps[dev] = most - (number - most) % 2  # the last is the same
        hidden = all_steps - sum(steps.values())
        if hidden > counted:
            yield Change(GAP, gap_pairs(hidden - counted, "fail_count"))

    def forget_skipped(self) -> None:
        """Uevents were lost: the first one to come is not one of those that were told already."""
        self._numbers.forget_skipped()

    def end(self) -> Iterator[Change]:
        """Tell what is missing, for no reading can tell it any more."""
        yield from _gap(self._numbers.settle())

    def _compare_groups(self, status: Multipath) -> Iterator[Change]:
        same = [_devs(group) for group in self._groups] == [_devs(group) for group in status.groups]
        was_bypassed = [group.number for group in self._groups if same and group.state == "D"]
        for group in status.groups:
            bypassed = group.state == "D"
            if bypassed is not (group.number in was_bypassed):
                yield Change(
                    "dm.group.bypassed" if bypassed else "dm.group.enabled",
                    (
                        ("group", Type.UINT32, group.number),
                        ("paths", Type.STRING_ARRAY, _devs(group)),
                    ),
                )
        self._groups = status.groups
        current = status.next_group
        if not same or self._current is None:
            self._current = current
        # without a group in use the kernel says 1, as long as it has not chosen another
        elif current != self._current and (
            current > 1 or any(group.state == "A" for group in status.groups)
        ):
            yield Change(
                "dm.group.switched",
                (("from", Type.UINT32, self._current), ("to", Type.UINT32, current)),
            )
            self._current = current


def _gap(lost: Missing | None) -> Iterator[Change]:
    if lost is not None:
        numbers = (
            ("first_dm_seqnum", Type.UINT32, lost.first),
            ("last_dm_seqnum", Type.UINT32, lost.last),
        )
        yield Change(GAP, (*gap_pairs(lost.number, "DM_SEQNUM"), *numbers))


def _paths(status: Multipath) -> Iterator[Path]:
    """The paths, each device once: uevents don't say in which group."""
    seen = set()
    for path in status.paths():
        if path.dev not in seen:
            seen.add(path.dev)
            yield path


def _devs(group: Group) -> list[str]:
    return [path.dev for path in group.paths]


def _told(path: Path, since_ns: int) -> _Told:
    return _Told(path.active, path.fail_count, path.group, since_ns)


def _change(dev: str, group: int, valid_paths: int, fail_count: int, *, failed: bool) -> Change:
    return Change(
        "dm.path.failed" if failed else "dm.path.reinstated",
        (
            ("path", Type.STRING, dev),
            ("group", Type.UINT32, group),
            ("valid_paths", Type.UINT32, valid_paths),
            ("fail_count", Type.UINT32, fail_count),
        ),
    )
