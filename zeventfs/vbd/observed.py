"""What LIST says of a tapdisk that is only watched, as states of the channel model.

Today's tapdisk keeps flag bits for each VBD. They say less than the states do, so each combination
is mapped to the states it is most like; the bits themselves are kept, for those who know them.
"""

from enum import IntFlag
from typing import NamedTuple

from zeventfs.vbd.states import Channel, Shutdown, States, Vbd

__all__ = ["ATTACHED", "OBSERVED", "ORPHAN", "RUNNING", "Flag", "Observed", "observe"]


class Flag(IntFlag):
    """The bits of LIST's state, as `tap-ctl list` prints it (tapdisk-vbd.h)."""

    DEAD = 0x1
    CLOSED = 0x2
    QUIESCE_REQUESTED = 0x4
    QUIESCED = 0x8
    PAUSE_REQUESTED = 0x10
    PAUSED = 0x20
    SHUTDOWN_REQUESTED = 0x40
    LOCKING = 0x80
    LOG_DROPPED = 0x100
    RESUME_FAILED = 0x200


# The first whose bits are all set. A paused tapdisk has closed its image, so PAUSED goes before
# CLOSED. LOCKING and LOG_DROPPED say nothing about states, and a queue is quiesced for many
# reasons.
OBSERVED: tuple[tuple[Flag, States], ...] = (
    (Flag.DEAD, States(Channel.CLOSED, Vbd.DEAD, Shutdown.DOWN)),
    (Flag.RESUME_FAILED, States(Channel.PAUSED, Vbd.BROKEN, Shutdown.UP)),
    (
        Flag.SHUTDOWN_REQUESTED | Flag.PAUSED,
        States(Channel.WAIT_CLOSE, Vbd.PAUSED, Shutdown.DOWN),
    ),
    (
        Flag.SHUTDOWN_REQUESTED | Flag.PAUSE_REQUESTED,
        States(Channel.WAIT_CLOSE, Vbd.PAUSING, Shutdown.DOWN),
    ),
    (
        Flag.SHUTDOWN_REQUESTED | Flag.CLOSED,
        States(Channel.CLOSED, Vbd.UNPAUSED, Shutdown.DOWN),
    ),
    (Flag.SHUTDOWN_REQUESTED, States(Channel.WAIT_CLOSE, Vbd.UNPAUSED, Shutdown.DOWN)),
    (Flag.PAUSED, States(Channel.PAUSED, Vbd.PAUSED, Shutdown.UP)),
    (Flag.PAUSE_REQUESTED, States(Channel.WAIT_PAUSE, Vbd.PAUSING, Shutdown.UP)),
    (Flag.CLOSED, States(Channel.CLOSED, Vbd.UNPAUSED, Shutdown.DOWN)),
)
RUNNING = States(Channel.RUNNING, Vbd.UNPAUSED, Shutdown.UP)
ATTACHED = States(Channel.PID, Vbd.UNPAUSED, Shutdown.UP)
ORPHAN = States(Channel.DEAD, Vbd.BROKEN, Shutdown.UP)


class Observed(NamedTuple):
    """States, and the bits that they were told from; None for a VBD whose process is gone."""

    states: States
    bits: int | None

    def __str__(self) -> str:
        """The bits as `info` shows them: `0x14 QUIESCE_REQUESTED PAUSE_REQUESTED`."""
        if self.bits is None:
            return ""
        known = [str(flag.name) for flag in Flag if flag & self.bits]
        return " ".join([f"{self.bits:#x}", *known])


def observe(bits: int | None, *, args: bool) -> Observed:
    """The states that LIST's *bits* are most like.

    *args*: whether LIST named an image, which tells a running one from one that is only attached.
    Without bits there is only the minor's marker left, and its tapdisk is gone.
    """
    if bits is None:
        return Observed(ORPHAN, None)
    for flags, states in OBSERVED:
        if bits & flags == flags:
            return Observed(states, bits)
    return Observed(RUNNING if args else ATTACHED, bits)
