"""The native encoding, as the kernel hands events out: every check is made before a value is used.

    list := encoding 0, endian, 0, 0; version i32 0; nvflag u32; pair*; i32 0
    pair := size i32, name_sz i16, reserve i16, nelem i32, type i32, name and NUL, pad, value, pad

Offsets within a pair are aligned to 8 from the pair's begin. An embedded list's pairs follow the
pair that has its 24-byte image. (module/nvpair/nvpair.c, "Native encoding functions".)
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from zeventfs.nvlist._model import (
    ELEMENT,
    HOST_ENDIAN,
    LIST_IMAGE,
    MAX_DEPTH,
    SCALARS,
    Atom,
    Layout,
    NVList,
    NvlistError,
    Slot,
    Type,
    align8,
    legal_type,
    value_size,
)

__all__ = ["Place", "Reader", "encode", "pair_size"]

_HEADER: Final = struct.Struct("=BBBBiI")
_PAIR: Final = struct.Struct("=ihhii")
_SIZE: Final = struct.Struct("=i")
_IMAGE: Final = struct.Struct("=iI")
_SMALLEST_PAIR: Final = align8(_PAIR.size + 1)
_END: Final = bytes(4)


class Place(NamedTuple):
    """Where values were taken from a packed list, and by which struct code."""

    offset: int
    code: str
    string: int = -1  # which of the flat values it is, for a STRING


class Reader:
    """Takes one packed list apart, and notes the place of each value for `_shapes`.

    `plain` stays true while the places say all that is to be checked and taken.
    """

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.values: list[Atom] = []
        self.places: list[Place] = []
        self.plain = True

    def read(self) -> NVList:
        """Decode the list, which fills the bytes exactly; raises NvlistError."""
        nvlist, end = self.first()
        if end != len(self.packed):
            raise NvlistError("there are bytes after the list", end)
        return nvlist

    def first(self) -> tuple[NVList, int]:
        """Decode the list that the bytes begin with; give it and its length."""
        packed = self.packed
        if len(packed) < _HEADER.size:
            raise NvlistError("the list ends within its header", len(packed))
        encoding, endian, _, _, version, flags = _HEADER.unpack_from(packed)
        if encoding != 0:
            raise NvlistError(f"there is no encoding {encoding}", 0)
        if endian != HOST_ENDIAN:
            raise NvlistError("the list is of a host of other endianness", 1)
        _check_version(version, 4)
        layout, end = self._list(_HEADER.size, flags, 0)
        return NVList(layout, tuple(self.values)), end

    def _list(self, at: int, flags: int, depth: int) -> tuple[Layout, int]:
        if depth > MAX_DEPTH:
            raise NvlistError(f"lists are embedded more than {MAX_DEPTH} deep", at)
        slots: list[Slot] = []
        while True:
            left = len(self.packed) - at
            if left < _SIZE.size:
                raise NvlistError("the list has no end", at)
            (size,) = _SIZE.unpack_from(self.packed, at)
            if size == 0:
                return Layout(flags, tuple(slots)), at + _SIZE.size
            if not _SMALLEST_PAIR <= size <= left:
                raise NvlistError(f"a pair can't have {size} bytes here", at)
            slot, at = self._pair(at, at + size, depth)
            slots.append(slot)

    def _pair(self, at: int, end: int, depth: int) -> tuple[Slot, int]:
        """Read the pair that takes *at* to *end*; give its slot, and where the next one begins."""
        _, name_size, _, nelem, code = _PAIR.unpack_from(self.packed, at)
        name = self._name(at + _PAIR.size, end, name_size)
        kind = legal_type(code, nelem, at + 8)
        start = at + align8(_PAIR.size + name_size)
        if start + value_size(kind, nelem) > end:
            raise NvlistError(f"the pair is too small for its {kind.name}", start)
        lists: tuple[Layout, ...] = ()
        after = end
        if kind is Type.STRING:
            used = self._string(start, end)
        elif kind is Type.STRING_ARRAY:
            used = self._strings(start, end, nelem)
        else:
            used = value_size(kind, nelem)
        if start + align8(used) != end:
            raise NvlistError(f"the {kind.name} doesn't fill its pair", start)
        if kind in (Type.NVLIST, Type.NVLIST_ARRAY):
            lists, after = self._lists(kind, nelem, end, depth)
        elif kind is Type.BYTE_ARRAY:
            self._take(start, f"{nelem}s")
        elif kind in SCALARS:
            self._take(start, SCALARS[kind])
        elif kind in ELEMENT:
            self._take(start, f"{nelem}{ELEMENT[kind]}")
        return Slot(name, kind, nelem, lists), after

    def _name(self, start: int, end: int, size: int) -> str:
        """Read the name, whose NUL must be where *size* says, and nowhere else."""
        if size <= 0 or start + size > end or self.packed.find(0, start, end) != start + size - 1:
            raise NvlistError("the pair's name doesn't end where it should", start)
        return self.packed[start : start + size - 1].decode(errors="surrogateescape")

    def _take(self, offset: int, code: str) -> None:
        self.values += struct.unpack_from("=" + code, self.packed, offset)
        self.places.append(Place(offset, code))

    def _string(self, start: int, end: int) -> int:
        nul = self.packed.find(0, start, end)
        if nul < 0:
            raise NvlistError("the string has no end", start)
        self.places.append(Place(start, f"{end - start}s", len(self.values)))
        self.values.append(self.packed[start:nul])
        return nul + 1 - start

    def _strings(self, start: int, end: int, nelem: int) -> int:
        at = start + 8 * nelem  # after the slots of the pointers
        for _ in range(nelem):
            self.plain = False
            nul = self.packed.find(0, at, end)
            if nul < 0:
                raise NvlistError("the string has no end", at)
            self.values.append(self.packed[at:nul])
            at = nul + 1
        return at - start

    def _lists(
        self, kind: Type, nelem: int, end: int, depth: int
    ) -> tuple[tuple[Layout, ...], int]:
        """Read the lists that follow a pair which ends at *end*, their images being its last."""
        if kind is Type.NVLIST_ARRAY and nelem:
            self.plain = False
        lists = []
        after = end
        for image in range(end - LIST_IMAGE * nelem, end, LIST_IMAGE):
            version, flags = _IMAGE.unpack_from(self.packed, image)
            _check_version(version, image)
            layout, after = self._list(after, flags, depth + 1)
            lists.append(layout)
        return tuple(lists), after


def _check_version(version: int, offset: int) -> None:
    if version != 0:
        raise NvlistError(f"there is no nvlist version {version}", offset)


def encode(nvlist: NVList) -> bytes:
    """Pack *nvlist* for this host."""
    out = [_HEADER.pack(0, HOST_ENDIAN, 0, 0, 0, nvlist.layout.flags)]
    _write(nvlist, out)
    return b"".join(out)


def pair_size(slot: Slot, name: bytes, values: Sequence[Atom]) -> int:
    """Give the size of a native pair with these flat values, embedded lists' pairs left out."""
    size = value_size(slot.type, slot.nelem)
    if slot.type in (Type.STRING, Type.STRING_ARRAY):
        size += sum(len(value) + 1 for value in values if isinstance(value, bytes))
    return align8(_PAIR.size + len(name) + 1) + align8(size)


def _write(nvlist: NVList, out: list[bytes]) -> None:
    for start, slot in zip(nvlist.layout.starts, nvlist.layout.slots, strict=True):
        name = slot.name.encode(errors="surrogateescape")
        values = nvlist.values[start : start + slot.width]
        size = pair_size(slot, name, values)
        head = _PAIR.pack(size, len(name) + 1, 0, slot.nelem, slot.type) + name + b"\0"
        pair = head.ljust(align8(len(head)), b"\0") + _value(slot, values)
        out.append(pair.ljust(size, b"\0"))
        for embedded in nvlist.lists(slot, start):
            _write(embedded, out)
    out.append(_END)


def _value(slot: Slot, values: Sequence[Atom]) -> bytes:
    kind = slot.type
    if kind in SCALARS or kind in ELEMENT:
        code = SCALARS.get(kind) or ELEMENT[kind]
        return struct.pack(f"={slot.nelem}{code}", *values)
    if kind in (Type.NVLIST, Type.NVLIST_ARRAY):
        pointers = bytes(value_size(kind, slot.nelem) - LIST_IMAGE * slot.nelem)
        images = [_IMAGE.pack(0, layout.flags).ljust(LIST_IMAGE, b"\0") for layout in slot.lists]
        return pointers + b"".join(images)
    strings = [value for value in values if isinstance(value, bytes)]
    if kind is Type.BYTE_ARRAY:
        return strings[0]
    return bytes(value_size(kind, slot.nelem)) + b"".join(text + b"\0" for text in strings)
