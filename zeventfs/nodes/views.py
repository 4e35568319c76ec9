"""Views: the journal's files, filtered; a view that nobody has open costs nothing when events come.

A view is one for all who ask for the same events, however they spell it, and lives for as long as
the kernel knows a file of it or somebody has one open. When an event arrives, those views that are
open and may want an event of its kind are found with one look-up; its line is decoded once, if any
of them has a condition that its kind doesn't decide; and only the readers of views that it is in
are woken.
"""

from collections import Counter
from collections.abc import Iterator
from weakref import WeakValueDictionary

import trio

from zeventfs.bell import Bell
from zeventfs.errors import Stale
from zeventfs.filter import Expression, Kind
from zeventfs.journal.column import Column
from zeventfs.journal.journal import Journal
from zeventfs.journal.matches import Matches, record_of
from zeventfs.journal.reader import Reader
from zeventfs.journal.segment import Segment
from zeventfs.journal.view import ViewColumn, ViewRendition
from zeventfs.nodes.streams import Format

__all__ = ["View", "ViewFormat", "Views"]

_MANY = 2000  # events looked through at once by their kinds: less than a millisecond
_A_FEW = 64  # events looked into at once
_MOST_KINDS = 4096  # remembered, with the views that may want an event of them


class View:
    """The events that match an expression: in each format, and the bell of those who wait."""

    __slots__ = ("__weakref__", "bell", "formats", "matches")

    def __init__(self, matches: Matches, bell: Bell, formats: "tuple[ViewFormat, ...]") -> None:
        self.matches = matches
        self.bell = bell
        self.formats = formats


class Views:
    """All views of *journal*, in its *formats*; to be told of each arrival."""

    def __init__(self, journal: Journal, formats: tuple[Format, ...]) -> None:
        self._journal = journal
        self._formats = formats
        self._views: WeakValueDictionary[str, View] = WeakValueDictionary()
        self._open: Counter[ViewFormat] = Counter()
        self._held: dict[Matches, Bell] = {}
        self._generation = journal.generation
        self._interested: dict[Kind, list[tuple[Matches, Bell]]] = {}

    def view(self, expression: Expression) -> View:
        """The view of *expression*, whose since= is not the view's matter."""
        view = self._views.get(expression.canonical)
        if view is None:
            matches, bell = Matches(self._journal, expression), Bell()
            formats = tuple(
                ViewFormat(self._journal, self, matches, bell, style) for style in self._formats
            )
            view = self._views[expression.canonical] = View(matches, bell, formats)
        return view

    def bells(self) -> Iterator[Bell]:
        """The bells of all who may wait for an event of a view."""
        yield from self._held.values()

    def hold(self, style: "ViewFormat") -> None:
        """Keep *style* up to date for one more open file; its events so far must be known."""
        self._open[style] += 1
        matches = style.matches
        matches.hold()
        if matches.held == 1:
            self._held[matches] = style.bell
            self._interested.clear()

    def release(self, style: "ViewFormat") -> None:
        """Undo one `hold`."""
        self._open[style] -= 1
        if not self._open[style]:
            del self._open[style]
        matches = style.matches
        matches.release()
        if not matches.held:
            del self._held[matches]
            self._interested.clear()

    def arrived(self) -> None:
        """Take note of the journal's newest event."""
        if not self._held:
            return
        if self._generation != self._journal.generation:
            self._generation = self._journal.generation
            for style in self._open:
                style.follow()
        segment = self._journal.current
        kind = segment.kinds.newest
        interested = self._interested.get(kind)
        if interested is None:
            interested = self._find_interested(kind)
        record = None
        for matches, bell in interested:
            expression = matches.expression
            if not expression.decided_by_kind:
                if record is None:
                    record = record_of(segment, len(segment.kinds) - 1)
                if not expression.matches(record):
                    continue
            matches.add_newest()
            bell.ring()

    def _find_interested(self, kind: Kind) -> list[tuple[Matches, Bell]]:
        if len(self._interested) >= _MOST_KINDS:
            self._interested.clear()
        found = [each for each in self._held.items() if each[0].expression.may_match(kind)]
        self._interested[kind] = found
        return found


class ViewFormat:
    """One rendition of a view's events: what of *style* is in *matches*."""

    def __init__(
        self, journal: Journal, views: Views, matches: Matches, bell: Bell, style: Format
    ) -> None:
        self.name = matches.expression.canonical or "*"
        self.suffix = style.suffix
        self._journal = journal
        self._views = views
        self.matches = matches
        self.bell = bell
        self._style = style
        self._made: ViewRendition | None = None

    @property
    def asked(self) -> bool:
        return self._style.asked

    def rendition(self) -> ViewRendition:
        if self._made is None:
            style = self._style
            self._made = ViewRendition(self._journal, self.matches, style.rendition(), style.column)
        return self._made

    def follow(self) -> None:
        """Know the journal's segments of now."""
        if self._made is not None:
            self._made.follow()

    def column(self, segment: Segment) -> ViewColumn:
        return self.rendition().column_of(segment)

    def reach(self, position: int) -> None:
        rendition = self.rendition()
        while not rendition.catch_up(_A_FEW) and rendition.end < position:
            pass

    def reach_in(self, column: Column, length: int) -> None:
        assert isinstance(column, ViewColumn)
        while column.length < length and column.extend(_A_FEW):
            pass

    async def end(self) -> int:
        if not self.asked:
            return 0
        rendition = self.rendition()
        while not (self._search() and rendition.catch_up(_A_FEW)):
            await trio.lowlevel.checkpoint()
        return rendition.end

    async def length(self, segment: Segment) -> int:
        if not self.asked:
            return 0
        column = self.column(segment)
        while not segment.stale and not (self._search() and not column.extend(_A_FEW)):
            await trio.lowlevel.checkpoint()
        if segment.stale:
            raise Stale("evicted")
        return column.length

    def _search(self) -> bool:
        """Look through some more events; whether all are known."""
        decided = self.matches.expression.decided_by_kind
        return self.matches.search(_MANY if decided else _A_FEW)

    async def hold(self) -> None:
        while not self._search():
            await trio.lowlevel.checkpoint()
        self._views.hold(self)

    def release(self) -> None:
        self._views.release(self)

    def lag(self, reader: Reader) -> int:
        self.reach(self.rendition().end)
        return reader.lag
