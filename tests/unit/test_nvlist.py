"""Packed nvlists: what libnvpair packs is understood and repacked, and nothing else is accepted."""

import base64
import errno
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zeventfs.errors import Invalid
from zeventfs.nvlist import (
    MAX_DEPTH,
    Encoding,
    NVList,
    NvlistError,
    Type,
    _shapes,
    decode,
    decode_first,
    encode,
    pack,
)

CORPUS = Path(__file__).parents[1] / "corpus"
RECORDED = [json.loads(line) for line in (CORPUS / "zevents.jsonl").read_text().splitlines()[1:]]

EID_7_NATIVE = bytes.fromhex(
    "00010000 00000000 01000000 20000000 04000000 01000000 08000000 65696400 00000000"
    "0700000000000000 00000000"
)
EID_7_XDR = bytes.fromhex(
    "01010000 00000000 00000001 00000020 00000020 00000003 65696400 00000008 00000001"
    "0000000000000007 0000000000000000"
)
EID_7 = NVList.of([("eid", Type.UINT64, 7)])

INNER = NVList.of([("a", Type.STRING, "x"), ("b", Type.UINT64_ARRAY, ())], flags=2)
ALL_TYPES: list[tuple[str, Type, Any]] = [
    ("boolean", Type.BOOLEAN, True),
    ("byte", Type.BYTE, 255),
    ("int8", Type.INT8, -128),
    ("uint8", Type.UINT8, 255),
    ("int16", Type.INT16, -(2**15)),
    ("uint16", Type.UINT16, 2**16 - 1),
    ("int32", Type.INT32, -(2**31)),
    ("uint32", Type.UINT32, 2**32 - 1),
    ("int64", Type.INT64, -(2**63)),
    ("uint64", Type.UINT64, 2**64 - 1),
    ("hrtime", Type.HRTIME, 2**63 - 1),
    ("double", Type.DOUBLE, -1.5),
    ("boolean_value", Type.BOOLEAN_VALUE, False),
    ("string", Type.STRING, "tank/\udcff"),
    ("string8", Type.STRING, "1234567"),
    ("empty string", Type.STRING, ""),
    ("", Type.UINT8, 0),
    ("byte_array", Type.BYTE_ARRAY, b"\x00\xff\x80"),
    ("int8_array", Type.INT8_ARRAY, (-1, 127, -128)),
    ("uint8_array", Type.UINT8_ARRAY, (0, 255, 128)),
    ("int16_array", Type.INT16_ARRAY, (-1, 2**15 - 1, -(2**15))),
    ("uint16_array", Type.UINT16_ARRAY, (0, 2**16 - 1)),
    ("int32_array", Type.INT32_ARRAY, (-1,)),
    ("uint32_array", Type.UINT32_ARRAY, (2**32 - 1, 0, 1)),
    ("int64_array", Type.INT64_ARRAY, (-1, 0)),
    ("uint64_array", Type.UINT64_ARRAY, (2**64 - 1,)),
    ("boolean_array", Type.BOOLEAN_ARRAY, (True, False)),
    ("string_array", Type.STRING_ARRAY, ("", "\udc80", "abc")),
    ("nvlist", Type.NVLIST, INNER),
    ("nvlist_array", Type.NVLIST_ARRAY, (INNER, EID_7, NVList.of([]))),
    ("no strings", Type.STRING_ARRAY, ()),
    ("no bytes", Type.BYTE_ARRAY, b""),
    ("no numbers", Type.INT16_ARRAY, ()),
    ("no lists", Type.NVLIST_ARRAY, ()),
]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    _shapes.forget()
    yield
    _shapes.forget()


def native(*pairs: bytes, head: bytes = EID_7_NATIVE[:12]) -> bytes:
    return head + b"".join(pairs) + bytes(4)


def pair(
    value: bytes,
    code: int,
    nelem: int = 1,
    name: bytes = b"abc\0",
    *,
    size: int | None = None,
    name_size: int | None = None,
) -> bytes:
    head = (16 + len(name) + 7) & ~7
    size = head + len(value) if size is None else size
    name_size = len(name) if name_size is None else name_size
    header = struct.pack("=ihhii", size, name_size, 0, nelem, code)
    return (header + name).ljust(head, b"\0") + value


def xdr(*words: int | bytes) -> bytes:
    return EID_7_XDR[:12] + b"".join(
        word if isinstance(word, bytes) else struct.pack(">i", word) for word in words
    )


ABC = (3, b"abc\0")


@pytest.mark.parametrize("recorded", RECORDED, ids=[r["id"] for r in RECORDED])
def test_recorded_event_is_repacked_byte_for_byte(recorded: dict[str, str]) -> None:
    packed, as_xdr = base64.b64decode(recorded["native"]), base64.b64decode(recorded["xdr"])
    nvlist = decode(packed)
    assert decode(packed) == nvlist == decode(as_xdr)
    assert encode(nvlist) == packed
    assert encode(nvlist, Encoding.XDR) == as_xdr
    assert nvlist.get("class") == recorded["class"]
    assert nvlist.get("eid") == recorded["eid"]


@pytest.mark.parametrize("kind", ["small", "event", "nested"])
def test_what_libnvpair_packed_is_repacked_byte_for_byte(kind: str) -> None:
    packed = (CORPUS / "nvlist" / f"golden_{kind}_native.bin").read_bytes()
    as_xdr = (CORPUS / "nvlist" / f"golden_{kind}_xdr.bin").read_bytes()
    assert decode(packed) == decode(as_xdr)
    assert encode(decode(packed)) == packed
    assert encode(decode(packed), Encoding.XDR) == as_xdr


def test_golden_bytes_of_the_reference() -> None:
    assert decode(EID_7_NATIVE) == decode(EID_7_XDR) == EID_7
    assert encode(EID_7) == EID_7_NATIVE
    assert encode(EID_7, Encoding.XDR) == EID_7_XDR


@pytest.mark.parametrize("encoding", Encoding)
def test_every_type_survives(encoding: Encoding) -> None:
    packed = encode(NVList.of(ALL_TYPES, flags=0), encoding)
    for _ in range(2):
        assert list(decode(packed).pairs()) == ALL_TYPES
        assert decode(packed).layout.flags == 0
        assert encode(decode(packed), encoding) == packed


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("one", ALL_TYPES, ids=lambda one: one[0])
def test_each_type_survives_alone_and_remembered(
    encoding: Encoding, one: tuple[str, Type, Any]
) -> None:
    packed = encode(NVList.of([one]), encoding)
    for _ in range(2):
        assert list(decode(packed).pairs()) == [one]


def test_get_gives_the_first_of_a_name_or_the_default() -> None:
    nvlist = NVList.of([("a", Type.UINT8, 1), ("a", Type.STRING, "two")])
    assert nvlist.get("a") == 1
    assert nvlist.get("b") is None
    assert nvlist.get("b", 3) == 3
    assert nvlist.layout.at("a", Type.UINT8) == 0
    assert nvlist.layout.at("a", Type.STRING) is None
    assert nvlist.layout.at("a", Type.UINT8, 2) is None


def test_layouts_are_equal_by_content() -> None:
    layout = NVList.of(ALL_TYPES).layout
    assert layout == NVList.of(ALL_TYPES).layout
    assert hash(layout) == hash(NVList.of(ALL_TYPES).layout)
    assert layout != NVList.of(ALL_TYPES, flags=0).layout
    assert layout != NVList.of(ALL_TYPES[1:]).layout
    assert layout != "layout"
    assert repr(EID_7.layout).startswith("Layout(1, (Slot(name='eid'")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Type.UINT8, 256),
        (Type.UINT8, -1),
        (Type.INT64, 2**63),
        (Type.UINT64, "7"),
        (Type.DOUBLE, 10**400),
        (Type.INT32_ARRAY, 5),
        (Type.INT32_ARRAY, (1, 2**31)),
        (Type.BYTE_ARRAY, 10**12),
        (Type.BYTE_ARRAY, (256,)),
        (Type.STRING, b"bytes"),
        (Type.STRING, "a\0b"),
        (Type.STRING, "\ud800"),
        (Type.STRING_ARRAY, (1,)),
        (Type.NVLIST, {}),
        (Type.NVLIST_ARRAY, ("x",)),
    ],
)
def test_a_value_that_its_type_cannot_hold_is_invalid(kind: Type, value: Any) -> None:
    with pytest.raises(Invalid, match=kind.name):
        NVList.of([("a", kind, value)])


def test_a_name_is_text_without_nul_and_not_too_long() -> None:
    for name in ("a\0", "\ud800"):
        with pytest.raises(Invalid):
            NVList.of([(name, Type.UINT8, 1)])
    longest = NVList.of([("n" * 32766, Type.UINT8, 1)])
    assert decode(encode(longest)) == decode(encode(longest, Encoding.XDR)) == longest
    with pytest.raises(Invalid, match="32766"):
        NVList.of([("n" * 32767, Type.UINT8, 1)])


def nested(depth: int) -> NVList:
    nvlist = EID_7
    for _ in range(depth):
        nvlist = NVList.of([("n", Type.NVLIST, nvlist)])
    return nvlist


@pytest.mark.parametrize("encoding", Encoding)
def test_lists_embedded_100_deep_are_the_deepest(encoding: Encoding) -> None:
    packed = encode(nested(MAX_DEPTH), encoding)
    assert decode(packed) == nested(MAX_DEPTH)
    with pytest.raises(Invalid, match="100 deep"):
        nested(MAX_DEPTH + 1)
    if encoding is Encoding.NATIVE:
        outer = pair(bytes(24), Type.NVLIST)
        deeper = packed[:12] + outer + packed[12:] + bytes(4)
    else:
        outer = packed[12 : 12 + 24]
        deeper = packed[:4] + packed[4:12] + outer + packed[4:] + bytes(8)
    with pytest.raises(NvlistError, match="100 deep"):
        decode(deeper)


def test_the_values_of_a_boolean_are_kept_as_they_are() -> None:
    packed = native(pair(struct.pack("=ii", 2, 0), Type.BOOLEAN_VALUE))
    assert decode(packed).get("abc") is True
    assert encode(decode(packed)) == packed


def test_a_list_above_int32_max_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeventfs.nvlist.INT32_MAX", 47)
    with pytest.raises(NvlistError, match="INT32_MAX"):
        decode(EID_7_NATIVE)
    with pytest.raises(NvlistError, match="INT32_MAX"):
        encode(EID_7)
    with pytest.raises(NvlistError, match="INT32_MAX"):
        pack(EID_7.pairs())


def test_the_error_knows_its_errno_and_offset() -> None:
    with pytest.raises(NvlistError) as caught:
        decode(EID_7_NATIVE + b"x")
    assert caught.value.errno == errno.EINVAL
    assert caught.value.offset == 48
    assert caught.value.reason == "there are bytes after the list"
    assert "at byte 48" in str(caught.value)


U64 = bytes(8)
MALFORMED_NATIVE = {
    "nothing": (b"", 0),
    "header cut": (EID_7_NATIVE[:11], 11),
    "unknown encoding": (b"\2" + EID_7_NATIVE[1:], 0),
    "foreign endianness": (b"\0\0" + EID_7_NATIVE[2:], 1),
    "unknown version": (native(head=EID_7_NATIVE[:4] + b"\1\0\0\0\1\0\0\0"), 4),
    "no end": (EID_7_NATIVE[:-4], 44),
    "end cut": (EID_7_NATIVE[:-1], 44),
    "bytes after the end": (EID_7_NATIVE + bytes(4), 48),
    "pair of negative size": (native(pair(U64, 8, size=-32)), 12),
    "pair of 23 bytes": (native(pair(U64, 8, size=23)), 12),
    "pair beyond the end": (native(pair(U64, 8, size=40)), 12),
    "name without bytes": (native(pair(U64, 8, name_size=0)), 28),
    "name of negative size": (native(pair(U64, 8, name_size=-1)), 28),
    "name beyond its pair": (native(pair(U64, 8, name_size=17)), 28),
    "name not ended": (native(pair(U64, 8, name=b"abcd")), 28),
    "name ended early": (native(pair(U64, 8, name=b"a\0c\0")), 28),
    "type 0": (native(pair(U64, 0)), 20),
    "type 28": (native(pair(U64, 28)), 20),
    "type -1": (native(pair(U64, -1)), 20),
    "scalar of two": (native(pair(U64, Type.UINT64, 2)), 20),
    "boolean of one": (native(pair(b"", Type.BOOLEAN, 1)), 20),
    "array of -1": (native(pair(U64, Type.UINT64_ARRAY, -1)), 20),
    "array above INT32_MAX": (native(pair(U64, Type.UINT64_ARRAY, 2**28)), 20),
    "array beyond its pair": (native(pair(U64, Type.UINT64_ARRAY, 2)), 36),
    "scalar too large": (native(pair(bytes(16), Type.UINT64)), 36),
    "boolean with a value": (native(pair(U64, Type.BOOLEAN, 0)), 36),
    "string without end": (native(pair(b"abcdefgh", Type.STRING)), 36),
    "string ended early": (native(pair(b"abc\0".ljust(16, b"\0"), Type.STRING)), 36),
    "string without a place": (native(pair(b"", Type.STRING)), 36),
    "strings without end": (native(pair(bytes(16) + b"abc\0defg", Type.STRING_ARRAY, 2)), 56),
    "strings too few": (native(pair(bytes(16) + b"abc\0".ljust(16), Type.STRING_ARRAY, 2)), 56),
    "strings ended early": (native(pair(bytes(8) + bytes(16), Type.STRING_ARRAY, 1)), 36),
    "lists beyond their pair": (native(pair(bytes(24), Type.NVLIST_ARRAY, 2**20)), 36),
    "list of an unknown version": (native(pair(b"\1".ljust(24, b"\0"), Type.NVLIST)), 36),
    "list without end": (native(pair(bytes(24), Type.NVLIST)), 64),
}


@pytest.mark.parametrize(("packed", "offset"), MALFORMED_NATIVE.values(), ids=MALFORMED_NATIVE)
def test_a_malformed_native_list_is_refused_at_its_byte(packed: bytes, offset: int) -> None:
    with pytest.raises(NvlistError) as caught:
        decode(packed)
    assert caught.value.offset == offset


MALFORMED_XDR = {
    "header cut": (EID_7_XDR[:3], 0),
    "unknown version": (EID_7_XDR[:4] + struct.pack(">iIii", 1, 1, 0, 0), 4),
    "no end": (xdr(), 12),
    "bytes after the end": (xdr(0, 0, 0), 20),
    "name beyond the end": (xdr(0x20, 0x20, 2**31 - 1, b"abcd"), 24),
    "name with a NUL": (xdr(0x20, 0x20, 3, b"a\0c\0", 8, 1, U64, 0, 0), 20),
    "name too long": (xdr(0x20, 0x20, 32767, bytes([65]) * 32767 + b"\0", 8, 1, U64), 20),
    "unknown type": (xdr(0x20, 0x20, *ABC, 28, 1, U64, 0, 0), 28),
    "wrong decoded size": (xdr(0x20, 0x28, *ABC, 8, 1, U64, 0, 0), 16),
    "array without its count": (xdr(0x20, 0x20, *ABC, Type.UINT64_ARRAY, 1, 2, U64, 0, 0), 36),
    "array beyond the end": (xdr(0, 0x20, *ABC, Type.UINT64_ARRAY, 2**20, 2**20, U64), 40),
    "bytes beyond the end": (xdr(0, 0x20, *ABC, Type.BYTE_ARRAY, 2**30, U64), 36),
    "strings beyond the end": (xdr(0, 0x20, *ABC, Type.STRING_ARRAY, 2**20, U64), 36),
    "lists beyond the end": (xdr(0, 0x20, *ABC, Type.NVLIST_ARRAY, 2**20, U64), 36),
    "list of an unknown version": (xdr(0, 0x38, *ABC, Type.NVLIST, 1, 1, bytes(12)), 36),
}


@pytest.mark.parametrize(("packed", "offset"), MALFORMED_XDR.values(), ids=MALFORMED_XDR)
def test_a_malformed_xdr_list_is_refused_at_its_byte(packed: bytes, offset: int) -> None:
    with pytest.raises(NvlistError) as caught:
        decode(packed)
    assert caught.value.offset == offset


def test_an_empty_xdr_array_may_be_followed_by_what_libnvpair_reckoned_for_it() -> None:
    packed = encode(NVList.of([("b", Type.NVLIST, INNER)]), Encoding.XDR)
    assert packed.endswith(bytes(20))
    assert decode(packed) == decode(packed[:-4])
    for wrong in (packed[:-1], packed[:-4] + b"\0\0\0\1", packed + bytes(4)):
        with pytest.raises(NvlistError, match="after the list"):
            decode(wrong)


@pytest.mark.parametrize("encoding", Encoding)
def test_lists_back_to_back_are_told_apart(encoding: Encoding) -> None:
    lists = [NVList.of(ALL_TYPES), EID_7, INNER, EID_7]
    packed = b"".join(encode(nvlist, encoding) for nvlist in lists)
    for nvlist in lists:
        assert decode_first(packed) == (nvlist, len(encode(nvlist, encoding)))
        packed = packed[len(encode(nvlist, encoding)) :]
    with pytest.raises(NvlistError):
        decode_first(packed)


def test_the_encoded_size_of_an_xdr_pair_is_not_relied_on() -> None:
    assert decode(xdr(-1, 0x20, *ABC, 8, 1, struct.pack(">Q", 7), 99, 0)).get("abc") == 7
