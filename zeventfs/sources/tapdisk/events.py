"""What is posted of tapdisks: each change of a VBD is an event, and so is whatever goes wrong."""

import errno
import logging
from collections.abc import Callable
from typing import Any, Final

from zeventfs.event import Event
from zeventfs.nvlist import Type
from zeventfs.vbd.chain import Problem
from zeventfs.vbd.states import Channel, State, Vbd

__all__ = ["LOST", "READY", "Events"]

log = logging.getLogger(__name__)

LOST: Final = "zeventfs.source.lost"
READY: Final = "zeventfs.source.ready"
_SOURCE: Final = "tapdisk"

Pair = tuple[str, Type, Any]


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

    def changed(
        self, minor: int, image: str, old: State, new: State, pid: int | None, reason: str
    ) -> int:
        """One state of a VBD became another; returns when, in ns since 1970."""
        kind = (
            "channel"
            if isinstance(new, Channel)
            else "vbd"
            if isinstance(new, Vbd)
            else "shutdown"
        )
        return self._tell(
            f"tapdisk.{kind}",
            [
                *_vbd(minor),
                ("from", Type.STRING, old.name),
                ("to", Type.STRING, new.name),
                *_pid(pid),
                *_image(image),
                _text("reason", reason),
            ],
        )

    def error(
        self,
        minor: int | None,
        image: str,
        number: int,
        place: str,
        pid: int | None,
        reason: str,
    ) -> int:
        """Something went wrong with a VBD, or with a tapdisk that has none (*minor* None)."""
        return self._tell(
            "tapdisk.error",
            [
                *_vbd(minor),
                ("errno", Type.INT32, number),
                ("errno_name", Type.STRING, errno.errorcode.get(number, str(number))),
                ("place", Type.STRING, place),
                *_pid(pid),
                *_image(image),
                _text("reason", reason),
            ],
        )

    def chain_broken(self, minor: int, image: str, problem: Problem) -> None:
        """An image's chain of parents is broken at one level."""
        self._tell(
            "tapdisk.chain.broken",
            [
                *_vbd(minor),
                *_image(image),
                ("depth", Type.UINT32, problem.depth),
                _text("path", problem.path),
                ("reason", Type.STRING, problem.reason.value),
                _text("words", problem.words),
            ],
        )

    def source(self, name: str, reason: str) -> None:
        """The source itself was lost, or is ready again."""
        pairs = [("source", Type.STRING, self._name), _text("reason", reason)]
        self._post(Event.make("zeventfs", name, self.clock_ns(), pairs))

    def _tell(self, name: str, pairs: list[Pair]) -> int:
        now = self.clock_ns()
        try:
            self._post(Event.make(_SOURCE, name, now, pairs))
        except Exception:  # one event's bug must not end the source
            log.exception("an event %s was lost", name)
            return now
        self.count += 1
        self.last_ns = now
        return now


def _vbd(minor: int | None) -> list[Pair]:
    if minor is None:
        return []
    return [("vbd", Type.STRING, str(minor)), ("minor", Type.UINT32, minor)]


def _pid(pid: int | None) -> list[Pair]:
    return [] if pid is None else [("pid", Type.INT32, pid)]


def _image(image: str) -> list[Pair]:
    return [_text("image", image)] if image else []


def _text(key: str, text: str) -> Pair:
    """NUL would end a string; what else comes from outside is kept, text or not."""
    return key, Type.STRING, text.replace("\0", "")
