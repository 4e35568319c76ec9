"""events/: the journal's streams and logs, what is in it at a glance, its clear and its status."""

from collections.abc import Callable
from itertools import islice

from zeventfs.bell import Bell
from zeventfs.journal.journal import Journal
from zeventfs.nodes.base import Clock, ControlFile, Node, SnapshotFile
from zeventfs.nodes.filtered import ClassesDirectory, SourcesDirectory, WhereDirectory
from zeventfs.nodes.journal_files import JournalDirectory, Surroundings
from zeventfs.nodes.overview import latest, summary_table
from zeventfs.nodes.streams import Format, JsonFormat, NvlistFormat, TextFormat
from zeventfs.nodes.views import Views

__all__ = ["EventsDirectory"]

_LISTED = 100  # readers in `status`: stat(2) renders it, for its size
_CAUSES = ("evicted", "cleared", "source")


class EventsDirectory(JournalDirectory):
    """`events/`; *encode_text* gives zpool's text of a packed nvlist, *clear* flushes the queue.

    Whoever tells *arrival* of events tells `views` too. *sources* are those that are expected.
    """

    __slots__ = ("around", "views")

    def __init__(  # noqa: PLR0913, PLR0917 - each is a thing of its own
        self,
        journal: Journal,
        arrival: Bell,
        clock_ns: Clock,
        encode_text: Callable[[bytes], bytes],
        clear: Callable[[], None],
        sources: tuple[str, ...],
    ) -> None:
        async def flush(written: bytes) -> None:
            del written  # whatever it says
            clear()

        def changed_ns() -> int:
            return journal.current.mtime_ns

        self.around = around = Surroundings(journal, clock_ns, {})
        formats: tuple[Format, ...] = (
            JsonFormat(journal),
            TextFormat(journal, encode_text),
            NvlistFormat(journal),
        )
        self.views = views = Views(journal, formats)
        others: dict[str, Node] = {
            "clear": ControlFile("events/clear", flush, clock_ns()),
            "latest": SnapshotFile("events/latest", lambda: latest(journal), changed_ns),
            "status": SnapshotFile("events/status", lambda: _status(around), changed_ns),
            "summary": SnapshotFile(
                "events/summary", lambda: summary_table(journal.summary), changed_ns
            ),
            "class": ClassesDirectory(around, views),
            "source": SourcesDirectory(around, views, sources),
            "where": WhereDirectory(around, views),
        }
        super().__init__("events", around, formats, arrival, others)


def _status(around: Surroundings) -> bytes:
    """One `key=value` a line; a line for each reader, with how many events it is behind."""
    journal = around.journal
    now = journal.statistics()
    losses = journal.losses
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
        f"readers={len(around.readers)}",
    ]
    lines += [
        f"reader={name.removeprefix('events/')} pid={opened.pid} lag={opened.lag}"
        for opened, name in islice(around.readers.items(), _LISTED)
    ]
    if len(around.readers) > _LISTED:
        lines.append(f"readers_unlisted={len(around.readers) - _LISTED}")
    return ("\n".join(lines) + "\n").encode()
