"""What a machine is told, and what it gives back: plain facts, frozen, with names for all they say.

Told: everything from Launched to PathRecreated. Given back, in the order in which it came about:
what to do (Launch to Probe), and what is to be known (Changed, Fault).
"""

from dataclasses import dataclass
from enum import Enum
from signal import Signals

from zeventfs.vbd.states import Message, Reply, State

__all__ = [
    "Announce",
    "Announcement",
    "Changed",
    "Destroy",
    "Effect",
    "ErrorReplied",
    "Exited",
    "Fact",
    "Fault",
    "Image",
    "Kill",
    "Launch",
    "LaunchFailed",
    "Launched",
    "PathRecreated",
    "PathRemoved",
    "Probe",
    "Released",
    "Replied",
    "RuntimeFailed",
    "Send",
    "SendFailed",
    "StartTimer",
    "StopTimer",
    "TimedOut",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What OPEN's reply says of the image; its size is sectors * sector_size bytes."""

    sectors: int
    sector_size: int
    info: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """The tapdisk runs as *pid*, and its control socket is there."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFailed:
    """No tapdisk came about, and no process is left of the attempt."""

    errno: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """The tapdisk answered; PID's reply has a *pid*, OPEN's an *image*."""

    reply: Reply
    pid: int | None = None
    image: Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReplied:
    """The tapdisk answered ERROR, or something that is no reply at all (then errno is EPROTO)."""

    errno: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFailed:
    """The message could not be sent, or its connection broke before the reply."""

    errno: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFailed:
    """The tapdisk reports an error of its own (RUNTIME_ERROR): noted, and no state changes."""

    errno: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The tapdisk is gone: with a *code*, or by a *signal*.

    Neither is known of a process that is no child of ours.
    """

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                return f"killed by {Signals(self.signal).name}"
            except ValueError:  # a real-time one, mostly
                return f"killed by signal {self.signal}"
        return "exited" if self.code is None else f"exited with status {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The tapdisk has closed this VBD and lives on for others: its exit is not to be awaited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """The time of that *timer* is over; of a timer that was stopped this changes nothing."""

    timer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRemoved:
    """The device's path vanished: by rmdir, or with all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRecreated:
    """The device's path is there again, and the machine of the old one too."""


Fact = (
    Launched
    | LaunchFailed
    | Replied
    | ErrorReplied
    | SendFailed
    | RuntimeFailed
    | Exited
    | Released
    | TimedOut
    | PathRemoved
    | PathRecreated
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Start a tapdisk; Launched or LaunchFailed answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send *message*; Replied, ErrorReplied or SendFailed answers."""

    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """End the tapdisk by SIGKILL: its path is gone, and it neither closed nor exited in time.

    Which process that is the driver knows from its launch; what a tapdisk says of its pid is no
    reason to kill anything.
    """


class Announcement(Enum):
    """What those who asked for a pause wait for; the values are for people."""

    PAUSE_DONE = "pause done"
    PAUSE_OVER = "pause over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Let it be known."""

    what: Announcement


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimer:
    """Tell TimedOut(timer=...) after that many *seconds*. At most one timer runs."""

    timer: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTimer:
    """That *timer* is needed no more."""

    timer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroy:
    """Free all that belongs to the machine: no tapdisk is left, and it hears nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """After Destroy: look whether the path is there, and make a new machine if it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A transition: one state of one machine became another. *pid* is the tapdisk's, if any."""

    old: State
    new: State
    pid: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something went wrong: *errno*, and in which state of the channel (*place*)."""

    errno: int
    place: str
    pid: int | None
    reason: str


Effect = (
    Launch | Send | Kill | Announce | StartTimer | StopTimer | Destroy | Probe | Changed | Fault
)
