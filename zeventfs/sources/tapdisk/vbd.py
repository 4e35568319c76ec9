"""One VBD as the tree shows it, whoever tells how it stands: LIST, or the agent that drives it.

What it shows is of one moment: its states, pid and reason change together, and only then is posted
what changed, and rung.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import trio

from zeventfs.bell import Bell
from zeventfs.errors import Down, Fixed, Malformed
from zeventfs.sources.tapdisk.events import Events, Subject
from zeventfs.sources.tapdisk.process import Process
from zeventfs.tapdisk.client import Tapdisk
from zeventfs.tapdisk.protocol import Listed, TapdiskError
from zeventfs.tapdisk.shared_memory import Counters, pages, read_counters
from zeventfs.vbd.chain import Chain, Reason, image_path, read_chain
from zeventfs.vbd.counters import Kicks, Queue
from zeventfs.vbd.dispersion import Dispersion
from zeventfs.vbd.facts import Image
from zeventfs.vbd.observed import Observed
from zeventfs.vbd.shown import Status
from zeventfs.vbd.states import Channel, Request, Shutdown, State, States, Vbd

__all__ = ["AT_REST", "Figures", "Found", "Place", "SeenVbd", "Steers"]

AT_REST: Final = States(Channel.DEAD, Vbd.UNPAUSED, Shutdown.DOWN)
_NOT_KNOWN: Final = Queue(None, None, None, None)
_CHAINED: Final = frozenset({"vhd", "aio"})  # the drivers whose images are files or devices here
_CHAINS_AT_ONCE: Final = 8  # storage that hangs holds so many threads of each kind, and no more

Figures = Callable[[int, int], Awaitable[tuple[Queue, Kicks] | None]]


class Found:
    """A tapdisk that was found or spawned: its process, and whom to ask.

    `listed` is what its last LIST said, None before the first; `trouble` why it doesn't answer as
    it should, empty while it does; `cut` since when its answers are cut off, None while they
    aren't. It is `met` once it may be asked.
    """

    __slots__ = ("client", "cut", "listed", "met", "process", "trouble")

    def __init__(self, process: Process, path: str) -> None:
        self.process = process
        self.client = Tapdisk(path)
        self.cut: float | None = None
        self.met = False
        self.listed: tuple[Listed, ...] | None = None
        self.trouble = ""

    @property
    def pid(self) -> int:
        return self.process.pid


class Steers(Protocol):
    """Who may be asked for something."""

    def ask(self, vbd: "SeenVbd", request: Request) -> None: ...
    def set_image(self, vbd: "SeenVbd", image: str) -> None: ...


class Place:
    """What all VBDs of one source share: where events go, where counters are, who reads chains.

    *figures* tells more of a VBD's requests than tapdisks do, by pid and minor.
    """

    def __init__(self, events: Events, shared_memory: str, figures: Figures | None = None) -> None:
        self.events = events
        self.shared_memory = shared_memory
        self.figures = figures
        self.readers = trio.CapacityLimiter(_CHAINS_AT_ONCE)
        self.checks = trio.CapacityLimiter(_CHAINS_AT_ONCE)


class SeenVbd:
    """A VBD (ShownVbd); one that is only watched has nobody that *steers* it."""

    def __init__(self, minor: int, states: States, place: Place) -> None:
        self.id = str(minor)
        self.minor = minor
        self.changed = Bell()
        self.gone = False
        self.errors = Dispersion()
        self.states = states
        self.pid: int | None = None
        self.image = ""
        self.tapdisk: Found | None = None
        self.steers: Steers | None = None
        self.observed: Observed | None = None
        """What LIST said last of a VBD that has a tapdisk."""
        self.disk: Image | None = None
        self._place = place
        self._reason = ""
        self._changed_ns = place.events.clock_ns()
        self._changes = 0
        self._problems: frozenset[tuple[str, Reason]] = frozenset()

    # What the tree asks (ShownVbd)

    def status(self) -> Status:
        return Status(
            self.states, self.pid, self._reason, self._changed_ns, self._changes, self.image
        )

    def info(self) -> Mapping[str, str]:
        driver, path = image_path(self.image)
        shown = {"minor": self.id, "driver": driver, "image": path}
        if self.disk is not None:
            shown["sectors"] = str(self.disk.sectors)
            shown["sector_size"] = str(self.disk.sector_size)
            shown["info"] = f"{self.disk.info:#x}"
        shown["flags"] = "" if self.observed is None else str(self.observed)
        found = self.tapdisk
        shown["tapdisk"] = "" if found is None else str(found.pid)
        shown["socket"] = "" if found is None else found.client.path
        shown["trouble"] = "" if found is None else found.trouble
        shown["steered"] = "no" if self.steers is None else "yes"
        return shown

    async def queue(self) -> Queue:
        found = self.tapdisk
        if found is None:
            return _NOT_KNOWN
        if self._place.figures is not None:
            figures = await self._place.figures(found.pid, self.minor)
            return _NOT_KNOWN if figures is None else figures[0]
        outstanding = None
        with suppress(TapdiskError):  # the poll says what is wrong with it
            stats = (await found.client.stats(self.minor)).stats
            outstanding = None if stats is None else stats.reqs_outstanding
        page = self._counters(found.pid)
        completed = None if page is None else page.rd_completed + page.wr_completed
        return Queue(None, outstanding, None, completed)

    async def kicks(self) -> Kicks | None:
        if self.tapdisk is None or self._place.figures is None:
            return None
        figures = await self._place.figures(self.tapdisk.pid, self.minor)
        return None if figures is None else figures[1]

    async def chain(self) -> Chain | None:
        return await self._read_chain(self._place.readers)

    async def check_chain(self) -> None:
        """Post what is wrong with the image that was opened; readers don't wait for it."""
        await self._read_chain(self._place.checks)

    def ask(self, request: Request) -> None:
        if self.steers is None and self.states.vbd is Vbd.BROKEN:
            raise Down(f"the VBD is BROKEN: {self._reason}")
        if self.steers is None:
            raise Fixed(f"VBD {self.id} is only watched")
        self.steers.ask(self, request)

    def set_image(self, image: str) -> None:
        if self.steers is None:
            raise Fixed(f"VBD {self.id} is only watched")
        self.steers.set_image(self, image)

    # What it is told

    def become(self, states: States, pid: int | None, reason: str) -> None:
        """Take on *states*; each that is another one is an event. *pid* is its tapdisk's then."""
        of = Subject(self.minor, self.pid if pid is None else pid, self.image)
        before: Sequence[State] = self.states
        after: Sequence[State] = states
        steps = [(old, new) for old, new in zip(before, after, strict=True) if old is not new]
        self.states, self.pid = states, pid
        if not steps:
            return
        self._reason = reason
        self._changes += len(steps)
        for old, new in steps:
            self._changed_ns = self._place.events.changed(of, old, new, reason)
        self.changed.ring()

    def fault(self, number: int, place: str, pid: int | None, reason: str) -> None:
        """Note an error, as an event too."""
        of = Subject(self.minor, pid, self.image)
        now = self._place.events.error(of, number, place, reason)
        self.errors.note(number, place, now, reason)

    def remove(self) -> None:
        """It is listed no more; who waits for it is told."""
        self.gone = True
        self.changed.ring()

    async def _read_chain(self, limiter: trio.CapacityLimiter) -> Chain | None:
        driver, path = image_path(self.image)
        if driver not in _CHAINED:
            return None
        in_use = self.states.channel is Channel.RUNNING
        chain = await trio.to_thread.run_sync(
            lambda: read_chain(path, driver, in_use=in_use),
            abandon_on_cancel=True,
            limiter=limiter,
        )
        self._tell_problems(chain)
        return chain

    def _tell_problems(self, chain: Chain) -> None:
        """Post what is newly found broken."""
        of = Subject(self.minor, self.pid, self.image)
        for problem in chain.problems:
            if (problem.path, problem.reason) not in self._problems:
                self._place.events.chain_broken(of, problem)
        self._problems = frozenset((each.path, each.reason) for each in chain.problems)

    def _counters(self, pid: int) -> Counters | None:
        for page in pages(pid, self._place.shared_memory):
            if page.kind == "vdi" and page.numbers == (self.minor,):
                with suppress(OSError, Malformed):
                    return read_counters(page.path)
        return None
