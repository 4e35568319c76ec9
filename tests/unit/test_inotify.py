"""What comes and goes in directories is told, in its order."""

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from zeventfs.sources.tapdisk import inotify as module
from zeventfs.sources.tapdisk.inotify import Inotify, Mask, directory_at


async def test_what_appears_and_vanishes_is_told_by_name(tmp_path: Path) -> None:
    with Inotify() as inotify:
        watch = inotify.add(str(tmp_path))
        (tmp_path / "one").touch()
        (tmp_path / "one").rename(tmp_path / "two")
        (tmp_path / "two").unlink()
        changes = await inotify.changes()
    assert {change.watch for change in changes} == {watch}
    assert [(change.name, change.appeared, change.vanished) for change in changes] == [
        ("one", True, False),
        ("one", False, True),
        ("two", True, False),
        ("two", False, True),
    ]
    assert not any(change.ended or change.overflowed for change in changes)


async def test_the_end_of_a_directory_is_told(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with Inotify() as inotify:
        inotify.add(str(place))
        os.rmdir(place)  # noqa: PTH106 - what is tested is no path
        changes = await inotify.changes()
    assert changes[-1].ended
    assert changes[-1].name == ""


def test_what_is_no_directory_cannot_be_watched(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Inotify() as inotify:
        with pytest.raises(NotADirectoryError):
            inotify.add(str(tmp_path / "file"))
        with pytest.raises(FileNotFoundError):
            inotify.add(str(tmp_path / "none"))


def test_changes_that_were_lost_are_a_change() -> None:
    packed = module._HEAD.pack(-1, Mask.Q_OVERFLOW, 0, 0)
    [change] = module._parse(packed)
    assert change.overflowed
    assert not change.appeared


async def test_a_directory_is_awaited_from_the_nearest_one_above(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    place = tmp_path / "a" / "b" / "c"
    there = trio.Event()

    async def wait() -> None:
        await directory_at(str(place), 60.0)
        there.set()

    nursery.start_soon(wait)
    for directory in (tmp_path / "a", tmp_path / "a" / "b"):
        await trio.testing.wait_all_tasks_blocked(0.01)
        directory.mkdir()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not there.is_set()
    place.mkdir()
    with trio.fail_after(10):
        await there.wait()


async def test_where_nothing_can_be_watched_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Inotify, "add", refuse)
    place = tmp_path / "place"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directory_at, str(place), 5.0)
        await trio.sleep(12)
        place.mkdir()
    assert autojump_clock.current_time() == pytest.approx(15)
