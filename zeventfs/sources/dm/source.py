"""The source of device-mapper's events: takes uevents, and reads the devices that they are about.

What waits is taken first, then device-mapper is asked, so that whatever is read is newer than all
that was told before. While nothing happens nothing is asked. What the kernel says may be nonsense,
and its control device may not be there: neither ends the mount, and both are told.
"""

import errno
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Final

import trio

from zeventfs.dm import uevent
from zeventfs.dm.facts import DeviceFacts
from zeventfs.dm.observer import Observer
from zeventfs.dm.shown import ShownDevices
from zeventfs.dm.uevent import Uevent
from zeventfs.errors import Malformed
from zeventfs.event import Event
from zeventfs.sources.dm.boundary import DeviceMapper, Received, Uevents
from zeventfs.sources.dm.complaints import Complaints
from zeventfs.sources.dm.opened import Opened, opened
from zeventfs.sources.dm.order import ends_within_run, in_order
from zeventfs.sources.dm.reader import Reader
from zeventfs.sources.standing import LOST, READY, standing
from zeventfs.sources.status import SourceState, SourceStatus

__all__ = ["DmSource"]

log = logging.getLogger(__name__)

_AT_ONCE: Final = 64  # datagrams, or devices, before others get a turn
# Of these before what they are about is read all the same: then a reading is ahead of what waits,
# and what was told by it, and was counted as not told, can't be told apart for ever.
_TURNS: Final = 2048
_MOST_HELD: Final = 8192  # uevents, until their order is known
_FIRST_S: Final = 2.0  # the mount waits so long for all devices to be known
_SLOW_S: Final = 1.0  # for one device's answer; a pool of thin volumes may wait for its disk
_AGAIN_S: Final = 1.0  # until a device is asked again that didn't answer, or nonsense
_RETRY_S: Final = 5.0  # until one looks again for what isn't there, if no uevent tells
_CONTROL: Final = "/devices/virtual/misc/device-mapper"  # whose uevent tells that it is there now
# The kernel can't answer now: no memory, or the question before is still open.
_PASSING: Final = frozenset({errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.EBUSY})


class _Unread(Exception):
    """A device could not be read this time."""


class _Deaf(Exception):
    """The socket of the uevents has failed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.error = error


class DmSource:
    """The mapped devices of *device_mapper*, as the source called *name*; *post* takes events in.

    `devices` is what the tree shows of them.
    """

    def __init__(
        self,
        name: str,
        device_mapper: DeviceMapper,
        post: Callable[[Event], object],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.name = name
        self._device_mapper = device_mapper
        self._post = post
        self._clock_ns = clock_ns
        self._observer = Observer()
        self._complaints = Complaints(name, log, clock_ns)
        self._unread: set[str] = set()
        self._slow: set[str] = set()  # devices that are read while others are followed
        self._heard: set[str] = set()  # of these, those of which uevents have told meanwhile
        self._reader: Reader | None = None
        self._known = trio.Event()  # all devices, or that they can't be known
        self._appeared = False  # the control device, by a uevent
        self._state = SourceState.READY
        self._reason = ""
        self._events = 0
        self._last_ns: int | None = None

    @property
    def devices(self) -> ShownDevices:
        """All devices, as they are known."""
        return self._observer.devices

    def status(self) -> SourceStatus:
        """How the source stands."""
        return SourceStatus(
            state=self._state,
            reason=self._reason,
            events=self._events,
            gaps=self._observer.gaps,
            dropped=self._observer.dropped,
            malformed=self._complaints.count,
            kernel_dropped=0,
            last_eid=None,
            last_time_ns=self._last_ns,
            last_arrival_ns=self._last_ns,
            waiting=None,
        )

    def clear(self) -> None:
        """There is no queue that could be emptied."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; it has started when all devices are known, or won't be soon."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._watch)
            with trio.move_on_after(_FIRST_S):
                await self._known.wait()
            task_status.started()

    # What is there

    async def _watch(self) -> None:
        while True:
            try:
                reason = await self._listen()
            except Exception as error:  # a bug here is not the end of the tree, nor of the source
                log.exception("%s: watching the devices broke off", self.name)
                reason = f"it broke off: {error!r}"
            self._lose(reason)
            await trio.sleep(_RETRY_S)

    async def _listen(self) -> str:
        """Take uevents, and follow the devices when they can be asked; why there are none."""
        try:
            with closing(self._device_mapper.uevents()) as uevents:
                while True:
                    self._appeared = False
                    self._lose(await self._follow(uevents))
                    with trio.move_on_after(_RETRY_S):
                        while not self._appeared:
                            await trio.lowlevel.wait_readable(uevents.fileno())
                            await self._take_waiting(uevents)
        except _Deaf as deaf:
            return f"there are no uevents: {deaf.error.strerror}"
        except OSError as error:
            return f"there are no uevents: {error.strerror}"

    async def _follow(self, uevents: Uevents) -> str:
        """Follow the devices until they can't be asked any more: why."""
        try:
            with opened(self._device_mapper, uevents) as all_open:
                reader = self._reader = Reader(all_open.control)
                await reader.check()
                await reader.arm()
                await self._read_all(reader, uevents)
                self._find()
                while True:
                    await self._take_waiting(uevents)
                    if not await self._read_wanted(reader, uevents):
                        await self._wait(all_open, reader)
        except OSError as error:
            return f"device-mapper can't be asked: {error.strerror}"
        except Malformed as error:
            self._complaints.take("answer", error)
            return f"device-mapper can't be asked: {error}"

    async def _wait(self, all_open: Opened, reader: Reader) -> None:
        """Wait until something tells that it has changed, and ask where it doesn't say what."""
        ready: set[int] = set()
        with trio.move_on_after(_AGAIN_S if self._unread else math.inf):
            ready = await all_open.ready()
        again, self._unread = self._unread, set()
        await self._take_waiting(all_open.uevents)
        if all_open.control.fileno() in ready:
            await reader.arm()
            self._tell(self._observer.take_list(await reader.devices(), self._clock_ns()))
        if all_open.uses is not None and all_open.uses.fileno() in ready:
            all_open.uses.take()
            await self._look(reader)
        await self._read_each(reader, again)

    # Uevents

    async def _take_waiting(self, uevents: Uevents) -> bool:
        """Take what waits, or as much of it as may be taken before one reads: whether it is all."""
        held: list[Uevent] = []
        is_all = False
        for _ in range(_TURNS):
            taken, is_all = self._receive(uevents)
            held += taken
            if is_all or len(held) >= _MOST_HELD or not ends_within_run(held):
                for count, each in enumerate(in_order(held), 1):
                    self._tell(self._observer.take_uevent(each, self._clock_ns()))
                    if count % _AT_ONCE == 0:
                        await trio.lowlevel.cancel_shielded_checkpoint()  # none is lost
                held.clear()
            if is_all:
                break
            if held:
                await trio.lowlevel.cancel_shielded_checkpoint()
            else:
                await trio.lowlevel.checkpoint()
        for each in in_order(held):
            self._tell(self._observer.take_uevent(each, self._clock_ns()))
        return is_all

    def _receive(self, uevents: Uevents) -> tuple[list[Uevent], bool]:
        """What waits, or _AT_ONCE of it; whether it is all."""
        taken: list[Uevent] = []
        for _ in range(_AT_ONCE):
            try:
                received = uevents.receive()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise _Deaf(error) from error
                self._observer.overflowed()
                continue
            if received is None:
                return taken, True
            parsed = self._parse(received)
            if parsed is not None:
                taken.append(parsed)
        return taken, False

    def _parse(self, received: Received) -> Uevent | None:
        """What was received, if it is a uevent of the kernel's."""
        if received.sender:
            reason = f"process {received.sender} has sent what looks like a uevent of the kernel"
            self._complaints.take("sender", reason)
            return None
        try:
            taken = uevent.parse(received.datagram)
        except Malformed as error:
            self._complaints.take("uevent", error)
            return None
        if taken.devpath == _CONTROL and taken.action == "add":
            self._appeared = True
        if taken.dev in self._slow:
            self._heard.add(taken.dev)
        return taken

    # Devices

    async def _read_all(self, reader: Reader, uevents: Uevents) -> None:
        """Read all devices; one that can't be read stays as it was."""
        told = uevents.seqnum()
        if not await self._take_waiting(uevents):
            told = None  # and yet to be taken
        devices = []
        unread = []
        for listed in await reader.devices():
            try:
                facts = await self._read(reader, listed.dev)
            except _Unread:
                unread.append(listed.dev)
            else:
                if facts is not None:
                    devices.append(facts)
        self._tell(self._observer.take_all(devices, self._clock_ns(), told, unread))

    async def _read_wanted(self, reader: Reader, uevents: Uevents) -> bool:
        """Read what is wanted, and can be read; whether there was such."""
        wanted = self._observer.wanted
        if wanted.everything:
            await self._read_all(reader, uevents)
            return True
        return await self._read_each(reader, set(wanted.devs) - self._unread - self._slow)

    async def _read_each(self, reader: Reader, devs: Iterable[str]) -> bool:
        """Read the devices *devs*, major:minor each; whether there were any."""
        some = False
        for dev in sorted(devs):
            some = True
            with suppress(_Unread):
                facts = await self._read(reader, dev)
                self._tell(self._observer.take(dev, facts, self._clock_ns()))
        return some

    async def _read(self, reader: Reader, dev: str) -> DeviceFacts | None:
        """How a device stands; None if it is gone. Raises _Unread for now, and OSError for good."""
        if dev in self._slow:
            raise _Unread
        try:
            with trio.fail_after(_SLOW_S):
                return await reader.device(dev)
        except trio.TooSlowError:
            self._complaints.take("slow", f"device {dev} does not say how it stands")
            self._slow.add(dev)
            self._nursery.start_soon(self._read_slow, reader, dev)
            raise _Unread from None
        except Malformed as error:
            self._complaints.take("answer", f"device {dev}: {error}")
        except OSError as error:
            if error.errno not in _PASSING:
                raise
        self._unread.add(dev)
        raise _Unread

    async def _read_slow(self, reader: Reader, dev: str) -> None:
        """Read a device that takes its time, and again if uevents told of it meanwhile."""
        try:
            while self._reader is reader:  # another one reads all anew
                self._heard.discard(dev)
                try:
                    facts = await reader.device(dev)
                except (OSError, Malformed):  # it may still owe the answer of before
                    await trio.sleep(_AGAIN_S)
                    continue
                if dev not in self._heard:
                    self._tell(self._observer.take(dev, facts, self._clock_ns()))
                    return
        except Exception:  # as in _watch; the next uevent of the device has it read again
            log.exception("%s: reading device %s broke off", self.name, dev)
        finally:
            self._slow.discard(dev)
            self._heard.discard(dev)

    async def _look(self, reader: Reader) -> None:
        """Find the devices that are otherwise than they are known, and read these."""
        changed = []
        for count, name in enumerate(self.devices, 1):
            known = self.devices.get(name)
            if known is not None and not await reader.agrees(known.facts):
                changed.append(known.facts.dev)
            if count % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        await self._read_each(reader, changed)

    # What is told

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            try:
                self._post(event)
            except Exception:  # one event's bug must not end the source
                log.exception("%s: an event %s was lost", self.name, event.name)
                continue
            self._events += 1
            self._last_ns = event.time_ns

    def _lose(self, reason: str) -> None:
        self._known.set()
        self._reason = reason
        if self._state is SourceState.READY:
            self._state = SourceState.LOST
            log.warning("%s: %s", self.name, reason)
            self._turn(LOST, reason)

    def _find(self) -> None:
        self._known.set()
        self._reason = ""
        if self._state is SourceState.LOST:
            self._state = SourceState.READY
            log.info("%s: device-mapper is there", self.name)
            self._turn(READY, "device-mapper is there")

    def _turn(self, name: str, reason: str) -> None:
        """Post that the source itself is lost, or ready again."""
        self._tell([standing(name, self.name, reason, self._clock_ns())])
