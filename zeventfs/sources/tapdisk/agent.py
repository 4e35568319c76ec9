"""Drives tapdisks: does what the machines of `zeventfs.vbd` say, one tapdisk for each VBD.

The machines' effects are carried out in their order, each in a task where it takes time; what comes
of it is the next fact. Tapdisks are guests' disks: when the agent ends they go on, and the next one
adopts them. Only what is removed, and neither closes nor exits in its time, is killed.
"""

import errno
import math
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import trio

from zeventfs.errors import Busy, Invalid
from zeventfs.sources.tapdisk.process import Process, read_line, spawn
from zeventfs.sources.tapdisk.vbd import AT_REST, Found, SeenVbd
from zeventfs.tapdisk import wire
from zeventfs.tapdisk.client import Gone, Hangs, Tapdisk, Unreachable
from zeventfs.tapdisk.protocol import (
    Partial,
    Refused,
    TapdiskError,
    ask_attach,
    ask_close,
    ask_detach,
    ask_force_shutdown,
    ask_open,
    ask_pause,
    ask_pid,
    ask_resume,
)
from zeventfs.vbd.backend import Backend
from zeventfs.vbd.facts import (
    Announce,
    Changed,
    Destroy,
    Effect,
    ErrorReplied,
    Exited,
    Fact,
    Fault,
    Image,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    Probe,
    Released,
    Replied,
    Send,
    SendFailed,
    StartTimer,
    StopTimer,
    TimedOut,
)
from zeventfs.vbd.machine import LIMITS, Machine
from zeventfs.vbd.states import SHUT, Channel, Message, Reply, Request, Shutdown, States, Vbd

__all__ = ["Agent", "Taken", "adoptable"]

_EXIT_S: Final = 0.2  # from a connection that breaks to the end of the process that broke it
# What adopting changes nothing of: an image is open, and nobody else is at closing it.
_ADOPTED: Final = frozenset({Channel.RUNNING, Channel.WAIT_PAUSE, Channel.PAUSED})
_GOOD: Final = frozenset({Vbd.UNPAUSED, Vbd.PAUSING, Vbd.PAUSED})


def adoptable(states: States) -> bool:
    """Whether a VBD that was found in these *states* can be driven from there."""
    return states.shutdown is Shutdown.UP and states.vbd in _GOOD and states.channel in _ADOPTED


class Taken(Protocol):
    """Who has all VBDs, and follows the processes."""

    def add(self, process: Process, path: str) -> Found: ...
    def meet(self, found: Found) -> None: ...
    def hide(self, vbd: SeenVbd) -> None:
        """It is listed no more; nothing if it already is not."""

    def shows(self, vbd: SeenVbd) -> bool: ...


class _Driven:
    """What belongs to a machine: the VBD that shows it, its tapdisk, and what is under way."""

    __slots__ = ("found", "marked", "sending", "timer", "vbd")

    def __init__(self, vbd: SeenVbd, found: Found | None = None) -> None:
        self.vbd = vbd
        self.found = found
        self.marked = found is not None
        self.sending: trio.CancelScope | None = None
        self.timer: trio.CancelScope | None = None


class Agent:
    """Drives VBDs in control directory *directory* with tapdisks started by *command*.

    *limits* are seconds by the channel's states, as in `machine`. All is to be called from the
    trio thread, while *nursery* is open.
    """

    def __init__(
        self,
        directory: str,
        command: Sequence[str],
        taken: Taken,
        nursery: trio.Nursery,
        limits: Mapping[Channel, float] = LIMITS,
    ) -> None:
        self._directory = directory
        self._command = tuple(command)
        self._taken = taken
        self._nursery = nursery
        self._limits = limits
        self._backend: Backend[int] = Backend(limits)
        self._driven: dict[int, _Driven] = {}

    def drives(self, minor: int) -> bool:
        """Whether there is a machine of *minor*; its VBD may be hidden already."""
        return minor in self._driven

    def appear(self, vbd: SeenVbd) -> None:
        """Its path is there; while an earlier VBD of its minor still closes, it waits for it."""
        vbd.steers = self
        driven = self._driven.get(vbd.minor)
        if driven is None:
            self._driven[vbd.minor] = _Driven(vbd)
        else:
            vbd.states, vbd.pid, vbd.tapdisk = driven.vbd.states, driven.vbd.pid, driven.found
            driven.vbd = vbd
        self._do(vbd.minor, self._backend.appear(vbd.minor))

    def adopt(self, vbd: SeenVbd, found: Found) -> None:
        """Drive a VBD that was found in an `adoptable` state."""
        vbd.steers = self
        self._driven[vbd.minor] = _Driven(vbd, found)
        machine = Machine(vbd.states, found.pid, self._limits)
        self._do(vbd.minor, self._backend.adopt(vbd.minor, machine))

    def vanish(self, vbd: SeenVbd) -> None:
        """Its path is gone: it is listed no more, closed, and then forgotten."""
        self._taken.hide(vbd)
        self._do(vbd.minor, self._backend.vanish(vbd.minor))

    def ask(self, vbd: SeenVbd, request: Request) -> None:
        """As ShownVbd.ask."""
        if request is Request.START and not vbd.image and vbd.states.vbd in _GOOD:
            raise Invalid(f"VBD {vbd.id} has no image to start with")
        self._do(vbd.minor, self._backend.ask(vbd.minor, request))

    def set_image(self, vbd: SeenVbd, image: str) -> None:
        """As ShownVbd.set_image."""
        ask_open(vbd.minor, image)  # which says what is wrong with it
        if vbd.states.channel not in SHUT or vbd.tapdisk is not None:
            raise Busy(f"VBD {vbd.id} has its image open")
        vbd.image = image

    def ended(self, found: Found, exited: Exited) -> None:
        """A tapdisk has ended."""
        for minor, driven in list(self._driven.items()):
            if driven.found is not found:
                continue
            driven.found = driven.vbd.tapdisk = None
            closed = driven.vbd.states.channel in {Channel.WAIT_CLOSE, Channel.CLOSED}
            if exited == Exited(code=0) or (exited == Exited() and closed):
                self._unmark(minor, driven)
            self._hear(minor, exited)

    # Facts and effects

    def _hear(self, minor: int, fact: Fact) -> None:
        self._do(minor, self._backend.hear(minor, fact))

    def _do(self, minor: int, effects: list[Effect]) -> None:  # noqa: C901 - a case for each kind
        """Carry out what a machine gave back."""
        driven = self._driven.get(minor)
        if driven is None:
            return
        self._show(driven, self._backend.get(minor), effects)
        for effect in effects:
            match effect:
                case Launch():
                    self._nursery.start_soon(self._launch, minor, driven)
                case Send(message=message):
                    driven.sending = trio.CancelScope()
                    self._nursery.start_soon(self._send, minor, driven, message, driven.sending)
                case Kill():
                    self._kill(driven)
                case StartTimer(timer=timer, seconds=seconds):
                    driven.timer = trio.CancelScope()
                    self._nursery.start_soon(self._time, minor, timer, seconds, driven.timer)
                case StopTimer():
                    if driven.timer is not None:
                        driven.timer.cancel()
                case Destroy():
                    self._unmark(minor, driven)
                    del self._driven[minor]
                case Probe():
                    if self._taken.shows(driven.vbd):
                        driven.vbd.become(AT_REST, None, "its path was probed again")
                        self.appear(driven.vbd)
                case Announce() | Changed() | Fault():
                    pass  # shown already

    def _show(self, driven: _Driven, machine: Machine | None, effects: list[Effect]) -> None:
        """Have the VBD show what has come about: states and faults, in their order."""
        vbd = driven.vbd
        states = list(vbd.states)
        for effect in effects:
            match effect:
                case Fault():
                    vbd.fault(effect.errno, effect.place, effect.pid, effect.reason)
                case Changed():
                    states[_MACHINES.index(type(effect.new))] = effect.new
                    vbd.become(States(*states), effect.pid, effect.reason)  # type: ignore[arg-type]  # each in its place
                case _:
                    pass
        if machine is not None:
            vbd.pid = machine.pid
            vbd.tapdisk = driven.found
            if machine.vbd is Vbd.DEAD:
                self._taken.hide(vbd)

    # What takes time

    async def _launch(self, minor: int, driven: _Driven) -> None:
        try:
            self._mark(minor, driven)
            process, reading = spawn(self._command)
        except OSError as error:
            reason = f"can't start {self._command[0]} for minor {minor}: {error.strerror}"
            self._unmark(minor, driven)
            self._hear(minor, LaunchFailed(errno=error.errno or errno.EIO, reason=reason))
            return
        found = self._taken.add(process, f"{self._directory}/{wire.socket_name(process.pid)}")
        driven.found = driven.vbd.tapdisk = found
        driven.vbd.disk = None
        line = await read_line(reading)
        if not line or found.process.look() is not None:
            return  # its end is told, or its time will be over
        found.client = Tapdisk(line)
        self._taken.meet(found)
        self._hear(minor, Launched(pid=process.pid))

    async def _send(
        self, minor: int, driven: _Driven, message: Message, scope: trio.CancelScope
    ) -> None:
        found = driven.found
        if found is None:  # it has ended, and that is told
            return
        fact: Fact | None = None
        with scope:
            fact = await self._exchange(minor, driven, found, message)
        if scope.cancelled_caught:
            fact = SendFailed(
                errno=errno.ETIMEDOUT, reason=f"{message.name} was given up, as no answer came"
            )
        if fact is None or driven.found is not found:
            return
        if isinstance(fact, Replied) and fact.image is not None:
            driven.vbd.disk = fact.image
            self._nursery.start_soon(driven.vbd.check_chain)
        self._hear(minor, fact)
        if isinstance(fact, Replied) and fact.reply is Reply.CLOSE:
            await self._release(minor, driven, found)

    async def _exchange(
        self, minor: int, driven: _Driven, found: Found, message: Message
    ) -> Fact | None:
        """What comes of sending *message*; None if the tapdisk ended over it, which is told."""
        try:
            return await _order(found.client, minor, message, driven.vbd.image)
        except Refused as error:
            return ErrorReplied(errno=error.errno, reason=f"{message.name}: {error}")
        except (Gone, Partial, Unreachable) as error:
            with trio.move_on_after(_EXIT_S):
                await found.process.over.wait()
            if found.process.look() is not None:
                return None
            return SendFailed(errno=error.errno, reason=f"{message.name}: {error}")
        except Hangs as error:
            return SendFailed(errno=error.errno, reason=f"{message.name}: {error}")
        except TapdiskError as error:
            return ErrorReplied(errno=error.errno, reason=f"{message.name}: {error}")

    async def _release(self, minor: int, driven: _Driven, found: Found) -> None:
        """A tapdisk that has other VBDs lives on without this one."""
        with suppress(TapdiskError):
            if await found.client.list() and driven.found is found:
                driven.found = driven.vbd.tapdisk = None
                self._unmark(minor, driven)
                self._hear(minor, Released())

    async def _time(self, minor: int, timer: int, seconds: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(seconds)
        if scope.cancelled_caught:
            return
        driven = self._driven.get(minor)
        sending = None if driven is None else driven.sending
        self._hear(minor, TimedOut(timer=timer))
        if sending is not None:
            sending.cancel()

    # What is done at once

    def _kill(self, driven: _Driven) -> None:
        if driven.found is not None:
            with suppress(PermissionError):
                driven.found.process.send_signal(signal.SIGKILL)

    def _mark(self, minor: int, driven: _Driven) -> None:
        """Take the minor, as tap-ctl allocate does. Raises OSError: somebody has it, say."""
        if not driven.marked:
            marker = Path(self._directory, wire.marker_name(minor))
            marker.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            driven.marked = True

    def _unmark(self, minor: int, driven: _Driven) -> None:
        if driven.marked:
            driven.marked = False
            with suppress(OSError):
                Path(self._directory, wire.marker_name(minor)).unlink(missing_ok=True)


_MACHINES: Final = (Channel, Vbd, Shutdown)


async def _order(client: Tapdisk, minor: int, message: Message, image: str) -> Replied:
    """Send what *message* is in today's protocol, and wait for the answer: the machine has a timer.

    Raises TapdiskError.
    """
    match message:
        case Message.PID:
            pid = await client.ask(ask_pid(), math.inf)
            await client.ask(ask_attach(minor), math.inf)
            return Replied(reply=Reply.PID, pid=pid)
        case Message.OPEN:
            size = await client.ask(ask_open(minor, image), math.inf)
            return Replied(reply=Reply.OPEN, image=Image(**size._asdict()))
        case Message.PAUSE:
            await client.ask(ask_pause(minor), math.inf)
            return Replied(reply=Reply.PAUSE)
        case Message.RESUME:
            await client.ask(ask_resume(minor), math.inf)
            return Replied(reply=Reply.RESUME)
        case Message.CLOSE:
            await client.ask(ask_close(minor), math.inf)
        case Message.FORCE_SHUTDOWN:  # pragma: no branch - there are no other messages
            await client.ask(ask_force_shutdown(minor), math.inf)
    await client.ask(ask_detach(minor), math.inf)
    return Replied(reply=Reply.CLOSE)
