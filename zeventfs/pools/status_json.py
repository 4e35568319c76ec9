"""The JSON of `zpool status -j`, from release 2.3 on: bytes to facts.

Any bytes whatsoever give facts or raise Malformed. Source: status_callback_json in
cmd/zpool/zpool_main.c of openzfs/zfs.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from zeventfs.errors import Malformed
from zeventfs.event import NS
from zeventfs.pools.status import (
    LATEST_S,
    ROLES,
    SPARES,
    VDEV_STATES,
    PoolStatus,
    ScanStatus,
    VdevStatus,
    number_of,
    type_of,
)

__all__ = ["parse_json"]

_Counts = str | int | None


class _JsonVdev(msgspec.Struct):
    guid: _Counts = None
    name: str = ""
    vdev_type: str = ""
    path: str = ""
    was: str = ""
    state: str = ""
    read_errors: _Counts = None
    write_errors: _Counts = None
    checksum_errors: _Counts = None
    slow_ios: _Counts = None
    vdevs: dict[str, "_JsonVdev"] = {}


class _JsonScan(msgspec.Struct):
    function: str = ""
    state: str = ""
    start_time: _Counts = None
    end_time: _Counts = None
    scrub_pause: _Counts = None


class _JsonPool(msgspec.Struct):
    name: str
    state: str = ""
    pool_guid: _Counts = None
    guid: _Counts = None
    scan_stats: _JsonScan | None = None
    vdevs: dict[str, _JsonVdev] = {}
    dedup: dict[str, _JsonVdev] = {}
    special: dict[str, _JsonVdev] = {}
    logs: dict[str, _JsonVdev] = {}
    l2cache: dict[str, _JsonVdev] = {}
    spares: dict[str, _JsonVdev] = {}


class _JsonStatus(msgspec.Struct):
    pools: dict[str, _JsonPool]


_JSON_SCANS: Final = {
    "SCANNING": "running",
    "ERRORSCRUBBING": "running",
    "FINISHED": "finished",
    "CANCELED": "aborted",
}
_KINDS: Final = {"SCRUB": "scrub", "RESILVER": "resilver", "ERRORSCRUB": "errorscrub"}
_DEEPEST = 16  # pool, raidz, spare, replacing, disk are five


def parse_json(printed: bytes) -> list[PoolStatus]:
    """The pools of `zpool status -j --json-int -p -P -s`."""
    try:
        status = msgspec.json.decode(printed, type=_JsonStatus)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"zpool status -j: {error}") from error
    return [_json_pool(pool) for pool in status.pools.values()]


def _json_pool(pool: _JsonPool) -> PoolStatus:
    tops = {"": pool.vdevs, **{role: getattr(pool, _JSON_ROLES.get(role, role)) for role in ROLES}}
    vdevs = []
    for role, inside in tops.items():
        for each in inside.values():
            children = each.vdevs.values() if each.vdev_type == "root" else (each,)
            vdevs += [vdev for child in children for vdev in _json_vdevs(child, None, role, 0)]
    return PoolStatus(
        pool.name,
        number_of(pool.pool_guid if pool.guid is None else pool.guid),
        pool.state,
        _json_scan(pool.scan_stats),
        tuple(vdevs),
    )


_JSON_ROLES: Final = {"cache": "l2cache"}


def _json_vdevs(vdev: _JsonVdev, parent: int | None, role: str, depth: int) -> Iterator[VdevStatus]:
    """A vdev and those within it."""
    guid = number_of(vdev.guid)
    if guid is None or depth > _DEEPEST:
        raise Malformed(f"zpool status -j: no guid, or no place, of vdev {vdev.name[:80]!r}")
    path = vdev.path or vdev.was
    yield VdevStatus(
        guid,
        parent,
        role,
        vdev.name,
        path,
        "" if path else type_of(vdev.name) or vdev.vdev_type,
        VDEV_STATES.get(vdev.state),
        vdev.state if vdev.state in SPARES else "",
        number_of(vdev.read_errors),
        number_of(vdev.write_errors),
        number_of(vdev.checksum_errors),
        number_of(vdev.slow_ios),
    )
    for child in vdev.vdevs.values():
        yield from _json_vdevs(child, guid, role, depth + 1)


def _json_scan(scan: _JsonScan | None) -> ScanStatus | None:
    if scan is None or scan.function not in _KINDS or scan.state not in _JSON_SCANS:
        return None
    state, since = _JSON_SCANS[scan.state], number_of(scan.start_time)
    paused = number_of(scan.scrub_pause)
    if state != "running":
        since = number_of(scan.end_time)
    elif paused:
        state, since = "paused", paused
    if since is None or since > LATEST_S:
        return None
    return ScanStatus(_KINDS[scan.function], state, since * NS)
