"""events/: the journal's streams and logs, what is in it at a glance, its clear and its status."""

from collections.abc import Callable, Iterator

from zeventfs.bell import Bell
from zeventfs.errors import NotFound
from zeventfs.journal.journal import Journal
from zeventfs.nodes.base import Attributes, Clock, ControlFile, Directory, Node, SnapshotFile
from zeventfs.nodes.overview import latest, summary_table
from zeventfs.nodes.streams import (
    Format,
    JsonFormat,
    NvlistFormat,
    OpenStream,
    StreamFile,
    TextFormat,
    logs,
)

__all__ = ["EventsDirectory"]


class EventsDirectory(Directory):
    """`events/`; *encode_text* gives zpool's text of a packed nvlist, *clear* flushes the queue."""

    __slots__ = ("_formats", "_journal", "streams")

    def __init__(
        self,
        journal: Journal,
        arrival: Bell,
        clock_ns: Clock,
        encode_text: Callable[[bytes], bytes],
        clear: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._formats: tuple[Format, ...] = (
            JsonFormat(journal),
            TextFormat(journal, encode_text),
            NvlistFormat(journal),
        )
        self.streams = {
            f"stream{style.suffix}": StreamFile(
                f"events/stream{style.suffix}", journal, style, arrival, clock_ns
            )
            for style in self._formats
        }

        async def flush(written: bytes) -> None:
            del written  # whatever it says
            clear()

        made_ns = clock_ns()
        children: dict[str, Node] = {
            **self.streams,
            "clear": ControlFile("events/clear", flush, made_ns),
            "latest": SnapshotFile("events/latest", lambda: latest(journal), self._changed_ns),
            "status": SnapshotFile("events/status", self._status, self._changed_ns),
            "summary": SnapshotFile(
                "events/summary", lambda: summary_table(journal.summary), self._changed_ns
            ),
        }
        super().__init__("events", children, made_ns)

    def _changed_ns(self) -> int:
        return self._journal.current.mtime_ns

    async def measure(self) -> Attributes:
        return Attributes(0, self._changed_ns())

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

    def _status(self) -> bytes:
        """One `key=value` a line; a line for each reader, with how many events it is behind."""
        journal = self._journal
        now = journal.statistics()
        losses = journal.losses
        readers = [
            (name, opened)
            for name, stream in self.streams.items()
            for opened in stream.readers
            if isinstance(opened, OpenStream)
        ]
        lines = [
            f"epoch={journal.epoch}",
            f"queued={now.queued}",
            f"bytes={now.bytes}",
            f"first_seq={now.first_seq}",
            f"last_seq={now.last_seq}",
            f"summary_first_seq={journal.counted_from}",
            f"kept_bytes={now.kept}",
            f"retain_bytes={journal.limits.retain}",
            f"segments={now.segments}",
            f"segments_in_memory={now.in_memory}",
            *(f"gaps_{cause}={losses.gaps[cause]}" for cause in _CAUSES),
            *(f"dropped_{cause}={losses.events[cause]}" for cause in _CAUSES),
            f"readers={len(readers)}",
        ]
        lines += [
            f"reader={name} pid={opened.pid} lag={now.last_seq + 1 - opened.reader.seq}"
            for name, opened in readers
        ]
        return ("\n".join(lines) + "\n").encode()


_CAUSES = ("evicted", "cleared", "source")
