"""The simulator's descriptors: readable when the kernel's would be, and answering as they do.

What they tell and answer is made of `Devices`. Some may be told to misbehave.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import trio

from zeventfs.dm.ioctl import (
    Command,
    Flag,
    Head,
    Listed,
    Version,
    answer,
    read_head,
    write_devices,
    write_targets,
)
from zeventfs.dm.ioctl import Target as Line
from zeventfs.simulator.dm.device import MAJOR, Device
from zeventfs.simulator.dm.devices import Devices
from zeventfs.sources.dm.boundary import Control, Received, Uevents, Uses

__all__ = ["SimulatedDeviceMapper"]

_MOST: Final = 100_000  # datagrams that wait; the kernel's limit is one of bytes


class SimulatedDeviceMapper:
    """What can be opened of *devices*.

    While `away`, there is no control device, and an open one answers ENODEV. *version* is the
    interface's; `spoil` may change an answer, or raise OSError. At most `most` uevents wait.
    """

    def __init__(self, devices: Devices) -> None:
        self.devices = devices
        self.away = False
        self.version = Version(4, 47, 0)
        self.spoil: Callable[[Command, bytearray], None] = lambda *_: None
        self.most = _MOST
        self.strays: deque[Received] = deque()
        """Datagrams that come from elsewhere, before all that wait."""

    def uevents(self) -> Uevents:
        return _Uevents(self)

    def control(self) -> Control:
        if self.away:
            raise _error(errno.ENODEV)
        return _Control(self)

    def uses(self) -> Uses:
        return _Uses(self.devices)


class _Descriptor:
    """Readable while it is said to be so; listens to *devices* while it is open."""

    def __init__(self, devices: Devices) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._devices = devices
        devices.listeners.append(self)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        self._devices.listeners.remove(self)
        os.close(self._fd)

    def heard(self, datagram: bytes) -> None:
        """Nothing, but for uevents."""

    def moved(self) -> None:
        """Nothing, but for a control device."""

    def used(self) -> None:
        """Nothing, but for uses."""

    def _readable(self) -> None:
        os.eventfd_write(self._fd, 1)

    def _unreadable(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)


class _Uevents(_Descriptor):
    def __init__(self, mapper: SimulatedDeviceMapper) -> None:
        super().__init__(mapper.devices)
        self._mapper = mapper
        self._waiting: deque[bytes] = deque()
        self._overflowed = False

    def heard(self, datagram: bytes) -> None:
        if len(self._waiting) < self._mapper.most:
            self._waiting.append(datagram)
        else:
            self._overflowed = True
        self._readable()

    def receive(self) -> Received | None:
        if self._overflowed:  # as in the kernel: before what waits
            self._overflowed = False
            raise _error(errno.ENOBUFS)
        if self._mapper.strays:
            return self._mapper.strays.popleft()
        if self._waiting:
            return Received(self._waiting.popleft(), 0)
        self._unreadable()
        return None

    def seqnum(self) -> int | None:
        return self._devices.seqnum


class _Uses(_Descriptor):
    def used(self) -> None:
        self._readable()

    def take(self) -> None:
        self._unreadable()


class _Control(_Descriptor):
    def __init__(self, mapper: SimulatedDeviceMapper) -> None:
        super().__init__(mapper.devices)
        self._mapper = mapper
        self._armed = False

    def moved(self) -> None:
        if self._armed:
            self._readable()

    async def ioctl(self, command: int, buffer: bytearray) -> None:
        await trio.lowlevel.checkpoint()
        if self._mapper.away:
            raise _error(errno.ENODEV)
        self._answer(Command(command), buffer)
        self._mapper.spoil(Command(command), buffer)

    def _answer(self, command: Command, buffer: bytearray) -> None:
        version = self._mapper.version
        asked = read_head(buffer)
        if asked.version[:2] > version[:2] or version.major != asked.version.major:
            buffer[:12] = b"".join(number.to_bytes(4, "little") for number in version)
            raise _error(errno.EINVAL)
        match command:
            case Command.VERSION:
                answer(buffer, Head(version))
            case Command.LIST_DEVICES:
                answer(buffer, Head(version), write_devices(self._listed()))
            case Command.DEV_ARM_POLL if version < (4, 37):
                raise _error(errno.ENOTTY)
            case Command.DEV_ARM_POLL:
                self._armed = True
                self._unreadable()
                answer(buffer, Head(version))
            case Command.DEV_STATUS:
                answer(buffer, self._head(self._device(asked)))
            case Command.TABLE_STATUS:
                device = self._device(asked)
                lines = tuple(_lines(device, table=Flag.STATUS_TABLE in asked.flags))
                answer(buffer, self._head(device, len(lines)), write_targets(lines))

    def _listed(self) -> Iterator[Listed]:
        for device in self._devices:
            event_nr = device.event_nr if self._mapper.version >= (4, 37) else None
            yield Listed(os.makedev(MAJOR, device.minor), device.name, event_nr)

    def _device(self, asked: Head) -> Device:
        device = self._devices.at(os.minor(asked.dev)) if os.major(asked.dev) == MAJOR else None
        if device is None:
            raise _error(errno.ENXIO)
        return device

    def _head(self, device: Device, count: int = 0) -> Head:
        flags = Flag(0)
        for held, flag in (
            (device.read_only, Flag.READONLY),
            (device.suspended, Flag.SUSPEND),
            (device.table is not None, Flag.ACTIVE_PRESENT),
            (device.inactive is not None, Flag.INACTIVE_PRESENT),
        ):
            flags |= flag if held else Flag(0)
        return Head(
            self._mapper.version,
            target_count=count,
            open_count=device.open_count,
            flags=flags,
            event_nr=device.event_nr,
            dev=os.makedev(MAJOR, device.minor),
            name=device.name,
            uuid=device.uuid,
        )


def _lines(device: Device, *, table: bool) -> Iterator[Line]:
    start = 0
    for target in device.table or ():
        params = target.table() if table else target.status()
        yield Line(start, target.length, target.kind, params)
        start += target.length


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
