"""What two readings of a device differ in."""

from typing import Any

import pytest
from dm_facts import LINEAR, ONE_GROUP, TWO_GROUPS, device, mp, multipath, two_groups

from zeventfs.dm.changes import changes
from zeventfs.dm.facts import DeviceFacts, TargetFacts
from zeventfs.event import Event
from zeventfs.nvlist import Type

POOL_TABLE = "253:12 253:13 128 30 0 "


def told(before: DeviceFacts | None, after: DeviceFacts) -> list[tuple[str, dict[str, Any]]]:
    """Class and pairs of each change, which all make events."""
    found = list(changes(before, after))
    for change in found:
        Event.make("dm", change.name, 0, change.pairs)
    return [(change.name, {key: value for key, _, value in change.pairs}) for change in found]


def classes(before: DeviceFacts | None, after: DeviceFacts) -> list[str]:
    return [name for name, _ in told(before, after)]


def one(kind: str, status: str, table: str = "", start: int = 0) -> DeviceFacts:
    return device("x", TargetFacts(start, 100, kind, table, status))


def test_nothing_is_told_of_what_is_as_it_was() -> None:
    assert told(mp(), mp()) == []
    assert told(device(), device(open_count=5, event_nr=7, inactive=True)) == []


def test_a_created_device_without_a_table_has_nothing_to_be_told() -> None:
    assert told(None, device(live=False)._replace(targets=())) == []


def test_a_table_is_told_in_short_when_it_is_live() -> None:
    live = {"targets": ["0 65536 linear"], "target_count": 1, "read_only": False, "sectors": 65536}
    assert told(None, device()) == [("dm.table.live", live)]
    assert told(device(live=False), device()) == [("dm.table.live", live)]
    read_only = live | {"read_only": True}
    assert told(device(), device(read_only=True)) == [("dm.table.live", read_only)]


@pytest.mark.parametrize(
    "table",
    [
        (LINEAR._replace(table="7:0 8"),),
        (LINEAR._replace(length=8),),
        (LINEAR._replace(kind="error"),),
        (LINEAR, LINEAR._replace(start=65536)),
    ],
)
def test_a_table_that_differs_is_live(table: tuple[TargetFacts, ...]) -> None:
    assert classes(device(), device("lin", *table)) == ["dm.table.live"]


def test_of_a_long_table_the_first_targets_are_told_and_how_many_there_are() -> None:
    many = [LINEAR._replace(start=65536 * at) for at in range(100)]
    ((_, pairs),) = told(device(), device("lin", *many))
    assert len(pairs["targets"]) == 64
    assert pairs["target_count"] == 100
    assert pairs["sectors"] == 6553600


def test_a_message_to_a_multipath_target_makes_no_new_table() -> None:
    said = TWO_GROUPS.replace("0 0 2 1", "1 queue_if_no_path 0 2 2")
    queueing = device("mp", multipath(two_groups(to=2), said), minor=3)
    assert told(mp(), queueing) == []
    other = device("mp", multipath(two_groups(), ONE_GROUP), minor=3)
    assert classes(mp(), other) == ["dm.table.live"]


def test_a_status_that_moves_makes_no_new_table() -> None:
    assert told(one("crypt", "1"), one("crypt", "2")) == []
    assert told(one("unheard-of", "?"), one("unheard-of", "!!")) == []


def test_a_rename_says_what_it_was_called() -> None:
    assert told(device("a"), device("b", uuid="uuid-a")) == [("dm.renamed", {"old_name": "a"})]
    assert told(device("a", uuid=""), device("a")) == [("dm.renamed", {"old_name": "a"})]


def test_suspended_and_resumed() -> None:
    still, going = device(suspended=True), device()
    assert classes(going, still) == ["dm.suspended"]
    assert classes(still, going) == ["dm.resumed"]
    assert classes(still, still) == []
    assert classes(None, still) == ["dm.suspended", "dm.table.live"]
    assert classes(still, device(read_only=True)) == ["dm.table.live", "dm.resumed"]


# Mirrors


def mirrored(letters: str, sync: str = "32/32", log: str = "1 core") -> DeviceFacts:
    return one("mirror", f"2 253:6 253:7 {sync} 1 {letters} {log}")


@pytest.mark.parametrize(
    ("letter", "how"),
    [
        ("D", "write failed"),
        ("S", "sync failed"),
        ("R", "read failed"),
        ("F", "flush failed"),
        ("U", "unknown"),
    ],
)
def test_a_leg_that_fails_is_told_with_how(letter: str, how: str) -> None:
    assert told(mirrored("AA"), mirrored(f"A{letter}", "31/32")) == [
        (
            "dm.mirror.leg_failed",
            {"leg": "253:7", "how": how, "legs_alive": 1, "regions_in_sync": 31, "regions": 32},
        )
    ]


def test_a_leg_fails_once_each_way() -> None:
    assert classes(mirrored("AR"), mirrored("AR")) == []
    assert classes(mirrored("AR"), mirrored("AD")) == ["dm.mirror.leg_failed"]
    assert classes(mirrored("AD"), mirrored("AA")) == []
    assert classes(mirrored("AD"), mirrored("DD")) == ["dm.mirror.leg_failed"]


def test_a_leg_of_another_device_is_another_leg() -> None:
    other = one("mirror", "3 253:6 253:8 253:9 32/32 1 ADD 1 core")
    assert classes(mirrored("AD"), other) == ["dm.mirror.leg_failed"] * 2
    assert classes(one("mirror", "nonsense"), mirrored("AD")) == ["dm.mirror.leg_failed"]


def test_a_log_that_fails_is_told_with_how() -> None:
    fine, failed = mirrored("AA", log="3 disk 253:5 A"), mirrored("AA", log="3 disk 253:5 D")
    flush = mirrored("AA", log="3 disk 253:5 F")
    assert told(fine, failed) == [
        ("dm.mirror.log_failed", {"log": "253:5", "how": "device failed"})
    ]
    assert told(failed, flush) == [
        ("dm.mirror.log_failed", {"log": "253:5", "how": "flush failed"})
    ]
    odd = mirrored("AA", log="3 disk 253:5 X")
    assert told(fine, odd) == [("dm.mirror.log_failed", {"log": "253:5", "how": "X"})]
    assert told(failed, failed) == told(failed, fine) == []


def test_a_mirror_has_recovered_when_all_its_regions_are_in_sync() -> None:
    assert told(mirrored("AA", "31/32"), mirrored("AA")) == [
        ("dm.mirror.recovered", {"regions": 32})
    ]
    assert told(mirrored("AA", "1/32"), mirrored("AA", "31/32")) == []
    assert classes(None, mirrored("AA")) == ["dm.table.live"]


# Snapshots


@pytest.mark.parametrize("kind", ["snapshot", "snapshot-merge"])
@pytest.mark.parametrize("reason", ["Invalid", "Overflow", "Merge failed"])
def test_a_snapshot_becomes_invalid_once(kind: str, reason: str) -> None:
    fine, invalid = (one(kind, status, "253:2 7:3 P 8") for status in ("16/64 16", reason))
    said = ("dm.snapshot.invalid", {"origin": "253:2", "cow": "7:3", "reason": reason})
    assert told(fine, invalid) == [said]
    assert told(None, invalid)[1:] == [said]
    assert told(invalid, invalid) == told(invalid, fine) == []


def test_a_snapshot_elsewhere_in_the_table_is_another() -> None:
    assert classes(one("snapshot", "Invalid"), one("snapshot", "Invalid", start=100)) == [
        "dm.table.live",
        "dm.snapshot.invalid",
    ]


# Thin pools


def pool(data: str, metadata: str = "1/100", mode: str = "rw", check: str = "-") -> DeviceFacts:
    line = f"0 {metadata} {data} - {mode} discard_passdown queue_if_no_space {check} 10 "
    return one("thin-pool", line, POOL_TABLE)


def test_a_pool_passes_its_low_water_mark_once() -> None:
    said = {
        "low": "data",
        "low_water": 30,
        "mode": "rw",
        "needs_check": False,
        "no_space": "queue_if_no_space",
        "data_used": 70,
        "data_total": 100,
        "metadata_used": 1,
        "metadata_total": 100,
    }
    assert told(pool("69/100"), pool("70/100")) == [("dm.thin.low_water", said)]
    assert told(pool("70/100"), pool("80/100")) == []
    assert told(pool("70/100"), pool("70/200")) == []
    assert classes(None, pool("70/100")) == ["dm.table.live", "dm.thin.low_water"]


def test_a_pool_s_metadata_has_a_mark_of_its_own() -> None:
    ((name, said),) = told(pool("1/100"), pool("1/100", "90/100"))
    assert (name, said["low"], said["low_water"]) == ("dm.thin.low_water", "metadata", 10)


def test_a_pool_s_mode_is_told_with_the_one_before() -> None:
    full = pool("100/100", mode="out_of_data_space")
    (state,) = told(pool("99/100"), full)
    assert state[0] == "dm.thin.state"
    assert (state[1]["from_mode"], state[1]["mode"]) == ("rw", "out_of_data_space")
    assert classes(full, pool("100/100", mode="ro", check="needs_check")) == ["dm.thin.state"]
    assert classes(pool("9/100"), pool("9/100", check="needs_check")) == ["dm.thin.state"]
    assert classes(None, pool("9/100", mode="ro")) == ["dm.table.live", "dm.thin.state"]
    assert told(full, full) == []


def test_a_pool_that_failed_has_the_figures_that_were_known() -> None:
    failed = one("thin-pool", "Fail", POOL_TABLE)
    ((name, said),) = told(pool("50/100"), failed)
    assert (name, said["mode"], said["data_used"], said["data_total"]) == (
        "dm.thin.state",
        "Fail",
        50,
        100,
    )
    assert classes(None, failed) == ["dm.table.live", "dm.thin.state"]
    assert told(failed, failed) == []
    assert classes(failed, pool("90/100")) == ["dm.thin.state", "dm.thin.low_water"]


def test_a_line_that_cannot_be_read_makes_no_event() -> None:
    assert told(pool("50/100"), one("thin-pool", "Error", POOL_TABLE)) == []
    assert told(mirrored("AA"), one("mirror", "?")) == []
    assert told(one("snapshot", "1/2 0"), one("snapshot", "Unknown")) == []


def test_pairs_have_the_same_types_whatever_they_say() -> None:
    kinds: dict[tuple[str, str], Type] = {}
    for before, after in (
        (pool("1/100"), pool("100/100", "99/100", "ro")),
        (mirrored("AA", "1/32"), mirrored("DU", log="3 disk 253:5 F")),
        (None, mp()),
    ):
        for change in changes(before, after):
            for key, kind, _ in change.pairs:
                assert kinds.setdefault((change.name, key), kind) is kind
