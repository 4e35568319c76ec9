"""What is wrong with what comes from outside: counted always, logged once in a while.

A device that talks nonsense does so a thousand times a second; of each kind of nonsense one line
is enough for a minute, with how many there were since the line before.
"""

import logging
from collections.abc import Callable
from typing import Final

from zeventfs.event import NS

__all__ = ["Complaints"]

_QUIET_NS: Final = 60 * NS


class Complaints:
    """Those of the source *name*; `count` is how many there were."""

    def __init__(self, name: str, log: logging.Logger, clock_ns: Callable[[], int]) -> None:
        self.count = 0
        self._name = name
        self._log = log
        self._clock_ns = clock_ns
        self._said_ns: dict[str, int] = {}
        self._unsaid: dict[str, int] = {}

    def take(self, kind: str, reason: object) -> None:
        """Count one of *kind*, of which there are few; log its *reason* if it is time."""
        self.count += 1
        now = self._clock_ns()
        said = self._said_ns.get(kind)
        if said is not None and 0 <= now - said < _QUIET_NS:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said_ns[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        more = f" (and {unsaid} more such since the last one logged)" if unsaid else ""
        self._log.warning("%s: %s%s", self._name, reason, more)
