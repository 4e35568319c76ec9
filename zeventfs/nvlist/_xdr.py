"""The XDR encoding: big endian in units of four bytes, as it is kept on disk and sent around.

    list := encoding 1, endian, 0, 0; version i32 0; nvflag u32; pair*; i32 0, i32 0
    pair := encoded_size u32, decoded_size u32, name (u32 length, bytes, pad), type u32, nelem u32,
            value

decoded_size is the size of the native pair, and 0 ends a list. encoded_size is never relied on:
libnvpair reckons with the count of an empty numeric array, but doesn't write it. So the encoded
size of that pair, and of what it is embedded in, is 4 too large, and 4 zero bytes more follow the
list.
(module/nvpair/nvpair.c, "XDR encoding functions"; RFC 4506.)
"""

import struct
from collections.abc import Sequence
from typing import Final

from zeventfs.nvlist._model import (
    ELEMENT,
    HOST_ENDIAN,
    MAX_DEPTH,
    MAX_NAME,
    SCALARS,
    Atom,
    Layout,
    NVList,
    NvlistError,
    Slot,
    Type,
    legal_type,
)
from zeventfs.nvlist._native import pair_size

__all__ = ["decode", "encode", "first"]

_HEADER: Final = struct.Struct(">BBBB")
_LIST: Final = struct.Struct(">iI")
_SIZES: Final = struct.Struct(">II")
_TYPE: Final = struct.Struct(">ii")
_COUNT: Final = struct.Struct(">I")
_END: Final = bytes(8)
_SMALLEST_LIST: Final = _LIST.size + len(_END)

_UNIT: Final = {"b": "i", "B": "i", "h": "i", "H": "I"}
"""What stands for a small integer; a byte is sign-extended, for it goes through xdr_char."""


def decode(packed: bytes) -> NVList:
    """Decode an XDR list, which fills *packed* exactly; raises NvlistError."""
    nvlist, end = first(packed)
    if end != len(packed):
        raise NvlistError("there are bytes after the list", end)
    return nvlist


def first(packed: bytes) -> tuple[NVList, int]:
    """Decode the XDR list that *packed* begins with; give it and its length."""
    reader = _Reader(packed)
    reader.take(_HEADER)
    layout = reader.list(0)
    if packed.startswith(bytes(reader.uncounted), reader.at):
        reader.at += reader.uncounted
    return NVList(layout, tuple(reader.values)), reader.at


class _Reader:
    """Takes one packed list apart, from the byte *at* on."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.at = 0
        self.values: list[Atom] = []
        self.uncounted = 0  # bytes that libnvpair reckons with for empty arrays

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        self.need(form.size)
        at = self.at
        self.at += form.size
        return form.unpack_from(self.packed, at)

    def need(self, size: int) -> None:
        if size > len(self.packed) - self.at:
            raise NvlistError(f"the list ends where {size} more bytes should be", self.at)

    def opaque(self, size: int) -> bytes:
        padded = (size + 3) & ~3
        self.need(padded)
        taken = self.packed[self.at : self.at + size]
        self.at += padded
        return taken

    def string(self) -> bytes:
        at = self.at
        (size,) = self.take(_COUNT)
        taken = self.opaque(size)
        if b"\0" in taken:
            raise NvlistError("a string can't hold a NUL", at)
        return taken

    def list(self, depth: int) -> Layout:
        if depth > MAX_DEPTH:
            raise NvlistError(f"lists are embedded more than {MAX_DEPTH} deep", self.at)
        at = self.at
        version, flags = self.take(_LIST)
        if version != 0:
            raise NvlistError(f"there is no nvlist version {version}", at)
        slots: list[Slot] = []
        while True:
            at = self.at
            _, decoded_size = self.take(_SIZES)
            if decoded_size == 0:
                return Layout(flags, tuple(slots))
            slots.append(self.pair(at, decoded_size, depth))

    def pair(self, at: int, decoded_size: int, depth: int) -> Slot:
        name = self.string()
        if len(name) > MAX_NAME:
            raise NvlistError("a pair's name is too long", at + _SIZES.size)
        type_at = self.at
        code, nelem = self.take(_TYPE)
        kind = legal_type(code, nelem, type_at)
        before = len(self.values)
        lists = self.value(kind, nelem, depth)
        slot = Slot(name.decode(errors="surrogateescape"), kind, nelem, lists)
        if decoded_size != pair_size(slot, name, self.values[before:]):
            raise NvlistError(f"a pair's decoded size can't be {decoded_size}", at + 4)
        return slot

    def value(self, kind: Type, nelem: int, depth: int) -> tuple[Layout, ...]:
        """Read a value; an array without elements has none, not even its count."""
        if kind in (Type.NVLIST, Type.NVLIST_ARRAY):
            self.need(_SMALLEST_LIST * nelem)
            return tuple([self.list(depth + 1) for _ in range(nelem)])
        if kind is Type.BYTE_ARRAY:
            self.values.append(self.opaque(nelem))
        elif kind in (Type.STRING, Type.STRING_ARRAY):
            self.need(_COUNT.size * nelem)
            self.values += [self.string() for _ in range(nelem)]
        elif kind in SCALARS:
            self.numbers(SCALARS[kind], 1)
        elif nelem:
            at = self.at
            if self.take(_COUNT) != (nelem,):
                raise NvlistError(f"the array's count isn't {nelem}", at)
            self.numbers(ELEMENT[kind], nelem)
        elif kind in ELEMENT:
            self.uncounted += _COUNT.size
        return ()

    def numbers(self, code: str, count: int) -> None:
        unit = _UNIT.get(code, code)
        self.need(struct.calcsize(">" + unit) * count)
        form = struct.Struct(f">{count}{unit}")
        taken = self.take(form)
        if unit != code:
            bits = 8 * struct.calcsize(">" + code)
            half = 1 << (bits - 1) if code.islower() else 0
            taken = tuple(((number + half) & ((1 << bits) - 1)) - half for number in taken)
        self.values += taken


def encode(nvlist: NVList) -> bytes:
    """Pack *nvlist* as libnvpair on this host would: even its odd encoded sizes."""
    packed, uncounted = _list(nvlist)
    return _HEADER.pack(1, HOST_ENDIAN, 0, 0) + packed + bytes(uncounted)


def _list(nvlist: NVList) -> tuple[bytes, int]:
    """Pack a list; give also how many bytes libnvpair reckons it longer than it is."""
    out = [_LIST.pack(0, nvlist.layout.flags)]
    all_uncounted = 0
    for start, slot in zip(nvlist.layout.starts, nvlist.layout.slots, strict=True):
        name = slot.name.encode(errors="surrogateescape")
        values = nvlist.values[start : start + slot.width]
        body = _string(name) + _TYPE.pack(slot.type, slot.nelem) + _value(slot, values)
        uncounted = _COUNT.size if slot.type in ELEMENT and not slot.nelem else 0
        for embedded in nvlist.lists(slot, start):
            packed, more = _list(embedded)
            body += packed
            uncounted += more
        all_uncounted += uncounted
        size = _SIZES.size + len(body) + uncounted
        out.append(_SIZES.pack(size, pair_size(slot, name, values)) + body)
    out.append(_END)
    return b"".join(out), all_uncounted


def _string(text: bytes) -> bytes:
    return _COUNT.pack(len(text)) + _opaque(text)


def _opaque(raw: bytes) -> bytes:
    return raw.ljust((len(raw) + 3) & ~3, b"\0")


def _value(slot: Slot, values: Sequence[Atom]) -> bytes:
    kind = slot.type
    if kind in SCALARS:
        return _numbers(SCALARS[kind], values)
    if kind in ELEMENT:
        return _COUNT.pack(slot.nelem) + _numbers(ELEMENT[kind], values) if values else b""
    strings = [value for value in values if isinstance(value, bytes)]
    if kind is Type.BYTE_ARRAY:
        return _opaque(strings[0])
    return b"".join(map(_string, strings)) if kind in (Type.STRING, Type.STRING_ARRAY) else b""


def _numbers(code: str, numbers: Sequence[Atom]) -> bytes:
    if code == "B":
        return struct.pack(f">{len(numbers)}i", *((int(n) ^ 0x80) - 0x80 for n in numbers))
    return struct.pack(f">{len(numbers)}{_UNIT.get(code, code)}", *numbers)
