"""What the simulator tells by itself, scenario by scenario."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec
import pytest

from zeventfs.event import Event
from zeventfs.render import Renderer
from zeventfs.simulator.acts import ACTS, Pause, Stage
from zeventfs.simulator.scenario import builtin, decode, load
from zeventfs.simulator.shapes import recorded
from zeventfs.simulator.story import Told, tell
from zeventfs.simulator.zfs import ZfsDevice

NOW = 1_700_000_000_000_000_000
SLOW_NS = 30 * 10**9


def told(count: int, seed: int = 1, scenario: str = "tank") -> list[Told]:
    return list(islice(tell(seed, lambda: NOW, load(scenario)), count))


def values(event: Told) -> dict[str, Any]:
    return {key: value for key, _, value in event.pairs}


def short(events: Iterable[Told]) -> list[str]:
    return [event.name.split(".fs.zfs.")[1] for event in events]


def own(seed: int = 1, count: int = 1000, **scenario: Any) -> list[Told]:
    """Tell what is written here, of pool tank with two disks unless it says otherwise."""
    pools = {"tank": {"disks": ["/dev/a", "/dev/b"]}}
    definition = msgspec.json.encode({"pools": pools} | scenario)
    return list(islice(tell(seed, lambda: NOW, decode(definition)), count))


def scene(*acts: str | dict[str, Any], **said: Any) -> dict[str, Any]:
    return {"acts": [{"act": act} if isinstance(act, str) else act for act in acts], **said}


@pytest.mark.parametrize("scenario", builtin())
def test_the_same_seed_tells_the_same_events_and_another_one_others(scenario: str) -> None:
    assert told(300, 1, scenario) == told(300, 1, scenario)
    assert told(300, 1, scenario) != told(300, 2, scenario)


@pytest.mark.parametrize("scenario", builtin())
def test_every_event_is_of_a_recorded_class_with_its_keys_in_its_order_and_can_be_posted(
    scenario: str,
) -> None:
    device = ZfsDevice(lambda: NOW)
    events = told(2500, 3, scenario)
    assert len(events) == 2500, "it has no end"
    for _, name, pairs in events:
        shape = {key.name: key for key in recorded()[name]}
        order = list(shape)
        assert [order.index(key) for key, _, _ in pairs] == sorted(
            order.index(key) for key, _, _ in pairs
        )
        assert {key for key in order if not shape[key].optional} <= {key for key, _, _ in pairs}
        assert all(shape[key].type is kind for key, kind, _ in pairs)
        assert device.post(name, pairs)


@pytest.mark.parametrize("scenario", builtin())
def test_states_follow_from_states_and_only_disks_that_work_have_errors(scenario: str) -> None:
    states: dict[tuple[str, str], int] = {}
    for event in told(2500, 4, scenario):
        said = values(event)
        disk = (said["pool"], said.get("vdev_path", ""))
        if event.name == "resource.fs.zfs.statechange":
            assert said["vdev_laststate"] == states.get(disk, 7) != said["vdev_state"]
            states[disk] = said["vdev_state"]
        elif event.name == "sysevent.fs.zfs.vdev_remove":
            states.pop(disk, None)
        elif "zio_offset" in said:
            assert states.get(disk, 7) >= 6
        elif "vdev_state" in said:
            assert said["vdev_state"] == states.get(disk, 7)


def test_the_first_events_of_tank_are_worth_reading() -> None:
    assert short(told(10)) == [
        "pool_create",
        "history_event",
        "config_sync",
        "history_event",
        "history_event",
        "history_event",
        "scrub_start",
        "history_event",
        "checksum",
        "checksum",
    ]


def test_a_history_record_has_the_clocks_time() -> None:
    event = told(2)[1]
    assert event.name == "sysevent.fs.zfs.history_event"
    assert values(event)["history_time"] == NOW // 10**9


@pytest.mark.parametrize("seed", range(5))
def test_a_dying_disk_fails_is_replaced_and_resilvers(seed: int) -> None:
    events = told(70, seed, "dying")
    names = short(events)
    changes = [values(event) for event in events if event.name.endswith("statechange")]
    assert [each["vdev_state"] for each in changes[:2]] == [6, 5]
    dead = {each["vdev_path"] for each in changes[:2]}
    assert len(dead) == 1
    assert names.index("io") < names.index("statechange") < names.index("vdev_attach")
    assert names.index("vdev_attach") < names.index("resilver_start")
    assert names.index("resilver_start") < names.index("resilver_finish")
    assert names.index("resilver_finish") < names.index("vdev_remove")
    assert {values(events[names.index("vdev_remove")])["vdev_path"]} == dead


def test_a_slow_disk_gets_slower_past_the_limit_at_which_zfs_says_so() -> None:
    events = told(60, 1, "slow")
    slow = [values(event) for event in events if event.name.endswith(".delay")]
    assert all(SLOW_NS <= each["zio_delay"] <= each["zio_delta"] for each in slow)
    first_disk = [each for each in slow if each["vdev_path"] == slow[0]["vdev_path"]]
    assert [each["vdev_delays"] for each in first_disk[:5]] == [1, 2, 3, 4, 5]
    assert slow[0]["zio_delay"] < 33 * 10**9 < max(each["zio_delay"] for each in slow)


def test_a_disk_with_bad_checksums_is_one_disk_whose_count_grows_until_it_is_cleared() -> None:
    counts = [0]
    for event in told(200, 1, "checksums"):
        said = values(event)
        if event.name.endswith(".checksum"):
            assert said["vdev_path"] == "/dev/sdb1"
            assert said["vdev_cksum_errors"] == counts[-1] + 1
            counts.append(said["vdev_cksum_errors"])
        elif event.name.endswith("vdev_clear"):
            counts.append(0)
    assert max(counts) > 10
    assert counts.count(0) > 1


def test_pools_are_created_before_anything_else_and_silent_while_they_are_not_there() -> None:
    here: set[str] = set()
    exported: set[str] = set()
    seen: set[str] = set()
    for event in told(500, 1, "pools"):
        pool, name = values(event)["pool"], event.name.removeprefix("sysevent.fs.zfs.")
        seen.add(name)
        if name == "pool_create":
            assert pool not in here | exported
            here.add(pool)
        elif pool in exported:
            assert values(event)["history_internal_name"] == "open"
            exported.remove(pool)
            here.add(pool)
        assert pool in here
        if name in {"pool_export", "pool_destroy"}:
            here.remove(pool)
            assert values(event)["pool_state"] == (1 if name == "pool_export" else 2)
            exported |= {pool} if name == "pool_export" else set()
    assert {"pool_create", "pool_export", "pool_import", "pool_destroy"} <= seen


def test_a_suspended_pool_is_silent_until_it_is_cleared() -> None:
    events = [event for event in told(300, 1, "suspended") if values(event)["pool"] == "tank"]
    names = short(events)
    failures = [at for at, name in enumerate(names) if name == "io_failure"]
    assert len(failures) > 3
    for at in failures[:-1]:
        assert names[at + 1 : at + 5] == ["statechange", "vdev_clear"] * 2
        assert names[at + 5] == "resilver_start"


def test_snapshots_are_destroyed_the_oldest_first_and_never_twice() -> None:
    alive: dict[str, list[str]] = {}
    for event in told(2000, 1, "snapshots"):
        said = values(event)
        dataset, _, snapshot = said["history_dsname"].partition("@")
        if said["history_internal_name"] == "snapshot":
            alive.setdefault(dataset, []).append(snapshot)
        elif said["history_internal_name"] == "destroy":
            assert alive[dataset].pop(0) == snapshot
    assert all(len(each) < 100 for each in alive.values())


def test_scrubs_end_before_the_next_begins_finished_or_aborted() -> None:
    running: set[str] = set()
    seen = set()
    for event in told(2000, 1, "scrubs"):
        name, pool = short([event])[0], values(event)["pool"]
        seen.add(name)
        if name == "scrub_start":
            assert pool not in running
            running.add(pool)
        elif name in {"scrub_finish", "scrub_abort"}:
            running.remove(pool)
    assert {"scrub_paused", "scrub_resume", "scrub_abort", "scrub_finish", "checksum"} <= seen


def test_a_storm_posts_more_at_once_than_the_queue_holds() -> None:
    longest = run = 0
    for event in told(4000, 1, "storm"):
        run = run + 1 if event.wait == 0 else 0
        longest = max(longest, run)
    assert longest > 512
    device = ZfsDevice(lambda: NOW)
    cursor = device.open()
    for event in told(1500, 1, "storm"):
        device.post(event.name, event.pairs)
    cursor.next(nonblock=True, size=6144)
    assert cursor.next(nonblock=True, size=6144).dropped + len(device) >= 512


def test_events_come_one_an_interval_but_for_pauses_and_bursts() -> None:
    pause = {"act": "pause", "intervals": 2.5}
    opening = [
        scene(pause, "clear"),
        scene("clear", pause, pause, "clear", burst=True),
        scene("snapshot"),
    ]
    assert [event.wait for event in own(opening=opening)] == [2.5, 1, 1, 0, 5, 0, 1]


def test_a_story_is_over_when_nothing_is_left_or_nothing_happens_any_more() -> None:
    assert len(own(opening=[scene("snapshot", repeat=3)])) == 3
    assert own(ever_after=[scene("pool_import")]) == []
    assert own(ever_after=[scene({"act": "pause", "intervals": 0})]) == []
    assert short(own(ever_after=[scene("pool_export")])) == ["pool_export"]


def test_what_a_state_does_not_allow_is_passed_over() -> None:
    faulted = {"act": "statechange", "state": "FAULTED"}
    home = {"act": "dataset_create", "name": "home"}
    gone = {"act": "dataset_destroy", "name": "home"}
    of_home = [{"act": act, "dataset": "home"} for act in ("snapshot", "snapshot_destroy")]
    impossible: list[str | dict[str, Any]] = [
        "pool_create",
        "replace",
        *of_home,
        gone,
        "io",
        "delay",
        "checksum",
        faulted,
    ]
    disk = {"disk": "/dev/a"}
    assert short(own(opening=[scene(faulted, *impossible, **disk)])) == ["statechange"]
    scrub = own(opening=[scene(faulted, {"act": "scrub", "errors": 3}, **disk)])
    assert "checksum" not in short(scrub)
    assert short(own(opening=[scene(faulted, "trim", **disk)])).count("trim_start") == 1
    made = own(opening=[scene(home, home, *of_home[:1], gone, gone)])
    assert [values(event)["history_dsname"] for event in made] == [
        "tank/home",
        "tank/home",
        "tank/home@auto-0001",
        "tank/home@auto-0001",
        "tank/home",
    ]
    assert short(own(opening=[scene("suspend", "suspend")])).count("io_failure") == 1


def test_a_disk_that_was_replaced_has_no_scene() -> None:
    pools = {"tank": {"disks": ["/dev/a"], "spares": ["/dev/b"], "layout": "stripe"}}
    events = own(pools=pools, opening=[scene("replace", "io"), scene("io", disk="/dev/a")])
    assert short(events)[-1] == "io"
    assert short(events).count("io") == 1
    assert values(events[-1])["vdev_path"] == "/dev/b"
    assert values(events[-1])["parent_type"] == "root"


@pytest.mark.parametrize(
    ("state", "posted"),
    [
        ("REMOVED", ["statechange", "removed"]),
        ("UNAVAIL", ["vdev.open_failed", "statechange"]),
        ("OFFLINE", ["statechange"]),
    ],
)
def test_a_state_comes_with_its_other_events_and_goes(state: str, posted: list[str]) -> None:
    changes = [{"act": "statechange", "state": each} for each in (state, "ONLINE", "ONLINE")]
    events = own(opening=[scene(*changes, disk="/dev/b")])
    assert short(events) == [*posted, "statechange", "vdev_online"]


def test_a_suspended_pool_with_a_dead_disk_has_no_errors_of_it() -> None:
    dead = {"act": "statechange", "state": "FAULTED"}
    events = own(opening=[scene(dead, "suspend", disk="/dev/a")])
    assert [values(each)["vdev_path"] for each in events if each.name.endswith(".io")] == ["/dev/b"]


def test_errors_that_zfs_only_tried_are_speculative_and_not_counted() -> None:
    soft = {"act": "io", "speculative": True}
    events = own(opening=[scene(soft, "io")])
    renderer = Renderer("epoch", "2.1.11")
    device = ZfsDevice(lambda: NOW)
    cursor = device.open()
    lines = []
    for event in events:
        device.post(event.name, event.pairs)
        packed = cursor.next(nonblock=True, size=6144).packed
        lines.append(renderer.json_line(Event.from_packed("zfs", packed), 1))
    assert b'"speculative":true' in lines[0]
    assert b'"speculative":false' in lines[1]
    assert [values(event)["vdev_read_errors"] for event in events] == [0, 1]


def test_lost_blocks_and_resilvers_of_their_own() -> None:
    events = own(opening=[scene({"act": "data", "times": 2}, "resilver")])
    assert short(events)[:3] == ["data", "data", "resilver_start"]
    assert short(events)[-1] == "resilver_finish"


def test_scenes_are_drawn_by_weight() -> None:
    often, seldom = scene("clear", weight=99), scene("snapshot")
    names = short(own(ever_after=[often, seldom], at_random=True, count=2000))
    assert 0 < names.count("history_event") < 100


def test_without_a_pool_one_is_drawn() -> None:
    pools = {name: {"disks": ["/dev/a"]} for name in ("one", "two")}
    events = own(pools=pools, ever_after=[scene("snapshot")], count=100)
    assert {values(event)["pool"] for event in events} == {"one", "two"}


def test_every_act_but_a_pause_can_happen() -> None:
    assert {act for act in ACTS if "play" not in vars(act)} == {Pause}
    with pytest.raises(NotImplementedError):
        Pause(1).play(Stage.__new__(Stage))
