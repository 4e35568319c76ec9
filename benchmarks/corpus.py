"""Events of recorded shape in any number: the corpus's packed nvlists, each with values of its own.

No two are alike: eid and time differ in all of them, ena and the I/O's place where they have one,
so that nothing that renders them can remember a whole answer. EIDs have no holes.
"""

import base64
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["recorded", "varied", "write_backlog"]

CORPUS = Path(__file__).parent.parent / "tests" / "corpus" / "zevents.jsonl"
HEADER = 12  # bytes before a native list's first pair: encoding, version, flags
PAIR = struct.Struct("<ihhii")  # size, name_sz, reserve, nelem, type
STEP_NS = 1_000_000  # between two events of a backlog


class Shape(NamedTuple):
    """One recorded event, and where its changing values stand."""

    packed: bytes
    eid: int
    time: int
    numbers: tuple[int, ...]


def recorded() -> list[bytes]:
    """The corpus's events as packed native nvlists, in the order in which they happened."""
    with CORPUS.open(encoding="utf-8") as lines:
        next(lines)  # what the corpus is
        return [base64.b64decode(json.loads(line)["native"]) for line in lines]


def varied(count: int, first_eid: int = 1) -> Iterator[bytes]:
    """*count* packed nvlists over the recorded mix, the last of them about now."""
    shapes = [_shape(packed) for packed in recorded()]
    begin = time.time_ns() - count * STEP_NS
    for index in range(count):
        shape = shapes[index % len(shapes)]
        packed = bytearray(shape.packed)
        struct.pack_into("<Q", packed, shape.eid, first_eid + index)
        struct.pack_into("<qq", packed, shape.time, *divmod(begin + index * STEP_NS, 10**9))
        for place in shape.numbers:
            (value,) = struct.unpack_from("<Q", packed, place)
            struct.pack_into("<Q", packed, place, (value + index * 4096) % 2**53)
        yield bytes(packed)


def write_backlog(path: Path, count: int) -> None:
    """Write what `replay:FILE` plays: each packed nvlist after its length (u32, little endian)."""
    with path.open("wb") as backlog:
        for packed in varied(count):
            backlog.write(struct.pack("<I", len(packed)))
            backlog.write(packed)


def _shape(packed: bytes) -> Shape:
    places = dict(_values(packed))
    numbers = tuple(places[key] for key in ("ena", "zio_offset") if key in places)
    return Shape(packed, places["eid"], places["time"], numbers)


def _values(packed: bytes) -> Iterator[tuple[str, int]]:
    """Each top-level pair's name and where its value begins, up to the first nested list."""
    at = HEADER
    while (size := struct.unpack_from("<i", packed, at)[0]) != 0:
        _, name_size, _, _, _ = PAIR.unpack_from(packed, at)
        name = packed[at + PAIR.size : at + PAIR.size + name_size - 1].decode()
        yield name, at + (PAIR.size + name_size + 7) // 8 * 8
        at += size
        if name == "detector":  # a nested list's pairs follow its pair, then four zero bytes
            while (inner := struct.unpack_from("<i", packed, at)[0]) != 0:
                at += inner
            at += 4
