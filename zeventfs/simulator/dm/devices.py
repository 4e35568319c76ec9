"""All simulated mapped devices, and what can be done with them or happen to them.

Each deed does what the kernel does: it changes how a device stands, tells the uevents of it if
there are any, and moves its event number if that moves. Whoever listens is told these three.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Final, Protocol, TypeVar

from zeventfs.simulator.dm.device import Device
from zeventfs.simulator.dm.targets import Mirror, Multipath, Snapshot, Target, ThinPool

__all__ = ["Devices", "Listener"]

_T = TypeVar("_T", bound=Target)
_MODES: Final = frozenset({"rw", "ro", "out_of_data_space", "Fail"})
_CONTROL: Final = "/devices/virtual/misc/device-mapper"


class Listener(Protocol):
    """Who is told, at once, and must not raise."""

    def heard(self, datagram: bytes) -> None:
        """A uevent was sent to all that listen."""

    def moved(self) -> None:
        """The event number over all devices has moved."""

    def used(self) -> None:
        """Somebody has closed the control device, having done something with it."""


class Devices:
    """None at first. A deed raises OSError as the kernel does: ENXIO, EBUSY, EINVAL.

    *random* draws what the kernel would: cookies, and nothing that matters.
    """

    def __init__(self, random: Random) -> None:
        self.listeners: list[Listener] = []
        self.seqnum = 0
        self.event_nr = 0
        self._random = random
        self._devices: dict[int, Device] = {}
        self._diskseq = 0
        self._together: list[tuple[Device, list[str]]] | None = None

    def __iter__(self) -> Iterator[Device]:
        return iter(sorted(self._devices.values(), key=lambda each: each.name))

    def at(self, minor: int) -> Device | None:
        """The device of that minor."""
        return self._devices.get(minor)

    def device(self, name: str) -> Device:
        """The device called *name*."""
        for device in self._devices.values():
            if device.name == name:
                return device
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    def target(self, name: str, kind: type[_T]) -> _T:
        """The first target of the device's live table, which is one of *kind*."""
        table = self.device(name).table
        target = table[0] if table else None
        _check(isinstance(target, kind))
        assert isinstance(target, kind)
        return target

    # As dmsetup does

    def create(self, name: str, table: Sequence[Target], uuid: str = "") -> Device:
        """A new device with a live table."""
        _check(all(device.name != name for device in self), errno.EBUSY)
        minor = next(each for each in range(len(self._devices) + 1) if each not in self._devices)
        self._diskseq += 1
        device = self._devices[minor] = Device(name, uuid, minor, self._diskseq, table)
        self._tell(device.uevent("add"))
        self._tell(device.uevent("change", self._cookie()))
        self._move()
        self._use()
        return device

    def load(self, name: str, table: Sequence[Target]) -> None:
        """Load a table, which is not live yet."""
        self.device(name).inactive = table
        self._use()

    def suspend(self, name: str) -> None:
        """Of this the kernel tells nothing."""
        self.device(name).suspended = True
        self._use()

    def resume(self, name: str) -> None:
        """Make the loaded table live, if there is one."""
        device = self.device(name)
        device.suspended = False
        resized: tuple[str, ...] = ()
        if device.inactive is not None:
            if _sectors(device.inactive) != _sectors(device.table or ()):
                resized = ("RESIZE=1",)
            device.table, device.inactive = device.inactive, None
            self._move()
        self._tell(device.uevent("change", self._cookie(), *resized))
        self._use()

    def rename(self, name: str, new: str) -> None:
        """Call it otherwise."""
        device = self.device(name)
        _check(all(each.name != new for each in self), errno.EBUSY)
        device.name = new
        self._tell(device.uevent("change", self._cookie()))
        self._happen(device)
        self._use()

    def remove(self, name: str) -> None:
        """Remove it."""
        device = self.device(name)
        del self._devices[device.minor]
        self._tell(device.uevent("remove", self._cookie()))
        self._tell(device.uevent("remove"))
        self._move()
        self._use()

    # Multipath, by the kernel or by a message

    def fail_path(self, name: str, dev: str) -> None:
        """A path fails; one that has failed fails no more."""
        self._path(name, dev, active=False)

    def reinstate_path(self, name: str, dev: str) -> None:
        """A path is active again."""
        self._path(name, dev, active=True)

    def _path(self, name: str, dev: str, *, active: bool) -> None:
        device, target = self.device(name), self.target(name, Multipath)
        path = next((each for each in target.paths() if each.dev == dev), None)
        _check(path is not None)
        assert path is not None
        if path.active is active:
            return
        path.active = active
        path.fails += not active
        word = "REINSTATED" if active else "FAILED"
        uevent = device.path_uevent(f"PATH_{word}", dev, target.valid())
        if self._together is None:
            self._tell(uevent)
            self._happen(device)
        else:
            self._together.append((device, uevent))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What happens to paths is told together, the last first: as when the kernel is busy."""
        self._together = []
        yield
        together, self._together = self._together, None
        for _, uevent in reversed(together):
            self._tell(uevent)
        for device in {device.minor: device for device, _ in together}.values():
            self._happen(device)

    def use_group(self, name: str, number: int) -> None:
        """Have I/O go through group *number*, from 1."""
        target = self.target(name, Multipath)
        _check(0 < number <= len(target.groups))
        target.current = target.following = number
        self._happen(self.device(name))

    def bypass_group(self, name: str, number: int, *, bypassed: bool) -> None:
        """Have group *number*, from 1, be used only if there is no other, or as all others."""
        target = self.target(name, Multipath)
        _check(0 < number <= len(target.groups))
        group = target.groups[number - 1]
        if group.bypassed is not bypassed:
            group.bypassed = bypassed
            self._happen(self.device(name))

    # What happens to the others: moves the event number, and tells no uevent

    def sync_mirror(self, name: str, synced: int) -> None:
        """So many regions are the same on all legs; it is told when all are."""
        target = self.target(name, Mirror)
        target.synced = min(synced, target.regions)
        if target.synced == target.regions:
            target.health = ["A"] * len(target.legs)
            self._happen(self.device(name))

    def fail_leg(self, name: str, leg: int, how: str = "D") -> None:
        """Leg *leg*, from 0, fails: D by a write, S in recovery, R by a read, F by a flush."""
        target = self.target(name, Mirror)
        _check(0 <= leg < len(target.legs) and how in set("DSRF"))
        target.health[leg] = how
        target.synced -= how in "DF"
        self._happen(self.device(name))

    def fail_log(self, name: str, how: str = "D") -> None:
        """The mirror's log fails: D by a write, F by a flush."""
        target = self.target(name, Mirror)
        _check(how in set("DF"))
        target.log_health = how
        self._happen(self.device(name))

    def fill_snapshot(self, name: str, used: int) -> None:
        """So many sectors of its store are used; when there are no more it is no good any more."""
        target = self.target(name, Snapshot)
        target.used = min(used, target.total)
        if used > target.total:
            self.end_snapshot(name, "Invalid")

    def end_snapshot(self, name: str, how: str) -> None:
        """It is Invalid, its merge has failed, or it has overflowed."""
        self.target(name, Snapshot).ended = how
        self._happen(self.device(name))

    def fill_pool(self, name: str, used: int, metadata: int | None = None) -> None:
        """So many blocks of data are used; told are the low-water mark, and that it is full."""
        target = self.target(name, ThinPool)
        free_before = target.data_total - target.data_used
        target.data_used = min(used, target.data_total)
        if metadata is not None:
            target.metadata_used = metadata
        free = target.data_total - target.data_used
        full = not free and target.mode == "rw"
        if full:
            target.mode = "out_of_data_space"
        if full or free <= target.low_water < free_before:
            self._happen(self.device(name))

    def extend_pool(self, name: str, data_total: int) -> None:
        """There is more room; and it may be written to again."""
        target = self.target(name, ThinPool)
        target.data_total, target.mode = data_total, "rw"
        self._happen(self.device(name))

    def set_pool_mode(self, name: str, mode: str) -> None:
        """It is "rw", "ro" or "Fail"."""
        target = self.target(name, ThinPool)
        _check(mode in _MODES)
        target.mode = mode
        self._happen(self.device(name))

    # Of no device

    def elsewhere(self) -> None:
        """Something happens to a device that is not mapped."""
        path = "/devices/virtual/bdi/7:0"
        self._tell([f"change@{path}", "ACTION=change", f"DEVPATH={path}", "SUBSYSTEM=bdi"])

    def lose(self, count: int) -> None:
        """As many uevents are told as nobody gets."""
        self.seqnum += count

    def appear(self) -> None:
        """The control device appears."""
        path = _CONTROL
        pairs = ("SUBSYSTEM=misc", "MAJOR=10", "MINOR=236", "DEVNAME=mapper/control")
        self._tell([f"add@{path}", "ACTION=add", f"DEVPATH={path}", *pairs])

    def _cookie(self) -> str:
        return f"DM_COOKIE={self._random.randint(6_000_000, 6_400_000)}"

    def _happen(self, device: Device) -> None:
        device.event_nr += 1
        self._move()

    def _move(self) -> None:
        self.event_nr += 1
        self._each(lambda listener: listener.moved())

    def _use(self) -> None:
        self._each(lambda listener: listener.used())

    def _tell(self, lines: Sequence[str]) -> None:
        self.seqnum += 1
        text = "".join(f"{line}\0" for line in (*lines, f"SEQNUM={self.seqnum}"))
        datagram = text.encode(errors="surrogateescape")
        self._each(lambda listener: listener.heard(datagram))

    def _each(self, tell: Callable[[Listener], None]) -> None:
        for listener in tuple(self.listeners):
            tell(listener)


def _check(possible: bool, number: int = errno.EINVAL) -> None:  # noqa: FBT001 - it is all it is of
    if not possible:
        raise OSError(number, os.strerror(number))


def _sectors(table: Sequence[Target]) -> int:
    return sum(target.length for target in table)
