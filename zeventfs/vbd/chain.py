"""An image's chain of VHD parents: what it is made of, and where it is broken.

It only reads, and at each level a bounded number of bytes: footer, its copy, header and locators.
Whatever is wrong with an image is a finding at its level and never an error. Parents are sought
where libvhd seeks them, since what tapdisk doesn't find is missing, wherever else it may be.
"""

import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from uuid import UUID

from zeventfs.errors import Invalid
from zeventfs.vbd.images import FILES, Image, Images, read_within
from zeventfs.vbd.parents import Places, parent_places
from zeventfs.vbd.vhd import (
    EPOCH_S,
    FOOTER_BYTES,
    HEADER_BYTES,
    Footer,
    Header,
    ImageType,
    decode_footer,
    decode_header,
)

__all__ = [
    "DEEPEST",
    "Chain",
    "Finding",
    "Level",
    "Problem",
    "Reason",
    "chain_text",
    "image_path",
    "read_chain",
]

DEEPEST = 30  # images in a chain; XenServer's storage manager refuses to make more (MAX_CHAIN_SIZE)
_VHD, _RAW = "vhd", "aio"  # tapdisk's drivers


class Reason(StrEnum):
    """What a finding is about, in the word that stands in the file and in the event."""

    MISSING = "missing"  # there is no such image
    UNREADABLE = "unreadable"  # there is one, but it can't be opened or read
    FOOTER = "footer"  # the footer at the end is damaged; its copy at offset 0 is not
    DAMAGED = "damaged"  # neither footer can be used, or the dynamic header can't
    UUID = "uuid"  # the child means another parent
    TIMESTAMP = "timestamp"  # the parent was changed after the child was made of it
    LOCATOR = "locator"  # only the name beside the child led here, which libvhd doesn't try
    DISABLED = "disabled"  # libvhd's "poison": nobody is to open it
    LOOP = "loop"  # the chain has been here before
    DEEP = "deep"  # as many levels as are allowed are above it
    OPEN = "open"  # no footer at the end because tapdisk has it open; this one breaks nothing


class Finding(NamedTuple):
    """What is to be said of one level: the reason, and a few printable words."""

    reason: Reason
    words: str


class Level(NamedTuple):
    """One image of a chain; *depth* 0 is the image itself, 1 its parent.

    *path* is as given, or as it was found (or sought) from the child; empty if the child has none.
    *size* is the disk's in bytes, or the file's where it is no VHD; None if it isn't known.
    """

    depth: int
    path: str
    type: ImageType
    size: int | None
    uuid: UUID | None
    findings: tuple[Finding, ...]


class Problem(NamedTuple):
    """Where and why a chain is broken: the facts of one `tapdisk.chain.broken`."""

    depth: int
    path: str
    reason: Reason
    words: str


class Chain(NamedTuple):
    """An image, and its levels from itself to the last that was found or sought."""

    image: str
    levels: tuple[Level, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All findings that break the chain, from the image down."""
        return tuple(
            Problem(level.depth, level.path, *finding)
            for level in self.levels
            for finding in level.findings
            if finding.reason is not Reason.OPEN
        )


class _Found(NamedTuple):
    """An image where it was found, open; or where it was sought, and why there is none."""

    path: str
    image: Image | None
    finding: Finding | None = None


class _Facts(NamedTuple):
    """What an image is. Its *header* is there if it has a parent that can be sought."""

    type: ImageType
    size: int | None
    uuid: UUID | None
    findings: tuple[Finding, ...]
    header: Header | None


def image_path(args: str) -> tuple[str, str]:
    """Driver and image's path, of what a tapdisk is given to open (`vhd:/path/x.vhd`).

    The driver is empty where none is named.
    """
    driver, colon, path = args.partition(":")
    return (driver, path) if colon and driver.isalnum() else ("", args)


def read_chain(
    path: str | Path, driver: str = _VHD, *, in_use: bool = False, images: Images = FILES
) -> Chain:
    """The chain of the image at *path*, which that *driver* of tapdisk's reads.

    With *in_use* a tapdisk has it open: it then may have no footer at its end, where tapdisk puts
    new blocks, and the footer again when it closes it. What no VHD driver reads is one level, raw
    or unknown. Never raises, but may take as long as the storage does: it is for a thread.
    """
    image = os.fspath(path)
    if driver != _VHD:
        return Chain(image, (_no_vhd(image, driver, images),))
    return Chain(image, tuple(_levels(image, images, in_use=in_use)))


def chain_text(chain: Chain) -> bytes:
    """A line a level, in columns: depth, type, size, uuid, state, path; then what is wrong, if so.

    What isn't known is `-`. The state is `ok` or the reasons, separated by commas. Of the path, all
    but letters, digits and a few signs is percent-encoded, so that it is one field.
    """
    rows = [_row(level) for level in chain.levels]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        columns = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        lines.append("  ".join([columns, *row[5:]]) + "\n")
    return "".join(lines).encode()


def _row(level: Level) -> list[str]:
    row = [
        str(level.depth),
        level.type.value,
        "-" if level.size is None else str(level.size),
        "-" if level.uuid is None else str(level.uuid),
        ",".join(finding.reason for finding in level.findings) or "ok",
        quote(level.path, "/_.-~:@+=", errors="surrogateescape") or "-",
    ]
    if level.findings:
        row.append("; ".join(finding.words for finding in level.findings))
    return row


def _no_vhd(path: str, driver: str, images: Images) -> Level:
    found = _open((path,), images)
    size = None
    if found.image is not None:
        with closing(found.image):
            size = found.image.size
    if driver != _RAW:  # its path may be no file's
        return Level(0, path, ImageType.UNKNOWN, size, None, ())
    return Level(0, path, ImageType.RAW, size, None, (found.finding,) if found.finding else ())


def _levels(path: str, images: Images, *, in_use: bool) -> Iterator[Level]:
    seen: dict[Hashable, int] = {}
    child: Header | None = None
    found = _open((path,), images)
    depth = 0
    while True:
        how = (found.finding,) if found.finding else ()
        if found.image is None:
            yield Level(depth, found.path, ImageType.UNKNOWN, None, None, how)
            return
        with closing(found.image) as image:
            stop = _stop(image, depth, seen)
            if stop is None:
                facts = _look(image, child, in_use=in_use and depth == 0)
            else:
                facts = _Facts(ImageType.UNKNOWN, None, None, (stop,), None)
            seen.setdefault(image.identity, depth)
            child = facts.header
            places = None if child is None else parent_places(child, image, found.path, images)
        findings = (*how, *facts.findings)
        yield Level(depth, found.path, facts.type, facts.size, facts.uuid, findings)
        if places is None:
            return
        found = _find(places, images)
        depth += 1


def _stop(image: Image, depth: int, seen: Mapping[Hashable, int]) -> Finding | None:
    """Why the chain is followed no further, if so."""
    if image.identity in seen:
        return Finding(Reason.LOOP, f"the same image as at depth {seen[image.identity]}")
    if depth == DEEPEST:
        return Finding(Reason.DEEP, f"more than {DEEPEST} images; it ends here unread")
    return None


def _look(image: Image, child: Header | None, *, in_use: bool) -> _Facts:
    """What *image* is, and whether it is what *child*, if there is one, means."""
    if child is not None and child.parent_uuid is None:
        return _Facts(ImageType.RAW, image.size, None, tuple(_changed(child, None, image)), None)
    try:
        footer, backup = _footer(image, in_use=in_use)
    except (OSError, Invalid) as error:
        return _Facts(ImageType.UNKNOWN, image.size, None, (_fault(error),), None)
    findings = [] if backup is None else [backup]
    header = None
    if footer.type is not ImageType.FIXED:
        try:
            header = decode_header(read_within(image, footer.header_at, HEADER_BYTES))
        except (OSError, Invalid) as error:
            findings.append(_fault(error))
    if footer.disabled:
        findings.append(Finding(Reason.DISABLED, "vhd-util has disabled it"))
    if child is not None and child.parent_uuid != footer.uuid:
        findings.append(Finding(Reason.UUID, f"its child means {child.parent_uuid}"))
    elif child is not None:
        findings.extend(_changed(child, footer, image))
    if footer.type is not ImageType.DIFFERENCING:
        header = None
    return _Facts(footer.type, footer.size, footer.uuid, tuple(findings), header)


def _footer(image: Image, *, in_use: bool) -> tuple[Footer, Finding | None]:
    """The footer at the end or else its copy, with a finding. Raises OSError and Invalid."""
    try:
        return _last_footer(image), None
    except (OSError, Invalid) as error:
        fault = f"at its end: {_words(error)}"
    try:
        copy = decode_footer(image.read(0, FOOTER_BYTES))
    except Invalid as error:
        raise Invalid(f"{fault}; at offset 0: {error}") from None
    if copy.type is ImageType.FIXED:  # these have none: it is the guest's
        raise Invalid(f"{fault}; and a fixed image has no copy")
    reason = Reason.OPEN if in_use else Reason.FOOTER
    return copy, Finding(reason, f"{fault}; the copy at offset 0 was read")


def _last_footer(image: Image) -> Footer:
    end = image.read(max(image.size - FOOTER_BYTES, 0), FOOTER_BYTES)
    with suppress(Invalid):
        return decode_footer(end[1:])  # the short one
    return decode_footer(end)


def _changed(child: Header, footer: Footer | None, image: Image) -> Iterator[Finding]:
    """A finding if *image* is not of the time that *child* has noted.

    That is its modification time or, as other programs have it, that in its footer, its creation.
    Of a device there is only that it can't have been noted before it was created.
    """
    noted = child.parent_timestamp
    created = None if footer is None else footer.timestamp
    fits = noted == created or noted in image.stamps
    if not image.stamps:
        fits = created is None or noted >= created
    if not fits:
        when = datetime.fromtimestamp(EPOCH_S + noted, UTC)
        yield Finding(Reason.TIMESTAMP, f"its child means it as of {when:%Y-%m-%dT%H:%M:%SZ}")


def _find(places: Places, images: Images) -> _Found:
    found = _open(places.located or places.named[:1], images)
    if found.image is None:
        named = _open(places.named, images)
        if named.image is not None:
            words = "no locator of its child leads here, only the name does"
            return named._replace(finding=Finding(Reason.LOCATOR, words))
    return found


def _open(paths: tuple[str, ...], images: Images) -> _Found:
    """The first of *paths* that can be opened; else the first that exists; else the first."""
    failed = None
    for path in paths:
        try:
            return _Found(path, images.open(path))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        except (OSError, Invalid) as error:
            failed = failed or _Found(path, None, Finding(Reason.UNREADABLE, _words(error)))
    words = "there is no such file" if paths else "its child doesn't say where it is"
    return failed or _Found(paths[0] if paths else "", None, Finding(Reason.MISSING, words))


def _fault(error: OSError | Invalid) -> Finding:
    reason = Reason.UNREADABLE if isinstance(error, OSError) else Reason.DAMAGED
    return Finding(reason, _words(error))


def _words(error: OSError | Invalid) -> str:
    return error.strerror or "can't be read" if isinstance(error, OSError) else str(error)
