"""Where an image's parent may be: the places where libvhd, and with it tapdisk, seeks it.

What a locator says is only read and tried: a place may well be nonsense, or there may be none.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import NamedTuple

from zeventfs.errors import Invalid
from zeventfs.vbd.images import Image, Images, read_within
from zeventfs.vbd.vhd import LOCATOR_BYTES, Header, Locator, decode_locator

__all__ = ["Places", "parent_places"]


class Places(NamedTuple):
    """Paths, the likelier first.

    *located* are those that the locators give. *named* are those of the parent's name beside the
    child, where libvhd doesn't seek.
    """

    located: tuple[str, ...]
    named: tuple[str, ...]


def parent_places(header: Header, image: Image, path: str, images: Images) -> Places:
    """The places of the parent of the *image* at *path*, which has that *header*."""
    directories = tuple(_directories(path, images))
    located: list[str] = []
    for locator in header.locators:
        with suppress(OSError, Invalid):  # libvhd too goes on to the next
            parent = _path(locator, image)
            if parent.startswith("/"):
                located.append(parent)
            located += [_join(directory, parent) for directory in directories]
    name = PurePosixPath(header.parent_name).name
    named = [_join(directory, name) for directory in directories if name]
    return Places(tuple(dict.fromkeys(located)), tuple(named))


def _path(locator: Locator, image: Image) -> str:
    """Raises OSError and Invalid."""
    if locator.length > LOCATOR_BYTES:
        raise Invalid("longer than any path")
    return decode_locator(locator.code, read_within(image, locator.at, locator.length))


def _directories(path: str, images: Images) -> Iterator[str]:
    """What a path in the image at *path* is relative to (libvhd's canonpath.c)."""
    parts = PurePosixPath(path).parts
    if parts[:2] == ("/", "dev") and len(parts) == 4:
        yield "/dev/mapper"  # where a logical volume's names are; /dev/VG/LV is a link
    if parts[:4] == ("/", "dev", "drbd", "by-res"):
        yield str(PurePosixPath(path).parent)
    with suppress(OSError, ValueError):
        yield str(PurePosixPath(images.resolve(path)).parent)


def _join(directory: str, path: str) -> str:
    """An absolute *path* goes below the *directory* too, as libvhd has it."""
    return str(PurePosixPath(f"{directory}/{path}"))
