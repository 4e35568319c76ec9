"""An event knows its class, time, eid and pool, however it came to be."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeventfs import event as event_module
from zeventfs.errors import Invalid
from zeventfs.event import Event
from zeventfs.nvlist import NVList, NvlistError, Type, encode

CORPUS = Path(__file__).parents[1] / "corpus" / "zevents.jsonl"
RECORDED = [json.loads(line) for line in CORPUS.read_text().splitlines()[1:]]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    event_module._keys.clear()
    yield
    event_module._keys.clear()


def test_a_recorded_event_knows_what_zpool_says_of_it() -> None:
    for recorded in RECORDED:
        packed = base64.b64decode(recorded["native"])
        event = Event.from_packed("zfs", packed)
        assert event.source == "zfs"
        assert event.packed == packed
        assert event.name == recorded["class"]
        assert event.eid == recorded["eid"]
        assert event.pool == event.payload.get("pool")
        second, nanosecond = event.payload.get("time")
        assert event.time_ns == second * 10**9 + nanosecond


def test_an_xdr_event_is_kept_in_the_native_packing() -> None:
    recorded = RECORDED[0]
    event = Event.from_packed("zfs", base64.b64decode(recorded["xdr"]))
    assert event == Event.from_packed("zfs", base64.b64decode(recorded["native"]))


def test_a_made_event_has_the_shape_of_zfs_events() -> None:
    event = Event.make(
        "zeventfs", "zeventfs.gap", 1_500_000_001, [("dropped", Type.UINT64, 3)], eid=9
    )
    assert list(event.payload.pairs()) == [
        ("class", Type.STRING, "zeventfs.gap"),
        ("dropped", Type.UINT64, 3),
        ("time", Type.INT64_ARRAY, (1, 500_000_001)),
        ("eid", Type.UINT64, 9),
    ]
    assert (event.source, event.name, event.eid) == ("zeventfs", "zeventfs.gap", 9)
    assert event == Event.from_packed("zeventfs", event.packed)


def test_what_a_source_does_not_give_is_none() -> None:
    event = Event.make("dm", "dm.change", -1)
    assert event.eid is None
    assert event.pool is None
    assert event.time_ns == -1


def test_a_class_in_bytes_that_are_no_text_is_kept() -> None:
    assert Event.make("zfs", "a\udcff", 0).name == "a\udcff"


@pytest.mark.parametrize(
    "pairs",
    [
        [("time", Type.INT64_ARRAY, (1, 2))],
        [("class", Type.STRING, "a")],
        [("class", Type.UINT64, 1), ("time", Type.INT64_ARRAY, (1, 2))],
        [("class", Type.STRING, "a"), ("time", Type.INT64_ARRAY, (1, 2, 3))],
        [("class", Type.STRING, "a"), ("time", Type.INT64, 1)],
    ],
)
def test_a_list_without_class_and_time_is_no_event(pairs: list[tuple[str, Type, object]]) -> None:
    with pytest.raises(NvlistError, match="a class and a time"):
        Event.from_packed("zfs", encode(NVList.of(pairs)))


def test_values_that_do_not_fit_are_invalid() -> None:
    with pytest.raises(Invalid):
        Event.make("zfs", "a", 0, [("n", Type.UINT8, 256)])
    with pytest.raises(Invalid):
        Event.make("zfs", "a", 2**63 * 10**9)


def test_what_is_remembered_of_layouts_is_bounded() -> None:
    for number in range(300):
        Event.make("zfs", "a", 0, [(f"name{number}", Type.UINT8, 1)])
        assert len(event_module._keys) <= 128
    event_module._keys.clear()
    Event.make("zfs", "a", 0, [("a", Type.UINT8_ARRAY, bytes(2000))])
    assert not event_module._keys
