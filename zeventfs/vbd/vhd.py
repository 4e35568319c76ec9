"""What a VHD image says of itself: its footer, its dynamic header and where its parent is.

The format is that of Microsoft's "Virtual Hard Disk Image Format Specification" 1.0 (2006); where
XenServer's libvhd does otherwise, so does this, for its images are meant. Any byte may be wrong:
what can't be right is refused with Invalid and a sentence, and nothing else is ever raised.
"""

import re
from enum import StrEnum
from struct import Struct
from typing import NamedTuple
from uuid import UUID

from zeventfs.errors import Invalid

__all__ = [
    "EPOCH_S",
    "FOOTER_BYTES",
    "HEADER_BYTES",
    "LOCATOR_BYTES",
    "Footer",
    "Header",
    "ImageType",
    "Locator",
    "decode_footer",
    "decode_header",
    "decode_locator",
]

EPOCH_S = 946_684_800  # 2000-01-01T00:00Z, from which VHDs count their seconds
FOOTER_BYTES = 512
HEADER_BYTES = 1024
LOCATOR_BYTES = 8192  # of one locator's path: PATH_MAX in UTF-16

# cookie, data offset, timestamp, creator, its version, current size, type, checksum, uuid, hidden
_FOOTER = Struct(">8s8xQI4sI12xQ4xII16sxB426x")
_FOOTER_CHECKSUM_AT = 64
_COOKIE, _DISABLED_COOKIE = b"conectix", b"v_poison"
_OPEN = b"\xc7" * FOOTER_BYTES  # what tapdisk writes over the footer while it has the image open
_HIDDEN_UNSUMMED = (0x0000_0001, 0x0001_0001)  # creator versions; td-util didn't sum `hidden` then

# cookie, data offset, table offset, version, checksum, parent's uuid, timestamp, name; locators
_HEADER = Struct(">8sQ8xI8xI16sI4x512s192s256x")
_HEADER_CHECKSUM_AT = 36
_HEADER_COOKIE, _HEADER_VERSION = b"cxsparse", 0x0001_0000
_LOCATOR = Struct(">4s4xI4xQ")  # platform code, length in bytes, offset

_MACX = "MacX"
_UTF16 = ("W2ku", "W2ru")
_DRIVE = re.compile("^[A-Za-z]:")


class ImageType(StrEnum):
    """What an image is: the format's types, and what is no VHD or can't be told."""

    FIXED = "fixed"
    DYNAMIC = "dynamic"
    DIFFERENCING = "differencing"
    RAW = "raw"
    UNKNOWN = "unknown"


_TYPES = {2: ImageType.FIXED, 3: ImageType.DYNAMIC, 4: ImageType.DIFFERENCING}


class Footer(NamedTuple):
    """A footer's facts.

    *size* is the disk's, in bytes; *timestamp* the image's creation, in seconds of VHD (EPOCH_S);
    *header_at* the dynamic header's offset, which means nothing for a fixed image. Who has
    *disabled* an image (libvhd's "poison") wants nobody to open it.
    """

    type: ImageType
    size: int
    timestamp: int
    uuid: UUID
    header_at: int
    hidden: bool
    disabled: bool


class Locator(NamedTuple):
    """Where in the image the parent's path is: platform code, offset and length in bytes."""

    code: str
    at: int
    length: int


class Header(NamedTuple):
    """A dynamic header's facts, all about the parent.

    *parent_uuid* is None where the parent is raw (or there is none); *parent_timestamp* is its
    modification time, in seconds of VHD. *locators* are those that libvhd follows, in its order:
    that of the table.
    """

    parent_uuid: UUID | None
    parent_timestamp: int
    parent_name: str
    locators: tuple[Locator, ...]


def decode_footer(raw: bytes) -> Footer:
    """The footer in the 512 bytes *raw*, or in 511, as early versions of Virtual PC wrote it.

    Raises Invalid.
    """
    if len(raw) == FOOTER_BYTES - 1:
        raw += b"\0"
    if len(raw) != FOOTER_BYTES:
        raise Invalid("too short for a footer")
    if raw == _OPEN:
        raise Invalid("tapdisk's mark of an open image")
    fields = _FOOTER.unpack(raw)
    cookie, header_at, timestamp, creator, version, size, kind, checksum, uuid, hidden = fields
    if cookie not in {_COOKIE, _DISABLED_COOKIE}:
        raise Invalid("no footer")
    unsummed = hidden if creator[:3] == b"tap" and version in _HIDDEN_UNSUMMED else 0
    if checksum not in {_checksum(raw, _FOOTER_CHECKSUM_AT, less) for less in (0, unsummed)}:
        raise Invalid("a footer with a wrong checksum")
    if kind not in _TYPES:
        raise Invalid(f"a footer of unknown type {kind}")
    return Footer(
        type=_TYPES[kind],
        size=size,
        timestamp=timestamp,
        uuid=UUID(bytes=uuid),
        header_at=header_at,
        hidden=bool(hidden),
        disabled=cookie == _DISABLED_COOKIE,
    )


def decode_header(raw: bytes) -> Header:
    """The dynamic header in the 1024 bytes *raw*. Raises Invalid."""
    if len(raw) != HEADER_BYTES:
        raise Invalid("too short for a dynamic header")
    cookie, next_at, version, checksum, uuid, timestamp, name, table = _HEADER.unpack(raw)
    if cookie != _HEADER_COOKIE:
        raise Invalid("no dynamic header")
    if checksum != _checksum(raw, _HEADER_CHECKSUM_AT):
        raise Invalid("a dynamic header with a wrong checksum")
    if version != _HEADER_VERSION or next_at != 0xFFFF_FFFF_FFFF_FFFF:
        raise Invalid("a dynamic header of an unknown version")
    locators = [
        Locator(code.decode("latin-1"), at, length)
        for code, length, at in _LOCATOR.iter_unpack(table)
    ]
    return Header(
        parent_uuid=UUID(bytes=uuid) if any(uuid) else None,
        parent_timestamp=timestamp,
        parent_name=_text(name, "utf-16-be"),
        locators=tuple(each for each in locators if each.code in (_MACX, *_UTF16)),
    )


def decode_locator(code: str, raw: bytes) -> str:
    """The path that a locator of that platform *code* gives with the bytes *raw*.

    It has slashes and no drive; one that is relative is so to the image that has the locator. Bytes
    that are no UTF-8 are surrogates (surrogateescape). A URL's host is dropped if it is localhost,
    and nothing in it is percent-decoded, as libvhd has it. Raises Invalid.
    """
    if code == _MACX:
        url = _text(raw, "utf-8", "surrogateescape")
        if not url.startswith("file://"):
            raise Invalid("a locator that is no file: URL")
        path = re.sub("^localhost(?=/)", "", url.removeprefix("file://"))
    elif code in _UTF16:
        path = _DRIVE.sub("", _text(raw, "utf-16-le").replace("\\", "/"))
    else:
        raise Invalid("a locator for another system")
    if not path:
        raise Invalid("an empty locator")
    return path


def _checksum(raw: bytes, at: int, less: int = 0) -> int:
    """One's complement of the sum of all bytes but the checksum's own, which is *at*."""
    return ~(sum(raw) - sum(raw[at : at + 4]) - less) & 0xFFFF_FFFF


def _text(raw: bytes, encoding: str, errors: str = "replace") -> str:
    """*raw* up to the first NUL."""
    return raw.decode(encoding, errors).partition("\0")[0]
