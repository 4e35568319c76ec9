"""The states of a VBD and all of their transitions, as tables; whatever moves a state stands here.

Rule 1: what a state may become, and by what, is said by a table of this module. The few bits that
tables can't say are `machine.Machine`'s, and are named below under "What isn't nice".

Rule 2: nothing here knows how a tapdisk is started, spoken to or watched. A simulated one, a real
one and a test are told apart nowhere.

Theory of operation
===================

There are three machines:

1) the channel: what the tapdisk process is doing;
2) the VBD: what the control agent wants;
3) shutdown: what the kernel side wants, {DOWN, UP}. DOWN is the first state, as nobody has said
   start yet.

Each has two kinds of transitions.

a) Triggered by something that was asked for or that happened: CHANNEL_TRIGGERED, VBD_TRIGGERED,
   SHUTDOWN_TRIGGERED. A trigger is seen by every machine whose table has it: a tapdisk killed by a
   signal moves the channel (EXITED) and the VBD (FAULT). A request that no table has for the
   present state is refused; anything else that none has comes too late and changes nothing.

b) Triggered by the joint state. TARGET says from shutdown and VBD where the channel is driven,
   DRIVEN from channel and target what it becomes next (None: it waits for a trigger; itself: it is
   there). Once there, ARRIVED moves the VBD, or FREED ends it all. This is repeated until nothing
   changes, and it doesn't matter how the joint state came about.

To enter a state is to do what belongs to it: LAUNCHED launches a tapdisk, each WAIT state sends the
message that it awaits the reply to (SENT). So a transition is never made without its deed, and
nothing is sent twice.

Two transitions are never enabled at once: a trigger finds at most one in each machine, and all of
those are made before the joint state is looked at. Nothing that is done here calls back; what
follows from a deed comes as the next trigger. So a shutdown that waits for a queue and a queue that
is checked at a shutdown can't recurse.

Where this departs from tapdisk-channel, and why
================================================

- LAUNCHED driven to PAUSED waits, where the original gave up with EINVAL.
- Every state in which something is awaited of a tapdisk has a time limit (machine.LIMITS). It ends
  in BROKEN; where the path is gone already, so that there is nothing left to break, the tapdisk is
  to be killed.
- A request that fails (an error, the wrong reply, a send that fails) makes the VBD BROKEN as ever,
  and puts the channel back where it was before (FAILED). From there it can be driven to CLOSED; the
  original stayed in its WAIT state, and its tapdisk was never closed.
- A channel is freed, or takes a new tapdisk, only once the old one has exited. The original freed
  it when CLOSE was answered, and two tapdisks could live for one VBD.
- RECYCLED never becomes BROKEN, as little as DEAD does: its path's next life is not to blame.
- A tapdisk that exits again and again, cleanly, before it has run is BROKEN and not launched for
  ever.

What isn't nice
===============

CLOSED is one state and means two: the tapdisk has closed the image and is about to exit, or it
lives on for other VBDs and is nothing to us any more (facts.Released). Only the second may be
followed by LAUNCHED or be freed; a machine that still has a pid is in the first. It would take a
state more to say so in the tables, and the states are tapdisk-channel's.

Two requests of SHUTDOWN_TRIGGERED have to wait (Busy) where the channel isn't ready for them:
start, until a shutdown is finished (SHUT), and a forced shutdown once CLOSE is on its way.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

__all__ = [
    "ARRIVED",
    "CHANNEL_TRIGGERED",
    "DRIVEN",
    "FREED",
    "IPC_OPEN",
    "QUIESCED",
    "SENT",
    "SHUT",
    "SHUTDOWN_TRIGGERED",
    "TARGET",
    "VBD_TRIGGERED",
    "Channel",
    "Happening",
    "Message",
    "Reply",
    "Request",
    "Shutdown",
    "State",
    "States",
    "Trigger",
    "Vbd",
]


class Channel(Enum):
    """What the tapdisk process is doing; the values are those of tapdisk-channel.h."""

    DEAD = 1
    LAUNCHED = 2
    WAIT_PID = 3
    PID = 4
    WAIT_OPEN = 5
    RUNNING = 6
    WAIT_PAUSE = 7
    PAUSED = 8
    WAIT_RESUME = 9
    WAIT_CLOSE = 10
    CLOSED = 11


class Vbd(Enum):
    """What the control agent wants; the values are those of tapdisk-channel.h."""

    UNPAUSED = 1
    PAUSING = 2
    PAUSED = 3
    BROKEN = 4
    DEAD = 5
    RECYCLED = 6


class Shutdown(Enum):
    """What the kernel side wants; the values are those of tapdisk-channel.h."""

    UP = 1
    DOWN = 2


State = Channel | Vbd | Shutdown


class States(NamedTuple):
    """The joint state."""

    channel: Channel
    vbd: Vbd
    shutdown: Shutdown


class Request(Enum):
    """What may be asked of a VBD; the values are the words for it."""

    START = "start"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SHUTDOWN = "shutdown"
    SHUTDOWN_FORCE = "shutdown force"
    REMOVE = "remove"


class Message(Enum):
    """What is sent to a tapdisk; the values are the types on the wire."""

    PID = 3
    OPEN = 7
    PAUSE = 9
    RESUME = 11
    CLOSE = 13
    FORCE_SHUTDOWN = 23


class Reply(Enum):
    """What a tapdisk answers; the values are the types on the wire."""

    PID = 4
    OPEN = 8
    PAUSE = 10
    RESUME = 12
    CLOSE = 14  # to FORCE_SHUTDOWN too


class Happening(Enum):
    """What happens without being asked for; the values are the words for it."""

    LAUNCHED = "launched"  # the process runs, and its control socket is there
    LAUNCH_FAILED = "launch failed"
    FAILED = "failed"  # what was sent, or what was answered
    EXITED = "exited"
    FAULT = "fault"  # any of the failures that break a VBD
    PATH_REMOVED = "path removed"
    PATH_RECREATED = "path recreated"


Trigger = Request | Reply | Happening

CHANNEL_TRIGGERED: Mapping[Channel, Mapping[Trigger, Channel]] = {
    Channel.DEAD: {},
    Channel.LAUNCHED: {
        Happening.LAUNCHED: Channel.WAIT_PID,
        Happening.LAUNCH_FAILED: Channel.DEAD,
        Happening.EXITED: Channel.DEAD,
    },
    Channel.WAIT_PID: {
        Reply.PID: Channel.PID,
        Happening.FAILED: Channel.PID,  # it runs, whatever it says it is
        Happening.EXITED: Channel.DEAD,
    },
    Channel.PID: {
        Happening.EXITED: Channel.DEAD,
    },
    Channel.WAIT_OPEN: {
        Reply.OPEN: Channel.RUNNING,
        Happening.FAILED: Channel.PID,
        Happening.EXITED: Channel.DEAD,
    },
    Channel.RUNNING: {
        Happening.EXITED: Channel.DEAD,
    },
    Channel.WAIT_PAUSE: {
        Reply.PAUSE: Channel.PAUSED,
        Happening.FAILED: Channel.RUNNING,
        Happening.EXITED: Channel.DEAD,
    },
    Channel.PAUSED: {
        Happening.EXITED: Channel.DEAD,
    },
    Channel.WAIT_RESUME: {
        Reply.RESUME: Channel.RUNNING,
        Happening.FAILED: Channel.PAUSED,
        Happening.EXITED: Channel.DEAD,
    },
    Channel.WAIT_CLOSE: {  # where that fails there is nothing left to try: its exit is awaited
        Reply.CLOSE: Channel.CLOSED,
        Happening.EXITED: Channel.DEAD,
    },
    Channel.CLOSED: {
        Happening.EXITED: Channel.DEAD,
    },
}

VBD_TRIGGERED: Mapping[Vbd, Mapping[Trigger, Vbd]] = {
    Vbd.UNPAUSED: {
        Request.PAUSE: Vbd.PAUSING,
        Request.UNPAUSE: Vbd.UNPAUSED,
        Request.REMOVE: Vbd.DEAD,
        Happening.FAULT: Vbd.BROKEN,
        Happening.PATH_REMOVED: Vbd.DEAD,
    },
    Vbd.PAUSING: {
        Request.PAUSE: Vbd.PAUSING,
        Request.UNPAUSE: Vbd.UNPAUSED,
        Request.REMOVE: Vbd.DEAD,
        Happening.FAULT: Vbd.BROKEN,
        Happening.PATH_REMOVED: Vbd.DEAD,
    },
    Vbd.PAUSED: {
        Request.PAUSE: Vbd.PAUSED,
        Request.UNPAUSE: Vbd.UNPAUSED,
        Request.REMOVE: Vbd.DEAD,
        Happening.FAULT: Vbd.BROKEN,
        Happening.PATH_REMOVED: Vbd.DEAD,
    },
    Vbd.BROKEN: {
        Request.REMOVE: Vbd.DEAD,
        Happening.PATH_REMOVED: Vbd.DEAD,
    },
    Vbd.DEAD: {
        Happening.PATH_RECREATED: Vbd.RECYCLED,
    },
    Vbd.RECYCLED: {
        Happening.PATH_REMOVED: Vbd.DEAD,
    },
}

SHUTDOWN_TRIGGERED: Mapping[Shutdown, Mapping[Trigger, Shutdown]] = {
    Shutdown.UP: {
        Request.START: Shutdown.UP,
        Request.SHUTDOWN: Shutdown.DOWN,
        Request.SHUTDOWN_FORCE: Shutdown.DOWN,
    },
    Shutdown.DOWN: {
        Request.START: Shutdown.UP,
        Request.SHUTDOWN: Shutdown.DOWN,
        Request.SHUTDOWN_FORCE: Shutdown.DOWN,
    },
}

TARGET: Mapping[Shutdown, Mapping[Vbd, Channel]] = {
    Shutdown.UP: {
        Vbd.UNPAUSED: Channel.RUNNING,
        Vbd.PAUSING: Channel.PAUSED,
        Vbd.PAUSED: Channel.PAUSED,
        Vbd.BROKEN: Channel.CLOSED,
        Vbd.DEAD: Channel.CLOSED,
        Vbd.RECYCLED: Channel.CLOSED,
    },
    Shutdown.DOWN: dict.fromkeys(Vbd, Channel.CLOSED),
}

_WAITS: Mapping[Channel, Channel | None] = dict.fromkeys(
    (Channel.RUNNING, Channel.PAUSED, Channel.CLOSED)
)

# Channel -> target -> what it becomes. None: it waits. Itself: it is there.
DRIVEN: Mapping[Channel, Mapping[Channel, Channel | None]] = {
    Channel.DEAD: {
        Channel.RUNNING: Channel.LAUNCHED,
        Channel.PAUSED: Channel.DEAD,
        Channel.CLOSED: Channel.DEAD,
    },
    Channel.CLOSED: {
        Channel.RUNNING: Channel.LAUNCHED,
        Channel.PAUSED: Channel.CLOSED,
        Channel.CLOSED: Channel.CLOSED,
    },
    Channel.LAUNCHED: _WAITS,
    Channel.WAIT_PID: _WAITS,
    Channel.PID: {
        Channel.RUNNING: Channel.WAIT_OPEN,
        Channel.PAUSED: Channel.PID,
        Channel.CLOSED: Channel.WAIT_CLOSE,
    },
    Channel.WAIT_OPEN: _WAITS,
    Channel.RUNNING: {
        Channel.RUNNING: Channel.RUNNING,
        Channel.PAUSED: Channel.WAIT_PAUSE,
        Channel.CLOSED: Channel.WAIT_CLOSE,
    },
    Channel.WAIT_PAUSE: _WAITS,
    Channel.PAUSED: {
        Channel.RUNNING: Channel.WAIT_RESUME,
        Channel.PAUSED: Channel.PAUSED,
        Channel.CLOSED: Channel.WAIT_CLOSE,
    },
    Channel.WAIT_RESUME: _WAITS,
    Channel.WAIT_CLOSE: _WAITS,
}

# Those that take no request, but for BROKEN's removal.
QUIESCED = frozenset({Vbd.BROKEN, Vbd.DEAD, Vbd.RECYCLED})

# What a VBD becomes once its channel is where it was driven.
ARRIVED: Mapping[Vbd, Vbd] = {Vbd.PAUSING: Vbd.PAUSED}
# Those that are freed then, as soon as no tapdisk is left; a RECYCLED one's path is probed after.
FREED = frozenset({Vbd.DEAD, Vbd.RECYCLED})

# What is sent on entering a state. A forced shutdown sends FORCE_SHUTDOWN for CLOSE.
SENT: Mapping[Channel, Message] = {
    Channel.WAIT_PID: Message.PID,
    Channel.WAIT_OPEN: Message.OPEN,
    Channel.WAIT_PAUSE: Message.PAUSE,
    Channel.WAIT_RESUME: Message.RESUME,
    Channel.WAIT_CLOSE: Message.CLOSE,
}

# Where a tapdisk is spoken to, and where a shutdown is finished, so that start may be asked for.
IPC_OPEN = frozenset(Channel) - {Channel.DEAD, Channel.CLOSED}
SHUT = frozenset(Channel) - IPC_OPEN
