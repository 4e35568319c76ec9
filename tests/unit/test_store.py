"""The store: what an earlier daemon left is taken up only if nothing is missing."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import tmpfs

from zeventfs.journal.segment import Identity, Segment
from zeventfs.journal.store import Store

EPOCH = "0123456789abcdef"


def put(store: Store, serial: int, *, epoch: str = EPOCH, events: int = 1) -> Segment:
    """Make segment *serial*; each one before it has one event with a line of two bytes."""
    segment = store.create(Identity(epoch, serial, serial, 2 * (serial - 1)), 100)
    for _ in range(events):
        segment.append(b"x\n", b"packed", 1)
    return segment


def is_warned_of(caplog: pytest.LogCaptureFixture, *paths: Path) -> bool:
    return [each.split(" is left out")[0] for each in caplog.messages] == [*map(str, paths)]


def path_of(directory: Path, serial: int) -> Path:
    return directory / f"segment-{serial:010}"


def left(directory: Path) -> list[int]:
    """Give the serials recovered, which are those that still have a file."""
    serials = [each.identity.serial for each in Store(directory).recovered]
    assert sorted(directory.iterdir()) == [path_of(directory, serial) for serial in serials]
    return serials


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path, "64k") as disk:
        yield disk


def test_without_a_directory_all_is_in_memory() -> None:
    store = Store(None)
    assert store.recovered == []
    assert put(store, 1).in_memory


def test_an_unbroken_run_is_recovered_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.recovered == []
    for serial in (9, 10, 11):
        put(store, serial)
    assert left(tmp_path) == [9, 10, 11]


def test_what_is_before_a_missing_segment_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for serial in (1, 2, 4, 5):
        put(store, serial)
    assert left(tmp_path) == [4, 5]


def test_what_is_of_an_older_epoch_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, 1, epoch="an older epoch..")
    put(store, 2)
    assert left(tmp_path) == [2]


def test_a_segment_that_was_never_begun_does_not_break_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(Store(tmp_path), 1)
    path_of(tmp_path, 2).touch()
    path_of(tmp_path, 3).write_bytes(bytes(10_000))
    assert left(tmp_path) == [1]
    assert is_warned_of(caplog, path_of(tmp_path, 2), path_of(tmp_path, 3))


def test_an_empty_segment_gives_way_to_the_one_that_replaced_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, 1)
    put(store, 2, events=0)
    store.create(Identity(EPOCH, 3, 2, 2), 100)
    assert left(tmp_path) == [1, 3]


def test_nothing_is_taken_up_from_before_a_damaged_segment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    for serial in (1, 2, 3):
        put(store, serial).seal()
    put(store, 4)
    path_of(tmp_path, 2).write_bytes(b"garbage")
    assert left(tmp_path) == [3, 4]
    assert is_warned_of(caplog, path_of(tmp_path, 2))
    path_of(tmp_path, 4).write_bytes(b"garbage")
    assert left(tmp_path) == []


def test_what_only_looks_like_a_segment_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path_of(tmp_path, 1).mkdir()
    (tmp_path / "segment-x").write_bytes(b"not ours")
    put(Store(tmp_path), 2)
    assert [each.identity.serial for each in Store(tmp_path).recovered] == [2]
    assert (tmp_path / "segment-x").exists()
    assert "segment-0000000001" in caplog.text


def test_a_run_that_went_on_in_memory_only_is_not_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    put(store, 1)
    put(store, 2).seal()
    assert left(tmp_path) == []
    assert "a new epoch begins" in caplog.text


def test_a_run_that_has_a_file_again_is_taken_up_from_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, 1).seal()
    put(store, 3)
    assert left(tmp_path) == [3]


def test_a_full_disk_is_said_once_until_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    real = os.posix_fallocate

    def full(_fd: int, _start: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for round_number in (1, 2):
        monkeypatch.setattr(os, "posix_fallocate", full)
        for serial in (1, 2):
            assert put(store, serial).in_memory
        store.say_full(OSError(errno.ENOSPC, "again"))
        assert [each.levelno for each in caplog.records] == [logging.WARNING] * round_number
        monkeypatch.setattr(os, "posix_fallocate", real)
        assert not put(store, 3).in_memory
    assert caplog.messages[0].startswith(f"{tmp_path}: No space left on device; events are kept")


def test_on_a_disk_that_is_really_full_events_go_to_memory(
    tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tiny_disk)
    small = put(store, 1)
    assert not small.in_memory
    large = store.create(Identity(EPOCH, 2, 2, 2), 1 << 20)
    assert large.in_memory
    large.append(b"x" * 1000, b"packed", 1)
    assert "No space left on device" in caplog.text
    assert list(tiny_disk.iterdir()) == [path_of(tiny_disk, 1)]
