"""What a tapdisk's STATS text says of one VBD; text that can't be read is kept as it is.

Tapdisk writes the JSON with printf and escapes nothing: a path with a quote in it makes the whole
invalid, and a name that isn't there is `(null)`, quoted or not.
"""

import re
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

__all__ = ["Driver", "ImageStats", "Stats", "StatsText", "decode_stats"]

_BARE_NULL: Final = re.compile(rb'("[^"\\]*":\s*)\(null\)(?=\s*[,}\]])')
_NO_NAME: Final = "(null)"

Count = Annotated[int, Meta(ge=0)]


class Driver(msgspec.Struct, frozen=True):
    """What reads and writes an image: its number, its name, and what it says of itself."""

    type: int
    name: str | None = None
    status: Any = None


class ImageStats(msgspec.Struct, frozen=True):
    """One image of the VBD: sectors (read, written) that it served, and that failed."""

    name: str | None
    hits: tuple[Count, Count]
    fail: tuple[Count, Count]
    driver: Driver


class Stats(msgspec.Struct, frozen=True):
    """A VBD's statistics: `secs` are sectors (read, written); a paused one has no images."""

    name: str | None
    secs: tuple[Count, Count]
    images: tuple[ImageStats, ...]
    reqs_outstanding: Count | None = None
    nbd_mirror_failed: int | None = None


class StatsText(NamedTuple):
    """The text that tapdisk wrote, and what it says, None where it can't be read."""

    text: str
    stats: Stats | None


def decode_stats(text: bytes) -> StatsText:
    """Read what STATS answered; `(null)` for a name, or for any other value, is None."""
    shown = text.decode(errors="backslashreplace")
    try:
        stats = msgspec.json.decode(_BARE_NULL.sub(rb"\1null", text), type=Stats)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return StatsText(shown, None)
    images = tuple(
        msgspec.structs.replace(
            image,
            name=_known(image.name),
            driver=msgspec.structs.replace(image.driver, name=_known(image.driver.name)),
        )
        for image in stats.images
    )
    return StatsText(shown, msgspec.structs.replace(stats, name=_known(stats.name), images=images))


def _known(name: str | None) -> str | None:
    return None if name == _NO_NAME else name
