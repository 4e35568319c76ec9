"""The source of ZFS events: drains a device into the journal, each event decoded once.

What the journal gets is in the queue's order; EIDs that are missing (see eids) become one gap event
in the place where they are missed. That the device was lost, and that it is back, are events too.

The source lives in an event loop's thread, and has none of its own. With `later`, which calls
something after so many seconds, it works in turns, others getting theirs, and waits a moment for
EIDs that come late. Without it, the device must deliver in the stack of whoever posts (a simulator,
a recording): everything is taken at once, and what is missing then has gone.
"""

import errno
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from zeventfs.errors import ZeventfsError
from zeventfs.event import Event
from zeventfs.sources import told
from zeventfs.sources.causes import Causes, Split
from zeventfs.sources.device import SEEK_START, Cursor, Device, DeviceError, Taken
from zeventfs.sources.eids import EidRange, Eids, Missing
from zeventfs.sources.position import Place, Position
from zeventfs.sources.status import SourceState, SourceStatus
from zeventfs.sources.turns import Later, Turns

__all__ = ["ZfsSource"]

log = logging.getLogger(__name__)

_FIRST_SIZE = 1024  # ZEVENT_SIZE, libzfs's own first buffer
_SOME = 100  # steps; an event takes two: it is taken, and it is posted
_ANEW = "module loaded anew"
_BACK = "the device answers"


class _RateLimited(NamedTuple):
    """Ereports that a rate limit kept from being posted, as told with an event of *time_ns*."""

    events: int
    time_ns: int


class ZfsSource:
    """Drains *device* into *post*, which takes an event in and gives its seq.

    *name* is the source's in the tree. `events` counts what was taken, `malformed` what could not
    be decoded; `reason` says why the source has ended or was lost, None while it has not. With a
    *position* it goes on where that says, and keeps it. *monotonic_ns* is the clock of `later`.
    """

    def __init__(  # noqa: PLR0913 - each is a thing of its own
        self,
        name: str,
        device: Device,
        post: Callable[[Event], int | None],
        clock_ns: Callable[[], int] = time.time_ns,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        later: Later | None = None,
        position: Position | None = None,
    ) -> None:
        self.name = name
        self.events = 0
        self.malformed = 0
        self.reason: str | None = None
        self._state = SourceState.READY
        self._gaps = 0
        self._lost = Split()
        self._rate_limited = 0
        self._kernel_dropped = 0
        self._last: Event | None = None
        self._arrival_ns = 0
        self._clock_ns = clock_ns
        self._monotonic_ns = monotonic_ns
        self._later = later
        self._device = device
        self._cursor: Cursor | None = None
        self._post = post
        self._position = position
        self._size = _FIRST_SIZE
        self._life = ""  # that of what is taken now
        self._at = 0  # the EID taken last, 0 before the first
        self._stands = False  # whether the cursor stands where it should, as far as we know
        self._fresh = True  # whether it stands before the oldest event, whichever that is
        self._unmoved = True  # whether it has never stood anywhere else
        self._back: str | None = None  # why a ready event is due
        self._begins = False  # whether the position of a life is due, its first
        self._eids: Eids[Event | _RateLimited] = Eids(self._failed_untold)
        self._causes = Causes(0)
        self._failed, self._len_max = device.losses()  # as they were when a hole opened last
        if position is not None and position.place is not None:
            self._resume(position.place)
        self._at_end = False
        self._turns = Turns(self._step, lambda: self._eids.deadline_ns, later, monotonic_ns)
        # It is sought and read here first: a device may read in a thread once somebody listens.
        self.drain()
        device.subscribe(self.drain)
        self.drain()

    def _resume(self, place: Place) -> None:
        self._life = place.life
        self._at = place.at
        self._eids.begin(place.highest, place.missing, self._monotonic_ns())
        self._causes = Causes(place.failed, place.told)

    def drain(self) -> None:
        """Take what is queued, or a turn's worth of it; whatever is in it, nothing is raised."""
        self._at_end = False
        self._turns.go()

    def _step(self) -> bool:
        """Post what is ready, else take an event, else settle what may be; False: all is done."""
        if self._eids.ready:
            self._post_next()
            return True
        taken = None if self._at_end else self._take()
        if taken is not None:
            self._take_in(taken)
            # Where that is known, the readers needn't wait for a refusal. A device that reads ahead
            # may have another answer than events, and is asked.
            self._at_end = self._later is None and self._waiting() == 0
            return True
        self._say_back(None)
        if self._later is None:
            self._eids.end(self._monotonic_ns())
        else:
            self._eids.at_end(self._monotonic_ns())
        return bool(self._eids.ready)

    # Taking

    def _take(self) -> Taken | None:
        """The next event; None when the queue is empty or the device is gone."""
        try:
            if not self._stands or self._device.life != self._life:
                self._stand()
            while True:
                try:
                    return self._open().next(nonblock=True, size=self._size)
                except DeviceError as error:
                    if error.errno != errno.ENOMEM or error.needed <= self._size:
                        raise
                    self._size = error.needed
        except DeviceError as error:
            if error.errno not in {errno.ENOENT, errno.EINTR}:
                self._lose(error)
            return None

    def _open(self) -> Cursor:
        if self._cursor is None:
            self._cursor = self._device.open()
        return self._cursor

    def _stand(self) -> None:
        """Find where to go on, the device being new to us, or back, or in another life.

        Raises DeviceError when it isn't there.
        """
        cursor = self._open()
        # What is read before the cursor is moved takes the kernel's `dropped` with it.
        if self._state is SourceState.LOST or not self._life or self._device.life != self._life:
            try:
                cursor.next(nonblock=True, size=0)
            except DeviceError as error:
                if error.errno != errno.ENOENT and not (
                    error.errno == errno.ENOMEM and error.needed
                ):
                    raise
        life = self._device.life
        anew = bool(self._life) and life != self._life
        if anew:
            self._give_up()
            self._eids.begin(0)
            self._causes, self._failed = Causes(0), 0
        elif self._eids.highest is None:  # what failed until now is nothing to us
            self._causes = Causes(self._device.losses().failed)
        self._fresh = not (life and life == self._life and self._at and _found(cursor, self._at))
        if self._fresh:
            self._at = 0
        else:
            self._unmoved = False
        self._begins = bool(life) and (anew or not self._life)
        self._life = life
        self._eids.restarts = not life
        self._stands = True
        if self._state is SourceState.LOST or anew:
            self._back = _ANEW if anew else _BACK
        if self._state is SourceState.LOST:
            self._state, self.reason = SourceState.READY, None

    def _take_in(self, taken: Taken) -> None:
        event = self._decode(taken.packed)
        self._say_back(event)
        self._take_hint(taken, self._clock_ns() if event is None else event.time_ns)
        if event is None:  # its EID, if it had one, will be missed by the next, and so be counted
            self._eids.not_decoded()
        elif event.eid is None:
            self._eids.pass_by(event)
        else:
            self._at = event.eid
            had_all = taken.after_end and self._eids.deadline_ns is None
            if self._eids.take(event.eid, event, self._monotonic_ns()):
                self._see_length()
            elif had_all and self._eids.highest == event.eid:
                self._causes.caught_up()

    def _decode(self, packed: bytes) -> Event | None:
        try:
            return Event.from_packed("zfs", packed)
        except ZeventfsError as error:
            log.warning("%s: an event of %d bytes is malformed: %s", self.name, len(packed), error)
        except Exception:  # one event's bug must not end the source, nor who fed the device
            log.exception("%s: an event of %d bytes was lost", self.name, len(packed))
        self.malformed += 1
        return None

    def _take_hint(self, taken: Taken, time_ns: int) -> None:
        """Learn from the device's own count of what was dropped before an event of *time_ns*."""
        dropped = taken.dropped
        self._kernel_dropped += dropped
        self._eids.took(reset=self._fresh or dropped > 0, after_end=taken.after_end)
        # A cursor that has never stood anywhere can't have lost its place, which is 1 of them.
        limited = dropped if self._unmoved else dropped - 1
        self._fresh = self._unmoved = False
        if limited > 0:
            self._eids.pass_by(_RateLimited(limited, time_ns))

    def _see_length(self) -> None:
        """See how many events the queue holds, and how many failed, when a hole has opened.

        Others double that after a loss (zed does), so it is the smaller of two in a row that
        counts.
        """
        self._failed, now = self._device.losses()
        before, self._len_max = self._len_max, now
        self._eids.full = min(before, now) or now

    def _see_failed(self) -> None:
        if self._device.life == self._life:  # another's count says nothing of what is missing here
            self._failed = self._device.losses().failed

    def _failed_untold(self) -> int:
        self._see_failed()
        return self._failed - self._causes.told

    # Posting

    def _post_next(self) -> None:
        """Post what is the first of what is ready; it was taken, whatever becomes of it."""
        item = self._eids.ready.popleft()
        try:
            if isinstance(item, Missing):
                self._post_missing(item)
            elif isinstance(item, _RateLimited):
                self._post(told.rate_limited(item.events, item.time_ns))
                self._rate_limited += item.events
            else:
                self._post_event(item)
        except Exception:  # as in _decode
            self.malformed += 1
            log.exception("%s: an event was not posted: %r", self.name, item)

    def _post_event(self, event: Event) -> None:
        if event.eid is None:
            self._post(event)
        else:
            self._post_known(event, EidRange(event.eid, event.eid), event.eid)
        self._arrival_ns = self._clock_ns()
        self._last = event
        self.events += 1

    def _post_missing(self, missing: Missing[Event | _RateLimited]) -> None:
        self._see_failed()
        split = self._causes.split(missing, self._failed, self._eids.failed_or_late())
        before = missing.before
        time_ns = self._clock_ns() if before is None else before.time_ns
        self._post_known(told.missing(missing.eids, split, time_ns), missing.eids, None)
        self._gaps += 1
        self._lost = Split(*map(sum, zip(self._lost, split, strict=True)))

    def _post_known(self, event: Event, eids: EidRange, at: int | None) -> None:
        """Post what accounts for *eids*, and note that it was."""
        position = self._position if self._life else None
        if position is not None:
            position.posting(eids)
        seq = self._post(event)
        if position is not None and seq is not None:
            position.posted(eids, at, seq, self._causes)

    def _give_up(self) -> None:
        """Wait for nothing that is missing, and post all that was taken."""
        self._eids.release(self._monotonic_ns(), give_up=True)
        self._post_ready()

    def _post_ready(self) -> None:
        while self._eids.ready:
            self._post_next()

    # Lost and back

    def _lose(self, error: DeviceError) -> None:
        self._stands = False
        if self._state is not SourceState.READY:
            return
        self._say_back(None)
        self._give_up()
        self._state = SourceState.LOST
        self.reason = str(error.strerror)
        log.warning("%s: %s", self.name, self.reason)
        self._say(told.lost(self.name, self.reason, self._clock_ns()))

    def _say_back(self, first: Event | None) -> None:
        """Say that the source is ready, if that is due; *first* is the event that it begins with.

        What was known of the place before is known no more, and nothing has been posted since.
        """
        if self._back is not None:
            reason, self._back = self._back, None
            eid = None if first is None else first.eid
            self._say(told.ready(self.name, reason, self._life, eid, self._clock_ns()))
        if self._begins and self._position is not None:  # not before it was said
            failed = self._causes.failed
            self._position.begin(Place(self._life, highest=self._eids.highest, failed=failed))
        self._begins = False

    def _say(self, event: Event) -> None:
        try:
            self._post(event)
        except Exception:  # as in _decode
            log.exception("%s: %s was not posted", self.name, event.name)

    def end(self, reason: str) -> None:
        """Take note that nothing more comes, and why; who knows it posts what is to be said."""
        if self._state is SourceState.READY:
            self._give_up()
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
            dropped=sum(self._lost),
            malformed=self.malformed,
            kernel_dropped=self._kernel_dropped,
            last_eid=None if last is None else last.eid,
            last_time_ns=None if last is None else last.time_ns,
            last_arrival_ns=None if last is None else self._arrival_ns,
            waiting=self._waiting(),
            **self._lost._asdict(),
            late=self._eids.late,
            rate_limited=self._rate_limited,
        )

    def _waiting(self) -> int | None:
        return None if self._cursor is None else self._cursor.waiting()

    def clear(self) -> None:
        """Empty the device's queue, having taken what is in it; a device that is lost has none.

        No more is taken than a queue holds, however far a device has read ahead: the rest is
        cleared with it, as is what comes between the two, and told with the next event.
        """
        self._at_end = False
        self._turns.do(2 * self._device.losses().len_max + _SOME)
        self._eids.move_on(self._monotonic_ns())
        self._post_ready()
        if self._state is SourceState.LOST:
            return
        try:
            self._device.clear()
        except DeviceError as error:  # if it is gone, the next drain finds out
            log.warning("%s: its queue was not emptied: %s", self.name, error.strerror)
        else:
            self._eids.cleared()


def _found(cursor: Cursor, eid: int) -> bool:
    """Whether *cursor* stands on event *eid* now; else it stands before the oldest."""
    try:
        cursor.seek(eid)
    except DeviceError as error:
        if error.errno == errno.ESHUTDOWN and cursor.waiting():
            return False  # lost again, after events that were read ahead and are still to be taken
        if error.errno != errno.ENOENT:
            raise
        cursor.seek(SEEK_START)
        return False
    return True
