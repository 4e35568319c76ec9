"""All pools: which there are, when one goes, when another takes its name, how many at most."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_events import event, pools_of, recorded, told

from zeventfs.event import Event
from zeventfs.nvlist import NVList, Type
from zeventfs.pools import facts as facts_module
from zeventfs.pools import pools as module
from zeventfs.pools.facts import Facts, Plans
from zeventfs.pools.pool import ACTS
from zeventfs.pools.pools import Pools
from zeventfs.pools.tables import delays_json, delays_text, errors_text, state_text, vdevs_text
from zeventfs.simulator.scenario import builtin

TEXTS = (state_text, vdevs_text, delays_text, delays_json, errors_text)


def names(pools: Pools, oldest_seq: int = 0) -> list[str]:
    return list(pools.current(oldest_seq))


def test_each_pool_that_events_name_is_there() -> None:
    pools = pools_of(recorded())
    assert names(pools) == ["tank", "rz", "one", "pf", "pg", "t2", "t4", "sdp", "my pool"]
    assert pools.current(0)["tank"].last_seq == 115


@pytest.mark.parametrize("pool", ["", (Type.UINT64, 7)])
def test_events_that_name_no_pool_change_nothing(pool: Any) -> None:
    assert names(pools_of([event("sysevent.config_sync", pool=pool)])) == []
    assert names(pools_of([Event.make("zeventfs", "zeventfs.gap", 0)])) == []


def test_a_pool_knows_its_events_and_when_they_were() -> None:
    pools = pools_of([event("sysevent.config_sync", second) for second in (3, 9, 5)])
    pool = pools.current(0)["tank"]
    assert (pool.events, pool.last_seq) == (3, 3)
    assert (pool.last_ns - pool.first_ns) == 2 * 10**9


@pytest.mark.parametrize("name", ["pool_export", "pool_destroy"])
def test_a_pool_that_is_gone_is_forgotten_after_its_last_event(name: str) -> None:
    pools = pools_of([event("sysevent.config_sync"), event(f"sysevent.{name}")])
    assert names(pools, 2) == ["tank"]
    assert names(pools, 3) == []
    assert names(pools, 0) == []


def test_a_pool_that_is_there_stays_without_events() -> None:
    assert names(pools_of([event("sysevent.pool_import")]), 1000) == ["tank"]


def test_a_pool_that_came_again_stays() -> None:
    events = [event("sysevent.pool_export"), event("sysevent.pool_import")]
    assert names(pools_of(events), 1000) == ["tank"]


def seen(*events: Event) -> int:
    """How many events the pool has, which is one that began with the last of these when 1."""
    return pools_of(events).current(0)["tank"].events


@pytest.mark.parametrize(
    ("before", "after", "anew"),
    [
        ({"pool_guid": 1}, {"pool_guid": 2}, True),
        ({"pool_guid": 1}, {"pool_guid": 1}, False),
        ({}, {"pool_guid": 1}, False),
        ({"pool_guid": 1}, {}, False),
        ({"pool_guid": 1}, {"pool_guid": (Type.STRING, "2")}, False),
        ({"pool_guid": 1}, {"pool_guid": 2, "history_internal_name": "guid change"}, False),
        ({"pool_guid": 1}, {"pool_guid": 2, "history_internal_name": "set"}, True),
    ],
)
def test_another_guid_is_another_pool(
    before: dict[str, Any], after: dict[str, Any], *, anew: bool
) -> None:
    events = event("sysevent.config_sync", **before), event("sysevent.history_event", **after)
    assert seen(*events) == (1 if anew else 2)


def test_a_pool_that_gets_a_new_guid_is_the_same() -> None:
    first = event("sysevent.config_sync", pool_guid=1)
    reguid = event("sysevent.pool_reguid", pool_guid=2)
    after = event("sysevent.config_sync", pool_guid=2)
    assert seen(first, reguid, after) == 3
    assert pools_of([first, reguid]).current(0)["tank"].guid == 2


def test_a_pool_that_is_created_after_the_end_of_one_is_new() -> None:
    create, destroy = event("sysevent.pool_create"), event("sysevent.pool_destroy")
    assert seen(create, destroy, create) == 1
    assert seen(event("sysevent.config_sync"), create) == 2, "its own creation, told late"
    assert names(pools_of([create, destroy, create]), 1000) == ["tank"]


def test_pools_are_bounded_and_those_that_are_gone_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_POOLS", 3)
    pools = pools_of(
        [
            *[event("sysevent.pool_import", pool=pool) for pool in "abc"],
            event("sysevent.config_sync", pool="d"),
            event("sysevent.config_sync", pool="d"),
            event("sysevent.pool_export", pool="c"),
            event("sysevent.pool_export", pool="a"),
            event("sysevent.config_sync", pool="e"),
        ]
    )
    assert names(pools) == ["a", "b", "e"]
    assert pools.unknown == 2


@pytest.mark.parametrize(
    ("name", "known"),
    [("x" * 255, True), ("x" * 256, False), ("\u00e9" * 42, True), ("\u00e9" * 43, False)],
)
def test_a_pool_whose_name_is_no_files_name_is_not_known(name: str, *, known: bool) -> None:
    pools = pools_of([event("sysevent.config_sync", pool=name)])
    assert (names(pools) == [name]) == known
    assert pools.unknown == (not known)


# Whatever an event says


@pytest.mark.parametrize("scenario", builtin())
def test_the_files_of_every_scenario_can_be_made_at_any_time(scenario: str) -> None:
    pools = Pools()
    for seq, each in enumerate(told(scenario, 300), 1):
        pools.take(each, seq)
        if seq % 60 == 0:
            for pool in pools.current(0).values():
                for text in TEXTS:
                    text(pool)
    assert pools.unknown == 0


CLASSES = st.sampled_from([*ACTS, "ereport.fs.zfs.data", "ereport.fs.zfs.io", "ereport.x", "?"])
STRINGS = st.one_of(
    st.sampled_from(["root", "mirror", "/dev/a", "vdev attach", "replace vdev=a for vdev=b"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    st.just("\udcff\n"),
)
VALUES = st.one_of(
    st.tuples(st.just(Type.UINT64), st.integers(0, 6)),
    st.tuples(st.just(Type.UINT64), st.sampled_from([2**63, 2**64 - 1])),
    st.tuples(st.just(Type.INT32), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(Type.STRING), STRINGS),
    st.tuples(st.just(Type.UINT64_ARRAY), st.lists(st.integers(0, 9), max_size=3)),
    st.just((Type.NVLIST, NVList.of([]))),
    st.just((Type.BOOLEAN, True)),
)
PAIRS = st.lists(st.tuples(st.sampled_from(Facts._fields), VALUES), max_size=8)
EVENTS = st.lists(
    st.tuples(CLASSES, st.integers(-(2**62), 2**62), st.sampled_from("ab"), PAIRS), max_size=12
)


@settings(deadline=None)  # other processes may have the CPU
@given(EVENTS)
def test_no_event_is_too_strange(said: list[Any]) -> None:
    pools = Pools()
    for seq, (name, time_ns, pool, pairs) in enumerate(said, 1):
        values = [("pool", Type.STRING, pool), *[(key, *value) for key, value in pairs]]
        pools.take(Event.make("zfs", name, time_ns, values), seq)
        for each in pools.current(seq).values():
            for text in TEXTS:
                assert text(each).endswith(b"\n")


# Where the facts stand


def test_plans_are_kept_for_layouts_that_are_small_and_not_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facts_module.Plans, "_MOST", 2)
    plans = Plans()
    layouts = [event("sysevent.x", filler=(Type.UINT8_ARRAY, [0] * size)) for size in range(3)]
    for each in layouts:
        assert plans[each.payload.layout] == plans[each.payload.layout]
    assert len(plans) == 1
    large = event("sysevent.x", pool_guid=7, filler=(Type.UINT8_ARRAY, [0] * 2000)).payload
    assert plans[large.layout].facts(large.values).pool_guid == 7
    assert len(plans) == 1
