"""One VBD: its three states, what it is told, and what is to be done about it, without any I/O.

The transitions are those of the tables in `states`, and every one is given back as a Changed, so
the states can be told from the changes alone. How it is driven is said in the package's docstring.
"""

import errno
from collections.abc import Mapping

from zeventfs.errors import Busy, Down, Invalid
from zeventfs.vbd.facts import (
    Announce,
    Announcement,
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
    PathRecreated,
    PathRemoved,
    Probe,
    Released,
    Replied,
    RuntimeFailed,
    Send,
    SendFailed,
    StartTimer,
    StopTimer,
    TimedOut,
)
from zeventfs.vbd.states import (
    ARRIVED,
    CHANNEL_TRIGGERED,
    DRIVEN,
    FREED,
    IPC_OPEN,
    QUIESCED,
    SENT,
    SHUT,
    SHUTDOWN_TRIGGERED,
    TARGET,
    VBD_TRIGGERED,
    Channel,
    Happening,
    Message,
    Request,
    Shutdown,
    State,
    States,
    Trigger,
    Vbd,
)

__all__ = ["LIMITS", "Machine", "request_named"]

# Seconds that a tapdisk may take. What waits for the guest's requests may wait as long as those are
# tried again (retry.TOTAL_NS, 120 s), and some more.
LIMITS: Mapping[Channel, float] = {
    Channel.LAUNCHED: 10,
    Channel.WAIT_PID: 10,
    Channel.WAIT_OPEN: 60,
    Channel.WAIT_PAUSE: 150,
    Channel.WAIT_RESUME: 60,
    Channel.WAIT_CLOSE: 150,
    Channel.CLOSED: 30,  # to exit
}
_AT_REST = States(Channel.DEAD, Vbd.UNPAUSED, Shutdown.DOWN)
_MOST_VAIN = 3  # launches in a row whose tapdisks exit before they have run
_ANNOUNCED = {
    (Vbd.PAUSING, Vbd.PAUSED): Announcement.PAUSE_DONE,
    (Vbd.PAUSED, Vbd.UNPAUSED): Announcement.PAUSE_OVER,
    (Vbd.PAUSING, Vbd.UNPAUSED): Announcement.PAUSE_OVER,
}


def request_named(words: str) -> Request:
    """The request that *words* ask for, as `control` takes them. Raises Invalid for others."""
    try:
        return Request(words)
    except ValueError:
        known = ", ".join(request.value for request in Request)
        raise Invalid(f"a VBD knows no request {words[:60]!r}: {known}") from None


class Machine:
    """A VBD, at rest until start is asked for, or in the *states* in which its tapdisk was found.

    *limits* are seconds by the channel's states. One whose tapdisk was found as process *pid* is to
    be told to `resume` before all else.
    """

    __slots__ = (
        "_effects",
        "_limits",
        "_timer",
        "_timers",
        "_vain",
        "channel",
        "destroyed",
        "fault",
        "forced",
        "image",
        "pid",
        "shutdown",
        "vbd",
    )

    def __init__(
        self,
        states: States = _AT_REST,
        pid: int | None = None,
        limits: Mapping[Channel, float] = LIMITS,
    ) -> None:
        self.channel, self.vbd, self.shutdown = states
        self.forced = False
        """Whether FORCE_SHUTDOWN is sent for CLOSE."""
        self.pid = pid
        self.image: Image | None = None
        """The image as the present tapdisk has opened it."""
        self.fault: Fault | None = None
        """The latest."""
        self.destroyed = False
        self._limits = limits
        self._timer: int | None = None  # the one that runs
        self._timers = 0  # how many were started
        self._vain = 0
        self._effects: list[Effect] = []

    @property
    def states(self) -> States:
        """The joint state."""
        return States(self.channel, self.vbd, self.shutdown)

    @property
    def has_tapdisk(self) -> bool:
        """Whether there is, or may soon be, a process whose exit is to be told."""
        return self.channel in IPC_OPEN or self.pid is not None

    def resume(self) -> list[Effect]:
        """Take over a tapdisk that was found.

        Whoever awaited a reply of it before won't tell what it was. So the channel is taken to be
        where it was before the message, and driven from there; a tapdisk that is paused, or closed,
        already says so.
        """
        before = CHANNEL_TRIGGERED[self.channel].get(Happening.FAILED)
        if self.channel is Channel.WAIT_CLOSE:
            before = Channel.RUNNING
        if before is not None:
            self._enter(before, "taken over")
        self._set_limit()
        return self._driven("taken over")

    def ask(self, request: Request) -> list[Effect]:
        """Ask for something, and do what follows.

        Raises Down if the VBD is dead or broken, Busy if the request must wait; then nothing has
        changed.
        """
        self._check(request)
        reason = f"{request.value} was asked for"
        if request is Request.START:
            self.forced = False
            self._vain = 0
        elif request is Request.SHUTDOWN_FORCE:
            self.forced = True
        self._trigger(request, reason)
        return self._driven(reason)

    def hear(self, fact: Fact) -> list[Effect]:  # noqa: C901 - a case for each kind of fact
        """Take note of what happened, and do what follows; what comes too late changes nothing."""
        if self.destroyed:
            return []
        match fact:
            case Launched():
                reason = self._launched(fact)
            case Replied():
                reason = self._replied(fact)
            case LaunchFailed():
                reason = self._launch_failed(fact)
            case SendFailed() | ErrorReplied():
                reason = self._failed(fact.errno, fact.reason)
            case RuntimeFailed():
                reason = fact.reason
                self._note(fact.errno, reason)
            case Exited():
                reason = self._exited(fact)
            case Released():
                reason = self._released()
            case TimedOut():
                reason = self._timed_out(fact.timer)
            case PathRemoved():
                reason = "its path was removed"
                self._trigger(Happening.PATH_REMOVED, reason)
            case PathRecreated():  # pragma: no branch - there are no other facts
                reason = "its path was recreated before the old channel was gone"
                self._trigger(Happening.PATH_RECREATED, reason)
        return self._driven(reason)

    # Requests

    def _check(self, request: Request) -> None:
        if self.vbd in QUIESCED and request not in VBD_TRIGGERED[self.vbd]:
            because = f": {self.fault.reason}" if self.fault else ""
            raise Down(f"the VBD is {self.vbd.name}{because}")
        if self.shutdown is Shutdown.UP:
            return
        if request is Request.START and self.channel not in SHUT:
            raise Busy("a shutdown is not finished yet")
        closing = self.channel is Channel.WAIT_CLOSE and not self.forced
        if request is Request.SHUTDOWN_FORCE and closing:
            raise Busy("CLOSE has been sent, and is not answered yet")

    # What happened. Each says why, for the transitions that follow.

    def _launched(self, fact: Launched) -> str:
        reason = f"launched as process {fact.pid}"
        if self.channel is Channel.LAUNCHED:
            self.pid = fact.pid
        self._trigger(Happening.LAUNCHED, reason)
        return reason

    def _launch_failed(self, fact: LaunchFailed) -> str:
        if self.channel is Channel.LAUNCHED:
            self._break(fact.errno, fact.reason)
        self._trigger(Happening.LAUNCH_FAILED, fact.reason)
        return fact.reason

    def _replied(self, fact: Replied) -> str:
        if self.channel not in IPC_OPEN:
            return "answered too late"
        if fact.reply not in CHANNEL_TRIGGERED[self.channel]:
            return self._failed(errno.EPROTO, f"answered {fact.reply.name} in {self.channel.name}")
        reason = f"answered {fact.reply.name}"
        if fact.pid is not None:
            self.pid = fact.pid
        if fact.image is not None:
            self.image = fact.image
        self._trigger(fact.reply, reason)
        return reason

    def _failed(self, number: int, reason: str) -> str:
        if self.channel in IPC_OPEN:
            self._break(number, reason)
            self._trigger(Happening.FAILED, reason)
        return reason

    def _exited(self, fact: Exited) -> str:
        if not self.has_tapdisk:
            return "exited already"
        reason = str(fact)
        if fact == Exited():  # nobody can say how, but those that were to close may be believed
            clean = self.channel in {Channel.WAIT_CLOSE, Channel.CLOSED}
        else:
            clean = fact == Exited(code=0)
        if clean and self._vain >= _MOST_VAIN:
            clean, reason = False, f"{reason}; {self._vain} in a row exited before they had run"
        if not clean:
            self._break(errno.EPIPE, reason)
        self._enter(CHANNEL_TRIGGERED[self.channel][Happening.EXITED], reason)
        self.pid = self.image = None
        return reason

    def _released(self) -> str:
        if self.channel is Channel.CLOSED:
            self.pid = self.image = None
            self._stop_timer()
        return "released by its tapdisk, which lives on"

    def _timed_out(self, timer: int) -> str:
        if timer != self._timer:
            return "timed out too late"
        self._timer = None
        awaited = "exit" if self.channel is Channel.CLOSED else "answer"
        reason = f"did not {awaited} within {self._limits[self.channel]:g} s"
        self._break(errno.ETIMEDOUT, reason)
        if self.vbd in FREED:
            self._effects.append(Kill())
        return reason

    # Transitions

    def _trigger(self, trigger: Trigger, reason: str) -> None:
        if channel := CHANNEL_TRIGGERED[self.channel].get(trigger):
            self._enter(channel, reason)
        if vbd := VBD_TRIGGERED[self.vbd].get(trigger):
            self._become(vbd, reason)
        shutdown = SHUTDOWN_TRIGGERED[self.shutdown].get(trigger, self.shutdown)
        if shutdown is not self.shutdown:
            self._changed(self.shutdown, shutdown, reason)
            self.shutdown = shutdown

    def _driven(self, reason: str) -> list[Effect]:
        """Drive the channel until nothing changes, and give back all that has come about."""
        while not self.destroyed:
            target = TARGET[self.shutdown][self.vbd]
            following = DRIVEN[self.channel][target]
            if following is None:
                break
            if following is not self.channel:
                if self.has_tapdisk and following is Channel.LAUNCHED:
                    break  # its exit is awaited first
                self._enter(following, reason)
            elif self.vbd in ARRIVED:
                self._become(ARRIVED[self.vbd], reason)
            elif self.vbd in FREED and not self.has_tapdisk:
                self._free()
            else:
                break
        effects, self._effects = self._effects, []
        return effects

    def _enter(self, channel: Channel, reason: str) -> None:
        """Make the channel's transition, and do what belongs to the state."""
        self._changed(self.channel, channel, reason)
        self._stop_timer()
        self.channel = channel
        if channel is Channel.LAUNCHED:
            self._vain += 1
            self._effects.append(Launch())
        elif channel in {Channel.RUNNING, Channel.WAIT_CLOSE}:
            self._vain = 0
        if message := SENT.get(channel):
            forced = message is Message.CLOSE and self.forced
            self._effects.append(Send(message=Message.FORCE_SHUTDOWN if forced else message))
        self._set_limit()

    def _become(self, vbd: Vbd, reason: str) -> None:
        if vbd is self.vbd:
            return
        self._changed(self.vbd, vbd, reason)
        if announcement := _ANNOUNCED.get((self.vbd, vbd)):
            self._effects.append(Announce(what=announcement))
        self.vbd = vbd
        if vbd in FREED:
            self._set_limit()  # for a tapdisk that has already used up its time

    def _free(self) -> None:
        self.destroyed = True
        self._effects.append(Destroy())
        if self.vbd is Vbd.RECYCLED:
            self._effects.append(Probe())

    def _changed(self, old: State, new: State, reason: str) -> None:
        self._effects.append(Changed(old=old, new=new, pid=self.pid, reason=reason))

    # Faults and limits

    def _note(self, number: int, reason: str) -> None:
        self.fault = Fault(errno=number, place=self.channel.name, pid=self.pid, reason=reason)
        self._effects.append(self.fault)

    def _break(self, number: int, reason: str) -> None:
        self._note(number, reason)
        self._trigger(Happening.FAULT, reason)

    def _set_limit(self) -> None:
        """Start the time of the present state, if it has one and none runs."""
        seconds = self._limits.get(self.channel)
        if seconds is not None and self._timer is None and self.has_tapdisk:
            self._timers += 1
            self._timer = self._timers
            self._effects.append(StartTimer(timer=self._timer, seconds=seconds))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._effects.append(StopTimer(timer=self._timer))
            self._timer = None
