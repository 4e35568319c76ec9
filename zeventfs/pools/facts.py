"""What one event says of a pool and of one of its vdevs, as far as it says it in ZFS's own types.

Any key may be missing or be of another type, as in an injected event; then the fact is None, and
nobody else needs to look at a type. Where the keys stand is found once for each layout.
Source of keys and types: include/sys/fm/fs/zfs.h, module/zfs/zfs_fm.c and spa.c of openzfs/zfs.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from zeventfs.nvlist import Layout, Type

__all__ = ["Facts", "Plan", "Plans"]


class Facts(NamedTuple):
    """The facts; a field is named as its key is. Strings are the bytes that the nvlist has."""

    pool_guid: int | None
    pool_state: int | None
    vdev_guid: int | None
    vdev_path: bytes | None
    vdev_type: bytes | None
    vdev_state: int | None
    parent_guid: int | None
    parent_type: bytes | None
    vdev_read_errors: int | None
    vdev_write_errors: int | None
    vdev_cksum_errors: int | None
    vdev_delays: int | None
    zio_err: int | None
    zio_flags: int | None
    zio_delay: int | None
    zio_objset: int | None
    zio_object: int | None
    history_internal_name: bytes | None
    history_internal_str: bytes | None
    history_txg: int | None


_STRINGS = {
    "vdev_path",
    "vdev_type",
    "parent_type",
    "history_internal_name",
    "history_internal_str",
}
_TYPES = {
    **{key: (Type.STRING if key in _STRINGS else Type.UINT64,) for key in Facts._fields},
    "zio_err": (Type.INT32,),
    "zio_flags": (Type.INT32, Type.UINT64),  # until 2.2, from 2.3
}
_MISSING = -1  # where None stands, behind the values


class Plan(NamedTuple):
    """Where the facts stand in a layout: the few that every event is asked for, and all."""

    pool_guid: int | None
    pool_state: int | None
    history: int | None
    pick: Callable[[Sequence[Any]], tuple[Any, ...]]

    def facts(self, values: Sequence[Any]) -> Facts:
        """The facts of an event with these *values*."""
        return Facts._make(self.pick((*values, None)))


class Plans(dict[Layout, Plan]):
    """The plans of the layouts seen, made when they are first asked for; bounded."""

    _MOST = 128

    def __missing__(self, layout: Layout) -> Plan:
        places = [_place(layout, key) for key in Facts._fields]
        plan = Plan(
            layout.at("pool_guid", Type.UINT64),
            layout.at("pool_state", Type.UINT64),
            layout.at("history_internal_name", Type.STRING),
            itemgetter(*places),
        )
        if layout.small:
            if len(self) >= self._MOST:
                self.clear()
            self[layout] = plan
        return plan


def _place(layout: Layout, key: str) -> int:
    for kind in _TYPES[key]:
        place = layout.at(key, kind)
        if place is not None:
            return place
    return _MISSING
