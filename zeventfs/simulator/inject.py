r"""What is written to simulator/inject, as events to post: JSON lines in, all of them or none.

A line is `{"class": ..., "pool": ..., "payload": {...}}`; pool and payload may be left out. A line
of events/stream does as well: its seq, epoch, source, eid and time are the old event's and are
ignored, and so are keys in words (`vdev_state_name`, `speculative`) that its rendering added.

A key's type never depends on an integer's value. It is, in this order: the type that the class has
for it (shapes.json); the type that any class has for it; UINT64 for `*_guid`, UINT64_ARRAY for
`*_guids`; and by the kind of the value: UINT64 for an integer (never negative), STRING,
BOOLEAN_VALUE, NVLIST for an object, and for an array the array of these, where an empty one counts
as one of integers. Integers of 64 bits may be strings, decimal or 0x, for keys of the first three.
In a string, the four characters `\xHH` are one byte, as in rendered lines.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from zeventfs.errors import Invalid
from zeventfs.nvlist import NVList, Type
from zeventfs.simulator.shapes import Key, Shape, fill, known_type, shape_of
from zeventfs.simulator.zfs import Pair

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NAME", "events", "parse"]

MAX_BYTES = 1 << 20  # of one write
MAX_NAME = 255  # characters of a key
MAX_DEPTH = 20  # lists within lists, as many as the kernel's nvpair_max_recursion allows

_CLASS = re.compile(r"[a-z]+(\.[a-z0-9_]+)+")
_NUMBER = re.compile(r"-?[0-9]{1,20}|0x[0-9a-fA-F]{1,16}")
_IN_WORDS = re.compile(r"(.+)_names?")
_BYTE = re.compile(rb"\\x([0-9a-f]{2})")
_OWN = {"class", "pool", "payload"}
_IGNORED = {"seq", "epoch", "source", "eid", "time"}

_BITS = {
    f"{sign}INT{bits}": (bits, sign == "") for sign in ("", "U") for bits in (8, 16, 32, 64)
}  # of a type's name: width, signed


class _Given(NamedTuple):
    """A payload as fill wants it: the shape with the keys that it didn't know, and the values."""

    shape: Shape
    values: dict[str, Any]


def parse(written: bytes) -> list[tuple[str, list[Pair]]]:
    """Return the events that *written* asks for, each with its class, ready for ZfsDevice.post.

    Raises Invalid, which names the line and says in a sentence what is wrong with it. Tens of
    thousands of events take a second or more: who can't wait so long takes them from `events`.
    """
    return list(events(written))


def events(written: bytes) -> Iterator[tuple[str, list[Pair]]]:
    """Yield what `parse` returns, one by one; nothing may be posted before the last one is there.

    Raises Invalid, also after some were given.
    """
    if len(written) > MAX_BYTES:
        raise Invalid(
            f"A write of {len(written)} bytes is too long, at most {MAX_BYTES} are taken."
        )
    for number, line in enumerate(written.split(b"\n"), 1):
        if line.strip():
            try:
                yield _event(line)
            except Invalid as reason:
                raise Invalid(f"Line {number}: {reason}") from None
            except RecursionError:
                raise Invalid(f"Line {number}: it is nested too deeply.") from None


def _event(line: bytes) -> tuple[str, list[Pair]]:
    event = _object(line)
    name = event.get("class")
    if not isinstance(name, str) or not _CLASS.fullmatch(name):
        raise Invalid(f"class must be a name like ereport.fs.zfs.io, not {_shown(name)}.")
    if name.startswith("zeventfs."):
        raise Invalid(f"{_shown(name)} is an event of zeventfs itself, which no device posts.")
    payload = event.get("payload", {})
    if not isinstance(payload, dict):
        raise Invalid(f"payload must be an object, not {_shown(payload)}.")
    said = {key: event[key] for key in ("class", "pool") if key in event}
    for key, value in said.items():
        if payload.get(key, value) != value:
            raise Invalid(f"{key} is {_shown(value)} and, in the payload, {_shown(payload[key])}.")
    payload = {key: value for key, value in payload.items() if key not in {"time", "eid"}}
    given = _given(shape_of(name), payload | said, "", 1)
    return name, fill(name, given.shape, given.values)


def _object(line: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{error}.") from None
    if not isinstance(event, dict):
        raise Invalid(f"it must be an object, not {_shown(event)}.")
    if unknown := event.keys() - _OWN - _IGNORED:
        raise Invalid(f"{_shown(min(unknown))} is no key of an event; should it be in the payload?")
    return event


def _given(shape: Shape, payload: Mapping[str, Any], prefix: str, depth: int) -> _Given:
    """Read a payload, or a list within it, whose class's keys are *shape*."""
    if depth > MAX_DEPTH:
        raise Invalid(f"{_shown(prefix)} is nested more than {MAX_DEPTH} deep.")
    keys = {key.name: key for key in shape}
    values: dict[str, Any] = {}
    for name, value in payload.items():
        path = prefix + name
        if not 0 < len(name) <= MAX_NAME or "\0" in name:
            raise Invalid(f"{_shown(path)} can't be the name of a key.")
        if name not in keys and _is_derived(name, path, payload):
            continue
        key = keys.get(name) or Key(name, known_type(path) or _inferred(path, value))
        if key.type is Type.BOOLEAN and value is False:
            continue  # it has no value: it is there or it isn't
        if key.type is Type.NVLIST:
            inner, values[name] = _given(key.keys, _of(dict, path, value), f"{path}.", depth + 1)
            key = key._replace(keys=inner)
        else:
            values[name] = _value(key.type, path, value, depth)
        keys[name] = key
    return _Given(tuple(keys.values()), values)


def _is_derived(name: str, path: str, payload: Mapping[str, Any]) -> bool:
    """Tell whether rendering added this key, to say another one of the payload in words."""
    if known_type(path):
        return False
    if name == "speculative":
        return "zio_flags" in payload
    words = _IN_WORDS.fullmatch(name)
    return words is not None and words[1] in payload


def _inferred(path: str, value: Any) -> Type:
    """Return the type of a key that no class has, from its name and the kind of its value."""
    if path.endswith("_guid"):
        return Type.UINT64
    if path.endswith("_guids"):
        return Type.UINT64_ARRAY
    if not isinstance(value, list):
        return _inferred_scalar(path, value)
    kinds = {_inferred_scalar(path, each) for each in value} or {Type.UINT64}
    if len(kinds) > 1:
        raise Invalid(f"{_shown(path)} has elements of several kinds.")
    return Type[f"{kinds.pop().name.removesuffix('_VALUE')}_ARRAY"]


def _inferred_scalar(path: str, value: Any) -> Type:
    match value:
        case bool():
            return Type.BOOLEAN_VALUE
        case int():
            return Type.UINT64
        case str():
            return Type.STRING
        case dict():
            return Type.NVLIST
    raise Invalid(f"{_shown(path)} can't be {_shown(value)}: no event holds such a value.")


def _value(kind: Type, path: str, value: Any, depth: int) -> Any:
    """Return *value* as one of *kind*, anything but an NVLIST."""
    match kind:
        case Type.BOOLEAN | Type.BOOLEAN_VALUE:
            return _of(bool, path, value)
        case Type.STRING:
            if "\0" in (text := _text(_of(str, path, value))):
                raise Invalid(f"{_shown(path)} can't have a character 0 in it.")
            return text
        case Type.NVLIST_ARRAY:
            return tuple(_list(path, each, depth) for each in _of(list, path, value))
        case _ if kind.name.endswith("_ARRAY"):
            element = Type[kind.name.removesuffix("_ARRAY")]
            return tuple(_value(element, path, each, depth) for each in _of(list, path, value))
    return _integer(kind, path, value)


def _list(path: str, value: Any, depth: int) -> NVList:
    """Return an element of an NVLIST_ARRAY; no class has such a key, so none is filled in."""
    given = _given((), _of(dict, path, value), f"{path}.", depth + 1)
    return NVList.of(_pairs(given.shape, given.values))


def _pairs(shape: Shape, values: Mapping[str, Any]) -> Iterator[Pair]:
    for key in shape:
        value = values[key.name]
        if key.type is Type.NVLIST:
            value = NVList.of(_pairs(key.keys, value))
        yield key.name, key.type, value


def _text(text: str) -> str:
    r"""Undo how a rendered line writes bytes that are no UTF-8: `\xHH` stands for one byte."""
    packed = _BYTE.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return packed.decode(errors="surrogateescape")


def _integer(kind: Type, path: str, value: Any) -> int:
    bits, signed = _BITS[kind.name]
    if bits == 64 and isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value, 16 if value.startswith("0x") else 10)
    number: int = _of(int, path, value)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    if isinstance(number, bool) or not low <= number < high:
        raise Invalid(f"{_shown(path)} can't be {_shown(value)}: its type is {kind.name}.")
    return number


_WORDS = {
    bool: "true or false",
    str: "a string",
    int: "an integer",
    list: "an array",
    dict: "an object",
}


def _of(kind: type, path: str, value: Any) -> Any:
    if not isinstance(value, kind):
        raise Invalid(f"{_shown(path)} must be {_WORDS[kind]}, not {_shown(value)}.")
    return value


def _shown(value: Any) -> str:
    """Return *value* as the log shows it: JSON, on one line, cut short."""
    text = json.dumps(value)  # which, unlike msgspec, has no limit for integers
    return text if len(text) <= 60 else f"{text[:57]}..."
