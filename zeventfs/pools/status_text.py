"""The text of `zpool status`, as releases without JSON print it, 0.8 to 2.2: bytes to facts.

Any text whatsoever gives facts or raises Malformed. It is read twice, with -g for the vdevs' guids
and with -P for their paths: both list the same vdevs in the same order, and what doesn't match is
Malformed. Never with -v: names of damaged files could look like anything. Source:
print_status_config in cmd/zpool/zpool_main.c of openzfs/zfs.
"""

import calendar
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from zeventfs.errors import Malformed
from zeventfs.event import NS
from zeventfs.pools.status import (
    SPARES,
    VDEV_STATES,
    PoolStatus,
    ScanStatus,
    VdevStatus,
    number_of,
    type_of,
)

__all__ = ["parse_health", "parse_text"]


def parse_health(printed: bytes) -> list[PoolStatus]:
    """The pools of `zpool list -H -p -o name,guid,health`."""
    pools = []
    for line in _text(printed).splitlines():
        name, *rest = line.split("\t")
        if len(rest) != 2:
            raise Malformed(f"zpool list: not a pool's line: {line[:80]!r}")
        pools.append(PoolStatus(name, number_of(rest[0]), rest[1]))
    return pools


def _text(printed: bytes) -> str:
    return printed.decode("utf-8", "surrogateescape")


class _Row(NamedTuple):
    """A line of the table: how deep its vdev is, and what it says of it."""

    depth: int
    name: str
    words: list[str]
    was: str


class _Printed(NamedTuple):
    name: str
    health: str
    scan: ScanStatus | None
    columns: list[str]
    rows: list[_Row]


def parse_text(listed: bytes, guids: bytes, paths: bytes) -> list[PoolStatus]:
    """The pools of `zpool list`, as for parse_health, and of `zpool status` with -g and with -P.

    Raises Malformed also when these don't say the same, since something changed in between.
    """
    by_guid = {each.name: each for each in _sections(guids)}
    by_path = {each.name: each for each in _sections(paths)}
    pools = []
    for pool in parse_health(listed):
        numbered, named = by_guid.get(pool.name), by_path.get(pool.name)
        if numbered is None or named is None:
            raise Malformed(f"zpool status doesn't know pool {pool.name!r}")
        vdevs = tuple(_vdevs(numbered, named))
        pools.append(PoolStatus(pool.name, pool.guid, named.health, named.scan, vdevs))
    return pools


def _sections(printed: bytes) -> Iterator[_Printed]:
    """What is printed of each pool."""
    begin = b"  pool: "
    for section in (b"\n" + printed).split(b"\n" + begin)[1:]:
        lines = section.split(b"\n")
        facts: dict[bytes, str] = {}
        for at, line in enumerate(lines):
            if line == b"config:":
                columns, rows = _table(lines[at + 1 :])
                yield _Printed(
                    _text(lines[0]),
                    facts.get(b"state", ""),
                    _scan(facts.get(b"scan", "")),
                    columns,
                    rows,
                )
                break
            key, colon, value = line.partition(b": ")
            if colon:
                facts.setdefault(key.strip(), _text(value))


def _table(lines: list[bytes]) -> tuple[list[str], list[_Row]]:
    """The names of the columns of counts, and the rows below them, the pool's own the first."""
    table = b"\n".join(lines).strip(b"\n").partition(b"\n\n")[0]
    lines = [line[1:] for line in table.split(b"\n") if line.startswith(b"\t")]
    head = lines[0] if lines else b""
    width = head.find(b"  STATE") + 2  # in bytes, as printf(3) pads
    if width < 2:
        raise Malformed(f"zpool status: not a table's head: {_text(head[:80])!r}")
    return _text(head[width:]).split()[1:], [_row(line, width) for line in lines[1:]]


def _row(line: bytes, width: int) -> _Row:
    name, rest = line[:width].rstrip(), line[width:]
    depth = len(name) - len(name.lstrip(b" "))
    was = re.search(rb"  was (/.*?)(?:  \(.*)?$", rest)
    return _Row(depth // 2, _text(name[depth:]), _text(rest).split(), _text(was[1]) if was else "")


def _vdevs(numbered: _Printed, named: _Printed) -> Iterator[VdevStatus]:
    """The vdevs of the pool of which both are."""
    within: list[int] = []  # the guids of those in which the row's vdev is, the top's first
    role = ""
    if [row.depth for row in numbered.rows] != [row.depth for row in named.rows]:
        raise Malformed(f"pool {named.name!r} changed while zpool status was asked")
    columns = {column: at for at, column in enumerate(named.columns)}
    for by_guid, by_path in zip(numbered.rows[1:], named.rows[1:], strict=True):
        guid = number_of(by_guid.name)
        if by_guid.depth == 0:
            role = by_path.name.strip()
            continue
        if guid is None or by_guid.depth > len(within) + 1:
            raise Malformed(f"pool {named.name!r}: zpool status has no guid for {by_path.name!r}")
        del within[by_guid.depth - 1 :]
        yield _vdev(guid, within[-1] if within else None, role, by_path, columns)
        within.append(guid)


def _vdev(
    guid: int, parent: int | None, role: str, row: _Row, columns: Mapping[str, int]
) -> VdevStatus:
    state, *words = row.words or [""]

    def count(column: str) -> int | None:
        at = columns.get(column, len(words))
        return number_of(words[at]) if at < len(words) else None

    return VdevStatus(
        guid,
        parent,
        role,
        "" if row.was else row.name,
        row.was or (row.name if row.name.startswith("/") else ""),
        type_of(row.name),
        VDEV_STATES.get(state),
        state if state in SPARES else "",
        count("READ"),
        count("WRITE"),
        count("CKSUM"),
        count("SLOW"),
    )


_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"
_DATE = r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})"
_SCANS: Final = (
    (re.compile(rf"(scrub|resilver)\b.* in progress since {_DATE}", re.ASCII), "running"),
    (re.compile(rf"(scrub|resilver)\b.* paused since {_DATE}", re.ASCII), "paused"),
    (re.compile(rf"(scrub|resilver)\b.* canceled on {_DATE}", re.ASCII), "aborted"),
    (re.compile(rf"(scrub|resilver)(?:ed| repaired)\b.* on {_DATE}", re.ASCII), "finished"),
)


def _scan(said: str) -> ScanStatus | None:
    """What "scan:" says in its first line; the time, in UTC, is to the second."""
    for pattern, state in _SCANS:
        found = pattern.match(said)
        if found is not None:
            kind, month, *numbers = found.groups()
            day, hour, minute, second, year = map(int, numbers)
            place, odd = divmod(_MONTHS.find(month), 3)
            if odd or year < 1970:
                return None
            date = (year, place + 1, day, hour, minute, second)
            return ScanStatus(kind, state, calendar.timegm(date) * NS)
    return None
