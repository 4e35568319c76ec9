"""What a mapped device's files say: KEY=value for scripts, tables as dmsetup(8) prints them.

Each is text in which a line is a line, whatever stands in a name.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from zeventfs.dm.facts import DeviceFacts, TargetFacts
from zeventfs.dm.shown import PathSince
from zeventfs.nodes.lines import encoded, pairs, table
from zeventfs.render import time_text

__all__ = ["paths_text", "state_text", "status_text", "table_text"]

_PATHS_HEAD = ("DEV", "GROUP", "GROUP_STATE", "STATE", "FAILS", "SINCE", "ERROR")
_NUMBERS = frozenset({"GROUP", "FAILS"})


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
    """A line for each path of its multipath targets, in their order, below the columns' heads.

    FAILS is the kernel's count, SINCE when the path came to be in its STATE, ERROR the one it
    failed with; what is not known is empty.
    """
    rows = []
    for target in facts.targets:
        for group, path in _multipath(target):
            known = since.get(path.dev)
            rows.append(
                (
                    path.dev,
                    str(group.number),
                    _GROUP_STATES.get(group.state, group.state),
                    _PATH_STATES.get(path.state, path.state),
                    str(path.fails),
                    "" if known is None else time_text(known.since_ns),
                    "" if known is None else known.error,
                )
            )
    return table(_PATHS_HEAD, rows, _NUMBERS)


_GROUP_STATES = {"A": "ACTIVE", "E": "ENABLED", "D": "DISABLED"}
_PATH_STATES = {"A": "ACTIVE", "F": "FAILED"}


class _Path(NamedTuple):
    dev: str
    state: str
    fails: int


class _Group(NamedTuple):
    number: int
    state: str


def _multipath(target: TargetFacts) -> list[tuple[_Group, _Path]]:
    """What is not understood has no paths."""
    if target.kind != "multipath":
        return []
    try:
        return _read(iter(target.status.split()))
    except (StopIteration, ValueError):
        return []


def _read(words: Iterator[str]) -> list[tuple[_Group, _Path]]:
    def skip(count: int) -> None:
        for _ in range(count):
            next(words)

    skip(int(next(words)))  # features
    skip(int(next(words)))  # the hardware handler
    groups = int(next(words))
    next(words)
    found = []
    for number in range(1, groups + 1):
        group = _Group(number, next(words))
        skip(int(next(words)))
        paths, more = int(next(words)), int(next(words))
        for _ in range(paths):
            found.append((group, _Path(next(words), next(words), int(next(words)))))
            skip(more)
    return found
