"""What passes through a VBD: how many requests stand where, and notifications either way.

Where a figure comes from a tapdisk that doesn't tell it, it is None and not zero.
"""

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Kicks", "Queue"]


class Queue(NamedTuple):
    """Requests: three counts of those that are there now, and one of all that are done."""

    new: int | None
    """Not tried yet."""
    pending: int | None
    """Being tried."""
    failed: int | None
    """Tried in vain, and about to be tried again."""
    completed: int | None
    """Answered so far, with data or with an error."""


@dataclass(slots=True)
class Kicks:
    """Notifications so far: those that came in from the guest, and those that went out to it."""

    incoming: int = 0
    outgoing: int = 0
