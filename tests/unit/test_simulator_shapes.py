"""The shapes of events are the recorded ones', and simulated events have them."""

import base64
import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zeventfs.nvlist import NVList, Type, decode
from zeventfs.simulator.shapes import Key, Shape, fill, guid, known_type, recorded, shape_of
from zeventfs.simulator.zfs import ZfsDevice

CORPUS = Path(__file__).parents[1] / "corpus"
MAKER = runpy.run_path(str(CORPUS / "make_shapes.py"))
EVENTS: list[tuple[str, NVList]] = MAKER["recorded_events"]()


def values(nvlist: NVList) -> dict[str, Any]:
    """Return an event's pairs but for time and eid, as fill wants them."""
    return {
        name: values(value) if kind is Type.NVLIST else value
        for name, kind, value in nvlist.pairs()
        if name not in {"time", "eid"}
    }


def assert_fits(shape: Shape, nvlist: NVList) -> None:
    keys = iter(shape)
    for name, kind, value in nvlist.pairs():
        key = next(key for key in keys if key.name == name or not key.optional)
        assert (key.name, key.type) == (name, kind)
        if kind is Type.NVLIST:
            assert_fits(key.keys, value)
    assert all(key.optional for key in keys)


def test_the_shapes_file_is_what_its_script_makes() -> None:
    assert MAKER["SHAPES"].read_text("utf-8") == MAKER["shapes_text"]()


def test_every_recorded_event_fits_its_class_and_ends_with_time_and_eid() -> None:
    assert len(EVENTS) > 200
    for name, nvlist in EVENTS:
        pairs = list(nvlist.pairs())
        assert [key for key, _, _ in pairs[-2:]] == ["time", "eid"]
        assert_fits(shape_of(name), NVList.of(pairs[:-2]))


def test_a_recorded_events_values_filled_in_and_posted_give_its_bytes_again() -> None:
    now = [0]
    device = ZfsDevice(lambda: now[0])
    cursor = device.open()
    for line in (CORPUS / "zevents.jsonl").read_text("utf-8").splitlines()[1:]:
        native = base64.b64decode(json.loads(line)["native"])
        nvlist = decode(native)
        name = nvlist.get("class")
        seconds, nanoseconds = nvlist.get("time")
        now[0] = seconds * 1_000_000_000 + nanoseconds
        device._eid = nvlist.get("eid") - 1
        device.post(name, fill(name, shape_of(name), values(nvlist)))
        assert cursor.next(nonblock=True, size=1 << 16).packed == native


@pytest.mark.parametrize("name", sorted(recorded()))
def test_an_event_filled_with_nothing_fits_its_class(name: str) -> None:
    pairs = fill(name, shape_of(name), {})
    assert_fits(shape_of(name), NVList.of(pairs))


def test_what_isnt_given_follows_from_the_pools_name_and_the_vdevs_path() -> None:
    def made(given: Mapping[str, Any]) -> NVList:
        name = "ereport.fs.zfs.io"
        return NVList.of(fill(name, shape_of(name), given))

    event = made({"pool": "data", "vdev_path": "/dev/x"})
    assert event.get("pool_guid") == guid("data")
    assert event.get("vdev_guid") == guid("data", "/dev/x")
    assert event.get("detector").get("pool") == guid("data")
    assert event.get("detector").get("vdev") == guid("data", "/dev/x")
    event = made({"pool_guid": 7, "vdev_guid": 8, "detector": {"vdev": 9}})
    assert event.get("pool") == "tank"
    assert event.get("detector").get("pool") == 7
    assert event.get("detector").get("vdev") == 9


def test_guids_are_stable_never_0_and_above_what_a_json_number_holds() -> None:
    assert guid("tank") == guid("tank") != guid("tan", "k")
    assert 2**53 < guid("tank") < 2**64


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("ereport.fs.zfs.sitout", ["class", "ena", "detector", "pool", "pool_guid"]),
        ("sysevent.fs.zfs.errorscrub_start", ["version", "class", "pool", "pool_guid"]),
        ("resource.fs.zfs.autoreplace", ["version", "class", "pool", "pool_guid"]),
        ("other.thing", ["version", "class", "pool", "pool_guid"]),
    ],
)
def test_a_class_never_recorded_has_the_head_of_its_category(name: str, first: list[str]) -> None:
    pairs = fill(name, shape_of(name), {})
    assert [key for key, _, _ in pairs][: len(first)] == first
    assert NVList.of(pairs).get("class") == name


def test_keys_are_known_from_any_class_and_from_the_documentation() -> None:
    assert known_type("vdev_state") is Type.UINT64
    assert known_type("detector.version") is Type.UINT8
    assert known_type("by_kernel") is Type.BOOLEAN
    assert known_type("vdev_slow_io_n") is Type.UINT64
    assert known_type("nonsense") is None


def test_every_type_has_an_empty_value() -> None:
    shape = tuple(Key(kind.name, kind) for kind in Type)
    NVList.of(fill("a.b", shape, {}))


def test_orders_are_merged_so_that_each_is_kept_and_contradictions_are_refused() -> None:
    merged_order = MAKER["merged_order"]
    assert merged_order([["a", "c"], ["a", "b", "c"], ["c", "d"]]) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="before and after"):
        merged_order([["a", "b"], ["b", "a"]])
    with pytest.raises(ValueError, match="several types"):
        MAKER["shape"]([NVList.of([("n", kind, 1)]) for kind in (Type.UINT8, Type.UINT16)])
