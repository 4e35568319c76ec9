"""Decodes native lists quickly that look like one seen before, and agrees with `_native` on all.

Theory of operation. Events of a class differ in their values, hardly ever in anything else. So from
a list that the generic decoder has taken apart we keep its *shape*: which of its bytes are values
(the rest, headers, names and paddings, are its structure), and one struct that takes all values out
at once. A list of the same length whose structure is equal, byte for byte, would be taken apart by
the generic decoder in just the same steps, with one exception: a string must end within the last
eight bytes of its place. If it doesn't, or no shape fits, the generic decoder has the word.

Structure is compared as one big integer under a mask. Lists with string arrays or arrays of lists
(their inner offsets depend on values) are never made shapes. The memory is bounded: long lists make
no shape, a length has a few shapes, and when there are too many altogether all are forgotten.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from zeventfs.nvlist._model import Layout, NVList
from zeventfs.nvlist._native import Reader

__all__ = ["decode", "forget"]

_LONGEST: Final = 8192  # an event has at most 6,144 bytes (ERPT_DATA_SZ)
_SHAPES_OF_LENGTH: Final = 8
_SHAPES: Final = 256


class _Shape(NamedTuple):
    mask: int  # ones over the structure
    structure: int
    unpack: Callable[[bytes], tuple[Any, ...]]
    strings: tuple[tuple[int, int], ...]  # (which value, the least offset of its NUL)
    layout: Layout


_shapes: dict[int, list[_Shape]] = {}
_layouts: dict[Layout, Layout] = {}


def forget() -> None:
    """Forget all shapes."""
    _shapes.clear()
    _layouts.clear()


def decode(packed: bytes) -> NVList:
    """Decode a native list; raises NvlistError."""
    shapes = _shapes.get(len(packed))
    if shapes:
        bits = int.from_bytes(packed, "little")
        for mask, structure, unpack, strings, layout in shapes:
            if bits & mask == structure:
                values = list(unpack(packed))
                for index, least in strings:
                    place = values[index]
                    nul = place.find(0)
                    if nul < least:
                        return Reader(packed).read()
                    values[index] = place[:nul]
                return NVList(layout, tuple(values))
    reader = Reader(packed)
    nvlist = reader.read()
    if reader.plain and nvlist.layout.small and len(packed) <= _LONGEST:
        return NVList(_learn(reader, nvlist.layout), nvlist.values)
    return nvlist


def _learn(reader: Reader, layout: Layout) -> Layout:
    """Keep the shape of the list that *reader* has read; give the layout that all such share."""
    if len(_layouts) >= _SHAPES or sum(map(len, _shapes.values())) >= _SHAPES:
        forget()
    layout = _layouts.setdefault(layout, layout)
    shapes = _shapes.setdefault(len(reader.packed), [])
    shapes.insert(0, _shape(reader, layout))
    del shapes[_SHAPES_OF_LENGTH:]
    return layout


def _shape(reader: Reader, layout: Layout) -> _Shape:
    mask = bytearray(b"\xff" * len(reader.packed))
    form = ["="]
    strings = []
    at = 0
    for offset, code, string in reader.places:
        size = struct.calcsize("=" + code)
        mask[offset : offset + size] = bytes(size)
        form.append(f"{offset - at}x{code}")
        at = offset + size
        if string >= 0:
            strings.append((string, size - 8))
    form.append(f"{len(mask) - at}x")
    ones = int.from_bytes(mask, "little")
    structure = int.from_bytes(reader.packed, "little") & ones
    return _Shape(ones, structure, struct.Struct("".join(form)).unpack, tuple(strings), layout)
