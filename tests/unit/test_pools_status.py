"""What zpool prints, as facts: the text of real pools, the JSON as its source has it."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from zpool_outputs import printed, recorded

from zeventfs.errors import Malformed
from zeventfs.event import NS
from zeventfs.pools.status import PoolStatus, ScanStatus, VdevStatus
from zeventfs.pools.status_json import parse_json
from zeventfs.pools.status_text import parse_health, parse_text

ONLINE, UNAVAIL = 7, 4


def vdevs(pool: PoolStatus) -> tuple[VdevStatus, ...]:
    assert pool.vdevs is not None
    return pool.vdevs


def drawn(pool: PoolStatus) -> list[str]:
    """The tree, as a person would draw it: depth, role, name and state."""
    depths: dict[int | None, int] = {None: 0}
    lines = []
    for vdev in vdevs(pool):
        depth = depths[vdev.guid] = depths[vdev.parent] + 1
        lines.append("  " * depth + f"{vdev.role}:{vdev.name} {vdev.spare or vdev.state}")
    return lines


# The text


def test_no_pools_are_none() -> None:
    assert parse_text(*printed("none")) == []


def test_every_pool_has_its_guid_its_health_and_its_tree() -> None:
    pools = recorded("healthy")
    assert sorted(pools) == ["dr", "gone", "log1", "logs", "my pool", "rz", "sus", "tank"]
    assert {pool.health for pool in pools.values()} == {"ONLINE"}
    assert all(pool.guid for pool in pools.values())
    assert drawn(pools["my pool"]) == ["  :/vd/d8 7"]
    assert drawn(pools["logs"]) == ["  :/vd/d24 7"], "a pool called as a section is"
    assert drawn(pools["dr"]) == [
        "  :draid1:2d:5c:1s-0 7",
        "    :/vd/d14 7",
        "    :/vd/d15 7",
        "    :/vd/d16 7",
        "    :/vd/d17 7",
        "    :/vd/d18 7",
        "  spares:draid1-0-0 AVAIL",
    ]
    assert [vdev.type for vdev in vdevs(pools["dr"])] == ["draid", *[""] * 5, "dspare"]


def test_logs_cache_special_and_dedup_are_told_apart_and_spaces_in_paths_are_no_columns() -> None:
    tank = recorded("healthy")["tank"]
    assert drawn(tank) == [
        "  :mirror-0 7",
        "    :/dev/mapper/zA 7",
        "    :/dev/mapper/zB 7",
        "  dedup:/vd/d5 7",
        "  special:mirror-1 7",
        "    special:/vd/d 1 7",
        "    special:/vd/d 2 7",
        "  logs:mirror-3 7",
        "    logs:/vd/d6 7",
        "    logs:/vd/d7 7",
        "  cache:/dev/loop2 7",
    ]
    assert [vdev.path for vdev in vdevs(tank)][:2] == ["", "/dev/mapper/zA"]


def test_a_spare_in_use_stands_where_it_is_used_and_among_the_spares() -> None:
    rz = recorded("spare")["rz"]
    assert rz.health == "DEGRADED"
    assert drawn(rz) == [
        "  :raidz1-0 6",
        "    :/vd/d9 7",
        "    :spare-1 6",
        "      :/vd/d10 5",
        "      :/vd/d12 7",
        "    :/vd/d11 7",
        "  spares:/vd/d12 INUSE",
        "  spares:/vd/d13 AVAIL",
    ]
    used = [vdev for vdev in vdevs(rz) if vdev.path == "/vd/d12"]
    assert used[0].guid == used[1].guid
    assert (used[0].read_errors, used[1].read_errors) == (0, None)


def test_counts_are_exact() -> None:
    rz = recorded("checksums")["rz"]
    counts = [(vdev.path, vdev.cksum_errors) for vdev in vdevs(rz)]
    assert counts[1][0] == "/vd/d9"
    assert (counts[1][1] or 0) > 100
    sus = vdevs(recorded("suspended")["sus"])[0]
    assert sus.read_errors
    assert sus.write_errors
    assert sus.slow == 0


@pytest.mark.parametrize(
    ("name", "pool", "kind", "state"),
    [
        ("spare", "rz", "resilver", "finished"),
        ("checksums", "rz", "scrub", "finished"),
        ("running", "rz", "resilver", "running"),
        ("running", "log1", "scrub", "running"),
        ("paused", "log1", "scrub", "paused"),
        ("canceled", "log1", "scrub", "aborted"),
    ],
)
def test_the_latest_scan_is_told(name: str, pool: str, kind: str, state: str) -> None:
    scan = recorded(name)[pool].scan
    assert scan is not None
    assert scan[:2] == (kind, state)
    assert scan.since_ns // (86400 * NS) == 20778, "2026-11-21, UTC"


def test_a_pool_that_was_never_scanned_has_no_scan() -> None:
    assert recorded("healthy")["tank"].scan is None


def test_a_suspended_pool_says_so() -> None:
    assert recorded("suspended")["sus"].health == "SUSPENDED"


HEAD = b"\tNAME                    STATE     READ WRITE CKSUM\n"
LISTED = b"p\t7\tONLINE\n"


def text(rows: bytes, head: bytes = HEAD, facts: bytes = b" state: ONLINE\n") -> bytes:
    return b"  pool: p\n" + facts + b"config:\n\n" + head + b"\tp  ONLINE\n" + rows + b"\n"


def one(rows: bytes, by_path: bytes | None = None, **more: bytes) -> PoolStatus:
    guids, paths = text(rows, **more), text(rows if by_path is None else by_path, **more)
    (pool,) = parse_text(LISTED, guids, paths)
    return pool


@pytest.mark.parametrize("after", ["", "  (resilvering)", "  (100% trimmed)  (untrim supported)"])
def test_a_device_that_is_not_there_has_the_path_that_it_had(after: str) -> None:
    row = (
        b"\t  123                     UNAVAIL      0     0     0  was /dev/disk (1)/a b"
        + after.encode()
    )
    vdev = vdevs(one(row + b"\n"))[0]
    assert (vdev.guid, vdev.path, vdev.name, vdev.state) == (123, "/dev/disk (1)/a b", "", UNAVAIL)


def test_what_is_not_printed_is_not_known() -> None:
    vdev = vdevs(one(b"\t  123                     ONLINE       -  1.2K\n"))[0]
    counts = (vdev.read_errors, vdev.write_errors, vdev.cksum_errors, vdev.slow)
    assert counts == (None, None, None, None)
    assert vdevs(one(b"\t  123\n"))[0].state is None
    assert vdevs(one(b"\t  123                     ODD\n"))[0].state is None


@pytest.mark.parametrize(
    "said",
    [
        "none requested",
        "scrub in progress since Sat Xxx 21 18:19:37 2026",
        "scrub in progress since Sat anF 21 18:19:37 2026",
        "scrub in progress since Sat Nov 21 18:19:37 1969",
    ],
)
def test_a_scan_that_is_not_understood_is_none(said: str) -> None:
    facts = f"  scan: {said}\n\tmore of it\n".encode()
    assert one(b"", facts=facts).scan is None


def test_a_rebuild_is_a_resilver() -> None:
    facts = b"  scan: resilver (draid1:2d:4c:1s-0) in progress since Sat Nov  1 00:00:09 2025\n"
    assert one(b"", facts=facts).scan == ScanStatus("resilver", "running", 1761955209 * NS)


@pytest.mark.parametrize(
    ("rows", "by_path", "reason"),
    [
        (b"\t  1  ONLINE\n", b"\t  /a\n\t  /b\n", "changed while"),
        (b"\t  1  ONLINE\n", b"\t    /a\n", "changed while"),
        (b"\t  /a\n", b"\t  /a\n", "no guid for '/a'"),
        (b"\t  99999999999999999999\n", b"\t  /a\n", "no guid"),
        (b"\t    1\n", b"\t    /a\n", "no guid"),
    ],
)
def test_two_answers_that_do_not_match_are_malformed(
    rows: bytes, by_path: bytes, reason: str
) -> None:
    with pytest.raises(Malformed, match=reason):
        one(rows, by_path)


@pytest.mark.parametrize("head", [b"", b"\tSTATE\n", b"\tNAME\n"])
def test_a_table_without_a_head_is_malformed(head: bytes) -> None:
    with pytest.raises(Malformed, match="head"):
        one(b"", head=head)


def test_pools_that_status_does_not_know_are_malformed() -> None:
    for guids, paths in ((text(b""), b""), (b"", text(b"")), (b"  pool: p\nerrors: x\n", b"")):
        with pytest.raises(Malformed, match="doesn't know pool 'p'"):
            parse_text(LISTED, guids, paths)


def test_a_list_of_something_else_is_malformed() -> None:
    with pytest.raises(Malformed, match="not a pool's line"):
        parse_health(b"no pools available\n")
    assert parse_health(b"a b\t-\tONLINE\n") == [PoolStatus("a b", None, "ONLINE")]


# The JSON


def json_of(**pool: Any) -> bytes:
    named = {"name": "tank", "state": "ONLINE"} | pool
    version = {"command": "zpool status", "vers_major": 0, "vers_minor": 1}
    return json.dumps({"output_version": version, "pools": {"tank": named}}).encode()


def json_vdev(name: str, guid: int | str, **more: Any) -> dict[str, Any]:
    counts = {"read_errors": 1, "write_errors": "2", "checksum_errors": 3}
    return {"name": name, "guid": guid, "state": "ONLINE", "class": "normal", **counts, **more}


def json_root(*children: dict[str, Any]) -> dict[str, Any]:
    inside = {each["name"]: each for each in children}
    return {"tank": json_vdev("tank", 7, vdev_type="root", vdevs=inside)}


def only(printed: bytes) -> PoolStatus:
    (pool,) = parse_json(printed)
    return pool


def test_json_has_all_in_one() -> None:
    disk = json_vdev("sda", "11", vdev_type="disk", path="/dev/sda1", slow_ios=4)
    lost = json_vdev("12", 12, vdev_type="disk", was="/dev/sdb1", state="CANT_OPEN", not_present=1)
    mirror = json_vdev("mirror-0", 10, vdev_type="mirror", vdevs={"sda": disk, "12": lost})
    spare = {"name": "sdc", "guid": 20, "vdev_type": "disk", "path": "/dev/sdc1", "state": "AVAIL"}
    pool = only(
        json_of(
            pool_guid=7,
            vdevs=json_root(mirror),
            logs={"sdl": json_vdev("sdl", 30, path="/dev/sdl1")},
            l2cache={"sdx": json_vdev("sdx", 40, path="/dev/sdx1")},
            spares={"sdc": spare},
        )
    )
    assert (pool.name, pool.guid, pool.health) == ("tank", 7, "ONLINE")
    assert pool.vdevs == (
        VdevStatus(10, None, "", "mirror-0", "", "mirror", ONLINE, "", 1, 2, 3, None),
        VdevStatus(11, 10, "", "sda", "/dev/sda1", "", ONLINE, "", 1, 2, 3, 4),
        VdevStatus(12, 10, "", "12", "/dev/sdb1", "", UNAVAIL, "", 1, 2, 3, None),
        VdevStatus(30, None, "logs", "sdl", "/dev/sdl1", "", ONLINE, "", 1, 2, 3, None),
        VdevStatus(40, None, "cache", "sdx", "/dev/sdx1", "", ONLINE, "", 1, 2, 3, None),
        VdevStatus(
            20, None, "spares", "sdc", "/dev/sdc1", "", ONLINE, "AVAIL", None, None, None, None
        ),
    )


def test_json_without_pools_is_none() -> None:
    assert parse_json(b'{"output_version": {}, "pools": {}}') == []


@pytest.mark.parametrize(
    ("stats", "scan"),
    [
        (None, None),
        ({"function": "NONE", "state": "NONE"}, None),
        ({"function": "SCRUB", "state": "NONE"}, None),
        ({"function": "SCRUB", "state": "SCANNING", "start_time": "Sat Nov 21"}, None),
        ({"function": "SCRUB", "state": "SCANNING", "start_time": 2**60}, None),
        (
            {"function": "SCRUB", "state": "SCANNING", "start_time": 5, "scrub_pause": "-"},
            ScanStatus("scrub", "running", 5 * NS),
        ),
        (
            {"function": "SCRUB", "state": "SCANNING", "start_time": 5, "scrub_pause": 8},
            ScanStatus("scrub", "paused", 8 * NS),
        ),
        (
            {"function": "RESILVER", "state": "FINISHED", "start_time": "5", "end_time": "9"},
            ScanStatus("resilver", "finished", 9 * NS),
        ),
        (
            {"function": "ERRORSCRUB", "state": "CANCELED", "end_time": 9},
            ScanStatus("errorscrub", "aborted", 9 * NS),
        ),
    ],
)
def test_json_tells_the_latest_scan(stats: Any, scan: ScanStatus | None) -> None:
    assert only(json_of(scan_stats=stats)).scan == scan


def nested(depth: int) -> dict[str, Any]:
    vdev = json_vdev("x", 1)
    for _ in range(depth):
        vdev = json_vdev("x", 1, vdevs={"x": vdev})
    return vdev


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"pools": []}',
        b'{"pools": {"a": {}}}',
        json_of(vdevs=json_root(json_vdev("sda", "x"))),
        json_of(vdevs=json_root(json_vdev("sda", 2**64))),
        json_of(vdevs=json_root(json_vdev("sda", 1, slow_ios=[]))),
        json_of(vdevs=json_root(nested(30))),
        b'{"pools": ' + b'{"a":' * 100_000,
    ],
)
def test_json_that_is_no_status_is_malformed(said: bytes) -> None:
    with pytest.raises(Malformed, match="zpool status -j"):
        parse_json(said)


# Whatever is printed

PIECES = st.sampled_from(
    [
        b"  pool: ",
        b"p",
        b"\n",
        b"\n",
        b" state: ",
        b"  scan: ",
        b"scrub in progress since Sat Nov 21 18:19:37 2026",
        b"resilvered x on Sat Feb 99 99:99:99 9999",
        b"config:\n",
        HEAD,
        b"\t",
        b"  ",
        b"    ",
        b"ONLINE",
        b" 1 ",
        b"\t  12  ONLINE  1 2 3 was /x\n",
        b"\tspares\n",
        b"\0",
        b"\xff",
        "\u0663".encode(),
        b"  was /",
        b"p\t7\tONLINE\n",
    ]
)
OUTPUTS = st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=20).map(b"".join))


@settings(deadline=None, max_examples=300)
@given(OUTPUTS, OUTPUTS, OUTPUTS)
@example(LISTED, text(b"\t  1  ONLINE\n"), text(b"\t  /\xff  ONLINE\n"))
def test_no_text_is_too_strange(listed: bytes, guids: bytes, paths: bytes) -> None:
    for arguments in ((listed, guids, paths), (LISTED, guids, guids), (LISTED, text(guids), paths)):
        try:
            pools = parse_text(*arguments)
        except Malformed:
            continue
        assert all(isinstance(pool, PoolStatus) for pool in pools)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["tank", "root", "SCRUB", "SCANNING", "", "\u0663", "-1"]),
    lambda inside: (
        st.lists(inside, max_size=2)
        | st.dictionaries(
            st.sampled_from(["vdevs", "guid", "name", "state", "scan_stats", "vdev_type", "tank"]),
            inside,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.one_of(OUTPUTS, VALUES.map(lambda value: json_of(vdevs=value, scan_stats=value))))
def test_no_json_is_too_strange(said: bytes) -> None:
    try:
        pools = parse_json(said)
    except Malformed:
        return
    assert all(isinstance(pool, PoolStatus) for pool in pools)
