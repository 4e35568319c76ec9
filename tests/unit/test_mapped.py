"""Mapped files: nothing is written that has not been allocated, and a full disk is an OSError."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import descriptors_of
from full_disk import tmpfs

from zeventfs.mapped import Mapped

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 64 KiB."""
    with tmpfs(tmp_path, "64k") as disk:
        yield disk


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_anonymous_memory_is_written_and_read() -> None:
    memory = Mapped(None, 10_000)
    assert memory.reserve(0, 10) == 10_000
    memory.view[:3] = b"abc"
    memory.give_back(0, 10_000)
    memory.seal()
    assert bytes(memory.view[:4]) == b"abc\0"
    memory.unlink()
    assert not memory.view


def test_anonymous_memory_needs_a_size() -> None:
    with pytest.raises(TypeError, match="size"):
        Mapped(None, None)


def test_what_is_written_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    memory = Mapped(path, 8192)
    memory.reserve(0, 100)
    memory.view[:5] = b"hello"
    assert path.read_bytes() == b"hello" + bytes(8187)
    assert path.stat().st_mode & 0o777 == 0o600
    assert bytes(Mapped(path, None).view) == path.read_bytes()


def test_a_new_file_has_nothing_of_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old" * 10_000)
    assert bytes(Mapped(path, 100).view) == bytes(100)


def test_an_existing_file_must_exist_and_not_be_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Mapped(tmp_path / "none", None)
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        Mapped(tmp_path / "empty", None)
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_a_file_that_cannot_be_made_leaves_no_name_and_no_descriptor(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        Mapped(tmp_path / "file", 1 << 62)
    assert not list(tmp_path.iterdir())
    assert descriptors_of(tmp_path / "file") == 0


def test_reservations_go_a_step_ahead_and_never_beyond_the_end(tmp_path: Path) -> None:
    memory = Mapped(tmp_path / "file", MIB)
    assert memory.reserve(0, 1) == MIB // 4
    assert memory.reserve(0, MIB // 2) == MIB // 2
    assert MIB // 2 <= allocated(tmp_path / "file") < MIB
    assert memory.reserve(MIB - 100, MIB - 50) == MIB


def test_what_is_given_back_is_free_again_but_for_the_pages_that_are_shared(tmp_path: Path) -> None:
    memory = Mapped(tmp_path / "file", MIB)
    memory.reserve(0, MIB)
    memory.view[:] = b"x" * MIB
    memory.give_back(100, MIB - 100)
    assert bytes(memory.view[:4096]) == b"x" * 4096
    assert bytes(memory.view[-4096:]) == b"x" * 4096
    # Most file systems can do it; where one can't, it is as it was.
    assert allocated(tmp_path / "file") < MIB // 4 or memory.view[8192] == ord("x")
    memory.give_back(10, 20)
    assert bytes(memory.view[:4096]) == b"x" * 4096


def test_a_full_disk_is_an_error_of_the_reservation(small_disk: Path) -> None:
    memory = Mapped(small_disk / "file", MIB)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as info:
        memory.reserve(0, 1)
    assert info.value.errno == errno.ENOSPC
    memory.unlink()
    assert not list(small_disk.iterdir())


def test_a_sealed_file_keeps_one_descriptor_until_its_memory_goes(tmp_path: Path) -> None:
    memory = Mapped(tmp_path / "file", 8192)
    memory.seal()
    memory.seal()
    assert descriptors_of(tmp_path / "file") == 1
    kept = memory.view[:10]
    memory.unlink()
    assert bytes(kept) == bytes(10)
    assert not list(tmp_path.iterdir())
    del kept
    assert descriptors_of(tmp_path / "file") == 0


def test_a_name_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    memory = Mapped(tmp_path / "file", 8192)
    (tmp_path / "file").unlink()
    memory.unlink()
    memory.unlink()
