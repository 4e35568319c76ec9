"""A VHD's footer, header and locators: what is in them, and that nothing else is ever raised."""

import struct
from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vhd_images import BASE, CORPUS, footer, header, sealed

from zeventfs.errors import Invalid
from zeventfs.vbd.vhd import (
    Footer,
    Header,
    ImageType,
    Locator,
    decode_footer,
    decode_header,
    decode_locator,
)


def test_a_real_image_has_the_facts_that_its_maker_gave_it() -> None:
    raw = (CORPUS / "child.vhd").read_bytes()
    assert decode_footer(raw[-512:]) == Footer(
        type=ImageType.DIFFERENCING,
        size=16 << 20,
        timestamp=848547680,
        uuid=UUID("e71a49dc-d996-425b-9a88-21190b604098"),
        header_at=512,
        hidden=False,
        disabled=False,
    )
    found = decode_header(raw[512:1536])
    assert found == Header(
        parent_uuid=UUID("57b3f513-1c53-4fb4-b352-083b0338be4b"),
        parent_timestamp=848547680,
        parent_name="base.vhd",
        locators=(Locator("MacX", 3072, 17), Locator("W2ku", 3584, 20), Locator("W2ru", 4096, 20)),
    )
    for code, at, length in found.locators:
        assert decode_locator(code, raw[at : at + length]) == "./base.vhd"


def test_any_one_wrong_byte_of_a_footer_or_header_is_noticed() -> None:
    raw = (CORPUS / "child.vhd").read_bytes()
    for decode, good in ((decode_footer, raw[-512:]), (decode_header, raw[512:1536])):
        for at in range(len(good)):
            bad = good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :]
            with pytest.raises(Invalid):
                decode(bad)


def test_an_early_footer_lacks_its_last_byte() -> None:
    assert decode_footer(footer()[:511]) == decode_footer(footer())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "too short"),
        (footer()[:510], "too short"),
        (bytes(512), "no footer"),
        (b"\xc7" * 512, "tapdisk's mark"),
        (sealed(footer()[:60] + bytes([0, 0, 0, 7]) + footer()[64:], 64), "unknown type 7"),
        (footer()[:-1] + b"\1", "wrong checksum"),
    ],
)
def test_what_is_no_footer_is_refused_with_the_reason(raw: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        decode_footer(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (header()[:-1], "too short"),
        (bytes(1024), "no dynamic header"),
        (header()[:-1] + b"\1", "wrong checksum"),
        (header(version=0x20000), "unknown version"),
        (header(next_at=4096), "unknown version"),
    ],
)
def test_what_is_no_header_is_refused_with_the_reason(raw: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        decode_header(raw)


@pytest.mark.parametrize(("version", "accepted"), [(1, True), (0x10001, True), (0x10003, False)])
def test_early_images_were_hidden_without_a_new_checksum(version: int, *, accepted: bool) -> None:
    raw = footer(version=version)
    hidden = raw[:85] + b"\1" + raw[86:]
    assert decode_footer(sealed(hidden, 64)).hidden
    if accepted:
        assert decode_footer(hidden).hidden
    else:
        with pytest.raises(Invalid):
            decode_footer(hidden)


def test_a_disabled_image_is_told_from_others() -> None:
    assert decode_footer(footer(cookie=b"v_poison")).disabled


def test_a_raw_parent_has_no_uuid() -> None:
    assert decode_header(header(None)).parent_uuid is None
    assert decode_header(header(BASE)).parent_uuid == BASE


def test_only_locators_that_libvhd_follows_count_and_in_the_tables_order() -> None:
    codes = (b"W2ru", b"Wi2r", bytes(4), b"MacX", b"Mac ", b"Wi2k", b"W2ku", b"\xff\xff\0\1")
    table = b"".join(struct.pack(">4sIIIQ", code, 0, 9, 0, 7) for code in codes)
    found = decode_header(header(BASE, locators=table)).locators
    assert [each.code for each in found] == ["W2ru", "MacX", "W2ku"]
    assert found[0] == Locator("W2ru", 7, 9)


@pytest.mark.parametrize(
    ("code", "raw", "path"),
    [
        ("MacX", b"file://./base.vhd", "./base.vhd"),
        ("MacX", b"file:///sr/base.vhd\0rest", "/sr/base.vhd"),
        ("MacX", b"file://localhost/sr/base.vhd", "/sr/base.vhd"),
        ("MacX", b"file://localhosts/base.vhd", "localhosts/base.vhd"),
        ("MacX", b"file://a%20b\xff.vhd", "a%20b\udcff.vhd"),
        ("W2ku", "C:\\sr\\base.vhd".encode("utf-16-le"), "/sr/base.vhd"),
        ("W2ru", ".\\a\\C:b.vhd\0\0".encode("utf-16-le"), "./a/C:b.vhd"),
        ("W2ru", "\u00fc".encode("utf-16-le") + b"\0", "\u00fc\ufffd"),
        ("W2ru", b"\x00\xd8a\0", "\ufffda"),
    ],
)
def test_a_locator_gives_a_path_with_slashes(code: str, raw: bytes, path: str) -> None:
    assert decode_locator(code, raw) == path


@pytest.mark.parametrize(
    ("code", "raw"),
    [("MacX", b"base.vhd"), ("MacX", b"file://"), ("W2ru", b""), ("Wi2r", b"x"), ("", b"x")],
)
def test_a_locator_without_a_path_is_refused(code: str, raw: bytes) -> None:
    with pytest.raises(Invalid):
        decode_locator(code, raw)


@settings(deadline=None)
@given(st.binary(max_size=1100), st.sampled_from(["MacX", "W2ku", "W2ru", "Wi2k"]))
def test_bytes_of_any_kind_are_decoded_or_refused(raw: bytes, code: str) -> None:
    for decode in (decode_footer, decode_header):
        with suppress(Invalid):
            decode(raw)
    with suppress(Invalid):
        decode_locator(code, raw)
    with suppress(Invalid):
        decode_locator("MacX", b"file://" + raw)


@settings(deadline=None)
@given(st.binary(min_size=512, max_size=512))
def test_whatever_fields_a_well_summed_footer_has_they_are_decoded_or_refused(raw: bytes) -> None:
    with suppress(Invalid):
        decode_footer(sealed(b"conectix" + raw[8:], 64))


@settings(deadline=None)
@given(st.binary(min_size=1024, max_size=1024))
def test_whatever_fields_a_well_summed_header_has_they_are_decoded(raw: bytes) -> None:
    whole = header()
    found = decode_header(sealed(whole[:16] + raw[16:24] + whole[24:28] + raw[28:], 36))
    assert "\0" not in found.parent_name
