"""What the simulator tells by itself."""

from itertools import islice

import pytest

from zeventfs.simulator.shapes import recorded, shape_of
from zeventfs.simulator.story import SCENARIOS, Told, tell
from zeventfs.simulator.zfs import ZfsDevice

NOW = 1_700_000_000_000_000_000


def told(count: int, seed: int = 1) -> list[Told]:
    return list(islice(tell(seed, lambda: NOW), count))


def test_the_same_seed_tells_the_same_events_and_another_one_others() -> None:
    assert told(200) == told(200)
    assert told(200) != told(200, seed=2)


def test_the_first_events_are_worth_reading() -> None:
    names = [name.removeprefix("sysevent.fs.zfs.") for name, _ in told(10)]
    assert names == [
        "pool_create",
        "history_event",
        "config_sync",
        "history_event",
        "history_event",
        "history_event",
        "scrub_start",
        "history_event",
        "ereport.fs.zfs.checksum",
        "ereport.fs.zfs.checksum",
    ]


def test_every_event_is_of_a_recorded_class_with_its_keys_in_its_order_and_can_be_posted() -> None:
    device = ZfsDevice(lambda: NOW)
    for name, pairs in told(2000):
        assert name in recorded()
        order = [key.name for key in shape_of(name)]
        places = [order.index(key) for key, _, _ in pairs]
        assert places == sorted(places)
        assert device.post(name, pairs)


def test_a_faulted_disk_is_replaced_and_the_story_has_no_end() -> None:
    states: dict[str, int] = {}
    replaced = 0
    for name, pairs in told(3000):
        values = {key: value for key, _, value in pairs}
        if name == "resource.fs.zfs.statechange":
            assert values["vdev_laststate"] == states.get(values["vdev_path"], 7)
            states[values["vdev_path"]] = values["vdev_state"]
        if name == "sysevent.fs.zfs.vdev_remove":
            assert states.pop(values["vdev_path"]) == 5
            replaced += 1
    assert replaced > 10


def test_a_history_record_has_the_clocks_time() -> None:
    name, pairs = told(2)[1]
    assert name == "sysevent.fs.zfs.history_event"
    assert {key: value for key, _, value in pairs}["history_time"] == NOW // 10**9


def test_a_scenario_that_doesnt_exist_is_a_keyerror() -> None:
    assert "tank" in SCENARIOS
    with pytest.raises(KeyError):
        next(tell(1, lambda: NOW, "no such"))
