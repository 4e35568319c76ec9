"""Decodes and packs native lists quickly that look like one seen before; agrees with `_native`.

Theory of operation. Events of a class differ in their values, hardly ever in anything else. So from
a list that the generic decoder has taken apart we keep its *shape*: which of its bytes are values
(the rest, headers, names and paddings, are its structure), and one struct that takes all values out
at once. A list of the same length whose structure is equal, byte for byte, would be taken apart by
the generic decoder in just the same steps, with one exception: a string must end within the last
eight bytes of its place. If it doesn't, or no shape fits, the generic decoder has the word.

A shape packs as well: its struct puts all values in at once, leaving zeros for the structure, which
is put on top. Here it is chosen by what decides the structure: the pairs' names and types, how long
arrays are, how many units of eight bytes strings take, and the layouts of embedded lists. Values
that don't go into the struct are left to the generic way, `NVList.of` and `_native.encode`, which
says what is wrong with them.

Structure is compared as one big integer under a mask. Lists with string arrays or arrays of lists
(their inner offsets depend on values) are never made shapes. The memory is bounded: long lists make
no shape, a length has a few shapes, and when there are too many altogether all are forgotten.
"""

import struct
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, NamedTuple

from zeventfs.nvlist._model import ELEMENT, SCALARS, Layout, NVList, Type
from zeventfs.nvlist._native import Reader, encode

__all__ = ["decode", "forget", "pack"]

_LONGEST: Final = 8192  # an event has at most 6,144 bytes (ERPT_DATA_SZ)
_SHAPES_OF_LENGTH: Final = 8
_SHAPES: Final = 256

# Python 3.11 takes longer to look a member of an enumeration up than to pack a value.
_BOOLEAN: Final = Type.BOOLEAN
_STRING: Final = Type.STRING
_STRING_ARRAY: Final = Type.STRING_ARRAY
_NVLIST: Final = Type.NVLIST


class _Shape(NamedTuple):
    mask: int  # ones over the structure
    structure: int
    unpack: Callable[[bytes], tuple[Any, ...]]
    strings: tuple[tuple[int, int], ...]  # (which value, the least offset of its NUL)
    layout: Layout
    pack: Callable[..., bytes]  # leaves the structure 0


_shapes: dict[int, list[_Shape]] = {}
_layouts: dict[Layout, Layout] = {}
_packing: dict[Hashable, _Shape] = {}  # by what _taken_apart gives


def forget() -> None:
    """Forget all shapes."""
    _shapes.clear()
    _layouts.clear()
    _packing.clear()


def decode(packed: bytes) -> NVList:
    """Decode a native list; raises NvlistError."""
    shapes = _shapes.get(len(packed))
    if shapes:
        bits = int.from_bytes(packed, "little")
        for mask, structure, unpack, strings, layout, _ in shapes:
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
    whole = struct.Struct("".join(form))
    return _Shape(ones, structure, whole.unpack, tuple(strings), layout, whole.pack)


def pack(pairs: Iterable[tuple[str, Type, Any]], flags: int) -> bytes:
    """Pack (name, type, value) natively as `encode(NVList.of(pairs, flags))`; raises as these."""
    pairs = list(pairs)
    try:
        apart = _taken_apart(pairs, flags)
        shape = apart and _packing.get(apart.kind)
        if apart and shape:
            packed = shape.pack(*apart.values)
            bits = int.from_bytes(packed, "little") | shape.structure
            return bits.to_bytes(len(packed), "little")
    except (AttributeError, OverflowError, TypeError, ValueError, struct.error):
        apart = None  # a value that its type can't hold, or can't in a plain way
    nvlist = NVList.of(pairs, flags)
    packed = encode(nvlist)
    if apart and nvlist.layout.small and len(packed) <= _LONGEST:
        _learn_packing(apart.kind, packed)
    return packed


def _learn_packing(kind: Hashable, packed: bytes) -> None:
    """Keep the shape of *packed* for what is of the same *kind*."""
    reader = Reader(packed)
    layout = reader.read().layout
    if reader.plain:
        if len(_packing) >= _SHAPES:
            _packing.clear()
        _packing[kind] = _shape(reader, layout)


class _Apart(NamedTuple):
    """Pairs to be packed: all that decides their structure, and the flat values, unchecked."""

    kind: Hashable
    values: list[Any]


def _taken_apart(pairs: list[tuple[str, Type, Any]], flags: int) -> _Apart | None:
    """Take *pairs* apart, None if no shape could pack them."""
    names, kinds, given = zip(*pairs, strict=True)
    values: list[Any] = []
    extents: list[int | Layout] = []
    for kind, value in zip(kinds, given, strict=True):
        if kind in SCALARS:
            values.append(value)
        elif kind is _STRING:
            if "\0" in value:
                return None
            encoded = value.encode(errors="surrogateescape")
            values.append(encoded)
            extents.append(len(encoded) >> 3)
        elif kind in ELEMENT or (kind is _STRING_ARRAY and not value):
            extents.append(len(value))  # first, for an iterator would be used up by the other
            values += value
        elif kind is _NVLIST:
            values += value.values
            extents.append(value.layout)
            extents += [len(atom) >> 3 for atom in value.values if isinstance(atom, bytes)]
        elif kind is not _BOOLEAN:
            return None
    return _Apart((flags, names, kinds, *extents), values)
