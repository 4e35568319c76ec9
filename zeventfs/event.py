"""An event: its source, its packed nvlist, and what every user of it asks for first.

Whatever its source, an event is an nvlist in the manner of ZFS's events (include/sys/fm/fs/zfs.h,
module/zfs/fm.c): `class` STRING and `time` INT64_ARRAY[2] always, `eid` UINT64 if the source
numbers its events, `pool` STRING if there is one. `packed` is always `payload`, packed natively.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from zeventfs.nvlist import Encoding, Layout, NVList, NvlistError, Type, decode, encode, pack

__all__ = ["NS", "Event"]

NS = 10**9
_NATIVE_HEADER = bytes([Encoding.NATIVE])


class _Keys(NamedTuple):
    """Where the values that every event has stand in a payload."""

    name: int
    time: int
    eid: int | None
    pool: int | None


_MOST_KEYS = 128
_keys: dict[Layout, _Keys] = {}  # found once for each layout


class Event(NamedTuple):
    """One event; made by `from_packed` or `make`."""

    source: str
    """Where it comes from: "zfs", "zeventfs", "tapdisk", "dm"."""
    packed: bytes
    payload: NVList
    name: str
    """Its class: "ereport.fs.zfs.io"."""
    time_ns: int
    """Nanoseconds since 1970, UTC."""
    eid: int | None
    """The source's own number."""
    pool: str | None

    @classmethod
    def from_packed(cls, source: str, packed: bytes) -> "Event":
        """Take an event from its packed nvlist, of either encoding.

        Raises NvlistError for what is no nvlist, or is one without a class and a time.
        """
        payload = decode(packed)
        if packed[:1] != _NATIVE_HEADER:
            packed = encode(payload)
        name, time, eid, pool = _keys.get(payload.layout) or _find_keys(payload.layout)
        values: Any = payload.values  # of the types that _find_keys has seen to
        return cls(
            source,
            packed,
            payload,
            _text(values[name]),
            values[time] * NS + values[time + 1],
            None if eid is None else values[eid],
            None if pool is None else _text(values[pool]),
        )

    @classmethod
    def make(
        cls,
        source: str,
        name: str,
        time_ns: int,
        pairs: Iterable[tuple[str, Type, Any]] = (),
        eid: int | None = None,
    ) -> "Event":
        """Make an event in the shape of ZFS's own: class, *pairs* (name, type, value), time, eid.

        Raises Invalid for values that their types can't hold.
        """
        tail = [("time", Type.INT64_ARRAY, divmod(time_ns, NS))]
        number = [] if eid is None else [("eid", Type.UINT64, eid)]
        return cls.from_packed(source, pack([("class", Type.STRING, name), *pairs, *tail, *number]))


def _find_keys(layout: Layout) -> _Keys:
    name = layout.at("class", Type.STRING)
    time = layout.at("time", Type.INT64_ARRAY, 2)
    if name is None or time is None:
        raise NvlistError("an event has a class and a time", 0)
    keys = _Keys(name, time, layout.at("eid", Type.UINT64), layout.at("pool", Type.STRING))
    if layout.small:
        if len(_keys) >= _MOST_KEYS:
            _keys.clear()
        _keys[layout] = keys
    return keys


def _text(value: bytes) -> str:
    return str(value, "utf-8", "surrogateescape")
