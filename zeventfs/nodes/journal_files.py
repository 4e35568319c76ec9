"""A directory of streams and logs, over all of the journal's events or over those of a view."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from zeventfs.bell import Bell
from zeventfs.errors import NotFound
from zeventfs.journal.journal import Journal
from zeventfs.nodes.base import Attributes, Clock, Directory, Node
from zeventfs.nodes.streams import Format, Readers, StreamFile, logs

__all__ = ["JournalDirectory", "Surroundings"]


class Surroundings(NamedTuple):
    """What the files of the journal stand in: itself, the clock, who reads."""

    journal: Journal
    clock_ns: Clock
    readers: Readers


class JournalDirectory(Directory):
    """`stream*`, whose readers wait on *bell*, and `log*`, in *formats*, beside *others*."""

    __slots__ = ("_formats", "_journal")

    def __init__(
        self,
        key: str,
        around: Surroundings,
        formats: Sequence[Format],
        bell: Bell,
        others: Mapping[str, Node] | None = None,
    ) -> None:
        self._journal = around.journal
        self._formats = formats
        streams: dict[str, Node] = {
            f"stream{style.suffix}": self.stream(f"{key}/stream{style.suffix}", around, style, bell)
            for style in formats
        }
        super().__init__(key, {**streams, **(others or {})}, around.clock_ns())

    def stream(self, key: str, around: Surroundings, style: Format, bell: Bell) -> StreamFile:
        """The file `stream` in format *style*."""
        return StreamFile(key, around.journal, style, bell, around.clock_ns, around.readers)

    async def measure(self) -> Attributes:
        return Attributes(0, self._journal.current.mtime_ns)

    def lookup(self, name: str) -> Node:
        if name.startswith("log"):
            for log_name, node in self._logs():
                if log_name == name:
                    return node
            raise NotFound(name)
        return super().lookup(name)

    def entries(self) -> Iterator[tuple[str, Node]]:
        yield from super().entries()
        yield from self._logs()

    def _logs(self) -> Iterator[tuple[str, Node]]:
        for style in self._formats:
            yield from logs(self._journal, style)
