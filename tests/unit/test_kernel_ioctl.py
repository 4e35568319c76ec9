"""What the kernel is asked on /dev/zfs, against recordings of libzfs's own calls."""

import errno
import json
import os
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from descriptors import descriptors_of

from zeventfs.sources.kernel._zevents import WAKING, Zevents, answer, command

IOCTL = Path(__file__).parent.parent / "corpus" / "ioctl"
BEFORE = (IOCTL / "zfs_cmd_events_next.before.bin").read_bytes()
AFTER = (IOCTL / "zfs_cmd_events_next.after.bin").read_bytes()
NVLIST = (IOCTL / "zfs_cmd_events_next.nvlist.bin").read_bytes()
LAYOUT: dict[str, Any] = json.loads((IOCTL / "layout.json").read_text())
BLOCK = True


def field(recorded: bytes, name: str) -> int:
    offset, size = LAYOUT["fields"][name]
    return int.from_bytes(recorded[offset : offset + size], "little")


def test_a_next_is_libzfss_own_byte_for_byte() -> None:
    cursor = field(BEFORE, "zc_cleanup_fd")
    dst, size = field(BEFORE, "zc_nvlist_dst"), field(BEFORE, "zc_nvlist_dst_size")
    made = command(cursor, LAYOUT["ZEVENT_NONBLOCK"], dst, size)
    assert len(BEFORE) == LAYOUT["sizeof_zfs_cmd_t"]
    assert made[: len(BEFORE)] == BEFORE


def test_what_is_behind_the_largest_known_command_is_zero() -> None:
    made = command(3, 1, 2**64 - 1, 2**64 - 1)
    assert len(made) == 16384
    assert made[LAYOUT["sizeof_zfs_cmd_t"] :].count(0) == 16384 - LAYOUT["sizeof_zfs_cmd_t"]


def test_each_field_is_where_the_header_has_it() -> None:
    made = command(0x01020304, 0x1112131415161718, 0x2122232425262728, 0x3132333435363738)
    assert field(made, "zc_cleanup_fd") == 0x01020304
    assert field(made, "zc_guid") == 0x1112131415161718
    assert field(made, "zc_nvlist_dst") == 0x2122232425262728
    assert field(made, "zc_nvlist_dst_size") == 0x3132333435363738


def test_the_answer_is_read_where_the_kernel_puts_it() -> None:
    assert answer(AFTER) == (len(NVLIST), 0)
    dropped = bytearray(AFTER)
    struct.pack_into("=Q", dropped, LAYOUT["fields"]["zc_cookie"][0], 7)
    assert answer(bytes(dropped)) == (len(NVLIST), 7)


def test_the_eid_of_an_event_is_the_value_of_its_last_pair() -> None:
    assert int.from_bytes(NVLIST[-12:-4], "little") == 1


def test_a_file_that_is_not_there_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Zevents(tmp_path / "zfs")
    assert caught.value.filename == str(tmp_path / "zfs")


def test_another_device_refuses_everything() -> None:
    zevents = Zevents("/dev/null")
    for block in (True, False):
        assert zevents.take(bytearray(100), block) == (0, 0, errno.ENOTTY, 0)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTTY)):
        zevents.seek(0)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTTY)):
        zevents.clear()


@pytest.mark.parametrize("eid", [-1, 2**64])
def test_what_can_be_no_eid_is_refused(eid: int) -> None:
    with pytest.raises(OverflowError):
        Zevents("/dev/null").seek(eid)


def test_once_ended_nothing_blocks_until_it_begins_anew() -> None:
    zevents = Zevents("/dev/null")
    guard = threading.Thread(target=zevents.guard)
    guard.start()
    zevents.end()
    guard.join()
    zevents.guard()
    assert zevents.take(bytearray(100), BLOCK) == (0, 0, errno.EINTR, 0)
    zevents.begin()
    assert zevents.take(bytearray(100), BLOCK) == (0, 0, errno.ENOTTY, 0)


def test_a_descriptor_is_closed_once_and_at_the_latest_with_its_owner() -> None:
    null = Path("/dev/null")
    before = descriptors_of(null)
    closed, left = Zevents("/dev/null"), Zevents("/dev/null")
    closed.close()
    closed.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        closed.clear()
    del left
    assert descriptors_of(null) == before


def test_the_signal_that_wakes_the_reader_does_nothing_by_itself() -> None:
    Zevents("/dev/null")
    os.kill(os.getpid(), WAKING)
