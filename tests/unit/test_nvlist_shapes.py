"""The quick ways give what the generic ones give, whatever the list, and forget in time."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.errors import Invalid
from zeventfs.nvlist import Encoding, NVList, NvlistError, Type, _shapes, decode, encode, pack
from zeventfs.nvlist._native import Reader

CORPUS = Path(__file__).parents[1] / "corpus" / "zevents.jsonl"
RECORDED = [json.loads(line) for line in CORPUS.read_text().splitlines()[1:]]
NATIVE = [base64.b64decode(recorded["native"]) for recorded in RECORDED]
XDR = [base64.b64decode(recorded["xdr"]) for recorded in RECORDED]

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
INTEGERS = {
    Type.BYTE: (0, 2**8 - 1),
    Type.INT8: (-(2**7), 2**7 - 1),
    Type.UINT8: (0, 2**8 - 1),
    Type.INT16: (-(2**15), 2**15 - 1),
    Type.UINT16: (0, 2**16 - 1),
    Type.INT32: (-(2**31), 2**31 - 1),
    Type.UINT32: (0, 2**32 - 1),
    Type.INT64: (-(2**63), 2**63 - 1),
    Type.UINT64: (0, 2**64 - 1),
    Type.HRTIME: (-(2**63), 2**63 - 1),
}
ARRAYS = {
    Type[f"{kind.name}_ARRAY"]: limits
    for kind, limits in INTEGERS.items()
    if kind
    in {
        Type.INT8,
        Type.UINT8,
        Type.INT16,
        Type.UINT16,
        Type.INT32,
        Type.UINT32,
        Type.INT64,
        Type.UINT64,
    }
}


def pairs_of(values: dict[Type, st.SearchStrategy[Any]]) -> st.SearchStrategy[NVList]:
    one = st.sampled_from(sorted(values)).flatmap(
        lambda kind: st.tuples(TEXTS, st.just(kind), values[kind])
    )
    return st.builds(NVList.of, st.lists(one, max_size=6), st.sampled_from([0, 1, 2]))


def plain_values() -> dict[Type, st.SearchStrategy[Any]]:
    plain: dict[Type, st.SearchStrategy[Any]] = {
        Type.BOOLEAN: st.just(value=True),
        Type.BOOLEAN_VALUE: st.booleans(),
        Type.BOOLEAN_ARRAY: st.lists(st.booleans(), max_size=5).map(tuple),
        Type.DOUBLE: st.floats(allow_nan=False),
        Type.STRING: TEXTS,
        Type.STRING_ARRAY: st.lists(TEXTS, max_size=4).map(tuple),
        Type.BYTE_ARRAY: st.binary(max_size=20),
    }
    for kind, (low, high) in INTEGERS.items():
        plain[kind] = st.integers(low, high)
    for kind, (low, high) in ARRAYS.items():
        plain[kind] = st.lists(st.integers(low, high), max_size=5).map(tuple)
    return plain


def nvlists() -> st.SearchStrategy[NVList]:
    plain = plain_values()
    return st.recursive(
        pairs_of(plain),
        lambda inner: pairs_of(
            {
                **plain,
                Type.NVLIST: inner,
                Type.NVLIST_ARRAY: st.lists(inner, max_size=3).map(tuple),
            }
        ),
        max_leaves=4,
    )


@st.composite
def mutated(draw: st.DrawFn, recorded: list[bytes]) -> bytes:
    packed = bytearray(draw(st.sampled_from(recorded)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(packed) - 1))
        packed[at] = draw(st.one_of(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), st.integers(0, 255)))
    cut = draw(st.integers(0, 20))
    return bytes(packed[: len(packed) - cut] if cut < 4 else packed)


def outcome(decoder: Callable[[bytes], NVList], packed: bytes) -> tuple[object, object]:
    try:
        nvlist = decoder(packed)
    except NvlistError as error:
        return str(error), error.offset
    return nvlist.layout, repr(nvlist.values)  # a NaN equals itself in this form only


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    _shapes.forget()
    yield
    _shapes.forget()


@given(nvlists())
@settings(deadline=None)
def test_any_list_survives_both_encodings(nvlist: NVList) -> None:
    for encoding in Encoding:
        packed = encode(nvlist, encoding)
        for _ in range(2):  # the second time it is remembered
            again = decode(packed)
            assert again == nvlist
            assert list(again.pairs()) == list(nvlist.pairs())
            assert encode(again, encoding) == packed


@given(mutated(NATIVE))
@settings(deadline=None, max_examples=400)
def test_quick_and_generic_decoder_agree_on_mutated_events(packed: bytes) -> None:
    for recorded in NATIVE:
        if len(recorded) == len(packed):
            decode(recorded)
    generic = outcome(lambda raw: Reader(raw).read(), packed)
    assert outcome(_shapes.decode, packed) == generic


@given(mutated(XDR) | mutated(NATIVE) | st.binary(max_size=200))
@settings(deadline=None, max_examples=400)
def test_malformed_bytes_raise_nvlist_error_and_nothing_else(packed: bytes) -> None:
    layout, rest = outcome(decode, packed)
    if isinstance(rest, int):
        assert 0 <= rest <= len(packed)
    else:
        assert decode(encode(decode(packed))).layout == layout


def event(path: str, eid: int) -> bytes:
    return encode(NVList.of([("path", Type.STRING, path), ("eid", Type.UINT64, eid)]))


def test_lists_that_differ_in_values_only_share_a_layout() -> None:
    first, second = decode(event("/dev/sda", 1)), decode(event("/dev/sdbcde", 2))
    assert first.layout is second.layout
    assert list(_shapes._shapes) == [len(event("/dev/sda", 1))]
    assert second.get("path") == "/dev/sdbcde"


def test_a_remembered_shape_does_not_excuse_a_string_without_its_end() -> None:
    decode(event("1234567", 1))
    broken = event("1234567", 1).replace(b"1234567\0", b"12345678")
    with pytest.raises(NvlistError, match="string has no end"):
        decode(broken)
    decode(event("123456789", 1))
    with pytest.raises(NvlistError, match="doesn't fill"):
        decode(event("123456789", 1).replace(b"123456789", b"1234\x0056789"))


def test_lists_with_strings_or_lists_in_arrays_are_not_remembered() -> None:
    inner = NVList.of([])
    for kind, value in ((Type.STRING_ARRAY, ("a",)), (Type.NVLIST_ARRAY, (inner,))):
        decode(encode(NVList.of([("a", kind, value)])))
    assert not _shapes._shapes


def test_long_lists_are_not_remembered() -> None:
    decode(encode(NVList.of([("a", Type.BYTE_ARRAY, bytes(9000))])))
    decode(encode(NVList.of([("a", Type.UINT8_ARRAY, bytes(2000))])))
    assert not _shapes._shapes


def test_few_shapes_of_a_length_are_kept_and_the_latest_is_among_them() -> None:
    for name in "abcdefghijkl":
        decode(encode(NVList.of([(name, Type.UINT8, 1)])))
    ((_, shapes),) = _shapes._shapes.items()
    assert len(shapes) == 8
    assert shapes[0].layout.slots[0].name == "l"


def test_ever_new_shapes_are_forgotten_in_time() -> None:
    for number in range(1000):
        decode(encode(NVList.of([(f"name{number}", Type.BYTE_ARRAY, bytes(number))])))
        assert sum(map(len, _shapes._shapes.values())) <= 256
        assert len(_shapes._layouts) <= 256


@given(nvlists())
@settings(deadline=None)
def test_pairs_are_packed_as_the_generic_encoder_packs_their_list(nvlist: NVList) -> None:
    for _ in range(2):  # the second time it is remembered
        assert pack(nvlist.pairs(), nvlist.layout.flags) == encode(nvlist)


@st.composite
def of_the_same_names_and_types(draw: st.DrawFn) -> list[NVList]:
    values = plain_values()
    values[Type.NVLIST] = pairs_of(plain_values())
    keys = draw(st.lists(st.tuples(TEXTS, st.sampled_from(sorted(values))), max_size=6))
    return [NVList.of([(name, kind, draw(values[kind])) for name, kind in keys]) for _ in range(4)]


@given(of_the_same_names_and_types())
@settings(deadline=None)
def test_pairs_that_differ_in_values_are_packed_as_the_generic_encoder_does(
    nvlists: list[NVList],
) -> None:
    for nvlist in nvlists:
        assert pack(nvlist.pairs()) == encode(nvlist)


def test_pairs_that_differ_in_plain_values_share_a_shape() -> None:
    def pairs(path: str, eid: int) -> list[tuple[str, Type, Any]]:
        inner = NVList.of([("scheme", Type.STRING, path), ("none", Type.BOOLEAN, True)])
        return [
            ("path", Type.STRING, path),
            ("detector", Type.NVLIST, inner),
            ("times", Type.INT64_ARRAY, (eid, -eid)),
            ("paths", Type.STRING_ARRAY, ()),
            ("there", Type.BOOLEAN, True),
            ("eid", Type.UINT64, eid),
        ]

    for path, eid in (("/dev/sda", 1), ("/dev/disk/\udcff", 2**63 - 1)):
        assert pack(pairs(path, eid)) == encode(NVList.of(pairs(path, eid)))
    assert len(_shapes._packing) == 1
    pack(pairs("/dev/sda", 1), flags=2)
    pack(pairs("/dev/disk/by-id/wwn", 1))
    assert len(_shapes._packing) == 3


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Type.UINT8, 1, 256),
        (Type.UINT64, 1, -1),
        (Type.INT32, 1, 1.5),
        (Type.UINT64, 1, "1"),
        (Type.BOOLEAN_VALUE, True, 2**31),
        (Type.DOUBLE, 1.5, 10**400),
        (Type.STRING, "abc", "a\0c"),
        (Type.STRING, "abc", b"abc"),
        (Type.STRING, "abc", "\ud800"),
        (Type.STRING_ARRAY, (), 0),
        (Type.BYTE_ARRAY, b"abc", (256,)),
        (Type.INT64_ARRAY, (1, 2), (1, 2**63)),
        (Type.INT64_ARRAY, (1, 2), 7),
        (Type.NVLIST, NVList.of([]), 7),
        (Type.NVLIST, NVList.of([]), {}),
    ],
)
def test_a_value_that_its_type_cannot_hold_is_refused_alike_when_its_shape_is_known(
    kind: Type, good: object, bad: object
) -> None:
    pack([("a", kind, good)])
    with pytest.raises(Invalid) as generic:
        NVList.of([("a", kind, bad)])
    with pytest.raises(Invalid) as quick:
        pack([("a", kind, bad)])
    assert str(quick.value) == str(generic.value)


def test_iterators_are_packed_as_what_they_give() -> None:
    expected = encode(NVList.of([("a", Type.UINT8_ARRAY, (1, 2))]))
    for _ in range(2):
        assert pack(iter([("a", Type.UINT8_ARRAY, iter((1, 2)))])) == expected


def test_pairs_of_long_or_irregular_lists_are_not_remembered() -> None:
    inner = NVList.of([("a", Type.STRING_ARRAY, ("b",))])
    for kind, value in (
        (Type.STRING, "a" * 9000),
        (Type.UINT8_ARRAY, bytes(2000)),
        (Type.STRING_ARRAY, ("b",)),
        (Type.NVLIST, inner),
        (Type.NVLIST_ARRAY, (inner,)),
    ):
        assert pack([("a", kind, value)]) == encode(NVList.of([("a", kind, value)]))
    assert pack([]) == encode(NVList.of([]))
    assert not _shapes._packing


def test_ever_new_pairs_are_forgotten_in_time() -> None:
    for number in range(1000):
        pack([(f"name{number}", Type.UINT8, 1)])
        assert len(_shapes._packing) <= 256
