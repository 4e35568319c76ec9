"""Ereports counted by vdev, class and how much they mean, and the objects that lost data.

Bounded: what has no row of its own is counted in one for all others.

How much an ereport means follows from what the kernel does itself (vdev_stat_update, module/zfs/
vdev.c of openzfs/zfs): it doesn't add to a vdev's error counts what was speculative, nor EIO of an
I/O that wasn't yet a retry, as such errors "can happen for any number of innocuous reasons". The
two bits of zio_flags have been the same in all releases from 0.8 on.
"""

import enum
from collections.abc import Iterator
from typing import NamedTuple

from zeventfs.journal.summary import Tally
from zeventfs.pools.facts import Facts

__all__ = ["Errors", "Kind", "Row", "kind_of"]

_SPECULATIVE = 1 << 8  # ZIO_FLAG_SPECULATIVE, include/sys/zio.h
_IO_RETRY = 1 << 15  # ZIO_FLAG_IO_RETRY
_EIO = 5
_MOST_ROWS = 4096
_MOST_OBJECTS = 256
_LONGEST_CLASS = 256  # characters; ZFS's own longest is FM_MAX_CLASS, 100
_DATA = "ereport.fs.zfs.data"


class Kind(enum.StrEnum):
    """How much an ereport means."""

    HARD = "hard"
    SOFT = "soft"
    SPECULATIVE = "speculative"


def kind_of(facts: Facts) -> Kind:
    """Tell an ereport's kind; what isn't about an I/O is hard."""
    flags = facts.zio_flags
    if flags is None:
        return Kind.HARD
    if flags & _SPECULATIVE:
        return Kind.SPECULATIVE
    if facts.zio_err == _EIO and facts.vdev_guid is not None and not flags & _IO_RETRY:
        return Kind.SOFT
    return Kind.HARD


class Row(NamedTuple):
    """What ereports are counted by; `vdev` is a guid, None for those of the pool itself."""

    vdev: int | None
    name: str
    kind: Kind


class Errors:
    """All ereports of a pool.

    `others` are those for which there was no row, `elsewhere` the data errors in objects for which
    there was none, or in none that is named; both None as long as there are none.
    """

    __slots__ = ("_objects", "_rows", "elsewhere", "others")

    def __init__(self) -> None:
        self._rows: dict[tuple[int | None, str, Kind], Tally] = {}  # by a Row's fields
        self._objects: dict[tuple[int, int], Tally] = {}
        self.others: Tally | None = None
        self.elsewhere: Tally | None = None

    def count(self, name: str, time_ns: int, facts: Facts) -> None:
        """Take note of an ereport of class *name*."""
        row = (facts.vdev_guid, name, kind_of(facts))
        tally = self._rows.get(row) or self._new_row(row, time_ns)
        tally.count += 1
        tally.last_ns = time_ns
        if name == _DATA:
            tally = self._object(facts.zio_objset, facts.zio_object, time_ns)
            tally.count += 1
            tally.last_ns = time_ns

    def _new_row(self, row: tuple[int | None, str, Kind], time_ns: int) -> Tally:
        if len(self._rows) < _MOST_ROWS and len(row[1]) <= _LONGEST_CLASS:
            tally = self._rows[row] = Tally(time_ns)
            return tally
        if self.others is None:
            self.others = Tally(time_ns)
        return self.others

    def _object(self, objset: int | None, number: int | None, time_ns: int) -> Tally:
        if objset is not None and number is not None:
            tally = self._objects.get((objset, number))
            if tally is None and len(self._objects) < _MOST_OBJECTS:
                tally = self._objects[objset, number] = Tally(time_ns)
            if tally is not None:
                return tally
        if self.elsewhere is None:
            self.elsewhere = Tally(time_ns)
        return self.elsewhere

    def rows(self) -> Iterator[tuple[Row, Tally]]:
        """The rows, in the order in which they came."""
        for row, tally in self._rows.items():
            yield Row._make(row), tally

    def objects(self) -> Iterator[tuple[tuple[int, int], Tally]]:
        """Objset and object of lost data, sorted."""
        yield from sorted(self._objects.items(), key=lambda each: each[0])

    @property
    def lost(self) -> int:
        """How many errors were of data: no copy was good."""
        known = sum(tally.count for tally in self._objects.values())
        return known + (self.elsewhere.count if self.elsewhere else 0)
