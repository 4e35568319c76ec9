"""vbd/: a directory for each VBD, which shows its states and, where that may be, steers it.

VBDs come and go, and an id may come back for another life. So nothing here is for good, and the
directory of each life is a node of its own: the kernel never makes the old one of the new one, and
what is held of a life that is over is stale.
"""

import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from weakref import WeakValueDictionary

from zeventfs.bell import Bell
from zeventfs.errors import Invalid
from zeventfs.filter import Expression
from zeventfs.globs import escaped
from zeventfs.nodes.base import Attributes, Directory, Node
from zeventfs.nodes.journal_files import JournalDirectory, Surroundings
from zeventfs.nodes.streams import Format, StreamFile
from zeventfs.nodes.vbd_files import (
    AskedFile,
    AttributeFile,
    ImageFile,
    VbdControlFile,
    VbdStream,
    WaitFile,
    changed_ns,
    check,
)
from zeventfs.nodes.vbd_text import (
    errors_text,
    image_text,
    info_text,
    kicks_text,
    queue_text,
    state_text,
    word_text,
)
from zeventfs.nodes.views import Views
from zeventfs.vbd.chain import chain_text
from zeventfs.vbd.machine import request_named
from zeventfs.vbd.shown import ShownVbd, ShownVbds

__all__ = ["VbdDirectory", "VbdsDirectory", "vbd_directory"]

_SOURCE = "tapdisk"
_is_reserved = re.compile(r"(stream|log)(\..*)?", re.DOTALL).fullmatch


class VbdDirectory(Directory):
    """`vbd/<id>/`, in the life of *vbd*; with `control` and a settable `image` if *steerable*."""

    __slots__ = ("__weakref__", "_around", "_made", "_views", "vbd")
    fixed = False

    def __init__(
        self, key: str, vbd: ShownVbd, views: Views, around: Surroundings, *, steerable: bool
    ) -> None:
        self.vbd = vbd
        self._views = views
        self._around = around
        self._made: _Transitions | None = None
        files = {**_attributes(key, vbd), **_asked(key, vbd)}
        if steerable:
            files |= _steering(key, vbd)
        super().__init__(key, files, 0)

    def _transitions(self) -> "_Transitions":
        """Its stream and log; hundreds of VBDs are listed without a thought of theirs."""
        if self._made is None:
            self._made = _Transitions(self.key, self.vbd, self._views, self._around)
        return self._made

    async def measure(self) -> Attributes:
        check(self.vbd)
        return Attributes(0, changed_ns(self.vbd))

    def lookup(self, name: str) -> Node:
        check(self.vbd)
        return self._children.get(name) or self._transitions().lookup(name)

    def entries(self) -> Iterator[tuple[str, Node]]:
        check(self.vbd)
        yield from super().entries()
        yield from self._transitions().entries()


class _Transitions(JournalDirectory):
    """The stream and the log of *vbd*, of what is told of all lives of its id."""

    __slots__ = ("_vbd", "_view")

    def __init__(self, key: str, vbd: ShownVbd, views: Views, around: Surroundings) -> None:
        self._vbd = vbd
        condition = Expression.parse(f"source={_SOURCE},vbd={escaped(vbd.id)}")
        self._view = view = views.view(condition)  # which lives for as long as somebody has it
        super().__init__(key, around, view.formats[:1], view.bell)

    def stream(self, key: str, around: Surroundings, style: Format, bell: Bell) -> StreamFile:
        return VbdStream(key, self._vbd, around, style, bell)


def _attributes(key: str, vbd: ShownVbd) -> dict[str, Node]:
    """What is known of *vbd* at any time, by name."""

    def state() -> bytes:
        return state_text(vbd.status())

    contents: dict[str, Callable[[], bytes]] = {
        "state": state,
        "channel": lambda: word_text(vbd.status().states.channel),
        "vbd": lambda: word_text(vbd.status().states.vbd),
        "shutdown": lambda: word_text(vbd.status().states.shutdown),
        "image": lambda: image_text(vbd.status()),
        "info": lambda: info_text(vbd.info()),
        "errors": lambda: errors_text(vbd.errors),
    }
    files: dict[str, Node] = {
        name: AttributeFile(f"{key}/{name}", vbd, content) for name, content in contents.items()
    }
    files["wait"] = WaitFile(f"{key}/wait", vbd, state)
    return files


def _asked(key: str, vbd: ShownVbd) -> dict[str, Node]:
    """What its tapdisk or its image has to be asked for, by name."""

    async def queue() -> bytes:
        return queue_text(await vbd.queue())

    async def kicks() -> bytes:
        return kicks_text(await vbd.kicks())

    async def chain() -> bytes:
        found = await vbd.chain()
        return b"" if found is None else chain_text(found)

    contents: dict[str, Callable[[], Awaitable[bytes]]] = {
        "queue": queue,
        "kicks": kicks,
        "chain": chain,
    }
    return {name: AskedFile(f"{key}/{name}", vbd, ask) for name, ask in contents.items()}


def _steering(key: str, vbd: ShownVbd) -> dict[str, Node]:
    """What steers *vbd*, by name."""

    async def control(written: bytes) -> None:
        check(vbd)
        words = " ".join(written.decode(errors="backslashreplace").split())
        try:
            vbd.ask(request_named(words))
        except Invalid as reason:
            raise Invalid(f"vbd/{vbd.id}/control: {reason}") from None

    def image(written: bytes) -> None:
        try:
            vbd.set_image(os.fsdecode(written))
        except Invalid as reason:
            raise Invalid(f"vbd/{vbd.id}/image: {reason}") from None

    return {
        "control": VbdControlFile(f"{key}/control", vbd, control),
        "image": ImageFile(f"{key}/image", vbd, lambda: image_text(vbd.status()), image),
    }


class VbdsDirectory(JournalDirectory):
    """`vbd/`: the transitions of all VBDs, and a directory for each; mkdir and rmdir if steerable.

    Whoever may wait for a change of a VBD does so on one of `bells`.
    """

    __slots__ = ("_around", "_known", "_lives", "_vbds", "_view", "_views")

    def __init__(self, vbds: ShownVbds, views: Views, around: Surroundings) -> None:
        self._vbds = vbds
        self._views = views
        self._around = around
        self._view = view = views.view(Expression.equal("source", _SOURCE))
        self._known: WeakValueDictionary[str, VbdDirectory] = WeakValueDictionary()
        self._lives: Counter[str] = Counter()  # of ids that came back while the old one was held
        super().__init__("vbd", around, view.formats[:1], view.bell)

    def bells(self) -> Iterator[Bell]:
        """The bells of all VBDs."""
        for vbd in self._listed():
            yield vbd.changed

    def _listed(self) -> Iterator[ShownVbd]:
        for name in self._vbds:
            vbd = self._vbds.get(name)
            if vbd is not None:
                yield vbd

    def lookup(self, name: str) -> Node:
        vbd = self._vbds.get(name)
        return super().lookup(name) if vbd is None else self._directory(vbd)

    def entries(self) -> Iterator[tuple[str, Node]]:
        yield from super().entries()
        for vbd in self._listed():
            yield vbd.id, self._directory(vbd)

    def _directory(self, vbd: ShownVbd) -> VbdDirectory:
        known = self._known.get(vbd.id)
        if known is not None:
            if known.vbd is vbd:
                return known
            self._lives[vbd.id] += 1
        life = self._lives[vbd.id]
        key = f"vbd/{vbd.id}~{life + 1}" if life else f"vbd/{vbd.id}"
        directory = self._known[vbd.id] = VbdDirectory(
            key, vbd, self._views, self._around, steerable=self._vbds.steerable
        )
        return directory

    @property
    def steerable(self) -> bool:
        return self._vbds.steerable

    def make(self, name: str) -> Node:
        if not self.steerable:
            return super().make(name)
        if _is_reserved(name):
            raise Invalid(f"vbd/{name} is the name of a file")
        try:
            self._vbds.appear(name)
        except Invalid as reason:
            raise Invalid(f"vbd/{name:.60}: {reason}") from None
        return self.lookup(name)

    def remove(self, name: str) -> None:
        if self.steerable:
            self._vbds.vanish(name)
        else:
            super().remove(name)


def vbd_directory(vbds: ShownVbds, views: Views, around: Surroundings) -> VbdsDirectory:
    """`vbd/`, over what *vbds* shows at any time; *views* are of the journal in *around*."""
    return VbdsDirectory(vbds, views, around)
