"""The events that a source itself is lost or ready again: zeventfs's own word, of any source."""

from collections.abc import Iterable
from typing import Any, Final

from zeventfs.event import Event
from zeventfs.nvlist import Type

__all__ = ["LOST", "READY", "standing"]

LOST: Final = "zeventfs.source.lost"
READY: Final = "zeventfs.source.ready"


def standing(
    name: str,
    source: str,
    reason: str,
    time_ns: int,
    pairs: Iterable[tuple[str, Type, Any]] = (),
) -> Event:
    """*source* is lost, or ready again, as class *name* says, for *reason*; *pairs* say more."""
    said = (
        ("source", Type.STRING, source),
        ("reason", Type.STRING, reason.replace("\0", "")),  # which would end it
    )
    return Event.make("zeventfs", name, time_ns, (*said, *pairs))
