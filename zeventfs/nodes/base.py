"""What a tree is made of: directories, files, and what is open; nothing here knows of FUSE.

A node knows only its place and its meaning. Its inode number follows from its key, which says what
it is ("events/stream", "segment/EPOCH/7"), so that the same thing has the same number in every
daemon that serves the mount. Reads and looks are plain calls, so that nothing stands between an
arrival and its readers; what may take long (`open`, `measure`, `write`) is asynchronous.

An open file answers `None` to a read that nothing is there for yet, and who reads waits on its
`bell`, then reads again.
"""

import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, Protocol

from zeventfs.bell import Bell
from zeventfs.errors import Denied, Fixed, NotFound

__all__ = [
    "Attributes",
    "Buffer",
    "Clock",
    "ControlFile",
    "Directory",
    "File",
    "Node",
    "Open",
    "OpenSnapshot",
    "SnapshotFile",
    "Writer",
]

Buffer = bytes | memoryview
Clock = Callable[[], int]  # nanoseconds since 1970


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) shows beside the mode: the size in bytes, the time of the last change in ns."""

    size: int
    mtime_ns: int


class Open:
    """An open file; the base of a file from which nothing can be read or written."""

    __slots__ = ()
    bell: Bell | None = None

    def read(self, offset: int, size: int) -> Buffer | None:
        """At most *size* bytes at *offset*; none at the end; None while they are still to come."""
        del offset, size
        raise Denied("not for reading")

    def following(self, offset: int, size: int) -> Buffer:
        """What a read of *size* bytes at *offset* would likely get, as far as it costs nothing.

        Its one use is to have the CPU fetch it early.
        """
        del offset, size
        return b""

    async def write(self, offset: int, written: bytes) -> int:
        """Take *written* in; how many bytes of it were taken."""
        del offset, written
        raise Denied("not for writing")

    def ready(self) -> int:
        """What poll(2) answers now."""
        return select.POLLIN | select.POLLRDNORM | select.POLLOUT | select.POLLWRNORM

    def seek_to_end(self, size: int) -> int:
        """Note that the reader looks up where the end is, to go there; give what it is told."""
        return size

    def close(self) -> None:
        """Give back what was held."""


class Node:
    """Anything with a name in the tree.

    `fixed`: the name means the same node forever. `passing`: there may be any number of such names,
    none of which is worth remembering while its node isn't `in_use`.
    """

    __slots__ = ("ino", "key")
    fixed: ClassVar[bool] = True
    passing: ClassVar[bool] = False

    def __init__(self, key: str) -> None:
        self.key = key
        # 63 bits: some programs take an inode number for a signed one
        self.ino = int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 1

    @property
    def in_use(self) -> bool:
        """Whether anybody has it open, or may have."""
        return True

    async def measure(self) -> Attributes:
        """Size and time, true at this moment."""
        raise NotImplementedError


class Directory(Node):
    """A node with names in it; the names here are *children*'s, for good."""

    __slots__ = ("_children", "_clock_ns")

    def __init__(self, key: str, children: dict[str, Node], made_ns: int) -> None:
        super().__init__(key)
        self._children = children
        self._clock_ns = made_ns

    async def measure(self) -> Attributes:
        return Attributes(0, self._clock_ns)

    def lookup(self, name: str) -> Node:
        """The node called *name*; NotFound if there is none."""
        try:
            return self._children[name]
        except KeyError:
            raise NotFound(f"{self.key} has no {name}") from None

    def entries(self) -> Iterator[tuple[str, Node]]:
        """All names with their nodes."""
        yield from self._children.items()

    @property
    def steerable(self) -> bool:
        """Whether the owner makes and removes directories here, which has something done."""
        return False

    def make(self, name: str) -> Node:
        """Have a directory called *name* appear, and give it; Fixed where none can be made."""
        raise Fixed(f"{self.key} has no {name}, and none can be made")

    def remove(self, name: str) -> None:
        """Have directory *name* go, which is listed no more at once; Fixed where none can."""
        raise Fixed(f"{self.key}/{name} can't be removed")


class File(Node):
    """A node with content; what is `private` nobody but the owner may read, whatever mode= says."""

    __slots__ = ()
    private: ClassVar[bool] = False
    readable: ClassVar[bool] = True
    writable: ClassVar[bool] = False

    async def open(self, pid: int) -> Open:
        """Open it for one more reader or writer, process *pid*."""
        raise NotImplementedError


class OpenSnapshot(Open):
    """One consistent state of a small file."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, offset: int, size: int) -> Buffer:
        return self._content[offset : offset + size]


class SnapshotFile(File):
    """A small file, whose content *render* gives; every open is of one moment."""

    __slots__ = ("_mtime_ns", "_render")

    def __init__(self, key: str, render: Callable[[], bytes], mtime_ns: Clock) -> None:
        super().__init__(key)
        self._render = render
        self._mtime_ns = mtime_ns

    async def measure(self) -> Attributes:
        return Attributes(len(self._render()), self._mtime_ns())

    async def open(self, pid: int) -> Open:
        del pid
        return OpenSnapshot(self._render())


class Writer(Protocol):
    """Carries out what is written to a control file."""

    async def __call__(self, written: bytes) -> None:
        """Do as *written* says, all of it or nothing; Invalid when it can't be understood."""
        ...


class ControlFile(File):
    """A file that is written to have something done; each write(2) is one request."""

    __slots__ = ("_act", "_made_ns")
    readable = False
    writable = True

    def __init__(self, key: str, act: Writer, made_ns: int) -> None:
        super().__init__(key)
        self._act = act
        self._made_ns = made_ns

    async def measure(self) -> Attributes:
        return Attributes(0, self._made_ns)

    async def open(self, pid: int) -> Open:
        del pid
        return OpenControl(self._act)


class OpenControl(Open):
    """A control file, open for writing."""

    __slots__ = ("_act",)

    def __init__(self, act: Writer) -> None:
        self._act = act

    async def write(self, offset: int, written: bytes) -> int:
        del offset  # as for any device, what is written counts, not where
        if written:
            await self._act(written)
        return len(written)
