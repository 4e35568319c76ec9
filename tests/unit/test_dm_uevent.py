"""Datagrams of the kernel, and what is none."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from dm_facts import datagram, path_uevent, uevent
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.dm.uevent import LONGEST, PathAction, Uevent, parse
from zeventfs.errors import Malformed

CORPUS = Path(__file__).parents[1] / "corpus" / "dm"
RECORDED = [
    entry["raw"].encode()
    for entry in map(json.loads, (CORPUS / "uevents.raw.jsonl").read_text().splitlines())
    if "raw" in entry
]
WHOLE = datagram("change", 3, 7, DM_COOKIE=5, DISKSEQ=9)


def test_a_mapped_device_is_told_with_its_number_and_its_disk() -> None:
    assert parse(WHOLE) == Uevent(
        "change", "/devices/virtual/block/dm-3", 7, "253:3", diskseq=9, cookie=True
    )
    assert uevent("change", 3, 7, SYNTH_UUID=0).synthetic
    assert uevent("change", 3, 7, DISK_RO=1).read_only
    assert not uevent("change", 3, 7, DISK_RO=0).read_only
    assert uevent("add", 3, 7).diskseq is None


def test_a_path_is_told_with_its_count_and_those_left() -> None:
    assert path_uevent("FAILED", "7:1", 4, 1, 7).path == PathAction(
        failed=True, number=4, path="7:1", valid_paths=1, name="mp", uuid="uuid-mp"
    )
    reinstated = path_uevent("REINSTATED", "7:1", 5, 2, 8).path
    assert reinstated is not None
    assert not reinstated.failed
    assert uevent("change", 3, 7, DM_ACTION="SOMETHING_NEW").path is None


def test_of_other_devices_only_the_number_is_of_interest() -> None:
    assert parse(b"add@/devices/x\0ACTION=add\0SEQNUM=12\0MAJOR=nonsense\0") == Uevent(
        "add", "/devices/x", 12
    )
    assert parse(b"change@/devices/virtual/block/dm-1/q\0SEQNUM=1\0").dev is None


def test_names_are_as_they_are_byte_for_byte() -> None:
    path = path_uevent("FAILED", "7:1", 1, 1, 7, DM_NAME="\udcff\n=x").path
    assert path is not None
    assert path.name == "\udcff\n=x"


def test_all_recorded_datagrams_are_uevents() -> None:
    uevents = [parse(raw) for raw in RECORDED]
    assert [each.seqnum for each in uevents] == sorted(each.seqnum for each in uevents)
    assert sum(each.path is not None for each in uevents) == 13
    assert sum(each.cookie for each in uevents) == 30
    assert {each.dev for each in uevents} == {None, *[f"253:{minor}" for minor in range(16)]}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "without its end"),
        (b"libudev\0\xfe\xed\xca\xfe\0", "udev's"),
        (WHOLE[:-1], "without its end"),
        (WHOLE[:-3], "without its end"),
        (WHOLE.partition(b"\0")[2], "begins with"),
        (b"change\0", "begins with"),
        (b"x" * LONGEST + b"\0", "of 8193 bytes"),
        (b"add@/devices/x\0ACTION=add\0", "without a SEQNUM"),
        (b"add@/devices/x\0SEQNUM=-1\0", "without a SEQNUM"),
        (b"add@/devices/x\0SEQNUM=18446744073709551616\0", "below 2\\^64"),
        (WHOLE.replace(b"SEQNUM=7", b"SEQNUM="), "SEQNUM is no number"),
        (WHOLE.replace(b"SEQNUM=7", b"SEQNUM=\xd9\xa3"), "SEQNUM is no number"),
        (WHOLE.replace(b"SEQNUM=7", b"SEQNUM=99999999999999999999"), "SEQNUM is no number"),
        (WHOLE.replace(b"MINOR=3", b"MINOR= 3"), "MINOR is no number"),
        (WHOLE.replace(b"MAJOR=253", b"MAJOR=4096"), "MAJOR is no number"),
        (WHOLE.replace(b"MINOR=3", b"MINOR=1048576"), "MINOR is no number"),
        (WHOLE.replace(b"MAJOR=253\0", b""), "MAJOR is no number"),
        (WHOLE.replace(b"DISKSEQ=9", b"DISKSEQ=x"), "DISKSEQ is no number"),
        (WHOLE.replace(b"SUBSYSTEM=block", b"SUBSYSTEM"), "no KEY=VALUE"),
        (WHOLE.replace(b"ACTION=change", b"ACTION=add"), "not of its header"),
        (WHOLE.replace(b"DEVPATH=/devices", b"DEVPATH=/"), "not of its header"),
        (datagram("change", 3, 1, DM_ACTION="PATH_FAILED", DM_SEQNUM=1), "DM_PATH is no"),
        (
            datagram("change", 3, 1, DM_ACTION="PATH_FAILED", DM_SEQNUM=1, DM_PATH="sda"),
            "DM_PATH is no",
        ),
        (
            datagram("change", 3, 1, DM_ACTION="PATH_FAILED", DM_SEQNUM=2**32, DM_PATH="7:1"),
            "DM_SEQNUM is no number",
        ),
        (
            datagram("change", 3, 1, DM_ACTION="PATH_FAILED", DM_SEQNUM=1, DM_PATH="7:1"),
            "DM_NR_VALID_PATHS is no number",
        ),
    ],
)
def test_what_is_no_uevent_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        parse(raw)


@settings(deadline=None)
@given(st.binary(max_size=300) | st.builds(bytes.join, st.just(b"\0"), st.lists(st.binary())))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    with suppress(Malformed):
        parse(raw)


@settings(deadline=None)
@given(st.sampled_from(RECORDED), st.data())
def test_no_change_to_a_datagram_raises_anything_else(raw: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(at, len(raw)))
    with suppress(Malformed):
        parse(raw[:at] + data.draw(st.binary(max_size=20)) + raw[end:])
