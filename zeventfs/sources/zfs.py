"""The source of ZFS events: drains a device into the journal, each event decoded once.

What arrives while an event is decoded waits in the device's queue and is taken in the same drain.
EIDs that are missing were lost before they came here, and become one gap event of the journal,
in the place where they are missed. The loss of the device is an event too, the source's last.
"""

import errno
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from zeventfs.errors import ZeventfsError
from zeventfs.event import NS, Event
from zeventfs.journal.journal import GAP
from zeventfs.nvlist import Type
from zeventfs.sources.device import Device, DeviceError
from zeventfs.sources.status import SourceState, SourceStatus

__all__ = ["LOST", "EidRange", "Eids", "ZfsSource"]

log = logging.getLogger(__name__)

LOST = "zeventfs.source.lost"
_FIRST_SIZE = 1024  # ZEVENT_SIZE, libzfs's own first buffer
_LONGEST_NS = (2**63 - 1) * NS  # what an event's time can be: seconds are an INT64


class EidRange(NamedTuple):
    """EIDs *first* to *last*, both included."""

    first: int
    last: int


class Eids:
    """Which EIDs have come, and so which have not.

    Two CPUs may queue their events in the opposite order of their EIDs: one that comes late out
    of the last hole is no restart. Any other EID that isn't above all before is one: the module
    was loaded anew and counts from 1, or a recording begins again; what was lost in between can't
    be known from EIDs.
    """

    def __init__(self) -> None:
        self._highest: int | None = None
        self._hole = EidRange(1, 0)

    def missing_before(self, eid: int) -> EidRange | None:
        """Take note of *eid*; the EIDs that are newly known to be missing before it."""
        highest, self._highest = self._highest, eid
        if highest is None or eid == highest + 1:
            return None
        if eid <= highest:
            if self._hole.first <= eid <= self._hole.last:
                self._highest = highest
            else:
                self._hole = EidRange(1, 0)  # of the life before
            return None
        self._hole = EidRange(highest + 1, eid - 1)
        return self._hole


class ZfsSource:
    """Drains *device* into *post*, which takes an event in.

    *name* is the source's in the tree. `events` counts what was taken, `malformed` what could not
    be decoded; `reason` says why the source has ended or was lost, None while it has not.
    """

    def __init__(
        self,
        name: str,
        device: Device,
        post: Callable[[Event], object],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.name = name
        self.events = 0
        self.malformed = 0
        self.reason: str | None = None
        self._state = SourceState.READY
        self._gaps = 0
        self._dropped = 0
        self._kernel_dropped = 0
        self._last: Event | None = None
        self._arrival_ns = 0
        self._clock_ns = clock_ns
        self._device = device
        self._cursor = device.open()
        self._post = post
        self._eids = Eids()
        self._size = _FIRST_SIZE
        device.subscribe(self.drain)
        self.drain()

    def drain(self) -> None:
        """Take everything that is queued; whatever is in it, nothing is raised."""
        while (packed := self._take()) is not None:
            try:
                self._take_in(Event.from_packed("zfs", packed))
            except ZeventfsError as error:
                # Its EID, if it had one, will be missed by the next event and so be counted.
                self.malformed += 1
                log.warning(
                    "%s: an event of %d bytes is malformed: %s", self.name, len(packed), error
                )
            except Exception:  # one event's bug must not end the source, nor who fed the device
                self.malformed += 1
                log.exception("%s: an event of %d bytes was lost", self.name, len(packed))
            if self._cursor.waiting() == 0:  # known, and so the readers needn't wait for a refusal
                return

    def _take_in(self, event: Event) -> None:
        if event.eid is not None:
            missing = self._eids.missing_before(event.eid)
            if missing is not None:
                self._post(_gap(missing, event.time_ns))
                self._gaps += 1
                self._dropped += missing.last - missing.first + 1
        self._post(event)
        self._arrival_ns = self._clock_ns()
        self._last = event
        self.events += 1

    def _take(self) -> bytes | None:
        """The next packed event; None when the queue is empty or the device is gone."""
        while True:
            try:
                taken = self._cursor.next(nonblock=True, size=self._size)
            except DeviceError as error:
                if error.errno == errno.ENOMEM and error.needed > self._size:
                    self._size = error.needed
                    continue
                if error.errno != errno.ENOENT:
                    self._lose(error)
                return None
            self._kernel_dropped += taken.dropped
            return taken.packed

    def _lose(self, error: DeviceError) -> None:
        if self._state is not SourceState.READY:
            return
        self._state = SourceState.LOST
        self.reason = error.strerror
        log.warning("%s: %s", self.name, error.strerror)
        lost = [("source", Type.STRING, self.name), ("reason", Type.STRING, error.strerror)]
        try:
            self._post(Event.make("zeventfs", LOST, self._clock_ns(), lost))
        except Exception:  # as in drain
            log.exception("%s: its loss was not posted", self.name)

    def end(self, reason: str) -> None:
        """Take note that nothing more comes, and why; who knows it posts what is to be said."""
        if self._state is SourceState.READY:
            self._state = SourceState.ENDED
            self.reason = reason

    def status(self) -> SourceStatus:
        """How things stand now."""
        last = self._last
        return SourceStatus(
            state=self._state,
            reason=self.reason or "",
            events=self.events,
            gaps=self._gaps,
            dropped=self._dropped,
            malformed=self.malformed,
            kernel_dropped=self._kernel_dropped,
            last_eid=None if last is None else last.eid,
            last_time_ns=None if last is None else last.time_ns,
            last_arrival_ns=None if last is None else self._arrival_ns,
            waiting=self._cursor.waiting(),
        )

    def clear(self) -> None:
        """Empty the device's queue, having taken what is in it; a device that is lost has none."""
        self.drain()
        if self._state is SourceState.LOST:
            return
        try:
            self._device.clear()
        except DeviceError as error:  # if it is gone, the next drain finds out
            log.warning("%s: its queue was not emptied: %s", self.name, error.strerror)


def _gap(missing: EidRange, time_ns: int) -> Event:
    return Event.make(
        "zfs",
        GAP,
        min(max(time_ns, -_LONGEST_NS), _LONGEST_NS),  # a recording may say anything
        (
            ("dropped", Type.UINT64, missing.last - missing.first + 1),
            ("first_eid", Type.UINT64, missing.first),
            ("last_eid", Type.UINT64, missing.last),
            ("cause", Type.STRING, "source"),
        ),
    )
