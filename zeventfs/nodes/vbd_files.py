"""The files of a VBD, of each kind; all that is open of one that is removed ends with ESTALE.

What a VBD's status or its tables say is to be had at once, and is an attribute as sysfs has them:
one moment for each read from the beginning, and poll(2) tells of changes. What its tapdisk or its
image must be asked for is fetched by a task of its own, so that no listing and no other file ever
waits for it, and who reads it can be interrupted.
"""

import select
from collections.abc import Awaitable, Callable

import trio

from zeventfs.bell import Bell
from zeventfs.errors import Stale
from zeventfs.journal.reader import Reader
from zeventfs.nodes.base import Attributes, Buffer, ControlFile, File, Open, Writer
from zeventfs.nodes.journal_files import Surroundings
from zeventfs.nodes.streams import Format, OpenStream, Readers, StreamFile
from zeventfs.vbd.shown import ShownVbd

__all__ = [
    "AskedFile",
    "AttributeFile",
    "ImageFile",
    "VbdControlFile",
    "VbdStream",
    "WaitFile",
    "changed_ns",
    "check",
]

Render = Callable[[], bytes]

_READABLE = select.POLLIN | select.POLLRDNORM
_CHANGED = select.POLLPRI | select.POLLERR  # as kernfs_generic_poll answers


def check(vbd: ShownVbd) -> None:
    """Raise Stale if *vbd* was removed."""
    if vbd.gone:
        raise Stale(f"VBD {vbd.id} was removed")


def changed_ns(vbd: ShownVbd) -> int:
    """When its status changed last; a file's time is not negative."""
    return max(0, vbd.status().changed_ns)


def _when_gone(vbd: ShownVbd, key: object, ring: Callable[[], None]) -> None:
    """Have *ring* called when *vbd* is gone, unless its bell is told to forget *key* before."""

    def look() -> None:
        if vbd.gone:
            ring()
        else:
            vbd.changed.call(key, look)

    vbd.changed.call(key, look)


class _VbdFile(File):
    """A file of *vbd*, whose name ends with it."""

    __slots__ = ("_vbd",)
    fixed = False

    def __init__(self, key: str, vbd: ShownVbd) -> None:
        super().__init__(key)
        self._vbd = vbd

    async def measure(self) -> Attributes:
        """No size, as in /proc, where what is read is not known before it is read."""
        check(self._vbd)
        return Attributes(0, changed_ns(self._vbd))


# Attributes


class AttributeFile(_VbdFile):
    """A small file, whose content *render* gives at once."""

    __slots__ = ("_render",)

    def __init__(self, key: str, vbd: ShownVbd, render: Render) -> None:
        super().__init__(key, vbd)
        self._render = render

    async def measure(self) -> Attributes:
        check(self._vbd)
        return Attributes(len(self._render()), changed_ns(self._vbd))

    async def open(self, pid: int) -> Open:
        del pid
        check(self._vbd)
        return OpenAttribute(self._vbd, self._render)


class OpenAttribute(Open):
    """An attribute: each read at offset 0 is of a new moment, those that follow go on with it.

    After a change of the VBD since then poll(2) answers POLLPRI and POLLERR, beside POLLIN.
    """

    __slots__ = ("_content", "_render", "_seen", "_vbd", "bell")

    def __init__(self, vbd: ShownVbd, render: Render) -> None:
        self._vbd = vbd
        self._render = render
        self.bell = vbd.changed
        self._look()

    def _look(self) -> None:
        self._seen = self._vbd.status().changes
        self._content = self._render()

    def read(self, offset: int, size: int) -> Buffer:
        check(self._vbd)
        if offset == 0:
            self._look()
        return self._content[offset : offset + size]

    def ready(self) -> int:
        changed = self._vbd.gone or self._vbd.status().changes != self._seen
        return super().ready() | (_CHANGED if changed else 0)


class ImageFile(AttributeFile):
    """An attribute that can be set: what is written, but for a newline at its end, to *change*."""

    __slots__ = ("_change",)
    writable = True

    def __init__(
        self, key: str, vbd: ShownVbd, render: Render, change: Callable[[bytes], None]
    ) -> None:
        super().__init__(key, vbd, render)
        self._change = change

    async def open(self, pid: int) -> Open:
        del pid
        check(self._vbd)
        return OpenImage(self._vbd, self._render, self._change)


class OpenImage(OpenAttribute):
    """An attribute, open for reading and writing."""

    __slots__ = ("_change",)

    def __init__(self, vbd: ShownVbd, render: Render, change: Callable[[bytes], None]) -> None:
        super().__init__(vbd, render)
        self._change = change

    async def write(self, offset: int, written: bytes) -> int:
        del offset  # each write is a whole value, as in sysfs
        check(self._vbd)
        self._change(written.removesuffix(b"\n"))
        return len(written)


class VbdControlFile(ControlFile):
    """`control`; its *act* sees to it that the VBD is there."""

    __slots__ = ("_vbd",)
    fixed = False

    def __init__(self, key: str, vbd: ShownVbd, act: Writer) -> None:
        super().__init__(key, act, 0)
        self._vbd = vbd

    async def measure(self) -> Attributes:
        check(self._vbd)
        return Attributes(0, changed_ns(self._vbd))


# Waiting for a change


class WaitFile(_VbdFile):
    """`wait`: a read blocks until the state changes, then gives what *render* gives."""

    __slots__ = ("_render",)

    def __init__(self, key: str, vbd: ShownVbd, render: Render) -> None:
        super().__init__(key, vbd)
        self._render = render

    async def open(self, pid: int) -> Open:
        del pid
        check(self._vbd)
        return OpenWait(self._vbd, self._render)


class OpenWait(Open):
    """Gives the state after each change since it was opened or gave it last, then one end of file.

    What has changed several times meanwhile is given once, as it is then. A read that goes on with
    an answer has its rest and its end; any other waits for the next change.
    """

    __slots__ = ("_answer", "_begin", "_ended", "_render", "_seen", "_vbd", "bell")

    def __init__(self, vbd: ShownVbd, render: Render) -> None:
        self._vbd = vbd
        self._render = render
        self.bell = vbd.changed
        self._seen = vbd.status().changes
        self._answer = b""
        self._begin = 0
        self._ended = True

    def read(self, offset: int, size: int) -> Buffer | None:
        check(self._vbd)
        place = offset - self._begin
        if 0 < place < len(self._answer):
            return self._answer[place : place + size]
        if place == len(self._answer) and not self._ended:
            self._ended = True
            return b""
        changes = self._vbd.status().changes
        if changes == self._seen:
            return None
        self._seen = changes
        self._answer = self._render()
        self._begin = offset
        self._ended = False
        return self._answer[:size]

    def ready(self) -> int:
        """What a read that goes on from the last one would find."""
        if self._vbd.gone:
            return _READABLE | _CHANGED
        if self._vbd.status().changes != self._seen:
            return _READABLE | select.POLLPRI
        return 0 if self._ended else _READABLE


# What must be asked for


class AskedFile(_VbdFile):
    """A file whose content *ask* fetches when it is opened."""

    __slots__ = ("_ask",)

    def __init__(self, key: str, vbd: ShownVbd, ask: Callable[[], Awaitable[bytes]]) -> None:
        super().__init__(key, vbd)
        self._ask = ask

    async def open(self, pid: int) -> Open:
        del pid
        check(self._vbd)
        return OpenAsked(self._vbd, self._ask)


class OpenAsked(Open):
    """An answer, which is fetched from when it is opened on; reads wait for it, close gives up."""

    __slots__ = ("_content", "_error", "_scope", "_vbd", "bell")

    def __init__(self, vbd: ShownVbd, ask: Callable[[], Awaitable[bytes]]) -> None:
        self._vbd = vbd
        bell = self.bell = Bell()
        self._content: bytes | None = None
        self._error: Exception | None = None
        self._scope = trio.CancelScope()
        _when_gone(vbd, self, bell.ring)
        trio.lowlevel.spawn_system_task(self._fetch, ask, bell)

    async def _fetch(self, ask: Callable[[], Awaitable[bytes]], bell: Bell) -> None:
        with self._scope:
            try:
                self._content = await ask()
            except Exception as error:  # noqa: BLE001 - who reads is told
                self._error = error
            bell.ring()

    def read(self, offset: int, size: int) -> Buffer | None:
        check(self._vbd)
        if self._error is not None:
            raise self._error
        return None if self._content is None else self._content[offset : offset + size]

    def ready(self) -> int:
        waits = self._content is None and self._error is None and not self._vbd.gone
        return 0 if waits else _READABLE

    def close(self) -> None:
        self._scope.cancel()
        self._vbd.changed.forget(self)


# Transitions


class VbdStream(StreamFile):
    """A VBD's `stream`; once it is removed, what is kept is given, then no end but ESTALE."""

    __slots__ = ("_vbd",)
    fixed = False

    def __init__(
        self, key: str, vbd: ShownVbd, around: Surroundings, style: Format, bell: Bell
    ) -> None:
        super().__init__(key, around.journal, style, bell, around.clock_ns, around.readers)
        self._vbd = vbd

    async def measure(self) -> Attributes:
        check(self._vbd)
        return await super().measure()

    async def open(self, pid: int) -> OpenStream:
        check(self._vbd)
        return await super().open(pid)

    def opened(self, reader: Reader, pid: int) -> OpenStream:
        return _OpenVbdStream(self._vbd, self._format, reader, self._bell, pid, self._readers)


class _OpenVbdStream(OpenStream):
    """A cursor over the transitions of a VBD that may be removed."""

    __slots__ = ("_vbd",)

    def __init__(  # noqa: PLR0913, PLR0917 - a stream's, and the VBD
        self,
        vbd: ShownVbd,
        style: Format,
        reader: Reader,
        bell: Bell,
        pid: int,
        readers: Readers,
    ) -> None:
        super().__init__(style, reader, bell, pid, readers)
        self._vbd = vbd
        _when_gone(vbd, self, bell.ring)

    def read(self, offset: int, size: int) -> Buffer | None:
        answer = super().read(offset, size)
        if answer is None:
            check(self._vbd)
        return answer

    def ready(self) -> int:
        return super().ready() or (_READABLE | _CHANGED if self._vbd.gone else 0)

    def close(self) -> None:
        self._vbd.changed.forget(self)
        super().close()
