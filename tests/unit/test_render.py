"""JSON lines: always one valid line, a key's kind fixed by its name, numbers in words too."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.event import Event
from zeventfs.nvlist import NVList, Type
from zeventfs.render import Renderer

CORPUS = Path(__file__).parents[1] / "corpus" / "zevents.jsonl"
RECORDED = [json.loads(line) for line in CORPUS.read_text().splitlines()[1:]]
NATIVE = [base64.b64decode(recorded["native"]) for recorded in RECORDED]


def line_of(
    *pairs: tuple[str, Type, Any], version: str | None = "2.1.11", seq: int | None = 1
) -> dict[str, Any]:
    event = Event.make("zfs", "c", 0, pairs, eid=5)
    line = Renderer("e", version).json_line(event, seq)
    assert line.endswith(b"}\n")
    assert len(line.decode().splitlines()) == 1
    parsed: dict[str, Any] = json.loads(line)
    assert parsed == msgspec.json.decode(line)
    return parsed


def payload_of(*pairs: tuple[str, Type, Any], version: str | None = "2.1.11") -> dict[str, Any]:
    payload: dict[str, Any] = line_of(*pairs, version=version)["payload"]
    return {key: value for key, value in payload.items() if key not in ("class", "time", "eid")}


def test_a_line_has_the_order_and_the_form_of_the_contract() -> None:
    event = Event.make(
        "zfs",
        "ereport.fs.zfs.io",
        1795231970_123456789,
        [("ena", Type.UINT64, 7), ("pool", Type.STRING, "tank")],
        eid=42,
    )
    assert Renderer("life", None).json_line(event, 1287) == (
        b'{"seq":1287,"epoch":"life","source":"zfs","class":"ereport.fs.zfs.io","eid":42,'
        b'"time":"2026-11-21T03:32:50.123456789Z","pool":"tank","payload":{'
        b'"class":"ereport.fs.zfs.io","ena":"7","pool":"tank",'
        b'"time":[1795231970,123456789],"eid":42}}\n'
    )


def test_what_is_not_there_is_left_out() -> None:
    line = Renderer("e", None).json_line(Event.make("dm", "dm.change", 1), 3)
    assert line == (
        b'{"seq":3,"epoch":"e","source":"dm","class":"dm.change",'
        b'"time":"1970-01-01T00:00:00.000000001Z","payload":{"class":"dm.change","time":[0,1]}}\n'
    )


def test_a_readers_own_gap_has_neither_seq_nor_eid() -> None:
    renderer = Renderer("e", None)
    event = Event.make("zeventfs", "zeventfs.gap", 0, [("dropped", Type.UINT64, 3)], eid=9)
    for _ in range(2):
        assert list(json.loads(renderer.json_line(event, None))) == [
            *("epoch", "source", "class", "time", "payload")
        ]
        assert json.loads(renderer.json_line(event, 4))["seq"] == 4


def test_every_recorded_event_is_one_line_with_all_its_pairs() -> None:
    renderer = Renderer("e", "2.1.11")
    for seq, packed in enumerate(NATIVE):
        event = Event.from_packed("zfs", packed)
        line = renderer.json_line(event, seq)
        assert line.count(b"\n") == 1
        parsed = msgspec.json.decode(line)
        assert (parsed["seq"], parsed["eid"], parsed["class"]) == (seq, event.eid, event.name)
        payload = parsed["payload"]
        names = [name for name, _, _ in event.payload.pairs()]
        assert [key for key in payload if key in names] == names
        assert len(names) == len(set(names))
        for name, _, value in event.payload.pairs():
            if isinstance(value, NVList):
                assert list(payload[name]) == [inner for inner, _, _ in value.pairs()]
            elif isinstance(value, tuple):
                assert [str(one) for one in value] == [str(one) for one in payload[name]]
            elif isinstance(value, str):
                raw = value.encode(errors="surrogateescape")
                assert raw.decode(errors="backslashreplace") == payload[name]
            else:
                assert str(value) == str(payload[name])


def test_a_recorded_statechange_says_its_states_in_words() -> None:
    packed = next(NATIVE[i] for i, r in enumerate(RECORDED) if r["class"].endswith("statechange"))
    payload = json.loads(Renderer("e", None).json_line(Event.from_packed("zfs", packed), 1))[
        "payload"
    ]
    keys = list(payload)
    assert keys[keys.index("vdev_state") + 1] == "vdev_state_name"
    assert (payload["vdev_state"], payload["vdev_state_name"]) == (2, "OFFLINE")
    assert (payload["vdev_laststate"], payload["vdev_laststate_name"]) == (7, "ONLINE")
    assert (payload["pool_state_name"], payload["pool_context_name"]) == ("ACTIVE", "NONE")


def test_each_type_has_its_json_form() -> None:
    inner = NVList.of([("pool", Type.UINT64, 7), ("version", Type.UINT8, 0)])
    assert payload_of(
        ("boolean", Type.BOOLEAN, True),
        ("yes", Type.BOOLEAN_VALUE, True),
        ("no", Type.BOOLEAN_VALUE, False),
        ("byte", Type.BYTE, 255),
        ("int8", Type.INT8, -1),
        ("uint32", Type.UINT32, 2**32 - 1),
        ("int64", Type.INT64, -1),
        ("uint64", Type.UINT64, 0),
        ("hrtime", Type.HRTIME, 5),
        ("double", Type.DOUBLE, 1e300),
        ("minus", Type.DOUBLE, -0.0),
        ("nan", Type.DOUBLE, float("nan")),
        ("inf", Type.DOUBLE, float("inf")),
        ("bytes", Type.BYTE_ARRAY, b"\x00\xff"),
        ("booleans", Type.BOOLEAN_ARRAY, (True, False)),
        ("int16s", Type.INT16_ARRAY, (-1, 1)),
        ("uint64s", Type.UINT64_ARRAY, (2**64 - 1, 0)),
        ("none", Type.UINT64_ARRAY, ()),
        ("strings", Type.STRING_ARRAY, ("a", "")),
        ("list", Type.NVLIST, inner),
        ("lists", Type.NVLIST_ARRAY, (inner, NVList.of([]))),
    ) == {
        "boolean": True,
        "yes": True,
        "no": False,
        "byte": 255,
        "int8": -1,
        "uint32": 2**32 - 1,
        "int64": "-1",
        "uint64": "0",
        "hrtime": "5",
        "double": 1e300,
        "minus": 0.0,
        "nan": None,
        "inf": None,
        "bytes": [0, 255],
        "booleans": [True, False],
        "int16s": [-1, 1],
        "uint64s": ["18446744073709551615", "0"],
        "none": [],
        "strings": ["a", ""],
        "list": {"pool": "7", "version": 0},
        "lists": [{"pool": "7", "version": 0}, {}],
    }


@pytest.mark.parametrize("value", [0, 1, 2**53, 2**64 - 1])
def test_the_kind_of_a_64_bit_key_does_not_depend_on_its_value(value: int) -> None:
    assert payload_of(
        ("zio_size", Type.UINT64, value),
        ("zio_blkid", Type.UINT64, value),
        ("vdev_guid", Type.UINT64, value),
        ("unheard_of", Type.UINT64, value),
    ) == {
        "zio_size": value,
        "zio_blkid": str(value),
        "vdev_guid": str(value),
        "unheard_of": str(value),
    }


def test_a_key_may_hold_anything() -> None:
    assert payload_of(
        ("100%d", Type.UINT8, 1), ('q"\\\n', Type.STRING, "%s"), ("\udcff", Type.UINT64, 2)
    ) == {"100%d": 1, 'q"\\\n': "%s", "\\xff": "2"}


def test_flags_have_names_of_the_version_that_runs() -> None:
    flags = ("zio_flags", Type.INT32, 0x180880 | 0x100)
    assert payload_of(flags) == {
        "zio_flags": 0x180980,
        "zio_flags_names": ["CANFAIL", "SPECULATIVE", "DONT_CACHE", "DONT_QUEUE", "DONT_PROPAGATE"],
        "speculative": True,
    }
    assert payload_of(("zio_flags", Type.UINT64, 1 << 20 | 1 << 40), version="2.3.2") == {
        "zio_flags": 1 << 20 | 1 << 40,
        "zio_flags_names": ["DONT_QUEUE", "0x10000000000"],
        "speculative": False,
    }
    assert payload_of(flags, version=None) == {"zio_flags": 0x180980}


def test_a_negative_flag_word_is_named_by_its_bits() -> None:
    assert payload_of(("zio_flags", Type.INT32, -(2**31))) == {
        "zio_flags": -(2**31),
        "zio_flags_names": ["FASTWRITE"],
        "speculative": False,
    }


def test_stages_and_priorities_have_names() -> None:
    assert payload_of(
        ("zio_stage", Type.UINT32, 0x800000),
        ("zio_pipeline", Type.UINT32, 0x1F00000),
        ("zio_priority", Type.UINT32, 4),
        ("vdev_state", Type.UINT64, 99),
    ) == {
        "zio_stage": 0x800000,
        "zio_stage_names": ["CHECKSUM_VERIFY"],
        "zio_pipeline": 0x1F00000,
        "zio_pipeline_names": [
            *("VDEV_IO_START", "VDEV_IO_DONE", "VDEV_IO_ASSESS", "CHECKSUM_VERIFY", "DONE")
        ],
        "zio_priority": 4,
        "zio_priority_name": "SCRUB",
        "vdev_state": 99,
        "vdev_state_name": None,
    }


def test_an_array_or_a_string_of_a_known_key_is_left_as_it_is() -> None:
    assert payload_of(
        ("vdev_state", Type.UINT64_ARRAY, (7,)), ("zio_flags", Type.STRING, "none")
    ) == {"vdev_state": [7], "zio_flags": "none"}


def test_a_time_outside_the_calendar_is_the_nearest_within() -> None:
    renderer = Renderer("e", None)
    for time_ns, text in (
        (-(10**9) * 2**62, "0001-01-01T00:00:00.000000000Z"),
        (10**9 * 2**62, "9999-12-31T23:59:59.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ):
        assert json.loads(renderer.json_line(Event.make("a", "c", time_ns), 1))["time"] == text


def text_of(raw: bytes) -> str:
    text: str = payload_of(("s", Type.STRING, raw.decode(errors="surrogateescape")))["s"]
    return text


def test_bytes_that_are_no_text_are_escaped_and_stay_distinct() -> None:
    assert text_of("größe 🙂".encode()) == "größe 🙂"
    assert text_of(b"a\xff\x80z") == r"a\xff\x80z"
    assert text_of(rb"a\xff") == r"a\x5cxff"
    assert text_of(rb"C:\temp \xFF") == r"C:\temp \xFF"
    assert text_of(b"\xed\xa0\x80") == r"\xed\xa0\x80"  # a surrogate in UTF-8 is no UTF-8


@settings(deadline=None)
@given(st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"\\x")))
def test_the_bytes_of_any_string_can_be_had_back(raw: bytes) -> None:
    text = text_of(raw).encode()
    unescaped = re.sub(rb"\\x([0-9a-f]{2})", lambda escape: bytes.fromhex(escape[1].decode()), text)
    assert unescaped == raw


def test_what_some_take_for_a_line_end_does_not_occur() -> None:
    odd = "".join(map(chr, [*range(1, 32), *range(0x7F, 0xA1), 0x2028, 0x2029]))
    assert text_of(odd.encode()) == odd


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(
    st.lists(
        st.tuples(TEXTS, st.just(Type.STRING), st.binary(max_size=12))
        | st.tuples(
            st.sampled_from(["vdev_state", "zio_flags", "eid", "%", "x"]),
            st.just(Type.UINT64),
            st.integers(0, 2**64 - 1),
        )
        | st.tuples(TEXTS, st.just(Type.DOUBLE), st.floats()),
        max_size=6,
    ),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([None, "2.1.11", "2.2.4", "2.3.1", "2.4.0"]),
)
@settings(deadline=None)
def test_any_event_is_one_valid_line(
    pairs: list[tuple[str, Type, Any]], second: int, version: str | None
) -> None:
    texts = [
        (name, kind, value.replace(b"\0", b"").decode(errors="surrogateescape"))
        if isinstance(value, bytes)
        else (name, kind, value)
        for name, kind, value in pairs
    ]
    line = Renderer("e%d", version).json_line(Event.make("%s", "c%", second * 10**9, texts), 1)
    assert line.count(b"\n") == 1
    assert json.loads(line) == msgspec.json.decode(line)


def test_what_a_renderer_remembers_is_bounded() -> None:
    renderer = Renderer("e", None)
    for number in range(300):
        pairs = [(f"n{number}", Type.STRING_ARRAY, [f"{number} {i}" for i in range(8)])]
        renderer.json_line(Event.make("a", "c", number * 10**9, pairs), 1)
        assert len(renderer._plans) <= 128
        assert len(renderer._texts) <= 2048
    texts = len(renderer._texts)
    renderer.json_line(Event.make("a", "c", 0, [("s", Type.STRING, "l" * 257)]), 1)
    assert len(renderer._texts) == texts
    plans = len(renderer._plans)
    renderer.json_line(Event.make("a", "c", 0, [("a", Type.UINT8_ARRAY, bytes(2000))]), 1)
    assert len(renderer._plans) == plans
