"""Lines written to simulator/inject: what they become, and what is said of those that can't."""

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.errors import Invalid
from zeventfs.event import Event
from zeventfs.nvlist import NVList, Type
from zeventfs.render import Renderer
from zeventfs.simulator.inject import MAX_BYTES, parse
from zeventfs.simulator.shapes import fill, guid, recorded, shape_of
from zeventfs.simulator.zfs import Pair, ZfsDevice

CORPUS = Path(__file__).parents[1] / "corpus" / "zevents.jsonl"


def event(name: str = "sysevent.fs.zfs.config_sync", **payload: Any) -> list[Pair]:
    """Return the pairs of an injected event, checked to be one that can be posted."""
    ((parsed, pairs),) = parse(json.dumps({"class": name, "payload": payload}).encode())
    assert parsed == name
    assert ZfsDevice(lambda: 0).post(name, pairs) == 1
    return pairs


def own(**payload: Any) -> list[Pair]:
    """Return the pairs that are no part of the class's head."""
    return event(**payload)[6:]


def reason(written: bytes | dict[str, Any]) -> str:
    with pytest.raises(Invalid) as info:
        parse(written if isinstance(written, bytes) else json.dumps(written).encode())
    return str(info.value)


def refusal(**payload: Any) -> str:
    return reason({"class": "a.b", "payload": payload}).removeprefix("Line 1: ")


def test_a_class_alone_is_an_event_of_pool_tank() -> None:
    assert parse(b'{"class":"ereport.fs.zfs.io"}') == [
        ("ereport.fs.zfs.io", fill("ereport.fs.zfs.io", shape_of("ereport.fs.zfs.io"), {}))
    ]


def test_pool_and_payload_override_the_likely_values_in_the_classs_order() -> None:
    injected = event("ereport.fs.zfs.io", zio_priority=2, pool="data", zio_err=6)
    pairs = {name: value for name, _, value in injected}
    assert list(pairs) == [key for key, _, _ in event("ereport.fs.zfs.io")]
    assert (pairs["zio_err"], pairs["zio_priority"], pairs["pool"]) == (6, 2, "data")
    assert pairs["vdev_guid"] == guid("data", "/dev/sda1")


def test_an_optional_key_comes_in_its_place_when_given() -> None:
    names = [name for name, _, _ in event("ereport.fs.zfs.io", vdev_devid="x", vdev_path="/dev/q")]
    assert names[names.index("vdev_path") + 1] == "vdev_devid"


def test_lines_are_events_in_order_and_blank_ones_are_none() -> None:
    written = b'{"class":"a.b"}\n\n \r\n{"class":"c.d","pool":"p"}\n'
    assert [name for name, _ in parse(written)] == ["a.b", "c.d"]
    assert parse(b"") == []


def test_keys_unknown_to_the_class_go_after_it_with_the_type_that_any_class_gives_them() -> None:
    assert own(vdev_state="0x6", zio_err=-1, by_kernel=True, vdev_spare_paths=[]) == [
        ("vdev_state", Type.UINT64, 6),
        ("zio_err", Type.INT32, -1),
        ("by_kernel", Type.BOOLEAN, True),
        ("vdev_spare_paths", Type.STRING_ARRAY, ()),
    ]


def test_a_boolean_without_a_value_that_is_false_is_left_out() -> None:
    assert own(by_kernel=False) == []


def test_keys_unknown_to_all_classes_have_the_type_of_their_values_kind() -> None:
    inner = NVList.of([("a", Type.UINT64, 1), ("b", Type.NVLIST, NVList.of([]))])
    listed = {"a": 1, "b": {}}
    assert own(
        n=2**64 - 1, s="1", b=False, o=listed, ns=[1, 2], ss=["x"], bs=[True], os=[listed], e=[]
    ) == [
        ("n", Type.UINT64, 2**64 - 1),
        ("s", Type.STRING, "1"),
        ("b", Type.BOOLEAN_VALUE, False),
        ("o", Type.NVLIST, inner),
        ("ns", Type.UINT64_ARRAY, (1, 2)),
        ("ss", Type.STRING_ARRAY, ("x",)),
        ("bs", Type.BOOLEAN_ARRAY, (True,)),
        ("os", Type.NVLIST_ARRAY, (inner,)),
        ("e", Type.UINT64_ARRAY, ()),
    ]


def test_unknown_guids_may_be_strings_as_rendered_lines_have_them() -> None:
    assert own(x_guid="18446744073709551615", x_guids=["1", "0x2", 3]) == [
        ("x_guid", Type.UINT64, 2**64 - 1),
        ("x_guids", Type.UINT64_ARRAY, (1, 2, 3)),
    ]


def test_an_unknown_key_within_the_detector_goes_to_its_end() -> None:
    pairs = event("ereport.fs.zfs.io", detector={"more": 1, "vdev": "5"})
    (detector,) = [value for name, _, value in pairs if name == "detector"]
    assert [name for name, _, _ in detector.pairs()] == [
        "version",
        "scheme",
        "pool",
        "vdev",
        "more",
    ]
    assert (detector.get("vdev"), detector.get("more")) == (5, 1)


def test_keys_in_words_that_rendering_added_are_ignored() -> None:
    assert own(
        vdev_state=7,
        vdev_state_name="ONLINE",
        zio_flags=1,
        zio_flags_names=["A"],
        speculative=False,
    ) == [("vdev_state", Type.UINT64, 7), ("zio_flags", Type.INT32, 1)]


def test_what_only_looks_like_words_for_another_key_is_kept() -> None:
    assert own(last_name="x", foo=1, foos=2, speculative=True, history_internal_name="set") == [
        ("last_name", Type.STRING, "x"),
        ("foo", Type.UINT64, 1),
        ("foos", Type.UINT64, 2),
        ("speculative", Type.BOOLEAN_VALUE, True),
        ("history_internal_name", Type.STRING, "set"),
    ]


def test_a_lines_old_seq_epoch_source_eid_and_time_are_ignored() -> None:
    line = {
        "seq": 1,
        "epoch": "e",
        "source": "zfs",
        "class": "a.b",
        "eid": 4,
        "time": "2026",
        "pool": "tank",
        "payload": {"class": "a.b", "pool": "tank", "time": [1, 2], "eid": 4},
    }
    assert parse(json.dumps(line).encode()) == parse(b'{"class":"a.b"}')


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"{}\nnonsense", "Line 1: class must be a name like ereport.fs.zfs.io, not null."),
        (b'{"class":"a.b"}\n{', "Line 2: Input data was truncated."),
        (b"\xff", "Line 1: JSON is malformed: invalid character (byte 0)."),
        (
            b'{"class":"a\xff"}',
            "Line 1: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte.",
        ),
        (b"[1]", "Line 1: it must be an object, not [1]."),
        (b"[" * 100_000, "Line 1: it is nested too deeply."),
        (b'{"class":1}', "Line 1: class must be a name like ereport.fs.zfs.io, not 1."),
        (b'{"class":"No.Class"}', "Line 1: class must be a name like"),
        (b'{"class":"zeventfs.gap"}', 'Line 1: "zeventfs.gap" is an event of zeventfs itself'),
        (b'{"class":"a.b","payload":[]}', "Line 1: payload must be an object, not []."),
        (b'{"class":"a.b","vdev":1}', 'Line 1: "vdev" is no key of an event; should it be in'),
        (b'{"class":"a.b","pool":7}', 'Line 1: "pool" must be a string, not 7.'),
        (
            b'{"class":"a.b","pool":"p","payload":{"pool":"q"}}',
            'Line 1: pool is "p" and, in the payload, "q".',
        ),
        (b" " * (MAX_BYTES + 1), "A write of 1048577 bytes is too long"),
    ],
)
def test_what_cant_be_understood_is_invalid_by_line_and_reason(written: bytes, said: str) -> None:
    assert reason(written).startswith(said)


def test_values_that_a_key_cant_have_are_named() -> None:
    assert refusal(n=1.5) == '"n" can\'t be 1.5: no event holds such a value.'
    assert refusal(n=None).startswith('"n" can\'t be null')
    assert refusal(n=[[1]]).startswith('"n" can\'t be [1]')
    assert refusal(n=-1) == '"n" can\'t be -1: its type is UINT64.'
    assert refusal(n=2**64).startswith('"n" can\'t be 18446744073709551616')
    assert refusal(n=10**100).endswith("...: its type is UINT64.")
    assert refusal(n=[1, "x"]) == '"n" has elements of several kinds.'
    assert refusal(zio_err=2**31).endswith("its type is INT32.")
    assert refusal(zio_err="5") == '"zio_err" must be an integer, not "5".'
    assert refusal(vdev_state=True).endswith("its type is UINT64.")
    assert refusal(vdev_state="7x").endswith('must be an integer, not "7x".')
    assert refusal(vdev_path=5) == '"vdev_path" must be a string, not 5.'
    assert refusal(by_kernel=1) == '"by_kernel" must be true or false, not 1.'
    assert refusal(detector=5) == '"detector" must be an object, not 5.'
    assert refusal(detector={"pool": "x"}).startswith('"detector.pool" must be an integer')
    assert refusal(vdev_spare_guids=5) == '"vdev_spare_guids" must be an array, not 5.'
    assert refusal(os=[{"n": -1}]).startswith('"os.n" can\'t be -1')
    assert refusal(vdev_path="a\0b") == '"vdev_path" can\'t have a character 0 in it.'
    assert refusal(vdev_path="a\\x00b") == '"vdev_path" can\'t have a character 0 in it.'
    assert refusal(**{"a\0b": 1}) == '"a\\u0000b" can\'t be the name of a key.'
    assert refusal(**{"a" * 256: 1}) == f"\"{'a' * 56}... can't be the name of a key."
    assert len(refusal(**{"a" * 255: "x" * 40_000 + "\0"})) < 200
    assert refusal(**{"": 1}) == '"" can\'t be the name of a key.'


def test_bytes_that_are_no_utf8_are_written_as_rendered_lines_write_them() -> None:
    assert own(s="\\xff\\x5cx41 \\xFF é") == [("s", Type.STRING, "\udcff\\x41 \\xFF é")]


def test_every_recorded_events_rendered_line_can_be_injected_again() -> None:
    renderer = Renderer("epoch", "2.1.11")
    for line in CORPUS.read_text("utf-8").splitlines()[1:]:
        recorded_event = Event.from_packed("zfs", base64.b64decode(json.loads(line)["native"]))
        ((name, pairs),) = parse(renderer.json_line(recorded_event, 1))
        assert name == recorded_event.name
        assert pairs == list(recorded_event.payload.pairs())[:-2]


@pytest.mark.parametrize("inner", ["{}", "[{}]"])
def test_lists_are_nested_20_deep_at_most(inner: str) -> None:
    def line(depth: int) -> bytes:
        nested = inner
        for _ in range(depth):
            nested = f'{{"a":{nested}}}'
        return f'{{"class":"a.b","payload":{nested}}}'.encode()

    parse(line(19))
    assert "is nested more than 20 deep." in reason(line(20))


def test_deep_arrays_are_refused_too() -> None:
    for depth in (100, 700, 900, 1000, 5000):
        reason(b'{"class":"a.b","payload":{"a":' + b"[" * depth + b"]" * depth + b"}}")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["7", "0x7", "-1", "99999999999999999999"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)
keys = st.sampled_from(
    [
        "vdev_state",
        "vdev_state_name",
        "detector",
        "by_kernel",
        "zio_err",
        "x_guid",
        "x_guids",
        "pool",
        "class",
        "time",
    ]
) | st.text(max_size=3)
lines = st.fixed_dictionaries(
    {"class": st.sampled_from([*recorded(), "a.b"]), "payload": st.dictionaries(keys, values)},
    optional={"pool": values, "seq": values},
)


@given(st.lists(lines | values, max_size=3))
@settings(deadline=None, max_examples=150)
def test_any_json_is_events_that_can_be_posted_or_invalid(written: list[Any]) -> None:
    try:
        events = parse("\n".join(map(json.dumps, written)).encode())
    except Invalid:
        return
    device = ZfsDevice(lambda: 0)
    for name, pairs in events:
        device.post(name, pairs)
        assert device.eid


@given(st.binary() | st.text(alphabet='{}[]":,\\u0d8\ne1').map(str.encode))
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_events_or_invalid(written: bytes) -> None:
    with contextlib.suppress(Invalid):
        parse(written)
