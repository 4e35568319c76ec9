"""What the reading thread has read and the event loop has not yet taken, in the order it happened.

It is bounded in bytes: when it is full, the reader waits, and the kernel's own queue overflows and
counts the loss by its EIDs. That the device was lost, and that it is back, stand in their places
among the events, so that nobody takes an event of one life for one of another.
"""

import threading
from collections import deque
from typing import NamedTuple

__all__ = ["Backlog", "Batch", "Lost", "Ready"]


class Batch(NamedTuple):
    """*number* events as Zevents.take gives them, each after its head."""

    events: bytes
    number: int


class Lost(NamedTuple):
    """The device was lost, for *reason*, a sentence."""

    reason: str


class Ready(NamedTuple):
    """The device is back (or there for the first time), in *life* of the module."""

    life: str


class Backlog:
    """Entries from one thread to another, at most *most* bytes of events and one batch more.

    `queued` is how many events were ever put in, but for those that `drop` threw away.
    """

    def __init__(self, most: int) -> None:
        self.queued = 0
        self._most = most
        self._bytes = 0
        self._entries: deque[Batch | Lost | Ready] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._interrupted = False

    def put(self, entry: Batch | Lost | Ready) -> None:
        """Put *entry* last, and wake who waits for one."""
        with self._changed:
            self._entries.append(entry)
            if isinstance(entry, Batch):
                self._bytes += len(entry.events)
                self.queued += entry.number
            self._changed.notify_all()

    def get(self) -> Batch | Lost | Ready | None:
        """Take the first entry; None when there is none."""
        with self._changed:
            if not self._entries:
                return None
            entry = self._entries.popleft()
            if isinstance(entry, Batch):
                self._bytes -= len(entry.events)
                self._changed.notify_all()
            return entry

    def __bool__(self) -> bool:
        """Whether there is an entry."""
        return bool(self._entries)

    def wait_for_entry(self) -> bool:
        """Wait until there is one; False when `interrupt` or `end` came first."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._interrupted or self._ended)
            interrupted, self._interrupted = self._interrupted, False
            return not interrupted and not self._ended

    @property
    def full(self) -> bool:
        return self._bytes >= self._most

    def wait_for_room(self) -> bool:
        """Wait until there is room for a batch; False once this has ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self.full or self._ended)
            return not self._ended

    def wait_for_end(self, seconds: float) -> bool:
        """Wait for the end, but no longer than *seconds*; whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, seconds)

    def interrupt(self) -> None:
        """End one `wait_for_entry`, this or the next."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def end(self) -> None:
        """End all waits, now and from now on."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        return self._ended
