"""Packed nvlists to Python and back, native and XDR; malformed bytes raise NvlistError, never else.

The formats are libnvpair's (OpenZFS module/nvpair/nvpair.c). Two decoders stand behind `decode`:
the generic ones (`_native`, `_xdr`) make every check, and `_shapes` recognises native lists that
have been seen before but for their values. So it is with `pack`. They always agree; the generic
ones are the reference.
"""

from collections.abc import Iterable
from typing import Any

from zeventfs.nvlist import _native, _shapes, _xdr
from zeventfs.nvlist._model import (
    INT32_MAX,
    MAX_DEPTH,
    Encoding,
    Layout,
    NVList,
    NvlistError,
    Slot,
    Type,
)

__all__ = [
    "MAX_DEPTH",
    "Encoding",
    "Layout",
    "NVList",
    "NvlistError",
    "Slot",
    "Type",
    "decode",
    "decode_first",
    "encode",
    "pack",
]

_XDR = bytes([Encoding.XDR])


def decode(packed: bytes) -> NVList:
    """Decode one packed nvlist, which must fill *packed* exactly; its header tells the encoding.

    Raises NvlistError, with the offset in bytes of what is wrong.
    """
    if len(packed) > INT32_MAX:
        raise NvlistError("the list is longer than INT32_MAX bytes", INT32_MAX)
    if packed[:1] == _XDR:
        return _xdr.decode(packed)
    return _shapes.decode(packed)


def decode_first(packed: bytes) -> tuple[NVList, int]:
    """Decode the nvlist that *packed* begins with; give it and its length in bytes.

    Raises NvlistError as `decode` does. It is for lists that stand back to back, and slower.
    """
    return _xdr.first(packed) if packed[:1] == _XDR else _native.Reader(packed).first()


def encode(nvlist: NVList, encoding: Encoding = Encoding.NATIVE) -> bytes:
    """Pack *nvlist*, byte for byte as libnvpair does on this host.

    Raises NvlistError if it would be longer than INT32_MAX bytes.
    """
    return _checked(_xdr.encode(nvlist) if encoding is Encoding.XDR else _native.encode(nvlist))


def pack(pairs: Iterable[tuple[str, Type, Any]], flags: int = 1) -> bytes:
    """Give `encode(NVList.of(pairs, flags))`, quickly if such pairs have been packed before.

    Raises Invalid as they do.
    """
    return _checked(_shapes.pack(pairs, flags))


def _checked(packed: bytes) -> bytes:
    if len(packed) > INT32_MAX:
        raise NvlistError("the list is longer than INT32_MAX bytes", INT32_MAX)
    return packed
