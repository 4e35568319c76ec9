"""What a mapped device's files say: KEY=value for scripts, tables as dmsetup(8) prints them.

Each is text in which a line is a line, whatever stands in a name.
"""

from collections.abc import Callable, Mapping

from zeventfs.dm.facts import DeviceFacts, TargetFacts
from zeventfs.dm.shown import PathSince
from zeventfs.dm.status import Path, multipath_of
from zeventfs.nodes.lines import encoded, pairs, table
from zeventfs.render import time_text

__all__ = ["paths_text", "state_text", "status_text", "table_text"]

_PATHS_HEAD = ("DEV", "GROUP", "GROUP_STATE", "STATE", "FAILS", "SINCE", "ERROR")
_NUMBERS = frozenset({"GROUP", "FAILS"})
_GROUP_STATES = {"A": "ACTIVE", "E": "ENABLED", "D": "DISABLED"}


def state_text(facts: DeviceFacts, changed_ns: int) -> bytes:
    """One KEY=value a line, all of one moment; words and numbers are those of `dmsetup info`.

    SECTORS are of 512 bytes; SINCE is when any of this changed last.
    """
    return pairs(
        {
            "NAME": facts.name,
            "UUID": facts.uuid,
            "DEV": facts.dev,
            "STATE": "SUSPENDED" if facts.suspended else "ACTIVE",
            "LIVE": _yes_or_no(facts.live),
            "INACTIVE": _yes_or_no(facts.inactive),
            "READONLY": _yes_or_no(facts.read_only),
            "EVENT_NR": facts.event_nr,
            "OPEN": facts.open_count,
            "SECTORS": facts.sectors,
            "TARGETS": len(facts.targets),
            "SINCE": time_text(changed_ns),
        }
    )


def _yes_or_no(holds: bool) -> str:  # noqa: FBT001 - it is what is told
    return "yes" if holds else "no"


def table_text(facts: DeviceFacts) -> bytes:
    """A line a target, as `dmsetup table` prints it; nothing where no table is live."""
    return _targets(facts, lambda target: target.table)


def status_text(facts: DeviceFacts) -> bytes:
    """A line a target, as `dmsetup status` prints it; nothing where no table is live."""
    return _targets(facts, lambda target: target.status)


def _targets(facts: DeviceFacts, told: Callable[[TargetFacts], str]) -> bytes:
    return encoded(
        f"{target.start} {target.length} {target.kind} {told(target)}" for target in facts.targets
    )


def paths_text(facts: DeviceFacts, since: Mapping[str, PathSince]) -> bytes:
    """A line for each path of its multipath target, in its order, below the columns' heads.

    FAILS is the kernel's count, SINCE when the path came to be in its STATE, ERROR the one it
    failed with; what is not known is empty. There are no lines for a status that can't be read.
    """
    multipath = multipath_of(facts)
    groups = () if multipath is None else multipath.groups
    rows = [
        _path_row(path, _GROUP_STATES[group.state], since.get(path.dev))
        for group in groups
        for path in group.paths
    ]
    return table(_PATHS_HEAD, rows, _NUMBERS)


def _path_row(path: Path, group_state: str, since: PathSince | None) -> tuple[str, ...]:
    return (
        path.dev,
        str(path.group),
        group_state,
        "ACTIVE" if path.active else "FAILED",
        str(path.fail_count),
        "" if since is None else time_text(since.since_ns),
        "" if since is None else since.error,
    )
