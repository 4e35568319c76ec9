"""VHD images made of their fields, and a place for them that counts what is read of them."""

import errno
import struct
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from uuid import UUID

from zeventfs.errors import Invalid

CORPUS = Path(__file__).parents[1] / "corpus" / "vhd"
BASE, CHILD = UUID(int=0xB), UUID(int=0xC)
MIB = 1 << 20


def sealed(raw: bytes, at: int) -> bytes:
    """*raw* with the right checksum *at* its place: 64 in a footer, 36 in a dynamic header."""
    raw = raw[:at] + bytes(4) + raw[at + 4 :]
    return raw[:at] + struct.pack(">I", ~sum(raw) & 0xFFFF_FFFF) + raw[at + 4 :]


def footer(
    kind: int = 3,
    uuid: UUID = BASE,
    *,
    size: int = MIB,
    created: int = 1000,
    header_at: int = 512,
    cookie: bytes = b"conectix",
    version: int = 0x0001_0003,
) -> bytes:
    raw = struct.pack(
        ">8sIIQI4sI4sQQIII16sBB426x",
        *(cookie, 2, 0x10000, header_at, created, b"tap", version, b"", size, size, 0),
        *(kind, 0, uuid.bytes, 0, 0),
    )
    return sealed(raw, 64)


def header(
    parent: UUID | None = None,
    noted: int = 0,
    name: str = "",
    locators: bytes = b"",
    *,
    next_at: int = 2**64 - 1,
    version: int = 0x10000,
) -> bytes:
    raw = struct.pack(
        ">8sQQIIII16sII512s192s256x",
        *(b"cxsparse", next_at, 2048, version, 8, 2 * MIB, 0),
        *(parent.bytes if parent else bytes(16), noted, 0, name.encode("utf-16-be"), locators),
    )
    return sealed(raw, 36)


def dynamic(uuid: UUID = BASE, *, created: int = 1000, header_at: int = 512) -> bytes:
    end = footer(3, uuid, created=created, header_at=header_at)
    return end + header() + bytes(512) + end


def fixed(uuid: UUID = BASE, content: bytes = bytes(2048)) -> bytes:
    return content + footer(2, uuid, size=len(content), header_at=2**64 - 1)


def differencing(
    parent: UUID | None = BASE,
    *locators: tuple[bytes, bytes],
    uuid: UUID = CHILD,
    noted: int = 1000,
    created: int = 1000,
    name: str = "",
) -> bytes:
    """With a sector for each locator: platform code, and the bytes of the path."""
    table, paths = b"", b""
    for code, path in locators:
        table += struct.pack(">4sIIIQ", code, 512, len(path), 0, 1536 + len(paths))
        paths += path.ljust(-len(path) % 512 + len(path), b"\0")
    end = footer(4, uuid, created=created)
    return end + header(parent, noted, name, table) + paths + end


def at(path: str) -> tuple[bytes, bytes]:
    """The locator that XenServer's tapdisk follows first."""
    return b"MacX", b"file://" + path.encode()


class MemoryImage:
    """An image in memory (zeventfs.vbd.images.Image); *broken* offsets can't be read."""

    def __init__(self, shelf: "Shelf", path: str, content: bytes) -> None:
        self.shelf = shelf
        self.content = content
        self.size = len(content)
        self.identity: Hashable = path
        self.stamps = frozenset[int]() if path.startswith("/dev/") else shelf.stamps

    def read(self, at: int, length: int) -> bytes:
        self.shelf.reads.append(length)
        if at in self.shelf.broken:
            raise OSError(errno.EIO, "Input/output error")
        return self.content[at : at + length]

    def close(self) -> None:
        self.shelf.open_now -= 1


class Shelf:
    """Images by their paths (zeventfs.vbd.images.Images); those under /dev/ are devices.

    An error in an image's place is raised when it is opened.
    """

    def __init__(
        self,
        images: Mapping[str, bytes | Exception],
        *,
        stamps: frozenset[int] = frozenset({1000}),
        broken: frozenset[int] = frozenset(),
        links: Mapping[str, str | OSError] | None = None,
    ) -> None:
        self.images = images
        self.stamps = stamps
        self.broken = broken
        self.links = links or {}
        self.reads: list[int] = []
        self.sought: list[str] = []
        self.open_now = 0

    def open(self, path: str) -> MemoryImage:
        self.sought.append(path)
        content = self.images.get(self._normal(path), FileNotFoundError(errno.ENOENT, "None"))
        if isinstance(content, Exception):
            raise content
        self.open_now += 1
        return MemoryImage(self, self._normal(path), content)

    def resolve(self, path: str) -> str:
        target = self.links.get(path, path)
        if isinstance(target, OSError):
            raise target
        return target

    @staticmethod
    def _normal(path: str) -> str:
        return str(PurePosixPath(path))


def no_image() -> Invalid:
    return Invalid("neither a regular file nor a block device")


def real_images() -> Iterator[tuple[str, bytes]]:
    for path in sorted(CORPUS.glob("*.vhd")):
        yield path.name, path.read_bytes()
