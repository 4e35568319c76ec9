"""Histograms of delays, drawn and as JSON."""

import json

import pytest
from pool_events import event, only, told

from zeventfs.nvlist import Type
from zeventfs.pools.delays import Delays, duration
from zeventfs.pools.tables import delays_json, delays_text


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (1, "1 ns"),
        (512, "512 ns"),
        (1024, "1.02 us"),
        (131072, "131 us"),
        (16777216, "16.8 ms"),
        (2**30, "1.07 s"),
        (2**35, "34.4 s"),
        (2**64, "18446744074 s"),
    ],
)
def test_durations_are_told_with_three_digits(ns: int, shown: str) -> None:
    assert duration(ns) == shown


def test_a_bucket_holds_from_a_power_of_two_to_less_than_the_next() -> None:
    delays = Delays()
    for ns in (7, 8, 15, 16, 2**64 - 1, 0):
        delays.count(ns)
    buckets = dict(delays.buckets())
    assert {begin: count for begin, count in buckets.items() if count} == {
        4: 1,
        8: 2,
        16: 1,
        2**63: 1,
    }
    assert len(buckets) == 62, "those between are there, and empty"
    assert (delays.timed, delays.untimed) == (5, 1)


def test_bars_are_as_long_as_their_share_of_the_most_frequent() -> None:
    delays = Delays()
    for ns, count in ((10**6, 1), (10**7, 100)):
        for _ in range(count):
            delays.count(ns)
    assert list(delays.bars()) == [
        "  524 us ..  1.05 ms    1  #",
        " 1.05 ms ..  2.10 ms    0",
        " 2.10 ms ..  4.19 ms    0",
        " 4.19 ms ..  8.39 ms    0",
        " 8.39 ms ..  16.8 ms  100  " + "#" * 40,
    ]
    assert list(Delays().bars()) == []


def test_the_pool_has_its_vdevs_delays_together() -> None:
    pool = only(
        event("ereport.delay", vdev_guid=2, vdev_path="/dev/b", zio_delay=40 * 10**9),
        event("ereport.delay", vdev_guid=1, vdev_path="/dev/a", zio_delay=90 * 10**9),
        event("ereport.io", vdev_guid=1, vdev_path="/dev/a", zio_delay=0),
        event("ereport.probe_failure", vdev_guid=3),
        event("ereport.data", zio_delay=7),
    )
    assert delays_text(pool).decode() == (
        "tank: 2 timed, 1 untimed\n"
        "  34.4 s ..   68.7 s  1  ########################################\n"
        "  68.7 s ..    137 s  1  ########################################\n"
        "\n"
        "/dev/a: 1 timed, 1 untimed\n"
        "  68.7 s ..    137 s  1  ########################################\n"
        "\n"
        "/dev/b: 1 timed\n"
        "  34.4 s ..   68.7 s  1  ########################################\n"
    )


def test_what_a_deadman_calls_a_delay_is_a_time_and_is_not_counted() -> None:
    pool = only(event("ereport.deadman", vdev_guid=1, zio_delay=116711555446))
    assert delays_text(pool) == b"tank: 0 timed\n"


def test_a_delay_of_another_type_is_not_counted() -> None:
    pool = only(event("ereport.delay", vdev_guid=1, zio_delay=(Type.INT64, -1)))
    assert delays_text(pool) == b"tank: 0 timed\n"


def test_json_says_the_same() -> None:
    pool = only(
        event(
            "ereport.delay",
            pool_guid=2**64 - 1,
            vdev_guid=2**63,
            vdev_path="/dev/\udcff",
            vdev_type="disk",
            zio_delay=2**64 - 1,
        ),
        event("ereport.io", vdev_guid=2**63, zio_delay=0),
    )
    measured = {"timed": 1, "untimed": 1, "buckets": [{"from_ns": 2**63, "count": 1}]}
    line = delays_json(pool)
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "pool": "tank",
        "guid": str(2**64 - 1),
        **measured,
        "vdevs": [{"guid": str(2**63), "path": r"/dev/\udcff", "type": "disk", **measured}],
    }


def test_vdevs_without_room_are_told_together() -> None:
    events = [event("ereport.delay", vdev_guid=guid, zio_delay=8) for guid in range(515)]
    pool = only(*events)
    told = json.loads(delays_json(pool))
    assert told["guid"] is None
    assert told["vdevs"][-1] | {"guid": None, "timed": 3} == told["vdevs"][-1]
    assert delays_text(pool).decode().splitlines()[-2] == "(others): 3 timed"


def test_a_slow_disk_shows_in_the_scenario_of_one() -> None:
    pool = only(*told("slow", 40))
    (slow, *_) = sorted(pool.vdevs(), key=lambda vdev: -vdev.delays.timed)
    assert slow.delays.timed > 10
    assert min(begin for begin, _ in slow.delays.buckets()) >= 2**34
