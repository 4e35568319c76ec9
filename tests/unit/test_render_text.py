"""zpool's text: byte for byte what `zpool events -v` printed for the recorded events."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from zeventfs.event import Event
from zeventfs.names import bit_names, release
from zeventfs.nvlist import NVList, Type, decode
from zeventfs.render import Renderer
from zeventfs.zpool_text import Printer

CORPUS = Path(__file__).parents[1] / "corpus" / "zevents.jsonl"
RECORDED = [json.loads(line) for line in CORPUS.read_text().splitlines()[1:]]
PRINTED = [recorded for recorded in RECORDED if "text_v" in recorded]


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XYZ-2")  # two hours east of Greenwich, wherever tzdata is missing
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def text_of(*pairs: tuple[str, Type, Any], version: str | None = "2.1.11") -> str:
    payload = NVList.of(pairs)
    text = Renderer("e", version).text(payload, UTC)
    return text.decode(errors="surrogateescape").partition("\n")[2]


@pytest.mark.parametrize("recorded", PRINTED, ids=[r["id"] for r in PRINTED])
def test_a_recorded_event_is_printed_as_zpool_printed_it(recorded: dict[str, str]) -> None:
    payload = decode(base64.b64decode(recorded["native"]))
    assert Renderer("e", "2.1.11").text(payload, UTC) == recorded["text_v"].encode("latin-1")


def test_nearly_all_recorded_events_came_with_their_text() -> None:
    assert len(PRINTED) >= len(RECORDED) - 1


def test_the_time_is_that_of_the_zone() -> None:
    payload = Event.make("zfs", "c", 5_000_000_042).payload
    east = timezone(timedelta(hours=1))
    assert Renderer("e", None).text(payload, east).startswith(b"Jan  1 1970 01:00:05.000000042 c\n")


@pytest.mark.usefixtures("_berlin")
def test_the_time_is_local_unless_a_zone_is_given() -> None:
    payload = Event.make("zfs", "c", 0).payload
    assert Renderer("e", None).text(payload).startswith(b"Jan  1 1970 02:00:00.000000000 c\n")


def test_a_time_that_no_calendar_has_is_printed_as_its_second() -> None:
    payload = Event.make("zfs", "c", 2**62 * 10**9).payload
    assert Renderer("e", None).text(payload, UTC).startswith(b"@4611686018427387904.000000000 c\n")


def test_a_gap_is_the_line_that_zpool_has_for_it() -> None:
    gap = Event.make("zeventfs", "zeventfs.gap", 0, [("dropped", Type.UINT64, 12)])
    assert Renderer("e", None).text(gap.payload, UTC) == b"dropped 12 events\n"


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (
            [("class", Type.UINT8, 1), ("time", Type.INT64, 7)],
            b"Jan  1 1970 00:00:00.000000000 \n        class = 0x1\n        time = 0x7\n\n",
        ),
        (
            [("class", Type.STRING_ARRAY, ()), ("time", Type.INT64_ARRAY, (7,))],
            b"Jan  1 1970 00:00:00.000000000 \n        class = \n        time = 0x7 \n\n",
        ),
        (
            [("class", Type.STRING, "zeventfs.gap"), ("dropped", Type.STRING, "x")],
            b"dropped 0 events\n",
        ),
    ],
)
def test_what_is_of_a_type_that_no_event_has_is_not_there(
    pairs: list[tuple[str, Type, Any]], text: bytes
) -> None:
    assert Renderer("e", None).text(NVList.of(pairs), UTC) == text


def test_integers_are_the_hex_of_their_unsigned_image() -> None:
    assert text_of(
        ("a", Type.INT8, -1),
        ("b", Type.INT16, -1),
        ("c", Type.INT32, -1),
        ("d", Type.INT64, -1),
        ("e", Type.HRTIME, -1),
        ("f", Type.INT8_ARRAY, (-1, 1)),
        ("g", Type.INT16_ARRAY, (-1,)),
        ("h", Type.INT64_ARRAY, (-1,)),
        ("i", Type.BYTE, 255),
        ("j", Type.UINT8_ARRAY, (255, 0)),
    ).splitlines() == [
        "        a = 0xff",
        "        b = 0xffff",
        "        c = 0xffffffff",
        "        d = 0xffffffffffffffff",
        "        e = 0xffffffffffffffff",
        "        f = 0xffffffff 0x1 ",
        "        g = 0xffffffff ",
        "        h = 0xffffffffffffffff ",
        "        i = 0xff",
        "        j = 0xff 0x0 ",
        "",
    ]


def test_strings_are_printed_raw_and_what_zpool_does_not_know_as_unknown() -> None:
    assert text_of(
        ("s", Type.STRING, 'a"\\\udcff'),
        ("t", Type.STRING_ARRAY, ("a", "b")),
        ("u", Type.STRING_ARRAY, ()),
        ("v", Type.BOOLEAN, True),
        ("w", Type.BOOLEAN_VALUE, True),
        ("x", Type.BOOLEAN_VALUE, False),
        ("y", Type.BOOLEAN_ARRAY, (True,)),
        ("z", Type.BYTE_ARRAY, b"a"),
        ("d", Type.DOUBLE, 1.0),
    ).splitlines() == [
        '        s = "a"\\\udcff"',
        '        t = "a" "b" ',
        "        u = ",
        "        v = 1",
        "        w = 1",
        "        x = 0",
        "        y = <unknown>",
        "        z = <unknown>",
        "        d = <unknown>",
        "",
    ]


def test_embedded_lists_are_indented() -> None:
    inner = NVList.of([("a", Type.UINT8, 1)])
    assert text_of(
        ("one", Type.NVLIST, inner), ("two", Type.NVLIST_ARRAY, (inner, NVList.of([])))
    ).splitlines() == [
        "        one = (embedded nvlist)",
        "                a = 0x1",
        "        (end one)",
        "        two = (2 embedded nvlists)",
        "        two[0] = (embedded nvlist)",
        "                a = 0x1",
        "        (end two[0])",
        "        two[1] = (embedded nvlist)",
        "        (end two[1])",
        "        (end two)",
        "",
        "",
    ]


def test_vdev_states_are_in_zpools_words() -> None:
    assert text_of(
        ("vdev_state", Type.UINT64, 7),
        ("vdev_laststate", Type.UINT64, 1),
        ("vdev_state", Type.UINT64, 8),
        ("vdev_state", Type.UINT32, 7),
    ).splitlines() == [
        '        vdev_state = "ONLINE" (0x7)',
        '        vdev_laststate = "OFFLINE" (0x1)',
        '        vdev_state = "UNKNOWN" (0x8)',
        "        vdev_state = 0x7",
        "",
    ]


NAMED = [
    "0x100080 [CANFAIL DONT_QUEUE]",
    "0x2000000 [DIO_CHECKSUM_VERIFY]",
    "0x2 [ASYNC_READ]",
]


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        (None, ["0x100080", "0x2000000", "0x2", "0x1"]),
        ("2.2.4", ["0x100080", "0x2000000", "0x2", "0x1"]),
        (
            "2.3.2",
            [*NAMED, "0x1"],
        ),
        (
            "2.4.0",
            [*NAMED, "0x1 [READ]"],
        ),
    ],
)
def test_names_follow_numbers_from_2_3_on(version: str | None, lines: list[str]) -> None:
    text = text_of(
        ("zio_flags", Type.UINT64, 0x100080),
        ("zio_stage", Type.UINT32, 0x2000000),
        ("zio_priority", Type.UINT32, 2),
        ("zio_type", Type.UINT32, 1),
        version=version,
    )
    assert [line.partition(" = ")[2] for line in text.splitlines()] == [*lines, ""]


def test_names_are_for_unsigned_numbers_only() -> None:
    assert text_of(("zio_flags", Type.INT32, -1), version="2.3.0") == (
        "        zio_flags = 0xffffffff\n\n"
    )


def test_names_with_percent_signs_are_printed_as_they_are() -> None:
    assert text_of(("100%d", Type.UINT8, 1)) == "        100%d = 0x1\n\n"


def test_what_a_printer_remembers_is_bounded() -> None:
    printer = Printer(None)
    for number in range(300):
        printer.text(NVList.of([(f"n{number}", Type.UINT8, 1)]), UTC)
        printer.text(NVList.of([(f"n{number}", Type.UINT8, 1)]), UTC)
        assert len(printer._plans) <= 128
    printer._plans.clear()
    printer.text(NVList.of([("a", Type.UINT8_ARRAY, bytes(2000))]), UTC)
    assert not printer._plans


def test_bits_and_values_beyond_the_tables_have_no_name_in_text() -> None:
    assert text_of(
        ("zio_flags", Type.UINT64, 1 << 63), ("zio_priority", Type.UINT32, 99), version="2.3.0"
    ).splitlines() == [
        "        zio_flags = 0x8000000000000000 []",
        "        zio_priority = 0x63 []",
        "",
    ]


@pytest.mark.parametrize(
    ("version", "bit_of_dont_queue"),
    [
        ("0.8.6", 19),
        ("2.0.7", 19),
        ("2.1.11-1+deb12u1", 19),
        ("2.2", 19),
        ("2.2.9-1", 19),
        ("2.3.0-rc1", 20),
        ("2.4.4", 20),
    ],
)
def test_flags_are_named_by_release(version: str, bit_of_dont_queue: int) -> None:
    known = release(version)
    assert known is not None
    assert known.bits["zio_flags"].index("DONT_QUEUE") == bit_of_dont_queue
    assert known.bits["zio_flags"].index("SPECULATIVE") == 8
    assert known.bits["zio_stage"].index("READY") == 19 + (version >= "2.2")


@pytest.mark.parametrize(
    "version",
    [None, "", "2", "2.", "0.7.13", "2.3.99-120", "2.4.99", "2.5.0", "3.1", "99999.1", "x2.1", "-"],
)
def test_no_names_for_what_is_not_known(version: str | None) -> None:
    assert release(version) is None


def test_a_bit_without_a_name_is_given_in_hex() -> None:
    assert bit_names(("A", ""), 0b111) == ["A", "0x2", "0x4"]
    assert bit_names(("A",), 0) == []
