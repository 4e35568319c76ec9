"""The journal as files: streams, which are read forever, and logs, which end and are rotated."""

import select
from collections.abc import Callable, Iterator
from typing import Protocol

import trio

from zeventfs.bell import Bell
from zeventfs.errors import Stale
from zeventfs.journal.column import Column
from zeventfs.journal.journal import Journal
from zeventfs.journal.reader import Reader
from zeventfs.journal.rendition import Rendition
from zeventfs.journal.segment import Segment
from zeventfs.journal.text import TextColumn
from zeventfs.nodes.base import Attributes, Buffer, Clock, File, Open

__all__ = [
    "Format",
    "JsonFormat",
    "LogFile",
    "NvlistFormat",
    "OpenLog",
    "OpenStream",
    "Readers",
    "StreamFile",
    "TextFormat",
]

_A_FEW = 64  # events rendered as text at once: about a millisecond


class Format(Protocol):
    """One rendition of the journal, as nodes use it."""

    suffix: str
    """What is added to the names of files in it."""
    name: str
    """Of which events it is: of all of them, or those that match this expression."""

    @property
    def asked(self) -> bool:
        """Whether anybody has opened a file of it, where that is what it is rendered for."""
        ...

    def rendition(self) -> Rendition:
        """What streams read."""
        ...

    def column(self, segment: Segment) -> Column:
        """What the log of *segment* reads."""
        ...

    def reach(self, position: int) -> None:
        """See to it that the rendition has what there is before *position*."""
        ...

    def reach_in(self, column: Column, length: int) -> None:
        """See to it that *column* has what there is of its first *length* bytes."""
        ...

    async def end(self) -> int:
        """The bytes of the whole rendition, true at this moment."""
        ...

    async def length(self, segment: Segment) -> int:
        """The bytes of *segment*'s log, true at this moment; Stale if it is evicted meanwhile."""
        ...

    async def hold(self) -> None:
        """Be kept up to date for one more open file."""
        ...

    def release(self) -> None:
        """Undo one `hold`."""
        ...

    def lag(self, reader: Reader) -> int:
        """How many events *reader* has not read yet."""
        ...


class _OfAll:
    """A rendition of all events, which the journal keeps up to date by itself."""

    name = ""
    asked = True

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def hold(self) -> None:
        """It is."""

    def release(self) -> None:
        """It stays so."""

    def lag(self, reader: Reader) -> int:
        return self._journal.current.lines.next_seq - reader.seq


class _KeptFormat(_OfAll):
    """What a segment keeps by itself, and so is there as soon as the event is."""

    def reach(self, position: int) -> None:
        """All is there."""

    def reach_in(self, column: Column, length: int) -> None:
        """All is there."""


class JsonFormat(_KeptFormat):
    """JSON lines."""

    suffix = ""

    def rendition(self) -> Rendition:
        return self._journal.lines

    def column(self, segment: Segment) -> Column:
        return segment.lines

    async def end(self) -> int:
        return self._journal.lines.end

    async def length(self, segment: Segment) -> int:
        return segment.lines.length


class NvlistFormat(_KeptFormat):
    """Packed nvlists, each after its length (u32, little endian)."""

    suffix = ".nvl"

    def rendition(self) -> Rendition:
        return self._journal.nvlists()

    def column(self, segment: Segment) -> Column:
        return segment.nvlists

    async def end(self) -> int:
        return self._journal.nvlists().end

    async def length(self, segment: Segment) -> int:
        return segment.nvlists.length


class TextFormat(_OfAll):
    """zpool's text, rendered by *encode* from a packed nvlist when somebody asks.

    Until a file of this format is opened for the first time, the lengths are 0 and cost nothing;
    from then on they are exact.
    """

    suffix = ".txt"

    def __init__(self, journal: Journal, encode: Callable[[bytes], bytes]) -> None:
        super().__init__(journal)
        self._encode = encode
        self.asked = False

    def rendition(self) -> Rendition:
        self.asked = True
        return self._journal.text(self._encode)

    def column(self, segment: Segment) -> Column:
        self.asked = True
        return self._journal.text(self._encode).column_of(segment)

    def reach(self, position: int) -> None:
        text = self._journal.text(self._encode)
        while text.end < position and not text.catch_up(_A_FEW):
            pass

    def reach_in(self, column: Column, length: int) -> None:
        assert isinstance(column, TextColumn)
        while column.length < length and column.render(_A_FEW):
            pass

    async def end(self) -> int:
        if not self.asked:
            return 0
        text = self._journal.text(self._encode)
        while not text.catch_up(_A_FEW):
            await trio.lowlevel.checkpoint()
        return text.end

    async def length(self, segment: Segment) -> int:
        if not self.asked:
            return 0
        column = self._journal.text(self._encode).column_of(segment)
        while not segment.stale and column.render(_A_FEW):
            await trio.lowlevel.checkpoint()
        if segment.stale:
            raise Stale("evicted")
        return column.length


class OpenStream(Open):
    """A cursor of its own over everything that is and will be posted."""

    __slots__ = ("__weakref__", "_format", "_readers", "bell", "pid", "reader")

    def __init__(
        self, style: Format, reader: Reader, bell: Bell, pid: int, readers: "Readers"
    ) -> None:
        self._format = style
        self.reader = reader
        self.bell = bell
        self.pid = pid
        self._readers = readers

    @property
    def lag(self) -> int:
        """How many events it has not read yet."""
        return self._format.lag(self.reader)

    def read(self, offset: int, size: int) -> Buffer | None:
        reader = self.reader
        # of a seek, the offset is the position
        self._format.reach(offset + max(reader.skew, 0) + size)
        return reader.read(offset, size)

    def following(self, offset: int, size: int) -> Buffer:
        del offset  # the reader knows where it is
        return self.reader.following(size)

    def ready(self) -> int:
        self._format.reach(self.reader.rendition.end + 1)
        return select.POLLIN | select.POLLRDNORM if self.reader.ready() else 0

    def seek_to_end(self, size: int) -> int:
        """See Open.seek_to_end; it is never 0.

        tail takes a file with an end of 0 for a pipe, and would show nothing until that ended. So
        it waits for the first byte, as everybody waits beyond the end.
        """
        self.reader.seek_to_end()
        return size or 1

    def close(self) -> None:
        del self._readers[self]
        self._format.release()


Readers = dict[OpenStream, str]
"""Streams that are open, each with the file's key."""


class StreamFile(File):
    """`stream`: every event of a format; each open has its own cursor, a read at the end waits."""

    __slots__ = ("_bell", "_clock_ns", "_format", "_journal", "_readers")

    def __init__(  # noqa: PLR0913, PLR0917 - all of a stream's surroundings
        self,
        key: str,
        journal: Journal,
        style: Format,
        bell: Bell,
        clock_ns: Clock,
        readers: Readers,
    ) -> None:
        super().__init__(key)
        self._journal = journal
        self._format = style
        self._bell = bell
        self._clock_ns = clock_ns
        self._readers = readers

    async def measure(self) -> Attributes:
        return Attributes(await self._format.end(), self._journal.current.mtime_ns)

    async def open(self, pid: int) -> OpenStream:
        await self._format.hold()
        try:
            reader = await self.cursor()
        except BaseException:
            self._format.release()
            raise
        opened = self.opened(reader, pid)
        self._readers[opened] = self.key
        return opened

    def opened(self, reader: Reader, pid: int) -> OpenStream:
        """What process *pid* has opened."""
        return OpenStream(self._format, reader, self._bell, pid, self._readers)

    async def cursor(self) -> Reader:
        """A reader where readers begin, the format being held."""
        return Reader(self._format.rendition(), self._clock_ns)


class OpenLog(Open):
    """A segment, held so that it can be read to its end after it was rotated or evicted."""

    __slots__ = ("_column", "_format", "_journal", "_segment")

    def __init__(self, journal: Journal, segment: Segment, style: Format) -> None:
        self._journal = journal
        self._segment = segment
        self._format = style
        self._column = style.column(segment)  # which has been held
        journal.hold(segment)

    def read(self, offset: int, size: int) -> Buffer:
        if self._segment.stale:
            raise Stale("evicted for longer than it is kept for those who hold it")
        self._format.reach_in(self._column, offset + size)
        column = self._column
        return column.slice(offset, min(offset + size, column.length))

    def following(self, offset: int, size: int) -> Buffer:
        return self._column.ahead(offset, size)

    def close(self) -> None:
        self._journal.release(self._segment)
        self._format.release()


class LogFile(File):
    """`log`, `log.1`, ...: the lines of one segment, under whatever name it has by now.

    A segment that is no longer the journal's has no name, and is there for its holders only.
    """

    __slots__ = ("_format", "_journal", "segment")
    fixed = False

    def __init__(self, journal: Journal, segment: Segment, style: Format) -> None:
        place = f"{style.name}/segment" if style.name else "segment"
        super().__init__(f"{place}/{journal.epoch}/{segment.identity.serial}{style.suffix}")
        self._journal = journal
        self._format = style
        self.segment = segment

    def _check(self) -> None:
        segment = self.segment
        if segment.stale or not (segment.holders or segment in self._journal.segments):
            raise Stale("evicted")

    async def measure(self) -> Attributes:
        self._check()
        return Attributes(await self._format.length(self.segment), self.segment.mtime_ns)

    async def open(self, pid: int) -> OpenLog:
        del pid
        await self._format.hold()
        try:
            self._check()
            return OpenLog(self._journal, self.segment, self._format)
        except BaseException:
            self._format.release()
            raise


def logs(journal: Journal, style: Format) -> Iterator[tuple[str, LogFile]]:
    """`log` and its elders, by name."""
    for age, segment in enumerate(reversed(journal.segments)):
        yield _log_name(style, age), LogFile(journal, segment, style)


def _log_name(style: Format, age: int) -> str:
    return f"log{style.suffix}.{age}" if age else f"log{style.suffix}"
