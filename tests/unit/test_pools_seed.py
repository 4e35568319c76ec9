"""Pools as the kernel says they are, and as events tell that are newer."""

from pathlib import Path
from typing import Any

import pytest
from pool_events import BEGIN, event, pools_of
from zpool_outputs import recorded

from zeventfs.event import NS, Event
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.store import Store
from zeventfs.pools import pool as pool_module
from zeventfs.pools import pools as module
from zeventfs.pools.pool import Pool
from zeventfs.pools.pools import Pools
from zeventfs.pools.status import PoolStatus, Question, ScanStatus, VdevStatus
from zeventfs.pools.tables import delays_json, errors_text, state_text, vdevs_text
from zeventfs.render import Renderer

A: dict[str, Any] = {"vdev_guid": 1, "vdev_path": "/dev/a"}
IN_MIRROR: dict[str, Any] = {"parent_guid": 100, "parent_type": "mirror"}
ONLINE, DEGRADED, FAULTED, REMOVED = 7, 6, 5, 3


def at(second: int) -> int:
    return (BEGIN + second) * NS


def asked(second: int) -> Question:
    return Question(at(second), at(second + 100))


def vdev(guid: int, path: str = "", **more: Any) -> VdevStatus:
    unknown = VdevStatus(guid, None, "", path, path, "", ONLINE, "", 0, 0, 0, 0)
    return unknown._replace(**more)


MIRROR = vdev(100, name="mirror-0", type="mirror")
DISK_A, DISK_B = vdev(1, "/dev/a", parent=100), vdev(2, "/dev/b", parent=100)
TANK = PoolStatus("tank", 7, "ONLINE", None, (MIRROR, DISK_A, DISK_B))


def seeded(
    *events: Event, status: PoolStatus = TANK, second: int = 5, after: tuple[Event, ...] = ()
) -> Pool:
    """The pool of *events*, then seeded at *second*, then of those *after*."""
    pools = pools_of(events)
    pools.seed([status], asked(second))
    for seq, each in enumerate(after, 100):
        pools.take(each, seq)
    return pools.current(0)["tank"]


def state(pool: Pool) -> dict[str, str]:
    return dict(line.split("=", 1) for line in state_text(pool).decode().splitlines())


def row(pool: Pool, name: str) -> list[str]:
    rows = [line.split() for line in vdevs_text(pool).decode().splitlines()]
    return next(row for row in rows if row[:1] == [name])


def names(pool: Pool) -> list[str]:
    """The first column of vdevs."""
    table = vdevs_text(pool).decode().partition("\n\n")[0].splitlines()
    return [line[: table[0].index("STATE")].rstrip() for line in table[1:]]


def statechange(second: int, to: int, **vdev: Any) -> Event:
    return event("resource.statechange", second, vdev_state=to, **(A | vdev))


# What no event told


def test_a_pool_without_events_is_as_the_kernel_says() -> None:
    pool = seeded()
    assert state_text(pool).decode() == (
        "NAME=tank\n"
        "GUID=7\n"
        "STATE=ACTIVE\n"
        "HEALTH=ONLINE\n"
        "SUSPENDED=no\n"
        "SUSPENDED_SINCE=\n"
        "WORST_VDEV=ONLINE\n"
        "DATA_ERRORS=0\n"
        "SCAN=\n"
        "SCAN_SINCE=\n"
        "FIRST_EVENT=\n"
        "LAST_EVENT=\n"
        "EVENTS=0\n"
        "KERNEL_ASKED=2023-11-14T22:13:25.000000000Z\n"
    )
    assert vdevs_text(pool).decode() == (
        "NAME        STATE   READ  WRITE  CKSUM  SLOW  EREPORTS  SINCE  GUID\n"
        "tank        ONLINE                                             7\n"
        "  mirror-0  ONLINE     0      0      0     0         0  -      100\n"
        "    /dev/a  ONLINE     0      0      0     0         0  -      1\n"
        "    /dev/b  ONLINE     0      0      0     0         0  -      2\n"
    )


def test_a_whole_tree_is_laid_out_as_zpool_does() -> None:
    pools = Pools()
    pools.seed(recorded("healthy").values(), asked(0))
    tank = pools.current(0)["tank"]
    assert names(tank) == [
        "tank",
        "  mirror-0",
        "    /dev/mapper/zA",
        "    /dev/mapper/zB",
        "  dedup",
        "    /vd/d5",
        "  special",
        "    mirror-1",
        "      /vd/d 1",
        "      /vd/d 2",
        "  logs",
        "    mirror-3",
        "      /vd/d6",
        "      /vd/d7",
        "  cache",
        "    /dev/loop2",
    ]
    assert names(pools.current(0)["dr"])[-2:] == ["  spares", "    draid1-0-0"]


def test_a_spare_is_available_or_where_it_is_in_use() -> None:
    pools = Pools()
    pools.seed(recorded("spare").values(), asked(0))
    rz = pools.current(0)["rz"]
    assert names(rz) == [
        "rz",
        "  raidz1-0",
        "    /vd/d9",
        "    spare-1",
        "      /vd/d10",
        "      /vd/d12",
        "    /vd/d11",
        "  spares",
        "    /vd/d13",
    ]
    assert row(rz, "/vd/d13")[1:6] == ["AVAIL", "-", "-", "-", "-"]
    assert row(rz, "/vd/d12")[1] == "ONLINE"
    assert row(rz, "rz")[1] == "DEGRADED"


def test_a_spare_of_which_an_event_tells_is_in_that_state() -> None:
    spare = TANK._replace(vdevs=(vdev(1, "/dev/a", role="spares", spare="AVAIL"),))
    assert row(seeded(status=spare), "/dev/a")[1] == "AVAIL"
    assert row(seeded(status=spare, after=(statechange(6, REMOVED),)), "/dev/a")[1] == "REMOVED"


@pytest.mark.parametrize("health", ["SUSPENDED", "ONLINE", ""])
def test_a_pool_is_suspended_if_the_kernel_says_so(health: str) -> None:
    said = state(seeded(status=PoolStatus("tank", None, health)))
    assert said["SUSPENDED"] == {"SUSPENDED": "yes", "ONLINE": "no", "": ""}[health]
    since = "2023-11-14T22:13:25.000000000Z" if health == "SUSPENDED" else ""
    assert said["SUSPENDED_SINCE"] == since, "since when that is known"
    assert said["HEALTH"] == health
    assert said["STATE"] == "ACTIVE"


def test_a_kstat_does_not_say_that_a_suspended_pool_goes_on() -> None:
    failure, kstat = event("ereport.io_failure", 1), PoolStatus("tank", None, "ONLINE")
    assert state(seeded(failure, status=kstat))["SUSPENDED"] == "yes"
    assert state(seeded(failure))["SUSPENDED"] == "no"


def test_a_pool_that_cannot_be_opened_is_unavailable() -> None:
    assert state(seeded(status=PoolStatus("tank", 7, "UNAVAIL")))["STATE"] == "UNAVAIL"


# What events had told before


def test_counts_of_events_go_on() -> None:
    ereport = event("ereport.io", 1, zio_err=5, zio_delay=9, vdev_read_errors=3, **A, **IN_MIRROR)
    pool = seeded(ereport, status=TANK._replace(vdevs=(MIRROR, DISK_A._replace(read_errors=5))))
    assert row(pool, "/dev/a")[2:7] == ["5", "0", "0", "0", "1"]
    assert b"ereport.fs.zfs.io" in errors_text(pool)
    assert b'"timed":1' in delays_json(pool)
    assert state(pool)["EVENTS"] == "1"
    assert state(pool)["FIRST_EVENT"] == "2023-11-14T22:13:21.000000000Z"


def test_the_kernel_knows_better_than_an_older_event() -> None:
    pool = seeded(
        statechange(1, FAULTED), event("ereport.io_failure", 1), event("sysevent.scrub_start", 1)
    )
    assert row(pool, "/dev/a")[1] == "ONLINE"
    assert row(pool, "/dev/a")[7] == "2023-11-14T22:13:25Z", "when it was first seen so"
    assert state(pool)["SUSPENDED"] == "no"
    assert state(pool)["SCAN"] == ""


def test_what_the_kernel_does_not_say_stays_as_events_told() -> None:
    unknown = DISK_A._replace(path="", name="1", state=None, read_errors=None, type="")
    told = event("ereport.io", 1, vdev_read_errors=3, vdev_type="disk", **A)
    pool = seeded(statechange(1, FAULTED), told, status=TANK._replace(vdevs=(MIRROR, unknown)))
    assert row(pool, "/dev/a")[1:3] == ["FAULTED", "3"]
    assert seeded(told, status=PoolStatus("tank", 7, "ONLINE")).find(1) is not None


def test_a_scan_that_an_event_told_keeps_its_time() -> None:
    said = TANK._replace(scan=ScanStatus("scrub", "running", at(1)))
    start = event("sysevent.scrub_start", 2)
    assert state(seeded(start, status=said))["SCAN_SINCE"] == "2023-11-14T22:13:22.000000000Z"
    resilver = event("sysevent.resilver_start", 2)
    assert state(seeded(resilver, status=said))["SCAN"] == "scrub running"
    assert state(seeded(resilver, status=said, second=1))["SCAN"] == "resilver running"


def test_what_has_left_unseen_is_told_as_left() -> None:
    other = {"vdev_guid": 3, "vdev_path": "/dev/c"}
    child = {"vdev_guid": 2, "vdev_path": "/dev/b", "parent_guid": 101, "parent_type": "spare"}
    pool = seeded(
        event("ereport.io", 1, **other),
        event("ereport.io", 1, **child),
        event("ereport.io", 6, vdev_guid=4, vdev_path="/dev/d"),
        event("sysevent.vdev_remove", 1, vdev_guid=5, vdev_path="/dev/e"),
    )
    said = vdevs_text(pool).decode()
    assert "2023-11-14T22:13:25Z  /dev/c  left it unseen" in said
    assert "2023-11-14T22:13:21Z  /dev/e  detached" in said
    assert "101" not in said.split(), "a spare vdev goes with its purpose"
    assert row(pool, "/dev/d"), "it is newer than the question"


def test_what_was_told_to_have_left_and_is_there_has_come_again() -> None:
    gone = event("sysevent.vdev_remove", 1, vdev_state=FAULTED, **A)
    assert "no longer" not in vdevs_text(seeded(gone)).decode()
    newer = event("sysevent.vdev_remove", 6, vdev_state=FAULTED, **A)
    assert "/dev/a  detached" in vdevs_text(seeded(newer)).decode()


# Events that are newer than the question


def test_a_newer_event_wins_before_and_after_the_answer() -> None:
    newer = (
        statechange(6, FAULTED, **IN_MIRROR),
        event("ereport.io_failure", 6),
        event("sysevent.scrub_start", 6),
    )
    for pool in (seeded(*newer), seeded(after=newer)):
        assert row(pool, "/dev/a")[1] == "FAULTED"
        assert state(pool)["SUSPENDED"] == "yes"
        assert state(pool)["SCAN"] == "scrub running"
        assert row(pool, "/dev/b")[1] == "ONLINE"


def test_of_a_newer_vdev_only_what_is_missing_is_taken() -> None:
    said = TANK._replace(vdevs=(MIRROR, DISK_A._replace(read_errors=2, write_errors=4)))
    pool = seeded(event("ereport.io", 6, vdev_read_errors=3, **A), status=said)
    assert row(pool, "/dev/a")[1:4] == ["ONLINE", "3", "4"]
    assert names(pool) == ["tank", "  mirror-0", "    /dev/a"]


def test_after_a_vdevs_change_those_around_it_are_in_doubt_until_the_next_answer() -> None:
    pools = Pools()
    pools.seed([TANK], asked(5))
    pools.take(statechange(6, FAULTED), 1)
    pool = pools.current(0)["tank"]
    assert [row(pool, name)[1] for name in ("mirror-0", "/dev/a")] == ["-", "FAULTED"]
    assert state(pool)["HEALTH"] == ""
    assert row(pool, "tank")[1] == "ACTIVE"
    degraded = (MIRROR._replace(state=DEGRADED), DISK_A._replace(state=FAULTED), DISK_B)
    pools.seed([TANK._replace(health="DEGRADED", vdevs=degraded)], asked(7))
    assert [row(pool, name)[1] for name in ("mirror-0", "/dev/a")] == ["DEGRADED", "FAULTED"]
    assert row(pool, "/dev/a")[7] == "2023-11-14T22:13:26Z"
    assert row(pool, "tank")[1] == "DEGRADED"


def test_vdevs_that_are_each_in_the_other_do_no_harm() -> None:
    odd = (vdev(1, "/dev/a", parent=2), vdev(2, "/dev/b", parent=1))
    pool = seeded(status=TANK._replace(vdevs=odd), after=(statechange(6, FAULTED),))
    assert row(pool, "tank")


def test_a_pool_that_was_exported_meanwhile_stays_so() -> None:
    exported = event("sysevent.pool_export", 6)
    pool = seeded(exported)
    assert state(pool)["STATE"] == "EXPORTED"
    assert pool.find(1) is None


def test_after_a_pools_change_its_health_is_in_doubt_until_the_next_answer() -> None:
    failure = event("ereport.io_failure", 6)
    assert state(seeded(after=(failure,)))["HEALTH"] == ""
    suspended = TANK._replace(health="SUSPENDED")
    cleared = event("sysevent.vdev_clear", 6)
    assert state(seeded(failure, status=suspended, second=7))["HEALTH"] == "SUSPENDED"
    said = state(seeded(status=suspended, after=(cleared,)))
    assert (said["HEALTH"], said["SUSPENDED"]) == ("", "no")


def test_the_first_event_is_an_event_though_the_kernel_spoke_first() -> None:
    said = state(seeded(after=(event("sysevent.config_sync", 8), event("ereport.io", 9))))
    assert said["FIRST_EVENT"] == "2023-11-14T22:13:28.000000000Z"


def test_events_of_before_the_clock_was_set_back_are_old() -> None:
    pool = seeded(statechange(3600, FAULTED), event("ereport.io_failure", 3600))
    assert row(pool, "/dev/a")[1] == "ONLINE"
    assert state(pool)["SUSPENDED"] == "no"


# Which pool it is


def test_another_guid_is_another_pool_unless_it_has_the_same_vdevs() -> None:
    before = event("ereport.io", 1, pool_guid=8, **A)
    assert state(seeded(before))["EVENTS"] == "1", "a new guid for the same vdevs"
    other = TANK._replace(vdevs=(DISK_B,))
    assert state(seeded(before, status=other))["EVENTS"] == "0"
    assert state(seeded(event("ereport.io", 1, pool_guid=7, **A), status=other))["EVENTS"] == "1"
    created = event("sysevent.pool_create", 6, pool_guid=8, pool_state=0)
    assert state(seeded(created, status=other))["GUID"] == "8", "it is newer than the question"


def test_a_pool_that_is_imported_again_is_no_longer_gone() -> None:
    pools = pools_of([event("sysevent.pool_export", 1)])
    pools.seed([TANK], asked(5))
    assert list(pools.current(1000)) == ["tank"]


def test_pools_that_the_kernel_does_not_have_are_absent() -> None:
    pools = pools_of(
        [
            event("ereport.io", 1, pool="old", **A),
            event("sysevent.pool_export", 1, pool="away"),
            event("sysevent.config_sync", 6, pool="new"),
            event("sysevent.config_sync", 1),
        ]
    )
    pools.miss(["tank"], asked(5))
    shown = {name: state(pool)["STATE"] for name, pool in pools.current(0).items()}
    assert shown == {"old": "ABSENT", "away": "EXPORTED", "new": "", "tank": ""}
    assert row(pools.current(0)["old"], "old")[1] == "ABSENT"
    assert "old" not in pools.current(1000), "it goes with its last event, as one exported does"
    pools.take(event("sysevent.pool_import", 7, pool="old"), 9)
    assert state(pools.current(0)["old"])["STATE"] == "ACTIVE"


def test_pools_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_POOLS", 1)
    monkeypatch.setattr(pool_module, "_MOST_VDEVS", 2)
    pools = Pools()
    pools.seed([TANK, TANK._replace(name="other")], asked(5))
    assert list(pools.current(0)) == ["tank"]
    assert names(pools.current(0)["tank"]) == ["tank", "  mirror-0", "    /dev/a", "  (others)"]


# When to ask


def asked_for(*events: Event) -> int:
    pools, asked = Pools(), list[None]()
    pools.subscribe(lambda: asked.append(None))
    for seq, each in enumerate(events, 1):
        pools.take(each, seq)
    return len(asked)


@pytest.mark.parametrize(
    ("said", "asks"),
    [
        (event("resource.statechange"), True),
        (event("sysevent.vdev_add"), True),
        (event("ereport.checksum"), True),
        (event("sysevent.history_event"), False),
        (event("sysevent.config_sync"), False),
        (Event.make("zeventfs", "zeventfs.gap", 0), True),
        (Event.make("zeventfs", "zeventfs.source.ready", 0), True),
        (Event.make("tapdisk", "tapdisk.vbd", 0), False),
    ],
)
def test_the_kernel_is_to_be_asked_when_events_leave_something_open(
    said: Event, *, asks: bool
) -> None:
    assert asked_for(said) == asks


# A restart


def journal_in(directory: Path, pools: Pools) -> Journal:
    renderer = Renderer("e" * 16, "2.1.11")
    limits = Limits(1 << 20, 1 << 16)
    return Journal("e" * 16, renderer, limits, lambda: 0, Store(directory), pools.take)


def test_what_a_recovered_journal_told_goes_on_below_what_the_kernel_says(tmp_path: Path) -> None:
    def retry(second: int) -> Event:
        return event("ereport.io", second, zio_err=5, zio_flags=1 << 15, zio_delay=9, **A)

    first = journal_in(tmp_path, Pools())
    for each in (retry(1), retry(2), statechange(3, FAULTED), event("sysevent.scrub_start", 4)):
        first.append(each)
    pools = Pools()
    again = journal_in(tmp_path, pools)  # the first one was never closed
    assert row(pools.current(1)["tank"], "/dev/a")[1] == "FAULTED", "at once, as it was then"
    pools.seed([TANK], asked(60))
    again.append(retry(70))
    pool = pools.current(1)["tank"]
    assert errors_text(pool).decode().splitlines()[1].split()[3] == "3"
    assert b'"timed":3' in delays_json(pool)
    assert (state(pool)["EVENTS"], state(pool)["SCAN"]) == ("5", "")
    assert row(pool, "/dev/a")[1] == "ONLINE"
