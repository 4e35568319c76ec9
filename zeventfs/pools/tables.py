"""What a pool's files say: its state for scripts; vdevs, delays and errors for a person.

Each is made from the pool as it stands at that moment, and is text in which a line is a line,
whatever stands in a name.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from zeventfs.journal.summary import Tally
from zeventfs.names import STATES
from zeventfs.pools.delays import Delays
from zeventfs.pools.pool import ABSENT, Pool
from zeventfs.pools.status import ROLES
from zeventfs.pools.vdev import Vdev
from zeventfs.printable import shown
from zeventfs.render import time_text

__all__ = ["delays_json", "delays_text", "errors_text", "state_text", "vdevs_text"]

_UNKNOWN = "-"
_OTHERS = "(others)"
_WIDEST = 60  # characters; what is longer is out of line, and not all the others


def state_text(pool: Pool) -> bytes:
    """One KEY=value a line; nothing behind the = where neither an event nor the kernel told."""
    suspended = {True: "yes", False: "no", None: ""}[pool.suspended]
    scan = pool.scan
    states = [vdev.state for vdev in pool.vdevs() if vdev.state is not None and not vdev.gone]
    facts: dict[str, object] = {
        "NAME": shown(pool.name),
        "GUID": _or_nothing(pool.guid),
        "STATE": "" if pool.state is None else _state(pool.state),
        "HEALTH": shown(pool.health),
        "SUSPENDED": suspended,
        "SUSPENDED_SINCE": time_text(pool.suspended_ns) if pool.suspended else "",
        # The kernel's order, from the least to the most healthy
        "WORST_VDEV": _word("vdev_state", min(states)) if states else "",
        "DATA_ERRORS": pool.errors.lost,
        "SCAN": "" if scan is None else f"{scan.kind} {scan.state}",
        "SCAN_SINCE": "" if scan is None else time_text(scan.since_ns),
        "FIRST_EVENT": time_text(pool.first_ns) if pool.events else "",
        "LAST_EVENT": time_text(pool.last_ns) if pool.events else "",
        "EVENTS": pool.events,
        "KERNEL_ASKED": time_text(pool.asked_ns) if pool.asked_ns else "",
    }
    return _encoded(f"{key}={value}" for key, value in facts.items())


def _state(state: int) -> str:
    return "ABSENT" if state == ABSENT else _word("pool_state", state)


# The vdevs

_VDEV_HEAD = ("NAME", "STATE", "READ", "WRITE", "CKSUM", "SLOW", "EREPORTS", "SINCE", "GUID")
_LEFT = frozenset({"NAME", "STATE", "SINCE", "GUID", "VDEV", "CLASS", "KIND", "FIRST", "LAST"})


def vdevs_text(pool: Pool) -> bytes:
    """The tree as `zpool status` lays it out, then what has no known place, then what has left."""
    there = [vdev for vdev in pool.vdevs() if not vdev.gone]
    rows = [_pool_row(pool)]
    reached = set[int | None]()
    for role in ("", *ROLES):
        placed = list(_tree(there, role))
        reached |= {vdev.guid for _, vdev in placed}
        if role and placed:
            rows.append(_title(role))
        rows += [_vdev_row(vdev, depth + bool(role)) for depth, vdev in placed]
    lost = [vdev for vdev in there if vdev.guid not in reached and vdev.seen]
    rows += _section("(place unknown)", lost)
    if pool.others is not None:
        rows.append(_vdev_row(pool.others, 1))
    lines = list(_table(_VDEV_HEAD, rows))
    left = [vdev for vdev in pool.vdevs() if vdev.gone]
    if left:
        lines += ["", "no longer in the pool:"]
        lines += [f"  {_moment(vdev.gone_ns)}  {_name(vdev)}  {shown(vdev.gone)}" for vdev in left]
    return _encoded(lines)


def _tree(vdevs: Sequence[Vdev], role: str) -> Iterator[tuple[int, Vdev]]:
    """The vdevs in *role* whose place is known, each with its depth, parents before children."""
    children: dict[int | None, list[Vdev]] = {}
    for vdev in sorted(vdevs, key=_order, reverse=True):
        if vdev.placed or not vdev.seen:
            children.setdefault(vdev.parent, []).append(vdev)
    left = [
        (1, vdev)
        for vdev in children.get(None, ())
        if vdev.role == role and (vdev.seen or vdev.guid in children)
    ]
    while left:  # a vdev has one parent, so none comes twice; what goes in circles never comes
        depth, vdev = left.pop()
        yield depth, vdev
        left += [(depth + 1, child) for child in children.get(vdev.guid, ())]


def _order(vdev: Vdev) -> tuple[int, str, str]:
    return vdev.rank, vdev.type if not vdev.path else "", vdev.path


def _section(title: str, vdevs: Sequence[Vdev]) -> Iterator[tuple[str, ...]]:
    if vdevs:
        yield _title(title)
        for vdev in sorted(vdevs, key=_order):
            yield _vdev_row(vdev, 2)


def _title(title: str) -> tuple[str, ...]:
    return (f"  {title}", *[""] * (len(_VDEV_HEAD) - 1))


def _pool_row(pool: Pool) -> tuple[str, ...]:
    state = _UNKNOWN if pool.state is None else _state(pool.state)
    if pool.suspended:
        state = "SUSPENDED"
    elif pool.health and not pool.gone:
        state = shown(pool.health)
    guid = _UNKNOWN if pool.guid is None else str(pool.guid)
    since = _moment(pool.suspended_ns) if pool.suspended else ""
    return (shown(pool.name), state, "", "", "", "", "", since, guid)


def _vdev_row(vdev: Vdev, depth: int) -> tuple[str, ...]:
    counts = (vdev.read_errors, vdev.write_errors, vdev.cksum_errors, vdev.slow)
    return (
        "  " * depth + _name(vdev),
        vdev.spare or (_UNKNOWN if vdev.state is None else _word("vdev_state", vdev.state)),
        *[_UNKNOWN if count is None else str(count) for count in counts],
        str(vdev.ereports),
        _UNKNOWN if vdev.since_ns is None else _moment(vdev.since_ns),
        "" if vdev.guid is None else str(vdev.guid),
    )


def _name(vdev: Vdev) -> str:
    if vdev.guid is None:
        return _OTHERS
    return shown(vdev.path or vdev.name or vdev.type or str(vdev.guid))


# Delays


def delays_text(pool: Pool) -> bytes:
    """A histogram for the pool and for each vdev of which an I/O was timed."""
    lines = [*_histogram(shown(pool.name), pool.delays)]
    for vdev in _measured(pool):
        lines += ["", *_histogram(_name(vdev), vdev.delays)]
    return _encoded(lines)


def _histogram(title: str, delays: Delays) -> Iterator[str]:
    untimed = f", {delays.untimed} untimed" if delays.untimed else ""
    yield f"{title}: {delays.timed} timed{untimed}"
    yield from delays.bars()


def delays_json(pool: Pool) -> bytes:
    """The same as delays_text, as one JSON object; guids are decimal strings."""
    shape = {
        "pool": shown(pool.name),
        "guid": None if pool.guid is None else str(pool.guid),
        **_shape(pool.delays),
        "vdevs": [
            {
                "guid": None if vdev.guid is None else str(vdev.guid),
                "path": shown(vdev.path),
                "type": shown(vdev.type),
                **_shape(vdev.delays),
            }
            for vdev in _measured(pool)
        ],
    }
    return msgspec.json.encode(shape) + b"\n"


def _shape(delays: Delays) -> dict[str, Any]:
    return {
        "timed": delays.timed,
        "untimed": delays.untimed,
        "buckets": [{"from_ns": begin, "count": count} for begin, count in delays.buckets()],
    }


def _measured(pool: Pool) -> Iterator[Vdev]:
    vdevs = [*sorted(pool.vdevs(), key=_order), *([pool.others] if pool.others else [])]
    return (vdev for vdev in vdevs if vdev.delays.timed or vdev.delays.untimed)


# Errors

_ERROR_HEAD = ("VDEV", "CLASS", "KIND", "COUNT", "FIRST", "LAST")
_DATA_HEAD = ("OBJSET", "OBJECT", "COUNT", "FIRST", "LAST")


def _counted(tally: Tally) -> tuple[str, str, str]:
    return str(tally.count), _moment(tally.first_ns), _moment(tally.last_ns)


def errors_text(pool: Pool) -> bytes:
    """A line for each vdev, class and kind; then the objects whose data was lost."""
    errors = pool.errors
    rows = sorted(
        (_whose(pool, row.vdev), shown(row.name), str(row.kind), *_counted(tally))
        for row, tally in errors.rows()
    )
    if errors.others is not None:
        rows.append((_OTHERS, "", "", *_counted(errors.others)))
    lines = list(_table(_ERROR_HEAD, rows))
    objects = [
        (str(objset), str(number), *_counted(tally)) for (objset, number), tally in errors.objects()
    ]
    if errors.elsewhere is not None:
        objects.append((_OTHERS, "", *_counted(errors.elsewhere)))
    if objects:
        lines += ["", f"data errors: {errors.lost}", *_table(_DATA_HEAD, objects)]
    return _encoded(lines)


def _whose(pool: Pool, guid: int | None) -> str:
    if guid is None:
        return _UNKNOWN
    vdev = pool.find(guid)
    return str(guid) if vdev is None else _name(vdev)


# All of them


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The columns below their heads: words to the left, numbers to the right."""
    table = [head, *rows]
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            f"{cell:<{width}}" if title in _LEFT else f"{cell:>{width}}"
            for title, cell, width in zip(head, row, widths, strict=True)
        ]
        yield "  ".join(cells).rstrip()


def _word(key: str, value: int) -> str:
    words = STATES[key]
    return words[value] if value < len(words) else str(value)


def _or_nothing(number: int | None) -> str:
    return "" if number is None else str(number)


@lru_cache(4096)  # of most rows the times are those of when somebody last looked
def _moment(time_ns: int) -> str:
    """A time to the second."""
    return f"{time_text(time_ns)[:19]}Z"


def _encoded(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
