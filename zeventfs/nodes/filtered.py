"""events/class/, events/source/ and events/where/: the journal's files, of some events only."""

import logging
from collections.abc import Iterator
from importlib.resources import files
from urllib.parse import quote, unquote
from weakref import WeakSet, WeakValueDictionary

from zeventfs.bell import Bell
from zeventfs.errors import Full, Invalid, NotFound
from zeventfs.filter import Ago, Expression, FromSeq, Since
from zeventfs.journal.journal import Journal
from zeventfs.journal.reader import Reader
from zeventfs.nodes.base import Directory, Node, SnapshotFile
from zeventfs.nodes.journal_files import JournalDirectory, Surroundings
from zeventfs.nodes.streams import Format, OpenStream, StreamFile
from zeventfs.nodes.views import View, ViewFormat, Views
from zeventfs.printable import printable

__all__ = [
    "MOST_EXPRESSIONS",
    "ClassesDirectory",
    "SourcesDirectory",
    "WhereDirectory",
    "pool_view",
]

log = logging.getLogger(__name__)

MOST_EXPRESSIONS = 1024  # directories of where/ that are in use at once; twice as many known
_LONGEST_NAME = 255  # bytes, NAME_MAX
_READABLE = "=,*?[]!<>:+@~._-"  # in the key of a node, which a person reads in debug/requests


class _ViewDirectory(JournalDirectory):
    """One view's stream and log, in the first *formats* of its formats; holds on to the view."""

    __slots__ = ("_view",)

    def __init__(self, key: str, around: Surroundings, view: View, formats: int = 1) -> None:
        self._view = view
        super().__init__(key, around, view.formats[:formats], view.bell)


def pool_view(name: str, around: Surroundings, views: Views) -> Directory:
    """The directory with the stream and the log of pool *name*."""
    view = views.view(Expression.equal("pool", name))
    return _Where(f"pools/{printable(name)}", around, view, None)


def _meant(name: str) -> str:
    """What is called *name* here, in one spelling, see `printable`."""
    meant = unquote(name, errors="surrogateescape")
    return "" if meant == "\0" else meant  # which is in no name from outside


class ClassesDirectory(Directory):
    """`class/`: a directory for each class that the journal's summary knows."""

    __slots__ = ("_around", "_views")

    def __init__(self, around: Surroundings, views: Views) -> None:
        self._around = around
        self._views = views
        super().__init__("events/class", {}, around.clock_ns())

    def lookup(self, name: str) -> Node:
        event_class = _meant(name)
        if event_class not in self._around.journal.summary or name != printable(event_class):
            raise NotFound(name)
        return self._directory(name, event_class)

    def _directory(self, name: str, event_class: str) -> Node:
        view = self._views.view(Expression.equal("class", event_class))
        return _ViewDirectory(f"{self.key}/{name}", self._around, view)

    def entries(self) -> Iterator[tuple[str, Node]]:
        for event_class, _ in self._around.journal.summary:
            name = printable(event_class)
            if len(name) <= _LONGEST_NAME:
                yield name, self._directory(name, event_class)


class SourcesDirectory(Directory):
    """`source/`: a directory for each source of events kept; *usual* ones are there always.

    Their files are in all formats.
    """

    __slots__ = ("_around", "_usual", "_views")

    def __init__(self, around: Surroundings, views: Views, usual: tuple[str, ...]) -> None:
        self._around = around
        self._views = views
        self._usual = usual
        super().__init__("events/source", {}, around.clock_ns())

    def lookup(self, name: str) -> Node:
        source = _meant(name)
        if source not in self._sources() or name != printable(source):
            raise NotFound(name)
        return self._directory(name, source)

    def _directory(self, name: str, source: str) -> Node:
        view = self._views.view(Expression.equal("source", source))
        return _ViewDirectory(f"{self.key}/{name}", self._around, view, len(view.formats))

    def entries(self) -> Iterator[tuple[str, Node]]:
        for source in self._sources():
            name = printable(source)
            if len(name) <= _LONGEST_NAME:
                yield name, self._directory(name, source)

    def _sources(self) -> dict[str, None]:
        kinds = (kind for each in self._around.journal.segments for kind in each.kinds.table)
        return dict.fromkeys((*self._usual, *(kind.source for kind in kinds if kind.source)))


class WhereDirectory(Directory):
    """`where/`: a directory for each expression that is looked up, for as long as it is used."""

    __slots__ = ("_around", "_known", "_views")

    def __init__(self, around: Surroundings, views: Views) -> None:
        self._around = around
        self._views = views
        self._known: WeakValueDictionary[str, _Where] = WeakValueDictionary()
        made_ns = around.clock_ns()
        grammar = (files("zeventfs.nodes") / "where.md").read_bytes()
        readme = SnapshotFile("events/where/README", lambda: grammar, lambda: made_ns)
        super().__init__("events/where", {"README": readme}, made_ns)

    def lookup(self, name: str) -> Node:
        if name == "README":
            return super().lookup(name)
        return self._known.get(name) or self._new(name)

    def _new(self, name: str) -> "_Where":
        try:
            expression = Expression.parse(name)
        except Invalid as reason:
            log.warning("events/where/%s: %s", _readable(name), reason)
            raise NotFound(str(reason)) from None
        if self._is_full():
            log.warning("events/where/%s: too many others are in use", _readable(name))
            raise Full(f"{MOST_EXPRESSIONS} expressions are in use")
        key = f"{self.key}/{_readable(name)}"
        where = _Where(key, self._around, self._views.view(expression), expression.since)
        self._known[name] = where
        return where

    def _is_full(self) -> bool:
        known = list(self._known.values())
        if len(known) < MOST_EXPRESSIONS:
            return False
        # Those that were only looked at will be forgotten; how soon is the kernel's matter.
        used = sum(each.in_use for each in known)
        return used >= MOST_EXPRESSIONS or len(known) >= 2 * MOST_EXPRESSIONS


def _readable(name: str) -> str:
    return quote(name, _READABLE, errors="surrogateescape")


class _Where(_ViewDirectory):
    """A view that is there only for a while, as `where/<expression>/`; since= has no log."""

    __slots__ = ("__weakref__", "_since")
    fixed = False
    passing = True

    def __init__(self, key: str, around: Surroundings, view: View, since: Since | None) -> None:
        self._since = since
        super().__init__(key, around, view)

    @property
    def in_use(self) -> bool:
        """Whether its stream is open, or, as far as can be told, its log."""
        stream = self._children["stream"]
        assert isinstance(stream, _WhereStream)
        return bool(stream.open_streams) or (self._since is None and self._view.matches.held > 0)

    def stream(self, key: str, around: Surroundings, style: Format, bell: Bell) -> StreamFile:
        assert isinstance(style, ViewFormat)
        return _WhereStream(key, around, style, bell, self._since)

    def _logs(self) -> Iterator[tuple[str, Node]]:
        return iter(()) if self._since is not None else super()._logs()


class _WhereStream(StreamFile):
    """`stream` of an expression, each open of which begins where its since= says."""

    __slots__ = ("_since", "_view_format", "open_streams")
    fixed = False  # a name that the kernel keeps would keep the directory's, too

    def __init__(
        self,
        key: str,
        around: Surroundings,
        style: ViewFormat,
        bell: Bell,
        since: Since | None,
    ) -> None:
        super().__init__(key, around.journal, style, bell, around.clock_ns, around.readers)
        self._view_format = style
        self._since = since
        self.open_streams: WeakSet[OpenStream] = WeakSet()

    async def open(self, pid: int) -> OpenStream:
        opened = await super().open(pid)
        self.open_streams.add(opened)
        return opened

    async def cursor(self) -> Reader:
        since = self._since
        if since is None:
            return await super().cursor()
        await self._view_format.end()  # all that is kept must be there
        rendition = self._view_format.rendition()
        if isinstance(since, FromSeq):
            return self._from_seq(since)
        begin_ns = self._clock_ns() - since.ns if isinstance(since, Ago) else since.ns
        return Reader(rendition, self._clock_ns, rendition.since_time(begin_ns))

    def _from_seq(self, since: FromSeq) -> Reader:
        """What was asked for and is kept no more is a gap; of another epoch, all is asked for."""
        journal = self._journal
        seq = since.seq if since.epoch == journal.epoch else 1
        rendition = self._view_format.rendition()
        oldest = journal.lines.oldest.seq
        if seq >= oldest:
            return Reader(rendition, self._clock_ns, rendition.since_seq(seq))
        reader = Reader(rendition, self._clock_ns, rendition.oldest._replace(seq=oldest))
        reader.miss(seq, _cause_before(journal, oldest))
        return reader


def _cause_before(journal: Journal, seq: int) -> str:
    """Why the events before *seq*, the oldest that streams can read, are out of their reach."""
    cleared = any(each.after_clear and each.identity.first_seq == seq for each in journal.segments)
    return "cleared" if cleared else "evicted"
