"""The files that VBDs have beside attributes: to be set, to be waited on, to be asked for.

All that is open of one that is removed ends with ESTALE. What its tapdisk or its image must be
asked for is fetched by a task of its own, so that no listing and no other file ever waits for it,
and who reads it can be interrupted.
"""

import select
from collections.abc import Awaitable, Callable

import trio

from zeventfs.bell import Bell
from zeventfs.nodes.base import Attributes, Buffer, ControlFile, Open, Writer
from zeventfs.nodes.changing import (
    CHANGED,
    READABLE,
    AttributeFile,
    Changing,
    ChangingFile,
    OpenAttribute,
    Render,
    changed_ns,
    check,
    when_gone,
)

__all__ = ["AskedFile", "ImageFile", "VbdControlFile", "WaitFile"]


class ImageFile(AttributeFile):
    """An attribute that can be set: what is written, but for a newline at its end, to *change*."""

    __slots__ = ("_change",)
    writable = True

    def __init__(
        self, key: str, shown: Changing, render: Render, change: Callable[[bytes], None]
    ) -> None:
        super().__init__(key, shown, render)
        self._change = change

    async def open(self, pid: int) -> Open:
        del pid
        check(self._shown)
        return OpenImage(self._shown, self._render, self._change)


class OpenImage(OpenAttribute):
    """An attribute, open for reading and writing."""

    __slots__ = ("_change",)

    def __init__(self, shown: Changing, render: Render, change: Callable[[bytes], None]) -> None:
        super().__init__(shown, render)
        self._change = change

    async def write(self, offset: int, written: bytes) -> int:
        del offset  # each write is a whole value, as in sysfs
        check(self._shown)
        self._change(written.removesuffix(b"\n"))
        return len(written)


class VbdControlFile(ControlFile):
    """`control`; its *act* sees to it that the VBD is there."""

    __slots__ = ("_shown",)
    fixed = False

    def __init__(self, key: str, shown: Changing, act: Writer) -> None:
        super().__init__(key, act, 0)
        self._shown = shown

    async def measure(self) -> Attributes:
        check(self._shown)
        return Attributes(0, changed_ns(self._shown))


# Waiting for a change


class WaitFile(ChangingFile):
    """`wait`: a read blocks until the state changes, then gives what *render* gives."""

    __slots__ = ("_render",)

    def __init__(self, key: str, shown: Changing, render: Render) -> None:
        super().__init__(key, shown)
        self._render = render

    async def open(self, pid: int) -> Open:
        del pid
        check(self._shown)
        return OpenWait(self._shown, self._render)


class OpenWait(Open):
    """Gives the state after each change since it was opened or gave it last, then one end of file.

    What has changed several times meanwhile is given once, as it is then. A read that goes on with
    an answer has its rest and its end; any other waits for the next change.
    """

    __slots__ = ("_answer", "_begin", "_ended", "_render", "_seen", "_shown", "bell")

    def __init__(self, shown: Changing, render: Render) -> None:
        self._shown = shown
        self._render = render
        self.bell = shown.changed
        self._seen = shown.changes
        self._answer = b""
        self._begin = 0
        self._ended = True

    def read(self, offset: int, size: int) -> Buffer | None:
        check(self._shown)
        place = offset - self._begin
        if 0 < place < len(self._answer):
            return self._answer[place : place + size]
        if place == len(self._answer) and not self._ended:
            self._ended = True
            return b""
        changes = self._shown.changes
        if changes == self._seen:
            return None
        self._seen = changes
        self._answer = self._render()
        self._begin = offset
        self._ended = False
        return self._answer[:size]

    def ready(self) -> int:
        """What a read that goes on from the last one would find."""
        if self._shown.gone:
            return READABLE | CHANGED
        if self._shown.changes != self._seen:
            return READABLE | select.POLLPRI
        return 0 if self._ended else READABLE


# What must be asked for


class AskedFile(ChangingFile):
    """A file whose content *ask* fetches when it is opened."""

    __slots__ = ("_ask",)

    def __init__(self, key: str, shown: Changing, ask: Callable[[], Awaitable[bytes]]) -> None:
        super().__init__(key, shown)
        self._ask = ask

    async def open(self, pid: int) -> Open:
        del pid
        check(self._shown)
        return OpenAsked(self._shown, self._ask)


class OpenAsked(Open):
    """An answer, which is fetched from when it is opened on; reads wait for it, close gives up."""

    __slots__ = ("_content", "_error", "_scope", "_shown", "bell")

    def __init__(self, shown: Changing, ask: Callable[[], Awaitable[bytes]]) -> None:
        self._shown = shown
        bell = self.bell = Bell()
        self._content: bytes | None = None
        self._error: Exception | None = None
        self._scope = trio.CancelScope()
        when_gone(shown, self, bell.ring)
        trio.lowlevel.spawn_system_task(self._fetch, ask, bell)

    async def _fetch(self, ask: Callable[[], Awaitable[bytes]], bell: Bell) -> None:
        with self._scope:
            try:
                self._content = await ask()
            except Exception as error:  # noqa: BLE001 - who reads is told
                self._error = error
            bell.ring()

    def read(self, offset: int, size: int) -> Buffer | None:
        check(self._shown)
        if self._error is not None:
            raise self._error
        return None if self._content is None else self._content[offset : offset + size]

    def ready(self) -> int:
        waits = self._content is None and self._error is None and not self._shown.gone
        return 0 if waits else READABLE

    def close(self) -> None:
        self._scope.cancel()
        self._shown.changed.forget(self)
