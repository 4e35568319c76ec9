"""What is posted of tapdisks: each change of a VBD is an event, and so is whatever goes wrong."""

import errno
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from zeventfs.event import Event
from zeventfs.nvlist import Type
from zeventfs.sources.standing import standing
from zeventfs.vbd.chain import Problem
from zeventfs.vbd.states import Channel, Shutdown, State, Vbd

__all__ = ["Events", "Subject"]

log = logging.getLogger(__name__)

_SOURCE: Final = "tapdisk"

_CLASSES: Final[dict[type[State], str]] = {
    Channel: "tapdisk.channel",
    Vbd: "tapdisk.vbd",
    Shutdown: "tapdisk.shutdown",
}

Pair = tuple[str, Type, Any]


class Subject(NamedTuple):
    """What an event is about: a VBD, its image and its tapdisk, as far as there are any."""

    minor: int | None
    pid: int | None
    image: str = ""


class Events:
    """Posts them by *post*; `count` is how many there were, `last_ns` when the last one was."""

    def __init__(
        self, name: str, post: Callable[[Event], object], clock_ns: Callable[[], int]
    ) -> None:
        self.count = 0
        self.last_ns: int | None = None
        self.clock_ns = clock_ns
        self._name = name
        self._post = post

    def changed(self, of: Subject, old: State, new: State, reason: str) -> int:
        """One state of a VBD became another; returns when, in ns since 1970."""
        told = [("from", Type.STRING, old.name), ("to", Type.STRING, new.name)]
        return self._tell(_CLASSES[type(new)], of, [*told, _text("reason", reason)])

    def error(self, of: Subject, number: int, place: str, reason: str) -> int:
        """Something went wrong, in the state of the channel *place*, or with that request."""
        return self._tell(
            "tapdisk.error",
            of,
            [
                ("errno", Type.INT32, number),
                ("errno_name", Type.STRING, errno.errorcode.get(number, str(number))),
                ("place", Type.STRING, place),
                _text("reason", reason),
            ],
        )

    def chain_broken(self, of: Subject, problem: Problem) -> None:
        """An image's chain of parents is broken at one level."""
        self._tell(
            "tapdisk.chain.broken",
            of,
            [
                ("depth", Type.UINT32, problem.depth),
                _text("path", problem.path),
                ("reason", Type.STRING, problem.reason.value),
                _text("words", problem.words),
            ],
        )

    def source(self, name: str, reason: str) -> None:
        """The source itself was lost, or is ready again."""
        self._post(standing(name, self._name, reason, self.clock_ns()))

    def _tell(self, name: str, of: Subject, pairs: list[Pair]) -> int:
        now = self.clock_ns()
        try:
            self._post(Event.make(_SOURCE, name, now, [*_subject(of), *pairs]))
        except Exception:  # one event's bug must not end the source
            log.exception("an event %s was lost", name)
            return now
        self.count += 1
        self.last_ns = now
        return now


def _subject(of: Subject) -> Iterator[Pair]:
    if of.minor is not None:
        yield "vbd", Type.STRING, str(of.minor)
        yield "minor", Type.UINT32, of.minor
    if of.pid is not None:
        yield "pid", Type.INT32, of.pid
    if of.image:
        yield _text("image", of.image)


def _text(key: str, text: str) -> Pair:
    """NUL would end a string; what else comes from outside is kept, text or not."""
    return key, Type.STRING, text.replace("\0", "")
