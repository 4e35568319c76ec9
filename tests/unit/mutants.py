"""Recorded events and injected lines, damaged at random; the same Random gives the same mutants.

A mutant of a packed nvlist is damaged as bytes (bits, words, cuts, splices), in the fields of its
pairs (sizes, type, number of elements) or in what its names and strings say; one of a JSON line as
bytes, in its tokens, or in the values that it has. So some are nonsense, some nearly right, and
some are right and odd.
"""

import base64
import json
import random
import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from zeventfs.event import Event
from zeventfs.nvlist import NVList, Type, encode
from zeventfs.render import Renderer

__all__ = ["Mutant", "Mutants"]

CORPUS = Path(__file__).parents[1] / "corpus"

_ODD = [0, 1, 2, 7, 9, 23, 24, 27, 28, 2**15, 2**16 - 1, 2**28, 2**31 - 1, 2**31, 2**32 - 8]
_WORDS = [struct.pack(order + "I", number) for order in "<>" for number in _ODD]
_TEXTS = [
    b"\n", b"\r", b"\0", b'"', b"\\", b"%s", b"%", b"%(x)d", b"\x1b", b"\x7f", b"\x80", b"\xff",
    b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\\x0a", b"\\x5c", b"/",
    b"class", b"zeventfs.gap",
]  # fmt: skip
_TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"null", b"true", b"-", b"1e999", b"0x",
    b"NaN", b"1.5", b"-1", b"18446744073709551616", b"9" * 5000, b'"\\ud800"', b'"\\u0000"',
    b'"\\ud83d\\ude00"', b"[" * 2000, b'{"a":' * 2000, b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 255, 2**31, 2**53, 2**63, 2**64 - 1, 2**64, -(2**63), 10**30, 1.5,
    "", "0x", "-1", "0xffffffffffffffff", "18446744073709551616", "\0", "\n", "\u2028", "\x85",
    "\\xff", "\\x00", "\\x5c", "x" * 7000, [], [[]], {}, [{}], [1, "a"], [True], ["a"], [None],
    {"": 0}, {"a": {"b": [{"c": {}}]}}, [1] * 300, "zeventfs.gap", "ereport.fs.zfs.io",
]  # fmt: skip
_KEYS = [
    "class", "pool", "payload", "time", "eid", "seq", "detector", "detector.pool", "a_guid", "",
    "a_guids", "speculative", "x_name", "x_names", "zio_flags", "\0", "\n", "k" * 255, "k" * 256,
    "é", "dropped", "native", "xdr", "%", "pool_guid", "vdev_path", "parent_type", "vdev_guid",
]  # fmt: skip

_PAIR = struct.Struct("=ihhii")  # see zeventfs.nvlist._native
_HEADER = 12


class Mutant(NamedTuple):
    """What is tried: "packed" is an nvlist, "inject" and "recording" are lines."""

    kind: str
    raw: bytes


class _Pair(NamedTuple):
    """Where a native pair of a seed begins and ends."""

    start: int
    end: int


class Mutants:
    """Makes mutants of the corpus; the seeds are read once."""

    def __init__(self) -> None:
        recorded = [
            json.loads(line) for line in (CORPUS / "zevents.jsonl").read_text("utf-8").splitlines()
        ][1:]
        native = [base64.b64decode(each["native"]) for each in recorded]
        renderer = Renderer("fuzz", "2.1.11")
        lines = [
            renderer.json_line(Event.from_packed("zfs", packed), 7).rstrip() for packed in native
        ]
        other = [path.read_bytes() for path in sorted((CORPUS / "nvlist").glob("*.bin"))]
        xdr = [base64.b64decode(each["xdr"]) for each in recorded]
        self._packed = [*native, *xdr, *other, *_own_events()]
        self._native = [(packed, _pairs(packed)) for packed in (*native, *_own_events())]
        self._injected = [*lines, b'{"class":"a.b"}', b'{"class":"ereport.fs.zfs.io","pool":"p"}']
        self._recorded = [json.dumps({"native": each["native"]}).encode() for each in recorded]

    def seeds(self) -> Iterator[Mutant]:
        """What mutants are made from, undamaged."""
        yield from (Mutant("packed", raw) for raw in self._packed)
        yield from (Mutant("inject", raw) for raw in self._injected)
        yield from (Mutant("recording", raw) for raw in self._recorded)

    def make(self, rnd: random.Random) -> Mutant:
        """The next mutant that *rnd* gives: half are bytes, a third fields, the rest lines."""
        drawn = rnd.random()
        if drawn < 0.45:
            return Mutant("packed", self._damaged(rnd))
        if drawn < 0.8:
            return Mutant("packed", self._odd(rnd))
        if drawn < 0.92:
            return Mutant("inject", _lines(self._injected, rnd))
        if drawn < 0.96:
            return Mutant("recording", _lines(self._recorded, rnd))
        return Mutant("recording", self._recording(rnd))

    def _damaged(self, rnd: random.Random) -> bytes:
        raw = bytearray(rnd.choice(self._packed))
        for _ in range(rnd.randint(1, 4)):
            at = rnd.randrange(max(1, len(raw)))
            _bytes_way(rnd)(raw, at, rnd.choice(self._packed), rnd)
        return bytes(raw)

    def _odd(self, rnd: random.Random) -> bytes:
        """Damage pairs rather than bytes, so that many mutants are understood."""
        packed, pairs = rnd.choice(self._native)
        raw = bytearray(packed)
        for _ in range(rnd.randint(1, 3)):
            pair = rnd.choice(pairs)
            if pair.end > len(raw):
                continue
            match rnd.randrange(5):
                case 0:
                    _odd_field(raw, pair, rnd)
                case 1 | 2:  # what a name or a string says, or a number is
                    word = rnd.choice(_TEXTS)
                    at = rnd.randrange(pair.start + _PAIR.size, pair.end)
                    end = min(at + len(word), pair.end)
                    raw[at:end] = word[: end - at]
                case 3:  # another list's pair in its place
                    other, others = rnd.choice(self._native)
                    given = rnd.choice(others)
                    raw[pair.start : pair.end] = other[given.start : given.end]
                    break  # the places of the others have moved
                case _:  # once more, or not at all
                    piece = raw[pair.start : pair.end] * rnd.choice([0, 2, 3])
                    raw[pair.start : pair.end] = piece
                    break
        return bytes(raw)

    def _recording(self, rnd: random.Random) -> bytes:
        """Give nvlists after their lengths, of which one may be wrong, or their JSON lines."""
        packed = [rnd.choice((self._damaged, self._odd))(rnd) for _ in range(rnd.randint(1, 3))]
        if rnd.random() < 0.5:
            return b"\n".join(b'{"native":"%b"}' % base64.b64encode(each) for each in packed)
        raw = bytearray(b"".join(len(each).to_bytes(4, "little") + each for each in packed))
        if rnd.random() < 0.3:
            _bytes_way(rnd)(raw, rnd.randrange(max(1, len(raw))), packed[0], rnd)
        return bytes(raw)


def _own_events() -> list[bytes]:
    """Give lists of every type there is, and such as zeventfs makes for itself."""
    inner = NVList.of([("class", Type.STRING, "a"), ("n", Type.UINT64_ARRAY, (1, 2**64 - 1))])
    values: dict[Type, Any] = {
        **{kind: (1, 0) if kind.name.endswith("_ARRAY") else 1 for kind in Type},
        Type.BYTE_ARRAY: b"\x00\xff",
        Type.STRING: "a/b",
        Type.STRING_ARRAY: ("", "b\udcff"),
        Type.NVLIST: inner,
        Type.NVLIST_ARRAY: (inner, NVList.of([]), inner),
    }
    every = [(kind.name.lower(), kind, value) for kind, value in values.items()]
    gap = [("dropped", Type.UINT64, 3), ("cause", Type.STRING, "source")]
    deep = inner
    for _ in range(20):
        deep = NVList.of([("in", Type.NVLIST, deep), ("after", Type.INT8, -1)])
    return [
        Event.make("zfs", "ereport.fs.zfs.io", 10**18, every, 7).packed,
        Event.make("zfs", "zeventfs.gap", 10**18, gap).packed,
        encode(NVList.of([*gap, *Event.make("zfs", "zeventfs.gap", 1).payload.pairs()])),
        Event.make("zfs", "a.b", -1, [("deep", Type.NVLIST, deep)], 2**64 - 1).packed,
    ]


def _pairs(packed: bytes) -> list[_Pair]:
    """Find all native pairs, those of embedded lists too, which follow their image's pair."""
    found = []
    at = _HEADER
    while at + 4 <= len(packed):
        size = int.from_bytes(packed[at : at + 4], "little")
        if size:
            found.append(_Pair(at, at + size))
        at += size or 4
    return found


def _odd_field(raw: bytearray, pair: _Pair, rnd: random.Random) -> None:
    fields = list(_PAIR.unpack_from(raw, pair.start))
    match rnd.randrange(5):
        case 0:
            fields[0] += rnd.choice([-8, -1, 1, 8, 16, 1 << 20])
        case 1:
            fields[1] += rnd.choice([-9, -8, -1, 1, 8])
        case 2:
            fields[3] += rnd.choice([-3, -1, 1, 2, 1 << 27])
        case _:  # most likely to be understood: another type of the same size
            fields[4] = rnd.randrange(29)
    raw[pair.start : pair.start + _PAIR.size] = _PAIR.pack(*fields)


# What can happen to bytes, at a place of theirs


def _flip(raw: bytearray, at: int, _other: bytes, rnd: random.Random) -> None:
    if at < len(raw):
        raw[at] ^= 1 << rnd.randrange(8)


def _byte(raw: bytearray, at: int, _other: bytes, rnd: random.Random) -> None:
    raw[at : at + 1] = bytes([rnd.randrange(256)])


def _word(raw: bytearray, at: int, _other: bytes, rnd: random.Random) -> None:
    raw[at & ~3 : (at & ~3) + 4] = rnd.choice(_WORDS)


def _splice(raw: bytearray, at: int, other: bytes, _rnd: random.Random) -> None:
    raw[at & ~3 :] = other[at & ~3 :]


def _cut(raw: bytearray, at: int, _other: bytes, rnd: random.Random) -> None:
    del raw[at : at + rnd.choice([1, 4, 8, 24, len(raw)])]


def _twice(raw: bytearray, at: int, _other: bytes, rnd: random.Random) -> None:
    raw[at:at] = raw[at : at + rnd.choice([4, 8, 32])]


_Way = Callable[[bytearray, int, bytes, random.Random], None]
_WAYS: list[_Way] = [_flip, _byte, _word, _splice, _cut, _twice]


def _bytes_way(rnd: random.Random) -> _Way:
    return rnd.choice(_WAYS)


# What can happen to lines


def _lines(seeds: list[bytes], rnd: random.Random) -> bytes:
    """Give one damaged line, sometimes among others."""
    damaged = _line(rnd.choice(seeds), rnd.choice(seeds), rnd)
    if rnd.random() < 0.1:
        return b"\n".join([rnd.choice(seeds), damaged, rnd.choice(seeds), b""])
    return damaged


def _line(line: bytes, other: bytes, rnd: random.Random) -> bytes:
    drawn = rnd.random()
    if drawn < 0.6:
        value = json.loads(line)
        for _ in range(rnd.randint(1, 3)):
            _odd_value(value, rnd)
        line = json.dumps(value, ensure_ascii=rnd.random() < 0.5).encode(errors="surrogatepass")
        if drawn < 0.4:
            return line
    raw = bytearray(line)
    at = rnd.randrange(max(1, len(raw)))
    if rnd.random() < 0.5:
        raw[at : at + rnd.randrange(3)] = rnd.choice(_TOKENS)
    else:
        _bytes_way(rnd)(raw, at, other, rnd)
    return bytes(raw)


def _odd_value(value: Any, rnd: random.Random) -> None:
    """Change one key or value of *value*, an object, or deeper in it."""
    while value:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rnd.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and rnd.random() < 0.8:
            value = value[key]
            continue
        match rnd.randrange(4):
            case 0 if isinstance(value, dict):
                value[rnd.choice(_KEYS)] = value.pop(key)
            case 1 if isinstance(value, dict):
                value[rnd.choice(_KEYS)] = deepcopy(rnd.choice(_VALUES))
            case 2:
                del value[key]
            case _:
                value[key] = deepcopy(rnd.choice(_VALUES))
        return
