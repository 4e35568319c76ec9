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
from zeventfs.nodes.base import Node
from zeventfs.nodes.changing import AttributeFile, Changing, ChangingDirectory, all_of, check
from zeventfs.nodes.journal_files import JournalDirectory, Surroundings
from zeventfs.nodes.vbd_files import AskedFile, ImageFile, VbdControlFile, WaitFile
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


class _Life:
    """What of *vbd* its nodes end with."""

    __slots__ = ("_vbd", "changed")

    def __init__(self, vbd: ShownVbd) -> None:
        self._vbd = vbd
        self.changed = vbd.changed

    @property
    def gone(self) -> bool:
        return self._vbd.gone

    @property
    def changes(self) -> int:
        return self._vbd.status().changes

    @property
    def changed_ns(self) -> int:
        return self._vbd.status().changed_ns


class VbdDirectory(ChangingDirectory):
    """`vbd/<id>/`, in the life of *vbd*; with `control` and a settable `image` if *steerable*.

    Its stream and its log have what is told of all lives of its id.
    """

    __slots__ = ("vbd",)

    def __init__(
        self, key: str, vbd: ShownVbd, views: Views, around: Surroundings, *, steerable: bool
    ) -> None:
        self.vbd = vbd
        life = _Life(vbd)
        files = {**_attributes(key, vbd, life), **_asked(key, vbd, life)}
        if steerable:
            files |= _steering(key, vbd, life)
        condition = f"source={_SOURCE},vbd={escaped(vbd.id)}"
        super().__init__(key, life, files, condition, views, around)


def _attributes(key: str, vbd: ShownVbd, life: Changing) -> dict[str, Node]:
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
        name: AttributeFile(f"{key}/{name}", life, content) for name, content in contents.items()
    }
    files["wait"] = WaitFile(f"{key}/wait", life, state)
    return files


def _asked(key: str, vbd: ShownVbd, life: Changing) -> dict[str, Node]:
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
    return {name: AskedFile(f"{key}/{name}", life, ask) for name, ask in contents.items()}


def _steering(key: str, vbd: ShownVbd, life: Changing) -> dict[str, Node]:
    """What steers *vbd*, by name."""

    async def control(written: bytes) -> None:
        check(life)
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
        "control": VbdControlFile(f"{key}/control", life, control),
        "image": ImageFile(f"{key}/image", life, lambda: image_text(vbd.status()), image),
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
        for vbd in all_of(self._vbds):
            yield vbd.changed

    def lookup(self, name: str) -> Node:
        vbd = self._vbds.get(name)
        return super().lookup(name) if vbd is None else self._directory(vbd)

    def entries(self) -> Iterator[tuple[str, Node]]:
        yield from super().entries()
        for vbd in all_of(self._vbds):
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
