"""What an event of each class looks like: its keys, their types and their order, and likely values.

The classes are those of the recorded events (shapes.json, made from them by
tests/corpus/make_shapes.py), so a simulated event has a real one's keys, types and order. A class
that wasn't recorded has the head that the kernel gives to all events of its category.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from zeventfs.nvlist import NVList, Type

__all__ = ["Key", "Shape", "fill", "guid", "known_type", "recorded", "shape_of"]


class Key(NamedTuple):
    """One key of a class: may it be absent, and, for an NVLIST, the keys in it."""

    name: str
    type: Type
    optional: bool = False
    keys: "tuple[Key, ...]" = ()


Shape = tuple[Key, ...]

_NVLIST = Type.NVLIST  # a member of an enumeration takes long to look up

# Keys of include/sys/fm/fs/zfs.h that no recorded event has: other releases', other platforms'.
_DOCUMENTED = {
    Type.BOOLEAN: "by_kernel",
    Type.UINT32: "zio_type",
    Type.UINT8_ARRAY: "bad_set_bits bad_cleared_bits",
    Type.STRING: "vdev_devid vdev_fru vdev_enc_sysfs_path vdev_physpath parent_path parent_devid"
    " snapshot_name device_name raw_name volume history_command history_zone history_ioctl",
    Type.UINT64: "dio_verify_errors history_who history_internal_event vdev_cksum_n vdev_cksum_t"
    " vdev_io_n vdev_io_t vdev_slow_io_n vdev_slow_io_t",
}

# What a key says when nobody says anything else; types that aren't here are empty or 0.
_LIKELY: dict[str, Any] = {
    "detector.scheme": "zfs",
    "pool_failmode": "wait",
    "vdev_type": "disk",
    "vdev_path": "/dev/sda1",
    "vdev_ashift": 12,
    "vdev_state": 7,
    "parent_type": "mirror",
    "prev_state": 7,
    "resilver_type": "healing",
    "zio_err": 5,
    "history_hostname": "simulator",
    "history_internal_name": "set",
}
_LIKELY_IN: dict[str, dict[str, Any]] = {
    "ereport.fs.zfs.checksum": {
        "zio_err": 52,
        "cksum_algorithm": "fletcher4",
        "bad_ranges_min_gap": 8,
    },
    "ereport.fs.zfs.deadman": {"zio_err": 0},
    "ereport.fs.zfs.delay": {"zio_err": 0},
    "resource.fs.zfs.removed": {"vdev_state": 3},
    "resource.fs.zfs.statechange": {"vdev_state": 6, "vdev_laststate": 7},
    "sysevent.fs.zfs.pool_create": {"pool_context": 6},
    "sysevent.fs.zfs.pool_destroy": {"pool_state": 2},
    "sysevent.fs.zfs.pool_export": {"pool_state": 1},
}
_EMPTY: dict[Type, Any] = {
    **{kind: () if kind.name.endswith("_ARRAY") else 0 for kind in Type},
    Type.BOOLEAN: True,
    Type.BOOLEAN_VALUE: False,
    Type.STRING: "",
    Type.BYTE_ARRAY: b"",
    Type.DOUBLE: 0.0,
}


@cache
def recorded() -> Mapping[str, Shape]:
    """Return the shape of each recorded class."""
    text = resources.files("zeventfs.simulator").joinpath("shapes.json").read_text("utf-8")
    return {name: _shape(keys) for name, keys in json.loads(text).items()}


def _shape(keys: list[list[Any]]) -> Shape:
    return tuple(
        Key(
            name.removesuffix("?"),
            Type[kind],
            name.endswith("?"),
            _shape(inner[0] if inner else []),
        )
        for name, kind, *inner in keys
    )


def shape_of(name: str) -> Shape:
    """Return the keys of class *name*, but for the time and eid at the end.

    A class that wasn't recorded has its category's head; categories that ZFS doesn't have have that
    of sysevent.
    """
    head = (
        "ereport.fs.zfs.config_cache_write"
        if name.startswith("ereport.")
        else "sysevent.fs.zfs.config_sync"
    )  # two classes that have nothing but the head
    return recorded().get(name) or recorded()[head]


@cache
def _known_types() -> Mapping[str, Type]:
    types = {name: kind for kind, names in _DOCUMENTED.items() for name in names.split()}
    for shape in recorded().values():
        types |= _types_in(shape, "")
    return types


def _types_in(shape: Shape, prefix: str) -> dict[str, Type]:
    types = {}
    for key in shape:
        types[prefix + key.name] = key.type
        types |= _types_in(key.keys, f"{prefix}{key.name}.")
    return types


def known_type(path: str) -> Type | None:
    """Return the type that ZFS gives to a key of any class, "detector.pool" within a list."""
    return _known_types().get(path)


def guid(*names: str) -> int:
    """Return the guid of what *names* name: always the same, never 0, larger than 2^53."""
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") | 1 << 63


def fill(name: str, shape: Shape, given: Mapping[str, Any]) -> list[tuple[str, Type, Any]]:
    """Return the pairs of an event of class *name* with the keys of *shape*, in its order.

    *given* has values by key, for an embedded list another mapping; its keys must be the shape's.
    Optional keys come only when given, so that a recorded event gains none; others get a likely
    value. Guids follow from the pool's name and the vdev's path, the detector's from the event's.
    """
    facts = _LIKELY | _LIKELY_IN.get(name, {}) | {"class": name, "pool": "tank"} | dict(given)
    facts.setdefault("pool_guid", guid(facts["pool"]))
    facts.setdefault("vdev_guid", guid(facts["pool"], facts["vdev_path"]))
    facts.setdefault("parent_guid", guid(facts["pool"], facts["parent_type"]))
    facts.setdefault("ena", guid(facts["pool"], name, "ena"))
    facts["detector.pool"] = facts["pool_guid"]
    facts["detector.vdev"] = facts["vdev_guid"]
    return list(_filled(shape, given, facts, ""))


def _filled(
    shape: Shape, given: Mapping[str, Any], facts: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Type, Any]]:
    for key in shape:
        if key.optional and key.name not in given:
            continue
        path = prefix + key.name
        if key.type is _NVLIST:
            inner = given.get(key.name, {})
            pairs = _filled(key.keys, inner, facts, f"{path}.")
            yield key.name, key.type, NVList.of(pairs)
        elif key.name in given:
            yield key.name, key.type, given[key.name]
        else:
            yield key.name, key.type, facts.get(path, _EMPTY[key.type])
