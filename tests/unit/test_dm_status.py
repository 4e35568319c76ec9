"""Status lines as the kernel's targets print them, and lines that can't be so."""

import pytest
from dm_facts import LINEAR, device, mp, two_groups
from dm_facts import multipath as mp_target
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.dm.facts import TargetFacts
from zeventfs.dm.status import (
    Group,
    Leg,
    Log,
    Mirror,
    Multipath,
    Path,
    Snapshot,
    ThinPool,
    Usage,
    mirror,
    multipath,
    multipath_of,
    multipath_shape,
    snapshot,
    thin_pool,
)

READERS = [multipath, mirror, snapshot, thin_pool]
POOL_TABLE = "253:12 253:13 128 300 0 "
POOL = "0 112/1024 96/320 - rw discard_passdown queue_if_no_space - 256 "


def target(kind: str, status: str, table: str = "") -> TargetFacts:
    return TargetFacts(0, 8, kind, table, status)


def test_multipath_has_its_paths_by_groups() -> None:
    line = "2 1 0 0 2 1 E 0 1 0 7:1 F 1 E 0 1 0 7:2 A 0 "
    assert multipath(target("multipath", line)) == Multipath(
        1,
        (
            Group(1, "E", (Path("7:1", 1, active=False, fail_count=1),)),
            Group(2, "E", (Path("7:2", 2, active=True, fail_count=0),)),
        ),
    )


def test_multipath_of_any_handler_and_selector_is_read() -> None:
    line = "2 0 1 1 alua 1 1 A 2 4 100 2 2 8:0 A 0 3 1 8:16 F 7 0 1"
    read = multipath(target("multipath", line))
    assert read is not None
    assert [*read.paths()] == [
        Path("8:0", 1, active=True, fail_count=0),
        Path("8:16", 1, active=False, fail_count=7),
    ]
    assert multipath(target("multipath", "2 0 0 0 0 0")) == Multipath(0, ())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "2 1",
        "2 0 0 0 1 1",
        "2 0 0 0 1 1 X 0 1 0 7:1 A 0",
        "2 0 0 0 1 1 E 0 1 0 sda A 0",
        "2 0 0 0 1 1 E 0 1 0 7:1 X 0",
        "2 0 0 0 1 1 E 0 1 0 7:1 A 4294967296",
        "2 0 0 0 1 1 E 0 1 0 7:1 A -1",
        "2 0 0 0 1 1 E 0 1 0 7:1 A \u0663",
        "2 0 0 0 1 1 E 0 1 1 7:1 A 0",
        "2 0 0 0 4294967295 1 E 0 1 0 7:1 A 0",
        "4294967295 0",
    ],
)
def test_multipath_that_cannot_be_so_says_nothing(line: str) -> None:
    assert multipath(target("multipath", line)) is None


def test_a_device_has_one_multipath_target_or_none() -> None:
    assert multipath_of(mp()) == multipath(mp_target(two_groups()))
    assert multipath_of(device("lin", LINEAR)) is None
    assert multipath_of(device("mp", mp_target("?"))) is None


def test_what_messages_change_in_a_table_is_not_its_shape() -> None:
    table = "0 1 alua 2 1 round-robin 0 1 1 7:1 1 round-robin 0 1 1 7:2 1 "
    said = "1 queue_if_no_path 1 alua 2 2 round-robin 0 1 1 7:1 1 round-robin 0 1 1 7:2 1 "
    assert multipath_shape(table) == multipath_shape(said)
    assert multipath_shape(table) != multipath_shape(table.replace("7:2", "7:3"))
    assert multipath_shape("nonsense") == "nonsense"


def test_a_mirror_has_legs_regions_and_a_log() -> None:
    assert mirror(target("mirror", "2 253:6 253:7 31/32 1 AD 1 core")) == Mirror(
        (Leg("253:6", "A"), Leg("253:7", "D")), 31, 32, Log("core", "", "A")
    )
    disk = mirror(target("mirror", "2 253:6 253:7 32/32 1 AA 3 disk 253:5 F"))
    assert disk is not None
    assert disk.log == Log("disk", "253:5", "F")
    bare = mirror(target("mirror", "1 253:6 32/32 1 A 0"))
    assert bare is not None
    assert bare.log == Log("", "", "A")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "2 253:6",
        "2 253:6 253:7 31 1 AD 1 core",
        "2 253:6 253:7 31/x 1 AD 1 core",
        "2 253:6 253:7 31/32 1 A 1 core",
        "2 253:6 253:7 31/32 1 AX 1 core",
        "2 253:6 253:7 31/32 1 AA 3 disk",
        "2 sda sdb 31/32 1 AA 1 core",
    ],
)
def test_a_mirror_that_cannot_be_so_says_nothing(line: str) -> None:
    assert mirror(target("mirror", line)) is None


@pytest.mark.parametrize("kind", ["snapshot", "snapshot-merge"])
def test_a_snapshot_is_valid_or_says_why_not(kind: str) -> None:
    table = "253:2 7:3 P 8"
    fine = snapshot(target(kind, "16/65536 16", table))
    assert fine == Snapshot("253:2", "7:3", "")
    for reason in ("Invalid", "Overflow", "Merge failed"):
        assert snapshot(target(kind, reason, table)) == Snapshot("253:2", "7:3", reason)
    assert snapshot(target(kind, "Unknown", table)) is None
    assert snapshot(target(kind, "Invalid")) == Snapshot("", "", "Invalid")


def test_a_thin_pool_has_its_use_and_mode() -> None:
    assert thin_pool(target("thin-pool", POOL, POOL_TABLE)) == ThinPool(
        mode="rw",
        needs_check=False,
        no_space="queue_if_no_space",
        data=Usage(96, 320),
        metadata=Usage(112, 1024),
        low_water=300,
        metadata_low_water=256,
    )
    assert Usage(96, 320).free == 224
    assert Usage(5, 3).free == 0
    ill = thin_pool(
        target(
            "thin-pool",
            "0 9/9 9/9 7 out_of_data_space ignore_discard error_if_no_space needs_check 4",
            POOL_TABLE,
        )
    )
    assert ill is not None
    assert (ill.mode, ill.needs_check, ill.no_space) == (
        "out_of_data_space",
        True,
        "error_if_no_space",
    )


def test_a_thin_pool_of_an_older_kernel_has_no_mark_for_its_metadata() -> None:
    old = thin_pool(
        target("thin-pool", "0 1/9 1/9 - ro no_discard_passdown queue_if_no_space", POOL_TABLE)
    )
    assert old is not None
    assert (old.needs_check, old.metadata_low_water) == (False, 0)


def test_a_thin_pool_that_failed_has_no_figures() -> None:
    failed = thin_pool(target("thin-pool", "Fail", POOL_TABLE))
    assert failed is not None
    assert (failed.mode, failed.data, failed.low_water) == ("Fail", Usage(0, 0), 300)


@pytest.mark.parametrize(
    ("status", "table"),
    [
        ("", POOL_TABLE),
        ("Error", POOL_TABLE),
        (POOL, ""),
        (POOL.replace("rw", "wr"), POOL_TABLE),
        (POOL.replace("queue_if_no_space", "?"), POOL_TABLE),
        (POOL.replace("96/320", "96"), POOL_TABLE),
        (POOL.replace("256", "99999999999999999999"), POOL_TABLE),
    ],
)
def test_a_thin_pool_that_cannot_be_so_says_nothing(status: str, table: str) -> None:
    assert thin_pool(target("thin-pool", status, table)) is None


WORDS = st.sampled_from(
    [*"ADSRFUE012", "7:1", "253:6", "1/2", "core", "rw", "Fail", "-", "Invalid", "x", "4294967296"]
)


@settings(deadline=None)
@given(
    st.sampled_from(["multipath", "mirror", "snapshot", "thin-pool", "cache"]),
    st.text() | st.lists(WORDS).map(" ".join),
    st.text() | st.lists(WORDS).map(" ".join),
)
def test_no_line_raises(kind: str, status: str, table: str) -> None:
    multipath_shape(table)
    for read in READERS:
        read(target(kind, status, table))
