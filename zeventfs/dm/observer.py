"""All mapped devices: uevents and facts in, the events to post and what is to be read anew out.

What is read is the truth: after each reading, what was told agrees with it, and every difference
was told once. Uevents only say it sooner, and say that something is to be read.

Whoever drives it gives facts that were read after all uevents given so far (take the uevents that
wait, then read, then give what was read; uevents that come meanwhile wait). It knows no I/O, no
trio task and no clock: *now_ns* is ns since 1970, the time of the events. What is returned is to
be posted at once, before anybody whom a bell wakes can run.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from zeventfs.bell import Bell
from zeventfs.dm.changes import Change
from zeventfs.dm.device import Device
from zeventfs.dm.facts import DeviceFacts
from zeventfs.dm.numbers import Numbers
from zeventfs.dm.paths import gap_pairs
from zeventfs.dm.uevent import Uevent
from zeventfs.event import Event
from zeventfs.journal.journal import GAP
from zeventfs.nvlist import Type

__all__ = ["Devices", "Listed", "Observer", "Wanted"]

_MOST_PAST: Final = 1024


class Listed(NamedTuple):
    """A device as DM_LIST_DEVICES names it."""

    name: str
    dev: str
    """major:minor"""
    event_nr: int | None
    """None where the kernel doesn't tell (before 4.37 of the ioctls): it is then always read."""


class Wanted(NamedTuple):
    """What is to be read anew: all devices, or those of *devs*, major:minor each."""

    everything: bool
    devs: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.everything or bool(self.devs)


class Devices:
    """Those that there are; a `zeventfs.dm.shown.ShownDevices`."""

    def __init__(self) -> None:
        self.changed = Bell()
        self.at: dict[str, Device] = {}
        """By major:minor."""
        self._named: dict[str, Device] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._named))

    def get(self, name: str) -> Device | None:
        """The device called *name* now, None if there is none."""
        return self._named.get(name)

    def put(self, device: Device) -> None:
        """Have it found by its present name alone, and by its number."""
        self.forget(device)
        self.at[device.facts.dev] = device
        self._named[device.name] = device

    def forget(self, device: Device) -> None:
        """Have it found no more."""
        if self.at.get(device.facts.dev) is device:
            del self.at[device.facts.dev]
        for name in device.names:
            # another may have taken its name, or the number and the name, before this is known
            if self._named.get(name) is device:
                del self._named[name]


class _Newcomer(NamedTuple):
    """A device that uevents told of and that was not read yet."""

    diskseq: int | None
    heard: int
    """How many resumes and renames."""


class Observer:
    """The devices, and what is wanted of who reads them. At first, everything is.

    *gaps* counts those told, *dropped* the uevents and path events that they counted.
    """

    def __init__(self) -> None:
        self.devices = Devices()
        self.gaps = 0
        self.dropped = 0
        self._serial = 0
        self._begun = False
        self._everything = True
        self._wanted: dict[str, None] = {}
        self._newcomers: dict[str, _Newcomer] = {}
        self._before: set[str] = set()  # were there when it all began, and have yet to be read
        self._past: dict[str, int] = {}  # DISKSEQ of the device that a number last was of
        self._numbers = Numbers()
        self._overflowed = False
        self._events: list[Event] = []
        self._bells: dict[Bell, None] = {}

    @property
    def wanted(self) -> Wanted:
        """What is to be read now. It stays wanted until `take` or `take_all` has given it."""
        return Wanted(self._everything, () if self._everything else tuple(self._wanted))

    # Uevents

    def take_uevent(self, uevent: Uevent, now_ns: int) -> list[Event]:
        """Take a uevent, of any device, in the order in which they come."""
        self._numbers.take(uevent.seqnum)
        self._everything = self._everything or bool(self._numbers)
        if self._begun and uevent.dev is not None and not uevent.synthetic:
            if uevent.action in {"add", "remove"}:
                self._before.discard(uevent.dev)
            self._hear(uevent.dev, uevent, now_ns)
        return self._done()

    def _hear(self, dev: str, uevent: Uevent, now_ns: int) -> None:
        if uevent.diskseq is not None and uevent.diskseq <= self._past.get(dev, -1):
            return  # of a device that is gone
        known = self.devices.at.get(dev)
        if known is not None and known.awaited:
            known.awaited = uevent.action != "add"
            if known.awaited:
                self._wanted[dev] = None
                return
        device = self._whose(dev, uevent.diskseq, now_ns)
        if uevent.action == "remove":
            self._wanted[dev] = None  # if it is there after all, the reading finds it
            newcomer = self._newcomers.pop(dev, None)
            if device is not None:
                self._remove(device, now_ns, uevent.seqnum)
            else:
                self._bury(dev, newcomer and newcomer.diskseq)
        elif device is None:
            heard = self._newcomers.get(dev, _Newcomer(None, 0)).heard
            self._newcomers[dev] = _Newcomer(uevent.diskseq, heard + _is_ioctl(uevent))
            self._wanted[dev] = None
        elif uevent.action == "change":
            self._wanted[dev] = None
            if uevent.path is not None:
                self._tell(device, device.hear_path(uevent.path, now_ns), now_ns, uevent.seqnum)
            elif _is_ioctl(uevent):
                device.hear_ioctl()

    def _whose(self, dev: str, diskseq: int | None, now_ns: int) -> Device | None:
        """The device that *dev* is the number of; one of another DISKSEQ is not any more."""
        device = self.devices.at.get(dev)
        if device is None or diskseq is None:
            return device
        if device.diskseq not in (None, diskseq):
            self._remove(device, now_ns)
            return None
        device.diskseq = diskseq
        return device

    def overflowed(self) -> None:
        """Take note that the socket lost uevents (ENOBUFS): everything is wanted."""
        self._overflowed = True
        self._everything = True

    # Readings

    def take_all(
        self,
        devices: Iterable[DeviceFacts],
        now_ns: int,
        seqnum: int | None = None,
        unread: Iterable[str] = (),
    ) -> list[Event]:
        """Take the facts of all devices that there are; others are gone.

        The first time it is what everything begins with, and tells no events. Until then uevents
        only have their SEQNUM looked at. Later it tells first, in one gap, which SEQNUMs have not
        come. After an overflow it needs *seqnum* to know them all: what /sys/kernel/uevent_seqnum
        said before the socket was drained for the last time. Without, the gap's `dropped` is 0
        where nothing has come yet that shows how many it were.
        """
        self._settle(now_ns, seqnum)
        found = {facts.dev: facts for facts in devices}
        there = set(unread)
        for device in [*self.devices.at.values()]:
            if device.facts.dev not in found and device.facts.dev not in there:
                self._remove(device, now_ns)
        for facts in found.values():
            self._read(facts, now_ns)
        if not self._begun:
            self._before = there
        self._begun = True
        self._everything = False
        self._wanted = dict.fromkeys(there)
        self._newcomers = {
            dev: newcomer for dev, newcomer in self._newcomers.items() if dev in there
        }
        return self._done()

    def take_list(self, listed: Iterable[Listed], now_ns: int) -> list[Event]:
        """Take a list of all devices, as after the control device polled readable.

        Those whose name or event number is another are wanted; those not in it are gone.
        """
        if not self._begun:
            return []
        there = {each.dev: each for each in listed}
        for dev, device in [*self.devices.at.items()]:
            if dev not in there:
                self._remove(device, now_ns)
        for dev, each in there.items():
            known = self.devices.at.get(dev)
            if known is None or each != Listed(known.name, dev, known.facts.event_nr):
                self._wanted[dev] = None
        return self._done()

    def take(self, dev: str, facts: DeviceFacts | None, now_ns: int) -> list[Event]:
        """Take the facts of the device *dev* (major:minor); None: there is none (ENXIO)."""
        if not self._begun:
            return []
        self._wanted.pop(dev, None)
        device = self.devices.at.get(dev)
        if facts is not None:
            self._read(facts, now_ns)
        elif device is not None:
            self._remove(device, now_ns)
        self._newcomers.pop(dev, None)
        return self._done()

    def _read(self, facts: DeviceFacts, now_ns: int) -> None:
        device = self.devices.at.get(facts.dev)
        if device is not None and not device.is_same(facts):
            self._remove(device, now_ns)
            device = None
        if device is not None:
            self._tell(device, device.take(facts, now_ns), now_ns)
            return
        newcomer = self._newcomers.pop(facts.dev, None)
        diskseq, heard = newcomer or _Newcomer(None, 0)
        # of the time, so that it is no device's that a daemon before this one told of
        self._serial = max(self._serial + 1, now_ns)
        new = self._begun and facts.dev not in self._before
        self._before.discard(facts.dev)
        device = Device(self._serial, facts, now_ns, heard if new else None, diskseq)
        device.awaited = new and newcomer is None
        self.devices.put(device)
        self._bells[self.devices.changed] = None
        if new:
            self._tell(device, device.begin(now_ns), now_ns)

    def _remove(self, device: Device, now_ns: int, seqnum: int | None = None) -> None:
        self._tell(device, device.end(), now_ns, seqnum)
        self.devices.forget(device)
        self._bury(device.facts.dev, device.diskseq)
        self._bells[device.changed] = None
        self._bells[self.devices.changed] = None

    def _bury(self, dev: str, diskseq: int | None) -> None:
        """Have uevents of the device that *dev* was the number of not be taken for another's."""
        if diskseq is not None:
            self._past.pop(dev, None)  # the latest are the last
            self._past[dev] = diskseq
            if len(self._past) > _MOST_PAST:
                del self._past[next(iter(self._past))]

    # Events

    def _settle(self, now_ns: int, seqnum: int | None) -> None:
        """Tell what is missing, after all that waited was taken."""
        if self._overflowed and seqnum is not None:
            self._numbers.expect(seqnum)
        missing, overflowed = self._numbers.settle(), self._overflowed
        self._overflowed = False
        if not self._begun or (missing is None and not overflowed):
            return  # what is missed before it all begins is missed by nobody
        pairs = gap_pairs(0 if missing is None else missing.number, _REASONS[overflowed])
        if missing is not None:
            pairs += (
                ("first_seqnum", Type.UINT64, missing.first),
                ("last_seqnum", Type.UINT64, missing.last),
            )
        self._post(Change(GAP, pairs), now_ns, None)
        for device in self.devices.at.values():
            device.note_loss()

    def _tell(
        self, device: Device, told: Iterable[Change], now_ns: int, seqnum: int | None = None
    ) -> None:
        name, changes = device.name, device.changes
        for change in told:
            facts = device.facts  # which may be the new ones from the first change on
            whose = (
                ("name", Type.STRING, facts.name),
                ("uuid", Type.STRING, facts.uuid),
                ("dev", Type.STRING, facts.dev),
                ("device", Type.UINT64, device.serial),
            )
            self._post(Change(change.name, (*whose, *change.pairs)), now_ns, seqnum)
        if device.name != name:
            self.devices.put(device)
            self._bells[self.devices.changed] = None
        if device.changes != changes:
            self._bells[device.changed] = None

    def _post(self, change: Change, now_ns: int, seqnum: int | None) -> None:
        if change.name == GAP:
            self.gaps += 1
            self.dropped += next(value for key, _, value in change.pairs if key == "dropped")
        self._events.append(Event.make("dm", change.name, now_ns, change.pairs, seqnum))

    def _done(self) -> list[Event]:
        """The events told, and the bells rung, now that everything is as it is."""
        events, self._events = self._events, []
        bells, self._bells = self._bells, {}
        for bell in bells:
            bell.ring()
        return events


_REASONS: Final = {False: "SEQNUM", True: "ENOBUFS"}


def _is_ioctl(uevent: Uevent) -> bool:
    """Whether it says that a device was resumed or renamed."""
    return uevent.action == "change" and uevent.cookie and uevent.path is None
