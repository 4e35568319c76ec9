"""VBDs to show, without tapdisks behind them: a test says what becomes of them."""

import errno
import re
from collections import deque
from collections.abc import Iterator, Mapping

import trio

from zeventfs.bell import Bell
from zeventfs.errors import Busy, Down, Exists, Invalid, NotFound
from zeventfs.event import Event
from zeventfs.journal.journal import Journal
from zeventfs.nvlist import Type
from zeventfs.vbd.chain import Chain
from zeventfs.vbd.counters import Kicks, Queue
from zeventfs.vbd.dispersion import Dispersion
from zeventfs.vbd.shown import ShownVbd, Status
from zeventfs.vbd.states import Channel, Request, Shutdown, States, Vbd

__all__ = ["BEGIN_NS", "Shown", "Shows"]

BEGIN_NS = 1_700_000_000 * 10**9
AT_REST = States(Channel.DEAD, Vbd.UNPAUSED, Shutdown.DOWN)
RUNNING = States(Channel.RUNNING, Vbd.UNPAUSED, Shutdown.UP)
PAUSED = States(Channel.PAUSED, Vbd.PAUSED, Shutdown.UP)
BROKEN = States(Channel.DEAD, Vbd.BROKEN, Shutdown.UP)


class Shown:
    """One VBD (ShownVbd): start and pause do so at once, and what is written of it is an event."""

    def __init__(self, vbds: "Shows", name: str) -> None:
        self._vbds = vbds
        self.id = name
        self.changed = Bell()
        self.gone = False
        self.errors = Dispersion()
        self.now = Status(AT_REST, None, "path appeared", BEGIN_NS, 0, "")
        self.facts: dict[str, str] = {"driver": "vhd"}
        self.answers: deque[Queue | Exception] = deque()
        self.asked = trio.Event()
        self.answer = trio.Event()  # what is asked of the tapdisk waits for it
        self.notified: Kicks | None = Kicks(3, 4)
        self.parents: Chain | None = None

    def status(self) -> Status:
        return self.now

    def info(self) -> Mapping[str, str]:
        return self.facts

    async def queue(self) -> Queue:
        self.asked.set()
        await self.answer.wait()
        answer = self.answers.popleft() if self.answers else Queue(0, 1, None, 5)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def kicks(self) -> Kicks | None:
        return self.notified

    async def chain(self) -> Chain | None:
        return self.parents

    def ask(self, request: Request) -> None:
        if self.now.states.vbd is Vbd.BROKEN:
            raise Down("it is broken")
        match request:
            case Request.START if not self.now.image:
                raise Invalid("there is no image to start with")
            case Request.START:
                self.become(RUNNING, "start", pid=4711)
            case Request.PAUSE:
                self.become(PAUSED, "pause", pid=4711)
            case _:
                raise Busy("not now")

    def set_image(self, image: str) -> None:
        if ":" not in image:
            raise Invalid(f"{image!r} is not driver:path")
        self.become(self.now.states, "image", image=image)

    def become(
        self, states: States, reason: str, pid: int | None = None, image: str | None = None
    ) -> None:
        """Stand so, for that reason."""
        old = self.now
        self.now = Status(
            states,
            pid,
            reason,
            old.changed_ns + 10**9,
            old.changes + 1,
            old.image if image is None else image,
        )
        self._vbds.post(self.id, states, reason)
        self.changed.ring()

    def break_down(self) -> None:
        """Be broken."""
        self.errors.note(errno.EPIPE, "RUNNING", self.now.changed_ns, "killed by SIGKILL")
        self.become(BROKEN, "killed by SIGKILL")

    def go(self) -> None:
        self.gone = True
        self.changed.ring()


class Shows:
    """VBDs by id (ShownVbds); their transitions are posted to *journal*."""

    def __init__(self, journal: Journal, *, steerable: bool = True) -> None:
        self._journal = journal
        self._vbds: dict[str, Shown] = {}
        self.changed = Bell()
        self.steerable = steerable

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._vbds))

    def __getitem__(self, name: str) -> Shown:
        return self._vbds[name]

    def get(self, vbd: str) -> ShownVbd | None:
        return self._vbds.get(vbd)

    def appear(self, vbd: str) -> None:
        if vbd in self._vbds:
            raise Exists(vbd)
        if not re.fullmatch("[0-9]+", vbd):
            raise Invalid("an id is a number")
        self._vbds[vbd] = Shown(self, vbd)
        self.changed.ring()

    def vanish(self, vbd: str) -> None:
        if vbd not in self._vbds:
            raise NotFound(vbd)
        self._vbds.pop(vbd).go()
        self.changed.ring()

    def post(self, vbd: str, states: States, reason: str) -> None:
        pairs = [
            ("vbd", Type.STRING, vbd),
            ("to", Type.STRING, states.channel.name),
            ("reason", Type.STRING, reason),
        ]
        event = Event.make("tapdisk", "tapdisk.channel", BEGIN_NS, pairs)
        self._journal.append(event)
