"""All VBDs of a mount, watched or driven: the source `tapdisk`, and what stands behind vbd/.

How a VBD stands is told by LIST, until an agent takes it over; from then on by its machine. Either
way it is one object, with one way to change.
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from zeventfs.bell import Bell
from zeventfs.errors import Busy, Exists, Fixed, Invalid, NotFound
from zeventfs.event import Event
from zeventfs.sources.standing import LOST, READY
from zeventfs.sources.status import SourceState, SourceStatus
from zeventfs.sources.tapdisk.agent import Agent, adoptable
from zeventfs.sources.tapdisk.events import Events, Subject
from zeventfs.sources.tapdisk.process import Process
from zeventfs.sources.tapdisk.vbd import AT_REST, Figures, Found, Place, SeenVbd
from zeventfs.sources.tapdisk.watch import Watch
from zeventfs.tapdisk import wire
from zeventfs.tapdisk.protocol import Lied, Listed, TapdiskError
from zeventfs.vbd.facts import Exited
from zeventfs.vbd.machine import LIMITS
from zeventfs.vbd.observed import ORPHAN, observe
from zeventfs.vbd.shown import ShownVbd
from zeventfs.vbd.states import Channel, Shutdown, States

__all__ = ["Settings", "TapdiskSource"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where tapdisks are, and what is done with them.

    Their sockets and markers are in *directory*, their counters in *shared_memory*; LIST is asked
    every *poll_s* seconds. *command* starts one: without it they are only watched. Those that were
    started go on at the end, unless they are *mortal*. *limits* are seconds by the channel's
    states, as in `machine`; *figures* tells more of a VBD's requests than a tapdisk does.
    """

    directory: str
    shared_memory: str = wire.SHARED_MEMORY_DIRECTORY
    poll_s: float = 1.0
    command: Sequence[str] | None = None
    mortal: bool = False
    limits: Mapping[Channel, float] = field(default_factory=lambda: LIMITS)
    figures: Figures | None = None


class TapdiskSource:
    """The VBDs (ShownVbds) of a control directory, as the source called *name*.

    *post* takes events in. `run` has to be started before anything is asked for.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        post: Callable[[Event], object],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.name = name
        self.changed = Bell()
        self.steerable = settings.command is not None
        self._settings = settings
        self._directory = settings.directory
        self._events = Events(name, post, clock_ns)
        self._place = Place(self._events, settings.shared_memory, settings.figures)
        self._watch = Watch(self._directory, settings.poll_s, self, mortal=settings.mortal)
        self._agent: Agent | None = None
        self._nursery: trio.Nursery | None = None
        self._vbds: dict[int, SeenVbd] = {}
        self._state = SourceState.READY
        self._reason = ""
        self._was_lost = False
        self._malformed = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch, and drive, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._settings.command is not None:
                    self._agent = Agent(
                        self._directory,
                        self._settings.command,
                        self,
                        nursery,
                        self._settings.limits,
                    )
                await nursery.start(self._watch.run)
                task_status.started()
        except Exception as error:  # a bug here is not the end of the tree
            log.exception("tapdisks are watched no more")
            self.lost(f"it broke off: {error!r}")
        finally:
            self._agent = self._nursery = None

    # What the tree asks (ShownVbds)

    def __iter__(self) -> Iterator[str]:
        return iter([str(minor) for minor in sorted(self._vbds)])

    def get(self, vbd: str) -> ShownVbd | None:
        return self._vbds.get(_minor(vbd))

    def appear(self, vbd: str) -> None:
        agent = self._steering()
        minor = _minor(vbd)
        if minor < 0:
            raise Invalid(f"a VBD is called by its minor, 0 to {wire.ALL - 1}, not {vbd[:20]!r}")
        if minor in self._vbds:
            raise Exists(f"there is a VBD {minor} already")
        if not agent.drives(minor) and os.path.lexists(self._marker(minor)):
            raise Exists(f"minor {minor} is taken")
        agent.appear(self._add(minor, AT_REST))

    def vanish(self, vbd: str) -> None:
        agent = self._steering()
        seen = self._vbds.get(_minor(vbd))
        if seen is None:
            raise NotFound(f"there is no VBD {vbd[:20]!r}")
        if seen.steers is not None:
            agent.vanish(seen)
        elif seen.tapdisk is not None:
            raise Busy(f"VBD {vbd} is another's: its tapdisk runs, and has no image open")
        else:
            try:
                self._marker(seen.minor).unlink(missing_ok=True)
            except OSError as error:
                raise Fixed(f"minor {vbd} can't be given back: {error.strerror}") from None
            self.hide(seen)

    def status(self) -> SourceStatus:
        """How the source stands; the reason is the trouble of one of the tapdisks, if any has."""
        last = self._events.last_ns
        return SourceStatus(
            state=self._state,
            reason=self._reason or self._trouble(),
            events=self._events.count,
            gaps=0,
            dropped=0,
            malformed=self._malformed,
            kernel_dropped=0,
            last_eid=None,
            last_time_ns=last,
            last_arrival_ns=last,
            waiting=None,
        )

    def clear(self) -> None:
        """There is no queue that could be emptied."""

    # What the watch tells (Heard)

    def listed(self, found: Found, rows: tuple[Listed, ...]) -> None:
        there = set()
        for row in rows:
            if row.minor >= 0:  # less: the device has gone before its image
                there.add(row.minor)
                self._row(found, row)
        for vbd in self._of(found):
            if vbd.minor not in there and vbd.steers is None:
                self._leave(vbd, "detached by its tapdisk")

    def troubled(self, found: Found, error: TapdiskError | None) -> None:
        if error is None:
            return
        self._malformed += isinstance(error, Lied)
        vbds = self._of(found)
        for vbd in vbds:
            vbd.fault(error.errno, vbd.states.channel.name, found.pid, str(error))
        if not vbds:
            self._events.error(Subject(None, found.pid), error.errno, "LIST", str(error))

    def exited(self, found: Found, exited: Exited) -> None:
        killed = os.path.lexists(found.client.path)  # who exits by itself removes its socket
        for vbd in self._of(found):
            if vbd.steers is not None:
                continue
            if killed:
                reason = f"{exited}, and left its control socket behind"
                vbd.fault(errno.EPIPE, vbd.states.channel.name, found.pid, reason)
                self._leave(vbd, reason, ORPHAN)
            else:
                self._leave(vbd, str(exited))
        if self._agent is not None:
            self._agent.ended(found, exited)

    def orphaned(self, minor: int) -> None:
        if self._agent is not None and self._agent.drives(minor):
            return
        vbd = self._vbds.get(minor) or self._add(minor, AT_REST)
        vbd.become(ORPHAN, None, "its minor is taken, and no tapdisk has it")

    def unmarked(self, minor: int) -> None:
        vbd = self._vbds.get(minor)
        if vbd is not None and vbd.steers is None and vbd.tapdisk is None:
            self.hide(vbd)

    def lost(self, reason: str) -> None:
        if self._state is SourceState.READY:
            self._state = SourceState.LOST
            self._events.source(LOST, reason)
        self._reason = reason

    def ready(self) -> None:
        if self._state is SourceState.LOST:
            self._state = SourceState.READY
            self._events.source(READY, f"the directory {self._directory} is there")
        self._reason = ""

    # What the agent asks (Taken)

    def add(self, process: Process, path: str) -> Found:
        return self._watch.add(process, path)

    def meet(self, found: Found) -> None:
        self._watch.meet(found)

    def hide(self, vbd: SeenVbd) -> None:
        if self.shows(vbd):
            del self._vbds[vbd.minor]
            vbd.remove()
            self.changed.ring()

    def shows(self, vbd: SeenVbd) -> bool:
        return self._vbds.get(vbd.minor) is vbd

    # VBDs

    def _steering(self) -> Agent:
        if self._agent is None:
            raise Fixed("tapdisks are only watched here")
        return self._agent

    def _marker(self, minor: int) -> Path:
        return Path(self._directory, wire.marker_name(minor))

    def _add(self, minor: int, states: States) -> SeenVbd:
        vbd = self._vbds[minor] = SeenVbd(minor, states, self._place)
        self.changed.ring()
        return vbd

    def _of(self, found: Found) -> list[SeenVbd]:
        return [vbd for vbd in self._vbds.values() if vbd.tapdisk is found]

    def _row(self, found: Found, row: Listed) -> None:
        """What LIST says of one VBD."""
        vbd = self._vbds.get(row.minor)
        observed = observe(row.state, args=bool(row.path))
        if self._agent is not None and self._agent.drives(row.minor):
            if vbd is not None and vbd.tapdisk is found:
                vbd.observed = observed
            return
        if vbd is None:
            vbd = self._add(row.minor, AT_REST)
        if vbd.tapdisk not in {None, found}:
            other = vbd.tapdisk
            assert other is not None
            reason = f"process {found.pid} says that it has minor {row.minor} of {other.pid}"
            self._malformed += 1
            self._events.error(Subject(None, found.pid), errno.EPROTO, "LIST", reason)
            return
        vbd.tapdisk, vbd.observed = found, observed
        opened = row.path and row.path != vbd.image
        vbd.image = row.path or vbd.image
        vbd.become(observed.states, found.pid, f"listed with {observed}")
        if opened and self._nursery is not None:
            self._nursery.start_soon(vbd.check_chain)
        if self._agent is not None and adoptable(observed.states) and row.path:
            self._agent.adopt(vbd, found)

    def _leave(self, vbd: SeenVbd, reason: str, states: States | None = None) -> None:
        """The VBD has no tapdisk any more; it stays listed while its minor is marked."""
        vbd.tapdisk = vbd.observed = None
        vbd.become(states or States(Channel.DEAD, vbd.states.vbd, Shutdown.DOWN), None, reason)
        if vbd.minor not in self._watch.markers:
            self.hide(vbd)

    def _trouble(self) -> str:
        troubled = [found for found in self._watch.found.values() if found.trouble]
        if not troubled:
            return ""
        more = f", and {len(troubled) - 1} more" if len(troubled) > 1 else ""
        return f"tapdisk {troubled[0].pid}: {troubled[0].trouble}{more}"


def _minor(vbd: str) -> int:
    """The minor that is a VBD's id, -1 if it can be none."""
    if vbd.isascii() and vbd.isdecimal() and len(vbd) <= 5 and str(int(vbd)) == vbd:
        minor = int(vbd)
        return minor if minor < wire.ALL else -1
    return -1
