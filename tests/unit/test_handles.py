"""The table of open files: numbers, and records that another daemon can read."""

import errno
from pathlib import Path
from typing import Any

import pytest
from tree_client import World

from zeventfs.errors import TooManyOpen
from zeventfs.fuse import handles
from zeventfs.fuse.handles import HandleTable, Record, records
from zeventfs.mapped import Mapped
from zeventfs.nodes.base import Open
from zeventfs.nodes.streams import OpenStream


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "handles"


async def stream(world: World) -> OpenStream:
    opened = (await world.client.open("events/stream")).opened
    assert isinstance(opened, OpenStream)
    return opened


async def test_records_are_what_is_open(path: Path) -> None:
    world = World(retain=4000, segment=1000)
    table = HandleTable(path)
    assert list(records(path)) == []
    opened = await stream(world)
    handle = table.add(2**63 - 1, 4321, opened)
    plain = table.add(7, 0, Open())
    closed = table.add(8, 1, Open())
    assert table.remove(closed.fh) is closed
    for _ in range(30):
        world.post()
    opened.read(0, 100)  # a gap
    table.record(handle)
    table.record_poll(handle, 2**64 - 1)
    found = {each.fh: each for each in records(path)}
    assert found == {
        handle.fh: Record(handle.fh, 4321, 2**63 - 1, opened.reader.state(), 2**64 - 1),
        plain.fh: Record(plain.fh, 0, 7, None, 0),
    }
    state = found[handle.fh].reader
    assert state is not None
    assert state.gap is not None
    assert state.gap.cause == "evicted"
    again = await stream(world)
    again.reader.restore(state)
    assert again.read(100, 1 << 16) == opened.read(100, 1 << 16)
    table.record(handle)
    opened.read(opened.reader.end, 1 << 16)
    table.record(handle)
    [first, _] = records(path)
    assert first.reader is not None
    assert first.reader == opened.reader.state()
    assert first.reader.gap is None


async def test_a_record_never_shows_what_its_number_had_before(path: Path) -> None:
    world = World()
    world.post()
    table = HandleTable(path)
    opened = await stream(world)
    handle = table.add(1, 1, opened)
    opened.read(0, 10_000)
    table.record(handle)
    table.record_poll(handle, 9)
    table.remove(handle.fh)
    again = table.add(2, 2, Open())
    assert again.fh == handle.fh
    assert list(records(path)) == [Record(again.fh, 2, 2, None, 0)]


def test_numbers_are_distinct_used_again_and_found(path: Path) -> None:
    table = HandleTable(path)
    made = [table.add(1, 1, Open()) for _ in range(5)]
    assert len({each.fh for each in made}) == len(table) == 5
    table.remove(made[2].fh)
    with pytest.raises(KeyError):
        table[made[2].fh]
    with pytest.raises(KeyError):
        table.remove(made[2].fh)
    assert table.add(1, 1, Open()).fh == made[2].fh
    assert table[made[0].fh] is made[0]
    assert set(table) >= {made[0], made[4]}


def test_past_the_last_number_an_open_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "MOST", 3)
    table = HandleTable(path)
    made = [table.add(1, 1, Open()) for _ in range(3)]
    with pytest.raises(TooManyOpen) as refused:
        table.add(1, 1, Open())
    assert refused.value.errno == errno.ENFILE
    table.remove(made[1].fh)
    table.add(1, 1, Open())


def test_a_table_begins_empty_whatever_the_file_held(path: Path) -> None:
    HandleTable(path).add(1, 1, Open())
    assert len(list(records(path))) == 1
    HandleTable(path)
    assert list(records(path)) == []


def test_a_table_without_a_file_works() -> None:
    table = HandleTable(None)
    assert table[table.add(1, 1, Open()).fh].ino == 1


async def test_a_full_disk_costs_the_records_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = HandleTable(path)
    world = World()
    world.post()
    first = table.add(1, 1, await stream(world))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Mapped, "reserve", full)
    many = [table.add(2, 2, await stream(world)) for _ in range(5000)]
    assert len(table) == 5001
    for handle in (first, many[-1]):
        handle.opened.read(0, 100)
        table.record(handle)
    assert [record.getMessage().split("; ")[1] for record in caplog.records] == [
        "open files would not survive the daemon"
    ]
    assert not path.exists()  # noqa: ASYNC240 - on this test's own disk


@pytest.mark.parametrize("damage", [b"", b"x", b"\1" * 128])
def test_what_is_no_table_is_refused(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with pytest.raises(ValueError, match="no table"):
        list(records(path))


@pytest.mark.parametrize("damage", [{0: 3}, {0: 1, 1: 99}])
def test_a_damaged_record_is_refused(path: Path, damage: dict[int, Any]) -> None:
    HandleTable(path).add(1, 1, Open())
    content = bytearray(path.read_bytes())
    for at, byte in damage.items():
        content[at] = byte
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no record"):
        list(records(path))


def test_a_missing_table_is_an_oserror_and_stays_missing(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(records(path))
    assert not path.exists()
