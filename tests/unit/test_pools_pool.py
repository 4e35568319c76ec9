"""How a pool and its vdevs stand, as its events tell."""

from typing import Any

import pytest
from pool_events import event, only, pools_of, recorded, told

from zeventfs.event import Event
from zeventfs.nvlist import Type
from zeventfs.pools import pool as module
from zeventfs.pools.pool import ACTS, STANDING, Pool
from zeventfs.pools.tables import state_text, vdevs_text

A: dict[str, Any] = {"vdev_guid": 1, "vdev_path": "/dev/a"}
B: dict[str, Any] = {"vdev_guid": 2, "vdev_path": "/dev/b"}
MIRROR: dict[str, Any] = {"parent_guid": 100, "parent_type": "mirror"}
ROOT: dict[str, Any] = {"parent_guid": 1000, "parent_type": "root"}
ONLINE, OFFLINE, FAULTED = 7, 2, 5


def state(pool: Pool) -> dict[str, str]:
    return dict(line.split("=", 1) for line in state_text(pool).decode().splitlines())


def tree(pool: Pool) -> list[str]:
    """The first two columns of vdevs, and all of what follows it."""
    table, _, left = vdevs_text(pool).decode().partition("\n\n")
    head, *rows = table.splitlines()
    width = head.index("READ")
    return [row[:width].rstrip() for row in rows] + left.splitlines()


def vdev_row(pool: Pool, name: str) -> list[str]:
    rows = [line.split() for line in vdevs_text(pool).decode().splitlines()]
    return next(row for row in rows if row[:1] == [name])


def statechange(second: int, to: int, was: int = ONLINE, **vdev: Any) -> Event:
    return event("resource.statechange", second, vdev_state=to, vdev_laststate=was, **vdev)


# How it stands


@pytest.mark.parametrize(
    ("name", "says", "word"),
    [
        ("sysevent.config_sync", {"pool_state": 0}, "ACTIVE"),
        ("sysevent.config_sync", {"pool_state": 6}, "UNAVAIL"),
        ("sysevent.config_sync", {"pool_state": 99}, "99"),
        ("sysevent.config_sync", {"pool_state": 5}, ""),
        ("sysevent.config_sync", {"pool_state": (Type.STRING, "ACTIVE")}, ""),
        ("sysevent.config_sync", {}, ""),
        ("sysevent.pool_create", {}, "ACTIVE"),
        ("sysevent.pool_import", {}, "ACTIVE"),
        ("sysevent.pool_export", {"pool_state": 1}, "EXPORTED"),
        ("sysevent.pool_export", {}, "EXPORTED"),
        ("sysevent.pool_destroy", {"pool_state": 0}, "DESTROYED"),
    ],
)
def test_a_pool_stands_as_its_state_or_the_class_says(
    name: str, says: dict[str, Any], word: str
) -> None:
    assert state(only(event(name, **says)))["STATE"] == word


def test_an_exported_pool_is_not_uninitialized_in_passing() -> None:
    pool = only(event("sysevent.pool_export"), event("sysevent.config_sync", pool_state=5))
    assert state(pool)["STATE"] == "EXPORTED"


def test_state_says_nothing_that_no_event_told() -> None:
    assert state_text(only(event("sysevent.config_sync"))).decode() == (
        "NAME=tank\n"
        "GUID=\n"
        "STATE=\n"
        "HEALTH=\n"
        "SUSPENDED=\n"
        "SUSPENDED_SINCE=\n"
        "WORST_VDEV=\n"
        "DATA_ERRORS=0\n"
        "SCAN=\n"
        "SCAN_SINCE=\n"
        "FIRST_EVENT=2023-11-14T22:13:20.000000000Z\n"
        "LAST_EVENT=2023-11-14T22:13:20.000000000Z\n"
        "EVENTS=1\n"
        "KERNEL_ASKED=\n"
    )


def test_the_worst_vdev_is_the_least_healthy_of_those_that_are_there() -> None:
    events = [
        statechange(1, ONLINE, **A),
        statechange(2, FAULTED, **B),
        statechange(3, OFFLINE, vdev_guid=3),
        event("sysevent.vdev_remove_dev", 4, vdev_guid=3),
    ]
    assert state(only(*events))["WORST_VDEV"] == "FAULTED"


@pytest.mark.parametrize(
    ("word", "state_word"),
    [
        ("start", "running"),
        ("resume", "running"),
        ("paused", "paused"),
        ("abort", "aborted"),
        ("finish", "finished"),
    ],
)
@pytest.mark.parametrize("kind", ["resilver", "scrub", "errorscrub"])
def test_the_latest_scan_is_told(kind: str, word: str, state_word: str) -> None:
    said = state(only(event(f"sysevent.{kind}_{word}", 61)))
    assert said["SCAN"] == f"{kind} {state_word}"
    assert said["SCAN_SINCE"] == "2023-11-14T22:14:21.000000000Z"


# Suspended


def test_a_pool_is_suspended_from_the_first_io_failure_on() -> None:
    pool = only(event("ereport.io_failure", 5), event("ereport.io_failure", 6))
    assert state(pool)["SUSPENDED"] == "yes"
    assert state(pool)["SUSPENDED_SINCE"] == "2023-11-14T22:13:25.000000000Z"
    assert tree(pool) == ["tank  SUSPENDED"]
    assert [tally.count for _, tally in pool.errors.rows()] == [2]


def history(second: int, txg: Any) -> Event:
    return event("sysevent.history_event", second, history_txg=txg, history_internal_name="set")


@pytest.mark.parametrize(
    ("then", "suspended"),
    [
        ([], "yes"),
        ([event("sysevent.vdev_clear", 9)], "no"),
        ([event("sysevent.pool_import", 9)], "no"),
        ([event("sysevent.pool_export", 9)], ""),
        ([event("sysevent.pool_destroy", 9)], ""),
        ([event("sysevent.config_sync", 9)], "yes"),
        ([history(9, 12)], "yes"),
        ([history(9, 12), history(9, 12)], "yes"),
        ([history(9, 12), history(9, 13)], "no"),
        ([history(9, (Type.STRING, "12")), history(9, 13)], "yes"),
        ([event("sysevent.resilver_start", 9)], "yes"),
        ([event("sysevent.resilver_start", 9), event("sysevent.resilver_finish", 10)], "no"),
        ([event("sysevent.scrub_start", 9), event("sysevent.resilver_finish", 10)], "yes"),
        ([event("sysevent.scrub_finish", 9)], "yes"),
    ],
)
def test_a_suspended_pool_goes_on_when_what_it_tells_has_been_written(
    then: list[Event], suspended: str
) -> None:
    pool = only(event("ereport.io_failure", 5), *then)
    assert state(pool)["SUSPENDED"] == suspended
    assert (state(pool)["SUSPENDED_SINCE"] != "") == (suspended == "yes")


def test_a_scrub_that_was_under_way_before_says_nothing_when_it_ends() -> None:
    begun = [event("sysevent.scrub_start", 1), event("ereport.io_failure", 5)]
    assert state(only(*begun, event("sysevent.scrub_finish", 9)))["SUSPENDED"] == "yes"


def test_a_pool_that_is_suspended_again_starts_to_wait_anew() -> None:
    pool = only(
        event("ereport.io_failure", 1),
        history(2, 12),
        event("sysevent.vdev_clear", 3),
        event("ereport.io_failure", 4),
        history(5, 13),
    )
    assert state(pool)["SUSPENDED_SINCE"].startswith("2023-11-14T22:13:24")


# Vdevs


def test_a_vdev_has_the_counts_and_the_place_of_its_latest_ereport() -> None:
    counts: dict[str, Any] = {
        "vdev_read_errors": 3,
        "vdev_write_errors": 80,
        "vdev_cksum_errors": 1,
    }
    pool = only(
        event("ereport.io", 1, **A, **MIRROR, vdev_read_errors=2),
        event("ereport.io", 2, **A, **MIRROR, **counts, vdev_delays=9, vdev_type="disk"),
        statechange(3, FAULTED, **A),
    )
    assert tree(pool) == ["tank        -", "  mirror    -", "    /dev/a  FAULTED"]
    row = ["/dev/a", "FAULTED", "3", "80", "1", "9", "2", "2023-11-14T22:13:23Z", "1"]
    assert vdev_row(pool, "/dev/a") == row
    assert vdev_row(pool, "mirror") == ["mirror", *"-----", "0", "-", "100"]


def test_parents_stand_above_their_children_in_the_paths_order() -> None:
    spare: dict[str, Any] = {"parent_guid": 50, "parent_type": "spare"}
    pool = only(
        event("ereport.io", vdev_guid=3, vdev_path="/dev/c", **ROOT),
        event("ereport.io", **B, **spare),
        event("ereport.io", **A, **spare),
        event("ereport.io", vdev_guid=50, vdev_type="spare", **MIRROR),
        event("ereport.io", vdev_guid=100, vdev_type="mirror", **ROOT),
        event("ereport.io", vdev_guid=4, vdev_path="/dev/d", **MIRROR),
    )
    assert [row.split("  -")[0].rstrip() for row in tree(pool)] == [
        "tank",
        "  /dev/c",
        "  mirror",
        "    /dev/d",
        "    spare",
        "      /dev/a",
        "      /dev/b",
    ]


def test_a_vdev_whose_parent_nothing_tells_has_no_known_place() -> None:
    pool = only(statechange(1, OFFLINE, **B), statechange(1, ONLINE, **A), event("ereport.zpool"))
    assert tree(pool) == [
        "tank               -",
        "  (place unknown)",
        "    /dev/a         ONLINE",
        "    /dev/b         OFFLINE",
    ]


def test_vdevs_that_say_to_be_in_one_another_are_shown_all_the_same() -> None:
    pool = only(
        event("ereport.io", vdev_guid=1, parent_guid=2, parent_type="mirror"),
        event("ereport.io", vdev_guid=2, parent_guid=1, parent_type="mirror"),
        event("ereport.io", vdev_guid=3, parent_guid=3),
    )
    assert len(tree(pool)) == 5
    assert tree(pool)[1].strip() == "(place unknown)"


def test_a_parent_that_has_no_child_any_more_is_not_shown() -> None:
    replacing: dict[str, Any] = {"parent_guid": 60, "parent_type": "replacing"}
    pool = only(event("ereport.io", **A, **replacing), event("ereport.io", **A, **MIRROR))
    assert [row.split()[0] for row in tree(pool)] == ["tank", "mirror", "/dev/a"]


def test_a_vdev_without_path_and_type_is_shown_by_its_guid() -> None:
    assert vdev_row(only(event("ereport.probe_failure", vdev_guid=77)), "77")


def test_since_is_the_change_and_nothing_for_a_state_that_was_before() -> None:
    trim = event("sysevent.trim_start", 1, vdev_state=ONLINE, **A)
    assert vdev_row(only(trim), "/dev/a")[7] == "-"
    again = [trim, statechange(2, FAULTED, **A), statechange(3, FAULTED, **A)]
    assert vdev_row(only(*again), "/dev/a")[7] == "2023-11-14T22:13:22Z"
    checked = event("sysevent.vdev_check", 9, vdev_state=ONLINE, **A)
    assert vdev_row(only(*again, checked), "/dev/a")[7] == "2023-11-14T22:13:29Z"


@pytest.mark.parametrize("number", [8, 2**64 - 1])
def test_a_state_without_a_word_is_a_number(number: int) -> None:
    assert vdev_row(only(statechange(1, number, **A)), "/dev/a")[1] == str(number)


def test_a_state_of_another_type_is_no_state() -> None:
    pool = only(event("resource.statechange", vdev_state=(Type.STRING, "ONLINE"), **A))
    assert vdev_row(pool, "/dev/a")[1] == "-"


def test_clearing_sets_the_counts_to_nothing() -> None:
    pool = only(
        event("ereport.io", 1, **A, vdev_read_errors=2),
        event("sysevent.vdev_clear", 2, vdev_state=ONLINE, **A),
    )
    assert vdev_row(pool, "/dev/a")[1:7] == ["ONLINE", "0", "0", "0", "0", "1"]


@pytest.mark.parametrize(
    "name",
    [
        "sysevent.vdev_attach",
        "sysevent.vdev_remove",
        "sysevent.vdev_clear",
        "resource.statechange",
    ],
)
def test_an_event_of_a_vdev_that_names_none_is_counted_only(name: str) -> None:
    pool = only(event(name, vdev_path="/dev/a", vdev_guid=(Type.STRING, "1")))
    assert pool.events == 1
    assert not list(pool.vdevs())


# Vdevs that come and go


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("vdev_remove", "detached"),
        ("vdev_remove_aux", "removed"),
        ("vdev_remove_dev", "removed"),
    ],
)
def test_a_vdev_that_has_left_says_so(name: str, how: str) -> None:
    pool = only(event(f"sysevent.{name}", 1, vdev_state=ONLINE, **A))
    assert tree(pool) == [
        "tank  -",
        "no longer in the pool:",
        f"  2023-11-14T22:13:21Z  /dev/a  {how}",
    ]


def attach(second: int, text: str) -> Event:
    names: dict[str, Any] = {"history_internal_name": "vdev attach", "history_internal_str": text}
    return event("sysevent.history_event", second, **names)


@pytest.mark.parametrize("how", ["replace", "spare in"])
def test_a_vdev_that_was_replaced_says_by_which_and_leaves_it_its_place(how: str) -> None:
    pool = only(
        event("ereport.io", 1, **A, **MIRROR),
        event("sysevent.vdev_attach", 2, vdev_state=ONLINE, **B),
        attach(3, f"{how} vdev=/dev/b for vdev=/dev/a"),
        event("sysevent.vdev_remove", 4, **A),
    )
    assert tree(pool) == [
        "tank        -",
        "  mirror    -",
        "    /dev/b  ONLINE",
        "no longer in the pool:",
        "  2023-11-14T22:13:24Z  /dev/a  replaced by /dev/b",
    ]


def test_what_replaces_a_disk_of_the_root_is_there_too() -> None:
    pool = only(
        event("ereport.io", 1, **A, **ROOT),
        attach(3, "replace vdev=/dev/b for vdev=/dev/a"),
        event("ereport.io", 3, **B, **ROOT),
        event("sysevent.vdev_remove", 4, **A),
        event("sysevent.vdev_attach", 5, vdev_guid=9, vdev_path="/dev/z"),
    )
    assert [row.split()[0] for row in tree(pool)[:4]] == ["tank", "/dev/b", "(place", "/dev/z"]


@pytest.mark.parametrize(
    "old",
    [{}, {"parent_guid": 60, "parent_type": "replacing"}],
)
def test_a_place_that_is_unknown_or_in_passing_is_not_handed_on(old: dict[str, Any]) -> None:
    pool = only(
        event("ereport.io", 1, **A, **old),
        event("sysevent.vdev_attach", 2, vdev_state=ONLINE, **B),
        attach(3, "replace vdev=/dev/b for vdev=/dev/a"),
        event("sysevent.vdev_remove", 4, **A),
    )
    assert tree(pool)[1].strip() == "(place unknown)"


def test_a_spare_that_goes_back_is_no_replacement_any_more() -> None:
    pool = only(
        attach(1, "spare in vdev=/dev/b for vdev=/dev/a"),
        event("sysevent.vdev_remove", 2, **B),
        event("sysevent.vdev_remove", 3, **A),
    )
    assert [line.split()[-1] for line in tree(pool)[2:]] == ["detached", "detached"]


@pytest.mark.parametrize(
    "said",
    [
        attach(1, "attach vdev=/dev/b to vdev=/dev/a"),
        attach(1, f"replace vdev=/dev/{'b' * 5000} for vdev=/dev/a"),
        event("sysevent.history_event", 1, history_internal_name="vdev attach"),
    ],
)
def test_a_record_that_tells_of_no_replacing_is_none(said: Event) -> None:
    pool = only(said, event("sysevent.vdev_remove", 2, **A))
    assert tree(pool)[-1].endswith("/dev/a  detached")


def test_replacements_that_never_end_are_forgotten() -> None:
    many = [attach(1, f"replace vdev=/dev/b for vdev=/dev/{number}") for number in range(65)]
    first = event("sysevent.vdev_remove", 2, vdev_guid=1, vdev_path="/dev/0")
    last = event("sysevent.vdev_remove", 2, vdev_guid=2, vdev_path="/dev/64")
    assert tree(only(*many, first, last))[-2:] == [
        "  2023-11-14T22:13:22Z  /dev/0  detached",
        "  2023-11-14T22:13:22Z  /dev/64  replaced by /dev/b",
    ]


@pytest.mark.parametrize("name", ["vdev_attach", "vdev_spare", "bootfs_vdev_attach"])
def test_a_vdev_that_comes_again_is_new(name: str) -> None:
    pool = only(
        event("ereport.io", 1, **A, **MIRROR, vdev_read_errors=4),
        event("sysevent.vdev_remove", 2, **A),
        event(f"sysevent.{name}", 3, vdev_state=ONLINE, **A),
        event("sysevent.vdev_attach", 4, vdev_state=ONLINE, **A),
    )
    assert tree(pool)[1:] == ["  (place unknown)", "    /dev/a         ONLINE"]
    row = ["/dev/a", "ONLINE", *"----", "1", "2023-11-14T22:13:23Z", "1"]
    assert vdev_row(pool, "/dev/a") == row


def test_vdevs_are_bounded_and_those_that_left_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_VDEVS", 2)
    pool = only(
        event("sysevent.vdev_remove", 1, **A),
        event("ereport.io", 2, **B),
        event("ereport.io", 3, vdev_guid=3),
        event("ereport.io", 4, vdev_guid=4, **MIRROR),
        event("ereport.io", 5, vdev_guid=3, **MIRROR),
        statechange(6, FAULTED, vdev_guid=5),
    )
    assert [vdev.guid for vdev in pool.vdevs()] == [2, 3]
    assert vdevs_text(pool).decode().splitlines()[-1].split() == [
        *["(others)", "FAULTED", *"----", "1", "2023-11-14T22:13:26Z"]
    ]


def test_what_is_kept_of_a_path_is_bounded_and_shown_in_a_line() -> None:
    said = event("ereport.io", vdev_guid=1, vdev_path="/dev/\n\udcff é" + "x" * 5000)
    pool = only(said, said)
    (vdev,) = pool.vdevs()
    assert len(vdev.path) < 1100
    assert vdev._told is None
    assert "/dev/\\n\\udcff é" in vdevs_text(pool).decode()


# Imported again


def test_after_an_import_only_new_events_say_how_vdevs_stand() -> None:
    before = [
        event("ereport.io", 1, pool_state=0, **A, **MIRROR, vdev_read_errors=4),
        statechange(2, FAULTED, **A),
        event("sysevent.resilver_start", 3),
        event("sysevent.pool_export", 4),
    ]
    assert tree(only(*before))[2] == "    /dev/a  FAULTED"
    pool = only(*before, event("sysevent.config_sync", 5, pool_state=0))
    assert tree(pool) == ["tank        ACTIVE", "  mirror    -", "    /dev/a  -"]
    assert state(pool)["SCAN"] == ""
    again = [*before[:2], event("sysevent.scrub_finish", 3), before[3]]
    assert state(only(*again, event("sysevent.pool_import", 5)))["SCAN"] == "scrub finished"
    assert state(only(before[1], before[3], event("sysevent.pool_import", 5)))["SCAN"] == ""


# Told and recorded


def test_every_class_that_decides_how_a_pool_stands_is_acted_upon() -> None:
    assert set(STANDING) <= set(ACTS), "only of those Pools.take looks whether it is one"


def test_the_recorded_pool_that_lost_its_disk_is_as_the_events_left_it() -> None:
    pools = pools_of(recorded()).current(0)
    assert tree(pools["sdp"]) == [
        "sdp            ACTIVE",
        "  mirror       -",
        "    /dev/sdb1  UNAVAIL",
    ]
    assert vdev_row(pools["sdp"], "/dev/sdb1")[2:6] == ["3", "80", "0", "0"]
    assert state(pools["one"])["SUSPENDED"] == "no", "cleared, and resilvered"
    assert state(pools["tank"])["STATE"] == "DESTROYED"
    assert r"/vd/new\nline" in vdevs_text(pools["my pool"]).decode()


def test_a_disk_that_dies_is_replaced_in_the_scenario_of_one() -> None:
    pool = only(*told("dying", 45))
    assert [line.split()[0] for line in tree(pool)[1:4]] == ["mirror", "/dev/sdb1", "/dev/sdc1"]
    assert tree(pool)[-1].endswith("/dev/sda1  replaced by /dev/sdc1")


def test_a_pool_is_suspended_and_cleared_in_the_scenario_of_one() -> None:
    seen = []
    events: list[Event] = []
    for each in told("suspended", 40):
        events.append(each)
        suspended = state(pools_of(events).current(0)["tank"])["SUSPENDED"]
        if suspended not in seen:
            seen.append(suspended)
    assert seen == ["", "yes", "no"]
