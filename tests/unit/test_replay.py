"""Recordings played through the device that the simulator has."""

import base64
import errno
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from zeventfs.errors import Invalid
from zeventfs.event import Event
from zeventfs.journal.journal import GAP, gap_event
from zeventfs.nvlist import Encoding, NVList, Type, decode, encode
from zeventfs.sources.device import Device, DeviceError
from zeventfs.sources.replay import MAX_LINE, MAX_PACKED, ReplayDevice, open_replay

CORPUS = Path(__file__).parents[1] / "corpus" / "zevents.jsonl"
RECORDED = [
    {key: base64.b64decode(line[key]) for key in ("native", "xdr")}
    for line in map(json.loads, CORPUS.read_text("utf-8").splitlines()[1:])
]


def packed(eid: int) -> bytes:
    return encode(NVList.of([("eid", Type.UINT64, eid)]))


def prefixed(events: Iterable[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(4, "little") + each for each in events)


def line(native: bytes) -> bytes:
    return json.dumps({"native": base64.b64encode(native).decode()}).encode() + b"\n"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return tmp_path / "recording"


def refused(path: Path) -> str:
    with pytest.raises(Invalid) as info:
        list(open_replay(path))
    return str(info.value)


def test_the_corpuss_json_lines_are_given_byte_for_byte() -> None:
    assert list(open_replay(CORPUS)) == [each["native"] for each in RECORDED]


def test_length_prefixed_nvlists_are_given_byte_for_byte(recording: Path) -> None:
    recording.write_bytes(prefixed(each["native"] for each in RECORDED))
    assert list(open_replay(recording)) == [each["native"] for each in RECORDED]


def test_what_zeventfs_itself_told_is_passed_over(recording: Path) -> None:
    event = Event.make("zfs", "zeventfs-like", 2, eid=3).packed
    own = [
        gap_event(2, 1, 2, "evicted", 0).packed,
        Event.make("zfs", GAP, 1, [("dropped", Type.UINT64, 1)]).packed,
        Event.make("zeventfs", "zeventfs.source.end", 1).packed,
        encode(decode(gap_event(2, 1, 2, "evicted", 0).packed), Encoding.XDR),
    ]
    recording.write_bytes(prefixed([*own, event]))
    assert list(open_replay(recording)) == [event]
    recording.write_bytes(b"".join(line(each) for each in [event, *own]))
    assert list(open_replay(recording)) == [event]


def test_xdr_is_packed_anew_as_the_kernel_has_it(recording: Path) -> None:
    recording.write_bytes(prefixed(each["xdr"] for each in RECORDED))
    assert list(open_replay(recording)) == [each["native"] for each in RECORDED]
    recording.write_bytes(b"".join(line(each["xdr"]) for each in RECORDED))
    assert list(open_replay(recording)) == [each["native"] for each in RECORDED]


def test_an_event_whose_length_begins_like_a_json_object_is_still_an_event(recording: Path) -> None:
    text = "x" * 315
    event = encode(NVList.of([("t", Type.STRING, text)]))
    recording.write_bytes(prefixed([event.ljust(379, b"\0")]))
    assert recording.read_bytes()[:1] == b"{"
    assert len(next(open_replay(recording))) == 379


@pytest.mark.parametrize("written", [b"", b"\n", b"{}\n", b"{}", b'{}\n\n \n{"zfs":"2"}\n{}'])
def test_a_recording_may_have_no_events(recording: Path, written: bytes) -> None:
    recording.write_bytes(written)
    assert list(open_replay(recording)) == []


def test_short_lines_at_the_start_are_told_apart(recording: Path) -> None:
    recording.write_bytes(b"{}\n" + line(packed(1)))
    assert list(open_replay(recording)) == [packed(1)]


def test_a_last_line_may_lack_its_end(recording: Path) -> None:
    recording.write_bytes(line(packed(1)) + line(packed(2)).rstrip())
    assert list(open_replay(recording)) == [packed(1), packed(2)]


def test_a_recording_may_be_a_pipe_and_is_read_as_it_comes(recording: Path) -> None:
    os.mkfifo(recording)
    written = [packed(1), packed(2)]
    writer = threading.Thread(target=recording.write_bytes, args=(prefixed(written),))
    writer.start()
    assert list(open_replay(recording)) == written
    writer.join()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (line(packed(1)) + b"nonsense", "Line 2 isn't JSON: "),
        (b"{}\n[1]", "Line 2 isn't an object."),
        (b"{}\n" + b"[" * 100_000, "Line 2 isn't JSON: "),
        (b'{"native": "?"}', "Line 1: native isn't base64: "),
        (b'{"native": 5}', "Line 1: native isn't base64: "),
        (b'{"native": "\xc3\xa9"}', "Line 1: native isn't base64: "),
        (b'{"native": "AQ=="}', "Line 1 has no nvlist: "),
        (b'{"native": ""}', "Line 1 has no nvlist: "),
        (b"{}\n" + b"x" * (MAX_LINE + 1), f"Line 2 is longer than {MAX_LINE} bytes."),
        (prefixed([packed(1), b"\1"]), "Offset 52 has no nvlist: "),
        (prefixed([packed(1)])[:-1], "Offset 0 begins an event of 48 bytes, 47 follow."),
        (prefixed([packed(1)]) + b"\1\2", "Offset 52 has no length of an event, but 0102."),
        (
            prefixed([packed(1)]) + (MAX_PACKED + 1).to_bytes(4, "little"),
            "Offset 52 has no length of an event, but 01001000.",
        ),
        (b"\xff\xff\xff\xff", "Line 1 isn't JSON: "),
    ],
)
def test_a_bad_recording_is_invalid_by_line_or_offset(
    recording: Path, written: bytes, said: str
) -> None:
    recording.write_bytes(written)
    assert refused(recording).startswith(said)


def test_what_comes_before_the_bad_place_is_given(recording: Path) -> None:
    recording.write_bytes(line(packed(1)) + b"nonsense")
    assert next(open_replay(recording)) == packed(1)


def test_a_missing_recording_is_oserror(recording: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(open_replay(recording))


def test_the_device_plays_the_recording_to_its_subscribers_and_says_how_long_to_pause() -> None:
    device = ReplayDevice(CORPUS, rate=4)
    drained: list[bytes] = []
    protocol: Device = device
    cursor = protocol.open()
    device.subscribe(lambda: drained.append(cursor.next(nonblock=True, size=1 << 16).packed))
    assert set(device.play()) == {0.25}
    assert drained == [each["native"] for each in RECORDED]


def test_rate_0_pauses_for_nothing() -> None:
    assert set(ReplayDevice(CORPUS).play()) == {0.0}


def test_seek_finds_a_recorded_eid_where_eids_jump_and_begin_again() -> None:
    device = ReplayDevice(CORPUS, len_max=4)
    for eid in (9, 700, 5, 6, 5, 8):
        device.feed(packed(eid))
    cursor = device.open()
    cursor.seek(5)
    assert decode(cursor.next(nonblock=True, size=100).packed).get("eid") == 6
    with pytest.raises(DeviceError) as info:
        cursor.seek(9)
    assert info.value.errno == errno.ENOENT


def test_seek_passes_over_what_cant_be_decoded() -> None:
    device = ReplayDevice(CORPUS)
    device.feed(b"\0 no nvlist")
    device.feed(packed(2))
    cursor = device.open()
    cursor.seek(2)
    with pytest.raises(DeviceError):
        cursor.next(nonblock=True, size=100)


def test_repacking_keeps_values(recording: Path) -> None:
    nvlist = NVList.of([("n", Type.UINT64, 7)])
    recording.write_bytes(prefixed([encode(nvlist, Encoding.XDR)]))
    assert [decode(each) for each in open_replay(recording)] == [nvlist]
