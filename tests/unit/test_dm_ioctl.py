"""Messages of /dev/mapper/control are read as they were written, and nothing else is believed."""

import os
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.dm.facts import TargetFacts
from zeventfs.dm.ioctl import (
    HEAD_SIZE,
    Command,
    Flag,
    Head,
    Listed,
    Target,
    Version,
    answer,
    ask,
    facts,
    read_devices,
    read_head,
    read_targets,
    read_version,
    write_devices,
    write_targets,
)
from zeventfs.errors import Malformed

V = Version(4, 47, 0)
DEV = os.makedev(253, 300)


def listed(devices: list[Listed], head: Head | None = None, size: int = 16384) -> list[Listed]:
    buffer = ask(size)
    answer(buffer, head or Head(V), write_devices(devices))
    return read_devices(buffer)


def targets(wanted: tuple[Target, ...]) -> tuple[Target, ...]:
    buffer = ask(1 << 20)
    answer(buffer, Head(V, target_count=len(wanted)), write_targets(wanted))
    return read_targets(buffer)


def test_the_requests_have_the_headers_numbers() -> None:
    assert HEAD_SIZE == 312
    assert [f"{command:#x}" for command in Command] == [
        "0xc138fd00",
        "0xc138fd02",
        "0xc138fd07",
        "0xc138fd0c",
        "0xc138fd10",
    ]


def test_what_is_asked_stands_where_the_header_says() -> None:
    buffer = ask(512, dev=DEV, flags=Flag.STATUS_TABLE | Flag.NOFLUSH)
    assert struct.unpack_from("=5I", buffer) == (4, 0, 0, 512, 312)
    assert struct.unpack_from("=I", buffer, 28) == (0x810,)
    assert struct.unpack_from("=Q", buffer, 40) == (DEV,)
    head = read_head(buffer)
    assert (head.version, head.dev, head.name, head.full) == ((4, 0, 0), DEV, "", False)


def test_an_answers_head_is_read_back() -> None:
    buffer = ask(512)
    head = Head(V, 312, 312, 3, -1, Flag.READONLY | Flag.SUSPEND, 7, DEV, "mp", "mpath-1")
    answer(buffer, head)
    assert read_head(buffer) == head
    assert str(head.version) == "4.47.0"


def test_an_answer_that_finds_no_room_says_so_and_nothing_else() -> None:
    buffer = ask(HEAD_SIZE + 8)
    answer(buffer, Head(V, target_count=1), b"x" * 9)
    assert read_head(buffer).full
    assert buffer[HEAD_SIZE:] == bytes(8)


@pytest.mark.parametrize("size", [0, 16, HEAD_SIZE - 1])
def test_a_cut_head_is_refused(size: int) -> None:
    with pytest.raises(Malformed, match=f"{size} bytes are no dm_ioctl"):
        read_head(bytes(size))


def test_another_interface_is_refused_with_its_version() -> None:
    with pytest.raises(Malformed, match=r"of version 5\.1\.0, and not 4\.x"):
        read_head(ask(HEAD_SIZE, version=Version(5, 1, 0)))


def test_an_interface_that_tells_no_events_is_refused() -> None:
    assert read_version(ask(HEAD_SIZE, version=V)) == V
    with pytest.raises(Malformed, match=r"of version 4\.36\.9, and tells events from 4\.37\.0 on"):
        read_version(ask(HEAD_SIZE, version=Version(4, 36, 9)))


def test_names_without_an_end_are_refused() -> None:
    buffer = ask(HEAD_SIZE)
    buffer[48:176] = b"n" * 128
    with pytest.raises(Malformed, match="a name has no end"):
        read_head(buffer)
    buffer[48:305] = bytes(128) + b"u" * 129
    with pytest.raises(Malformed, match="a uuid has no end"):
        read_head(buffer)


@pytest.mark.parametrize(("start", "size"), [(0, 400), (601, 600), (312, 601)])
def test_data_outside_of_the_buffer_is_refused(start: int, size: int) -> None:
    buffer = ask(600)
    struct.pack_into("=II", buffer, 12, size, start)
    with pytest.raises(Malformed, match=f"stands at {start} to {size} of 600"):
        read_devices(buffer)


# Devices


def test_no_devices_are_an_empty_list() -> None:
    assert listed([]) == []
    buffer = ask(600)  # Linux 6.1 then leaves all but the head as it was
    answer(buffer, Head(V))
    assert read_devices(buffer) == []
    buffer = ask(600)
    answer(buffer, Head(V), bytes(16))
    assert read_devices(buffer) == []


def test_devices_come_with_event_numbers_and_uuids() -> None:
    devices = [
        Listed(DEV, "mp", 7, "mpath-1"),
        Listed(1, "a-name-of-some-length", 0, ""),
        Listed(2, "é", 2**32 - 1, None),
    ]
    assert listed(devices) == devices


def test_old_kernels_tell_neither_event_numbers_nor_uuids() -> None:
    devices = [Listed(DEV, "mp"), Listed(1, "sda1")]
    assert listed(devices, Head(Version(4, 36, 0))) == devices
    assert listed([Listed(1, "mp")]) == [Listed(1, "mp")]  # and so would one that is cut


def test_a_list_that_leads_astray_is_refused() -> None:
    data = bytearray(write_devices([Listed(DEV, "mp", 1, ""), Listed(1, "b", 2, "")]))
    for following, reason in (
        (len(data) - 4, "device 1 of the list begins behind its end"),
        (len(data) + 8, "device 0 of the list ends behind the list"),
        (12, "a name has no end"),
    ):
        struct.pack_into("=I", data, 8, following)
        buffer = ask(1024)
        answer(buffer, Head(V), bytes(data))
        with pytest.raises(Malformed, match=reason):
            read_devices(buffer)


# Targets


def test_targets_come_in_their_order_with_their_parameters() -> None:
    wanted = (
        Target(0, 1024, "linear", "7:0 0"),
        Target(1024, 2**40, "multipath", "2 1 0 0 2 1 E 0 1 0 7:1 F 1 E 0 1 0 7:2 A 0 "),
        Target(2048, 1, "error", ""),
    )
    assert targets(wanted) == wanted
    assert targets(()) == ()


def test_a_device_without_a_table_has_no_targets() -> None:
    buffer = ask(600)
    answer(buffer, Head(V))
    struct.pack_into("=I", buffer, 12, 305)  # as Linux has it: less than where data would begin
    assert read_targets(buffer) == ()


def test_targets_that_lead_astray_are_refused() -> None:
    wanted = (Target(0, 8, "zero", "some"), Target(8, 8, "zero", "params"))
    data = write_targets(wanted)

    def read(changed: bytes, count: int = 2) -> object:
        buffer = ask(1024)
        answer(buffer, Head(V, target_count=count), changed)
        return read_targets(buffer)

    with pytest.raises(Malformed, match="target 2 of 3 begins behind the end"):
        read(data, 3)
    with pytest.raises(Malformed, match="target 0 of 1 begins behind the end"):
        read(b"", 1)
    with pytest.raises(Malformed, match="target 1 does not stand behind the one before"):
        read(data[:20] + bytes(4) + data[24:])
    with pytest.raises(Malformed, match="the parameters of target 1 have no end"):
        read(data[:-2])
    with pytest.raises(Malformed, match="a kind has no end"):
        read(data[:24] + b"k" * 16 + data[40:])
    with pytest.raises(Malformed, match="begins behind the end"):
        read(data[:20] + b"\xff" * 4 + data[24:])


def test_keys_are_not_shown() -> None:
    buffer = ask(1024)
    wanted = (
        Target(0, 8, "crypt", "aes-xts-plain64 00c0ffee 0 7:1 4096 1 allow_discards"),
        Target(8, 8, "crypt", "aes-xts-plain64 :64:logon:cryptsetup:1-d0 0 7:1 0"),
        Target(16, 8, "crypt", "aes"),
        Target(24, 8, "integrity", "7:1 0 32 J 2 internal_hash:hmac(sha256):beef journal_mac:x"),
        Target(32, 8, "linear", "7:1 00c0ffee"),
    )
    answer(buffer, Head(V, target_count=5), write_targets(wanted))
    assert [target.params for target in read_targets(buffer)] == [
        "aes-xts-plain64 00000000 0 7:1 4096 1 allow_discards",
        "aes-xts-plain64 :64:logon:cryptsetup:1-d0 0 7:1 0",
        "aes",
        "7:1 0 32 J 2 internal_hash:hmac(sha256):0000 journal_mac:x",
        "7:1 00c0ffee",
    ]
    assert b"00c0ffee 0" not in buffer
    assert b"beef" not in buffer


# Both


def test_a_device_is_put_together_from_its_head_its_statuses_and_its_tables() -> None:
    flags = Flag.SUSPEND | Flag.ACTIVE_PRESENT | Flag.INACTIVE_PRESENT | Flag.READONLY
    head = Head(V, flags=flags, event_nr=3, open_count=2, dev=DEV, name="m", uuid="u")
    statuses = (Target(0, 8, "mirror", "2 7:1 7:2 1/1 1 AA 1 core"),)
    tables = (Target(0, 8, "mirror", "core 2 8 nosync 2 7:1 0 7:2 0"),)
    target = TargetFacts(0, 8, "mirror", tables[0].params, statuses[0].params)
    made = facts(head, statuses, tables)
    assert made[:4] == ("m", "u", 253, 300)
    assert (made.suspended, made.live, made.inactive, made.read_only) == (True,) * 4
    assert (made.event_nr, made.open_count, made.targets) == (3, 2, (target,))
    assert not facts(Head(), (), ()).live
    with pytest.raises(Malformed, match="different targets"):
        facts(head, statuses, ())


_TEXT = st.binary(max_size=60).map(
    lambda data: data.replace(b"\0", b"").decode(errors="surrogateescape")
)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Listed,
            st.integers(1, 2**64 - 1),
            _TEXT,
            st.integers(0, 2**32 - 1),
            st.none() | _TEXT,
        )
    )
)
def test_any_devices_are_read_back(devices: list[Listed]) -> None:
    assert listed(devices) == devices


@settings(deadline=None)
@given(
    st.lists(
        st.builds(Target, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.just("x"), _TEXT)
    )
)
def test_any_targets_are_read_back(wanted: list[Target]) -> None:
    assert targets(tuple(wanted)) == tuple(wanted)


@settings(deadline=None)
@given(
    st.binary(max_size=400),
    st.integers(0, 800),
    st.integers(300, 800),
    st.integers(0, 5),
)
def test_whatever_is_answered_is_read_or_refused(
    data: bytes, size: int, start: int, count: int
) -> None:
    buffer = ask(700)
    answer(buffer, Head(V, target_count=count), data[:388])
    struct.pack_into("=II", buffer, 12, size, start)
    for read in (read_devices, read_targets):
        with suppress(Malformed):
            read(buffer)
