"""What an nvlist is to the rest: a layout, which all lists of the same keys share, and its values.

A list's values stand in one flat tuple, in the order of the layout's slots; embedded lists' values
stand in their place in it. So a list taken apart needs two objects, and what is compiled for a
layout (a renderer's format, for one) serves every event of the same kind. The flat values:

- integers, HRTIME, DOUBLE: a number; BOOLEAN_VALUE: its 32-bit integer; BOOLEAN: nothing
- STRING: its bytes without the NUL; BYTE_ARRAY: its bytes
- other arrays: one value for each element
- NVLIST, NVLIST_ARRAY: the values of the lists, one list after the other

Both are immutable, and a layout and its values always fit each other.
"""

import enum
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from zeventfs.errors import Invalid

__all__ = [
    "ELEMENT",
    "HOST_ENDIAN",
    "INT32_MAX",
    "LIST_IMAGE",
    "MAX_DEPTH",
    "MAX_NAME",
    "SCALARS",
    "Atom",
    "Encoding",
    "Layout",
    "NVList",
    "NvlistError",
    "Slot",
    "Type",
    "align8",
    "legal_type",
    "value_size",
]

INT32_MAX: Final = 2**31 - 1
MAX_DEPTH: Final = 100  # libnvpair's nvpair_max_recursion
MAX_NAME: Final = 2**15 - 2  # its size, NUL included, is an int16_t
LIST_IMAGE: Final = 24  # sizeof (nvlist_t), which stands in a pair for the embedded list
_SMALL: Final = 1024
HOST_ENDIAN: Final = 1 if sys.byteorder == "little" else 0

Atom = int | float | bytes


class NvlistError(Invalid):
    """A packed nvlist that can't be understood.

    `reason` says why, `offset` where, in bytes from the list's begin; the message has both.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} (at byte {offset})")
        self.reason = message
        self.offset = offset


class Encoding(enum.IntEnum):
    """The first byte of a packed list."""

    NATIVE = 0
    XDR = 1


class Type(enum.IntEnum):
    """data_type_t of include/sys/nvpair.h."""

    BOOLEAN = 1
    BYTE = 2
    INT16 = 3
    UINT16 = 4
    INT32 = 5
    UINT32 = 6
    INT64 = 7
    UINT64 = 8
    STRING = 9
    BYTE_ARRAY = 10
    INT16_ARRAY = 11
    UINT16_ARRAY = 12
    INT32_ARRAY = 13
    UINT32_ARRAY = 14
    INT64_ARRAY = 15
    UINT64_ARRAY = 16
    STRING_ARRAY = 17
    HRTIME = 18
    NVLIST = 19
    NVLIST_ARRAY = 20
    BOOLEAN_VALUE = 21
    INT8 = 22
    UINT8 = 23
    BOOLEAN_ARRAY = 24
    INT8_ARRAY = 25
    UINT8_ARRAY = 26
    DOUBLE = 27


SCALARS: Final[dict[Type, str]] = {
    Type.BYTE: "B",
    Type.INT8: "b",
    Type.UINT8: "B",
    Type.INT16: "h",
    Type.UINT16: "H",
    Type.INT32: "i",
    Type.UINT32: "I",
    Type.INT64: "q",
    Type.UINT64: "Q",
    Type.HRTIME: "q",
    Type.DOUBLE: "d",
    Type.BOOLEAN_VALUE: "i",
}
"""Each scalar number's struct code."""

ELEMENT: Final[dict[Type, str]] = {
    Type.BOOLEAN_ARRAY: "i",
    Type.INT8_ARRAY: "b",
    Type.UINT8_ARRAY: "B",
    Type.INT16_ARRAY: "h",
    Type.UINT16_ARRAY: "H",
    Type.INT32_ARRAY: "i",
    Type.UINT32_ARRAY: "I",
    Type.INT64_ARRAY: "q",
    Type.UINT64_ARRAY: "Q",
}
"""The struct code of each numeric array's elements."""

_LISTS: Final = frozenset({Type.NVLIST, Type.NVLIST_ARRAY})
_STRINGS: Final = frozenset({Type.STRING, Type.STRING_ARRAY})
_ARRAYS: Final = frozenset(kind for kind in Type if kind.name.endswith("_ARRAY"))
_TYPES: Final = {int(kind): kind for kind in Type}
_NELEM: Final = {
    Type.BOOLEAN: 0,
    **dict.fromkeys([*SCALARS, Type.STRING, Type.NVLIST], 1),
}
_FIXED_SIZE: Final = {
    # what a value takes besides its strings' bytes: (once, for each element)
    Type.BOOLEAN: (0, 0),
    Type.STRING: (0, 0),
    Type.BYTE_ARRAY: (0, 1),
    Type.STRING_ARRAY: (0, 8),
    Type.NVLIST: (LIST_IMAGE, 0),
    Type.NVLIST_ARRAY: (0, 8 + LIST_IMAGE),
    **{kind: (struct.calcsize("=" + code), 0) for kind, code in SCALARS.items()},
    **{kind: (0, struct.calcsize("=" + code)) for kind, code in ELEMENT.items()},
}


def align8(size: int) -> int:
    """NV_ALIGN of nvpair.c."""
    return (size + 7) & ~7


def value_size(kind: Type, nelem: int) -> int:
    """Give the bytes of a native value of *nelem* elements, strings' own bytes left out."""
    once, each = _FIXED_SIZE[kind]
    return once + each * nelem


def legal_type(code: int, nelem: int, offset: int) -> Type:
    """Check a pair's type and number of elements, both found at *offset* or after."""
    kind = _TYPES.get(code)
    if kind is None:
        raise NvlistError(f"there is no data type {code}", offset)
    if nelem != _NELEM.get(kind, nelem) or nelem < 0 or value_size(kind, nelem) > INT32_MAX:
        raise NvlistError(f"{kind.name} can't have {nelem} elements", offset)
    return kind


class Slot(NamedTuple):
    """One pair of a layout: everything about it but its values."""

    name: str  # bytes that are no UTF-8 as surrogateescape has them
    type: Type
    nelem: int
    lists: tuple["Layout", ...] = ()  # of NVLIST and NVLIST_ARRAY

    @property
    def width(self) -> int:
        """How many flat values the pair has."""
        if self.type in _LISTS:
            return sum(layout.width for layout in self.lists)
        return 1 if self.type is Type.BYTE_ARRAY else self.nelem


class Layout:
    """The slots of a list, its nvflag, and where each slot's values begin; equal by content.

    `small` says whether what is made for the layout may be kept: memos of layouts are bounded in
    number, and so their memory is bounded too.
    """

    __slots__ = ("_first", "_hash", "depth", "flags", "size", "slots", "small", "starts", "width")

    def __init__(self, flags: int, slots: tuple[Slot, ...]) -> None:
        self.flags = flags
        self.slots = slots
        starts = []
        width = depth = 0
        size = len(slots)
        for slot in slots:
            starts.append(width)
            width += slot.width
            for embedded in slot.lists:
                depth = max(depth, 1 + embedded.depth)
                size += embedded.size
        self.starts = tuple(starts)
        self.width = width
        self.depth: int = depth  # 0: nothing embedded
        self.size: int = size  # the pairs, those of embedded lists too
        self.small = size + width <= _SMALL
        self._hash = hash((flags, slots))
        self._first: dict[str, tuple[int, Slot]] | None = None

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Layout):
            return NotImplemented
        return self.flags == other.flags and self.slots == other.slots

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Layout({self.flags!r}, {self.slots!r})"

    def find(self, name: str) -> tuple[int, Slot] | None:
        """Give where the values of the first pair called *name* begin, and its slot."""
        first = self._first
        if first is None:
            first = self._first = {}
            for start, slot in zip(self.starts, self.slots, strict=True):
                first.setdefault(slot.name, (start, slot))
        return first.get(name)

    def at(self, name: str, kind: Type, nelem: int = 1) -> int | None:
        """Give where the values of the first pair called *name* begin, if it is of that type."""
        found = self.find(name)
        if found is None or found[1].type is not kind or found[1].nelem != nelem:
            return None
        return found[0]


@dataclass(frozen=True, slots=True)
class NVList:
    """A list of names, types and values, in order; names may repeat."""

    layout: Layout
    values: tuple[Atom, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Type, Any]], flags: int = 1) -> "NVList":
        """Make a list of (name, type, value); values are as `pairs` gives them.

        *flags* is the nvflag: 1, NV_UNIQUE_NAME, as ZFS's events have it. Raises Invalid for a
        value that its type can't hold, and for lists embedded more than MAX_DEPTH deep.
        """
        slots: list[Slot] = []
        values: list[Atom] = []
        for name, kind, value in pairs:
            if len(cast("bytes", _atoms(Type.STRING, name)[0][0])) > MAX_NAME:
                raise Invalid(f"a pair's name is at most {MAX_NAME} bytes long")
            atoms, nelem, lists = _atoms(kind, value)
            slots.append(Slot(name, kind, nelem, lists))
            values += atoms
        layout = Layout(flags, tuple(slots))
        if layout.depth > MAX_DEPTH:
            raise Invalid(f"lists are embedded at most {MAX_DEPTH} deep")
        return cls(layout, tuple(values))

    def pairs(self) -> Iterator[tuple[str, Type, Any]]:
        """Give (name, type, value) in order.

        A value is an int, bool, str (bytes that are no UTF-8 as surrogateescape has them), float,
        bytes (BYTE_ARRAY), NVList, or a tuple of these for arrays; BOOLEAN is True.
        """
        for start, slot in zip(self.layout.starts, self.layout.slots, strict=True):
            yield slot.name, slot.type, self._value(slot, start)

    def get(self, name: str, default: Any = None) -> Any:
        """Give the value of the first pair called *name*."""
        found = self.layout.find(name)
        return default if found is None else self._value(found[1], found[0])

    def lists(self, slot: Slot, start: int) -> Iterator["NVList"]:
        """Give the embedded lists of *slot*, whose values begin at *start*."""
        for layout in slot.lists:
            yield NVList(layout, self.values[start : start + layout.width])
            start += layout.width

    def _value(self, slot: Slot, start: int) -> Any:
        kind = slot.type
        if kind is Type.BOOLEAN:
            return True
        if kind is Type.NVLIST:
            return next(self.lists(slot, start))
        if kind is Type.NVLIST_ARRAY:
            return tuple(self.lists(slot, start))
        if kind in SCALARS or kind in (Type.STRING, Type.BYTE_ARRAY):
            return _scalar(kind, self.values[start])
        atoms = self.values[start : start + slot.nelem]
        return tuple(_scalar(kind, atom) for atom in atoms)


def _scalar(kind: Type, atom: Atom) -> Any:
    if kind in (Type.BOOLEAN_VALUE, Type.BOOLEAN_ARRAY):
        return bool(atom)
    if kind in _STRINGS:
        return cast("bytes", atom).decode(errors="surrogateescape")
    return atom


def _encoded(text: str) -> bytes:
    encoded = text.encode(errors="surrogateescape")
    if b"\0" in encoded:
        raise ValueError("a string of an nvlist can't hold a NUL")
    return encoded


def _atoms(kind: Type, value: Any) -> tuple[list[Atom], int, tuple[Layout, ...]]:
    """Give a value's flat values, its nelem, and the layouts of its lists; raises Invalid."""
    if kind is Type.BOOLEAN:
        return [], 0, ()
    try:
        elements = list(value) if kind in _ARRAYS else [value]
        if kind in _LISTS:
            atoms = [atom for nvlist in elements for atom in nvlist.values]
            return atoms, len(elements), tuple(nvlist.layout for nvlist in elements)
        if kind is Type.BYTE_ARRAY:
            return [bytes(elements)], len(elements), ()
        if kind in _STRINGS:
            return [_encoded(text) for text in elements], len(elements), ()
        form = f"={len(elements)}{SCALARS.get(kind) or ELEMENT[kind]}"
        return list(struct.unpack(form, struct.pack(form, *elements))), len(elements), ()
    except (AttributeError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise Invalid(f"{kind.name} can't hold {value!r}") from error
