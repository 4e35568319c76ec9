"""The counters' pages: which there are, what they say, and what is none."""

import os
import struct
from pathlib import Path

import pytest

from zeventfs.errors import Malformed
from zeventfs.tapdisk import wire
from zeventfs.tapdisk.shared_memory import Counters, Page, decode_counters, pages, read_counters

NUMBERS = list(range(100, 111))


def test_counters_stand_where_tapdisk_puts_them() -> None:
    page = wire.encode_counters(NUMBERS)
    assert len(page) == 4096
    assert struct.unpack_from("=I", page) == (1,)
    assert struct.unpack_from("=QQ", page, 8) == (100, 101)
    assert struct.unpack_from("=QQ", page, 80) == (109, 110)
    read = decode_counters(page)
    assert read == Counters(*NUMBERS)
    assert (read.io_errors, read.flags) == (109, 110)


@pytest.mark.parametrize("size", [0, 95, 4095, 4097])
def test_a_page_of_another_size_is_none(size: int) -> None:
    with pytest.raises(Malformed, match=f"not {size}"):
        decode_counters(wire.encode_counters(NUMBERS)[:size].ljust(size, b"\0"))


def test_a_version_that_is_not_known_is_refused() -> None:
    for version in (0, 2):
        with pytest.raises(Malformed, match=f"version {version}"):
            decode_counters(wire.encode_counters(NUMBERS, version))


def test_pages_are_found_and_read(tmp_path: Path) -> None:
    place = tmp_path / "td3-7"
    place.mkdir()
    for name in ("vdi-0", "nbd-12", "vbd-3-51712", "vdi-x", "vdi-0.old", "other", "vbd-3"):
        (place / name).write_bytes(wire.encode_counters(NUMBERS))
    assert list(pages(7, str(tmp_path))) == [
        Page("nbd", (12,), place / "nbd-12"),
        Page("vbd", (3, 51712), place / "vbd-3-51712"),
        Page("vdi", (0,), place / "vdi-0"),
    ]
    assert read_counters(place / "vdi-0") == Counters(*NUMBERS)
    assert list(pages(8, str(tmp_path))) == []


def test_a_page_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vdi-0")
    with pytest.raises(Malformed):
        read_counters(tmp_path / "vdi-0")
    (tmp_path / "vdi-1").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="symbolic"):
        read_counters(tmp_path / "vdi-1")
    (tmp_path / "vdi-2").write_bytes(wire.encode_counters(NUMBERS) + b"\0")
    with pytest.raises(Malformed):
        read_counters(tmp_path / "vdi-2")
