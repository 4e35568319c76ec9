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
from zeventfs.journal.text import TextRendition
from zeventfs.journal.view import ViewColumn, ViewRendition
from zeventfs.nodes.streams import Format

__all__ = ["View", "ViewFormat", "Views"]

_MANY = 2000  # events looked through at once by their kinds: less than a millisecond
_A_FEW = 64  # events looked into at once
_MOST_KINDS = 4096  # remembered, with the views that may want an event of them


class View:
    """The events that match an expression, and the bell of those who wait for more of them.

    It is held by its formats, as these are by their files.
    """

    __slots__ = ("__weakref__", "_made", "_styles", "_views", "bell", "matches")

    def __init__(self, views: "Views", matches: Matches, styles: tuple[Format, ...]) -> None:
        self._views = views
        self._styles = styles
        self._made: WeakValueDictionary[str, ViewFormat] = WeakValueDictionary()
        self.matches = matches
        self.bell = Bell()

    @property
    def formats(self) -> "tuple[ViewFormat, ...]":
        """One for each of the journal's."""
        return tuple(self._format(style) for style in self._styles)

    def _format(self, style: Format) -> "ViewFormat":
        made = self._made.get(style.suffix)
        if made is None:
            made = self._made[style.suffix] = ViewFormat(self._views, self, style)
        return made

    def follow(self) -> None:
        """Know the journal's segments of now, and forget those that are evicted."""
        for style in list(self._made.values()):
            style.follow()


class Views:
    """All views of *journal*, in its *formats*; to be told of each arrival."""

    def __init__(self, journal: Journal, formats: tuple[Format, ...]) -> None:
        self.journal = journal
        self._formats = formats
        self._views: WeakValueDictionary[str, View] = WeakValueDictionary()
        self._open: Counter[ViewFormat] = Counter()
        self._held: dict[Matches, Bell] = {}
        self._late: list[ViewFormat] = []
        self._generation = journal.generation
        self._interested: dict[Kind, list[tuple[Matches, Bell]]] = {}

    def view(self, expression: Expression) -> View:
        """The view of *expression*, whose since= is not the view's matter."""
        view = self._views.get(expression.canonical)
        if view is None:
            view = View(self, Matches(self.journal, expression), self._formats)
            self._views[expression.canonical] = view
        return view

    def bells(self) -> Iterator[Bell]:
        """The bells of all who may wait for an event of a view."""
        yield from self._held.values()

    def hold(self, style: "ViewFormat") -> None:
        """Keep *style* up to date for one more open file; its events so far must be known."""
        self._open[style] += 1
        self._late = [each for each in self._open if each.late]
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
        self._late = [each for each in self._open if each.late]
        matches = style.matches
        matches.release()
        if not matches.held:
            del self._held[matches]
            self._interested.clear()

    def arrived(self) -> None:
        """Take note of the journal's newest event."""
        if self._generation != self.journal.generation:
            self._generation = self.journal.generation
            self._follow()
        if not self._held:
            return
        segment = self.journal.current
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
                if record is None or not expression.matches(record):
                    continue
            matches.add_newest()
            bell.ring()
        for style in self._late:
            style.keep_up()

    def _follow(self) -> None:
        """Have every view forget what is evicted, open or not: the kernel may know it for long."""
        for view in list(self._views.values()):
            view.follow()

    def _find_interested(self, kind: Kind) -> list[tuple[Matches, Bell]]:
        if len(self._interested) >= _MOST_KINDS:
            self._interested.clear()
        found = [each for each in self._held.items() if each[0].expression.may_match(kind)]
        self._interested[kind] = found
        return found


class ViewFormat:
    """One rendition of a view's events: what of *style* is in *matches*."""

    def __init__(self, views: Views, view: View, style: Format) -> None:
        self.name = view.matches.expression.canonical or "*"
        self.suffix = style.suffix
        self._journal = views.journal
        self._views = views
        self._view = view
        self.matches = view.matches
        self.bell = view.bell
        self._style = style
        self._made: ViewRendition | None = None

    @property
    def asked(self) -> bool:
        return self._style.asked

    @property
    def late(self) -> bool:
        """Whether it is rendered only once somebody asks."""
        return isinstance(self._style.rendition(), TextRendition)

    def rendition(self) -> ViewRendition:
        if self._made is None:
            style = self._style
            self._made = ViewRendition(self._journal, self.matches, style.rendition(), style.column)
        return self._made

    def follow(self) -> None:
        """Know the journal's segments of now."""
        if self._made is not None:
            self._made.follow()

    def keep_up(self) -> None:
        """Have what comes rendered bit by bit, though nobody reads; only for one that is open."""
        self.rendition().keep_up(_A_FEW)

    def column(self, segment: Segment) -> ViewColumn:
        rendition = self.rendition()
        rendition.follow()  # of a segment that is evicted by now, only what was found of all of it
        return rendition.column_of(segment)

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
        await self._know_all()
        return self.rendition().end

    async def length(self, segment: Segment) -> int:
        if not self.asked:
            return 0
        column = self.column(segment)
        expression = self.matches.expression
        while not segment.stale and (
            column.found.search(expression, self._at_once) or column.extend(_A_FEW)
        ):
            await trio.lowlevel.checkpoint()
        if segment.stale:
            raise Stale("evicted")
        return column.length

    @property
    def _at_once(self) -> int:
        return _MANY if self.matches.expression.decided_by_kind else _A_FEW

    def _search(self) -> bool:
        """Look through some more events; whether all are known."""
        return self.matches.search(self._at_once)

    async def hold(self) -> None:
        await self._know_all()
        self._views.hold(self)

    async def _know_all(self) -> None:
        """Have all that is kept looked through, and taken in or rendered, up to this moment."""
        rendition = self.rendition()
        while not (self._search() and rendition.catch_up(_A_FEW)):
            await trio.lowlevel.checkpoint()

    def release(self) -> None:
        self._views.release(self)

    def lag(self, reader: Reader) -> int:
        rendition = self.rendition()
        rendition.follow()
        return reader.lag + rendition.found_ahead
