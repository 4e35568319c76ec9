"""Ereports counted: how much they mean, in which row, which data was lost."""

from typing import Any

import pytest
from pool_events import BEGIN, event, only

from zeventfs.event import NS
from zeventfs.nvlist import Type
from zeventfs.pools import errors as module
from zeventfs.pools.errors import Errors, Kind, kind_of
from zeventfs.pools.facts import Facts
from zeventfs.pools.tables import errors_text

NOTHING = Facts(*[None] * len(Facts._fields))
SPECULATIVE, IO_RETRY = 0x100, 0x8000


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"zio_flags": 0x180880 | SPECULATIVE, "zio_err": 5, "vdev_guid": 1}, Kind.SPECULATIVE),
        ({"zio_flags": IO_RETRY | SPECULATIVE, "zio_err": 52}, Kind.SPECULATIVE),
        ({"zio_flags": 0x180880, "zio_err": 5, "vdev_guid": 1}, Kind.SOFT),
        ({"zio_flags": 0x188880, "zio_err": 5, "vdev_guid": 1}, Kind.HARD),
        ({"zio_flags": 0x1808B0, "zio_err": 52, "vdev_guid": 1}, Kind.HARD),
        ({"zio_flags": -1 & ~SPECULATIVE, "zio_err": 5, "vdev_guid": 1}, Kind.HARD),
        ({"zio_flags": 0xC01, "zio_err": 5}, Kind.HARD),
        ({"zio_flags": 0, "vdev_guid": 1}, Kind.HARD),
        ({"zio_err": 5, "vdev_guid": 1}, Kind.HARD),
    ],
)
def test_what_the_kernel_itself_does_not_count_is_speculative_or_soft(
    facts: dict[str, Any], kind: Kind
) -> None:
    assert kind_of(NOTHING._replace(**facts)) is kind


@pytest.mark.parametrize("kind", [Type.INT32, Type.UINT64])
def test_flags_are_understood_from_before_and_after_2_3(kind: Type) -> None:
    pool = only(event("ereport.io", zio_flags=(kind, SPECULATIVE)))
    assert [row.kind for row, _ in pool.errors.rows()] == [Kind.SPECULATIVE]


def test_flags_of_no_such_type_say_nothing() -> None:
    pool = only(event("ereport.io", zio_flags=(Type.STRING, "0x100")))
    assert [row.kind for row, _ in pool.errors.rows()] == [Kind.HARD]


def test_each_vdev_class_and_kind_has_a_row_with_its_first_and_last_time() -> None:
    disk: dict[str, Any] = {"vdev_guid": 7, "vdev_path": "/dev/sda1"}
    pool = only(
        event("ereport.io", 1, zio_err=5, zio_flags=IO_RETRY, **disk),
        event("ereport.io", 2, zio_err=5, zio_flags=0, **disk),
        event("ereport.io", 3, zio_err=5, zio_flags=IO_RETRY, **disk),
        event("ereport.io", 4, zio_err=5, zio_flags=IO_RETRY, vdev_guid=8),
        event("ereport.zpool", 5),
    )
    times = ["2023-11-14T22:13:21Z", "2023-11-14T22:13:23Z"]
    assert [row.split() for row in errors_text(pool).decode().splitlines()] == [
        ["VDEV", "CLASS", "KIND", "COUNT", "FIRST", "LAST"],
        ["-", "ereport.fs.zfs.zpool", "hard", "1", *["2023-11-14T22:13:25Z"] * 2],
        ["/dev/sda1", "ereport.fs.zfs.io", "hard", "2", *times],
        ["/dev/sda1", "ereport.fs.zfs.io", "soft", "1", *["2023-11-14T22:13:22Z"] * 2],
        ["8", "ereport.fs.zfs.io", "hard", "1", *["2023-11-14T22:13:24Z"] * 2],
    ]


def test_ereports_of_a_vdev_that_had_no_room_are_shown_with_its_guid() -> None:
    pool = only(*[event("ereport.probe_failure", vdev_guid=guid) for guid in range(1, 514)])
    lines = errors_text(pool).decode().splitlines()
    assert len(lines) == 514
    assert any(line.split()[0] == "513" for line in lines)


def test_what_has_no_row_is_counted_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ROWS", 2)
    errors = Errors()
    for second, name in enumerate(["a", "b", "c", "a", "d"]):
        errors.count(name, second, NOTHING)
    assert [(row.name, tally.count) for row, tally in errors.rows()] == [("a", 2), ("b", 1)]
    assert errors.others is not None
    assert (errors.others.count, errors.others.first_ns, errors.others.last_ns) == (2, 2, 4)


def test_a_class_that_is_too_long_has_no_row() -> None:
    long = "ereport." + "x" * 300
    pool = only(event(long), event(long, 9))
    assert [line.split() for line in errors_text(pool).decode().splitlines()][1:] == [
        ["(others)", "2", "2023-11-14T22:13:20Z", "2023-11-14T22:13:29Z"]
    ]


def data(second: int, objset: Any, number: Any) -> Any:
    return event("ereport.data", second, zio_objset=objset, zio_object=number)


def test_lost_data_is_told_by_object_and_what_has_no_room_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_OBJECTS", 2)
    pool = only(data(0, 54, 9), data(1, 54, 2), data(2, 54, 9), data(3, 54, 3), data(4, 54, 2))
    assert pool.errors.lost == 5
    assert [line.split() for line in errors_text(pool).decode().splitlines()][2:] == [
        [],
        ["data", "errors:", "5"],
        ["OBJSET", "OBJECT", "COUNT", "FIRST", "LAST"],
        ["54", "2", "2", "2023-11-14T22:13:21Z", "2023-11-14T22:13:24Z"],
        ["54", "9", "2", "2023-11-14T22:13:20Z", "2023-11-14T22:13:22Z"],
        ["(others)", "1", *["2023-11-14T22:13:23Z"] * 2],
    ]


@pytest.mark.parametrize("place", [(54, (Type.STRING, "?")), ((Type.INT32, 1), 2)])
def test_lost_data_without_a_place_is_counted(place: tuple[Any, Any]) -> None:
    pool = only(data(0, *place), data(1, *place))
    assert pool.errors.elsewhere is not None
    assert pool.errors.elsewhere.first_ns == BEGIN * NS
    assert pool.errors.lost == 2
    assert not list(pool.errors.objects())
