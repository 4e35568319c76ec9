"""The directory and files of what changes and may go: a VBD, a mapped device.

Each_co life of it is a node of its own, known by its key, so what is open of a life that is over is
stale whatever took its name: all ends with ESTALE, but for a stream, which first gives what is
kept. What is known at once is an attribute as sysfs has them: one moment for each read from the
beginning, and poll(2) tells of changes.
"""

import select
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from zeventfs.bell import Bell
from zeventfs.errors import Stale
from zeventfs.filter import Expression
from zeventfs.journal.reader import Reader
from zeventfs.nodes.base import Attributes, Buffer, Directory, File, Node, Open
from zeventfs.nodes.journal_files import JournalDirectory, Surroundings
from zeventfs.nodes.streams import Format, OpenStream, Readers, StreamFile
from zeventfs.nodes.views import Views

__all__ = [
    "CHANGED",
    "READABLE",
    "AttributeFile",
    "Changing",
    "ChangingDirectory",
    "ChangingFile",
    "OpenAttribute",
    "Render",
    "Several",
    "all_of",
    "changed_ns",
    "check",
    "when_gone",
]

Render = Callable[[], bytes]

READABLE = select.POLLIN | select.POLLRDNORM
CHANGED = select.POLLPRI | select.POLLERR  # as kernfs_generic_poll answers


class Changing(Protocol):
    """One life of something that changes, until it is gone."""

    @property
    def changed(self) -> Bell:
        """Rings after each change, and when it is gone."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it was removed."""
        ...

    @property
    def changes(self) -> int:
        """How many changes there were so far: another number, another state."""
        ...

    @property
    def changed_ns(self) -> int:
        """When it last changed, ns since 1970."""
        ...


Each_co = TypeVar("Each_co", covariant=True)


class Several(Protocol[Each_co]):
    """Things by name."""

    def __iter__(self) -> Iterator[str]:
        """The names of those that there are, in order."""
        ...

    def get(self, name: str, /) -> Each_co | None:
        """The one called *name*, None if there is none."""
        ...


def all_of(several: Several[Each_co]) -> Iterator[Each_co]:
    """All of them, but for those that go while they are listed."""
    for name in several:
        each = several.get(name)
        if each is not None:
            yield each


def check(shown: Changing) -> None:
    """Raise Stale if *shown* was removed."""
    if shown.gone:
        raise Stale("it was removed")


def changed_ns(shown: Changing) -> int:
    """When it changed last; a file's time is not negative."""
    return max(0, shown.changed_ns)


def when_gone(shown: Changing, key: object, ring: Callable[[], None]) -> None:
    """Have *ring* called when *shown* is gone, unless its bell is told to forget *key* before."""

    def look() -> None:
        if shown.gone:
            ring()
        else:
            shown.changed.call(key, look)

    shown.changed.call(key, look)


class ChangingFile(File):
    """A file of *shown*, whose name ends with it."""

    __slots__ = ("_shown",)
    fixed = False

    def __init__(self, key: str, shown: Changing) -> None:
        super().__init__(key)
        self._shown = shown

    async def measure(self) -> Attributes:
        """No size, as in /proc, where what is read is not known before it is read."""
        check(self._shown)
        return Attributes(0, changed_ns(self._shown))


# Attributes


class AttributeFile(ChangingFile):
    """A small file, whose content *render* gives at once."""

    __slots__ = ("_render",)

    def __init__(self, key: str, shown: Changing, render: Render) -> None:
        super().__init__(key, shown)
        self._render = render

    async def measure(self) -> Attributes:
        check(self._shown)
        return Attributes(len(self._render()), changed_ns(self._shown))

    async def open(self, pid: int) -> Open:
        del pid
        check(self._shown)
        return OpenAttribute(self._shown, self._render)


class OpenAttribute(Open):
    """An attribute: each read at offset 0 is of a new moment, those that follow go on with it.

    After a change since then poll(2) answers POLLPRI and POLLERR, beside POLLIN.
    """

    __slots__ = ("_content", "_render", "_seen", "_shown", "bell")

    def __init__(self, shown: Changing, render: Render) -> None:
        self._shown = shown
        self._render = render
        self.bell = shown.changed
        self._look()

    def _look(self) -> None:
        self._seen = self._shown.changes
        self._content = self._render()

    def read(self, offset: int, size: int) -> Buffer:
        check(self._shown)
        if offset == 0:
            self._look()
        return self._content[offset : offset + size]

    def ready(self) -> int:
        changed = self._shown.gone or self._shown.changes != self._seen
        return super().ready() | (CHANGED if changed else 0)


# Its events


class _ChangingStream(StreamFile):
    """Its `stream`; once it is removed, what is kept is given, then no end but ESTALE."""

    __slots__ = ("_shown",)
    fixed = False

    def __init__(
        self, key: str, shown: Changing, around: Surroundings, style: Format, bell: Bell
    ) -> None:
        super().__init__(key, around.journal, style, bell, around.clock_ns, around.readers)
        self._shown = shown

    async def measure(self) -> Attributes:
        check(self._shown)
        return await super().measure()

    async def open(self, pid: int) -> OpenStream:
        check(self._shown)
        return await super().open(pid)

    def opened(self, reader: Reader, pid: int) -> OpenStream:
        return _OpenChangingStream(
            self._shown, self._format, reader, self._bell, pid, self._readers
        )


class _OpenChangingStream(OpenStream):
    """A cursor over the events of what may be removed."""

    __slots__ = ("_shown",)

    def __init__(  # noqa: PLR0913, PLR0917 - a stream's, and whose it is
        self,
        shown: Changing,
        style: Format,
        reader: Reader,
        bell: Bell,
        pid: int,
        readers: Readers,
    ) -> None:
        super().__init__(style, reader, bell, pid, readers)
        self._shown = shown
        when_gone(shown, self, bell.ring)

    def read(self, offset: int, size: int) -> Buffer | None:
        answer = super().read(offset, size)
        if answer is None:
            check(self._shown)
        return answer

    def ready(self) -> int:
        return super().ready() or (READABLE | CHANGED if self._shown.gone else 0)

    def close(self) -> None:
        self._shown.changed.forget(self)
        super().close()


class _Events(JournalDirectory):
    """The stream and the log of what *condition* holds for, until *shown* is gone."""

    __slots__ = ("_shown", "_view")

    def __init__(
        self, key: str, shown: Changing, condition: str, views: Views, around: Surroundings
    ) -> None:
        self._shown = shown
        # Which lives for as long as somebody has it
        self._view = view = views.view(Expression.parse(condition))
        super().__init__(key, around, view.formats[:1], view.bell)

    def stream(self, key: str, around: Surroundings, style: Format, bell: Bell) -> StreamFile:
        return _ChangingStream(key, self._shown, around, style, bell)


class ChangingDirectory(Directory):
    """The directory of *shown*: *files*, and the stream and log of its events.

    These are those that *condition*, a where-expression, holds for; hundreds of directories are
    listed without a thought of theirs.
    """

    __slots__ = ("__weakref__", "_around", "_condition", "_events", "_shown", "_views")
    fixed = False

    def __init__(  # noqa: PLR0913, PLR0917 - what it is, what is in it, and where it stands
        self,
        key: str,
        shown: Changing,
        files: Mapping[str, Node],
        condition: str,
        views: Views,
        around: Surroundings,
    ) -> None:
        self._shown = shown
        self._condition = condition
        self._views = views
        self._around = around
        self._events: _Events | None = None
        super().__init__(key, dict(files), 0)

    def _own(self) -> _Events:
        if self._events is None:
            self._events = _Events(
                self.key, self._shown, self._condition, self._views, self._around
            )
        return self._events

    async def measure(self) -> Attributes:
        check(self._shown)
        return Attributes(0, changed_ns(self._shown))

    def lookup(self, name: str) -> Node:
        check(self._shown)
        return self._children.get(name) or self._own().lookup(name)

    def entries(self) -> Iterator[tuple[str, Node]]:
        check(self._shown)
        yield from super().entries()
        yield from self._own().entries()
