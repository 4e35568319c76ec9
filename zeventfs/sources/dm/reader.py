"""Asks the control device: which devices there are, and how each of them stands.

An answer is whole or an error: OSError as the kernel's, Malformed for what can't be so. A device
that is gone is none of these.
"""

import errno
import os
from collections.abc import Iterable
from typing import Final

from zeventfs.dm.facts import DeviceFacts
from zeventfs.dm.ioctl import (
    HEAD_SIZE,
    LARGEST,
    Command,
    Flag,
    Head,
    Target,
    ask,
    facts,
    read_devices,
    read_head,
    read_targets,
    read_version,
)
from zeventfs.dm.ioctl import Listed as InList
from zeventfs.dm.observer import Listed
from zeventfs.errors import Malformed
from zeventfs.sources.dm.boundary import Control

__all__ = ["Reader"]

_FIRST: Final = 16384  # bytes of a buffer, as libdevmapper's
_TIMES: Final = 3  # a table may be exchanged between its status and itself
# A pool of thin volumes would otherwise commit before it says how it stands, and wait for its disk.
_STATUS: Final = Flag.NOFLUSH
_TABLE: Final = Flag.NOFLUSH | Flag.STATUS_TABLE | Flag.SECURE_DATA


class Reader:
    """Of an open control device."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._size = _FIRST

    async def arm(self) -> None:
        """Have the device be readable when an event number moves from now on."""
        await self._control.ioctl(Command.DEV_ARM_POLL, ask(HEAD_SIZE))

    async def check(self) -> None:
        """Ask for its version. Raises Malformed where that is not one to go on with."""
        buffer = ask(HEAD_SIZE)
        try:
            await self._control.ioctl(Command.VERSION, buffer)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the answer says which version it would understand
                read_version(buffer)
            raise
        read_version(buffer)

    async def devices(self) -> list[Listed]:
        """All devices, by name."""
        _, buffer = await self._ask(Command.LIST_DEVICES)
        return [_listed(each) for each in read_devices(buffer)]

    async def agrees(self, known: DeviceFacts) -> bool:
        """Whether a device is as *known*, as far as its head tells; not so if it can't be asked."""
        try:
            head, _ = await self._ask(Command.DEV_STATUS, known.dev)
        except (OSError, Malformed):
            return False
        return facts(head, (), ()) == known._replace(targets=())

    async def device(self, dev: str) -> DeviceFacts | None:
        """How the device *dev* stands; None if it is gone."""
        for _ in range(_TIMES - 1):
            try:
                return await self._device(dev)
            except Malformed:
                continue
        return await self._device(dev)

    async def _device(self, dev: str) -> DeviceFacts | None:
        try:
            _, tables = await self._targets(dev, _TABLE)
            head, statuses = await self._targets(dev, _STATUS)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise
        return facts(head, statuses, tables)

    async def _targets(self, dev: str, flags: Flag) -> tuple[Head, tuple[Target, ...]]:
        head, buffer = await self._ask(Command.TABLE_STATUS, dev, flags)
        return head, read_targets(buffer)

    async def _ask(
        self, command: Command, dev: str | None = None, flags: Flag = _STATUS
    ) -> tuple[Head, bytearray]:
        """An answer that had room, and its head."""
        number = 0 if dev is None else os.makedev(*_numbers(dev))
        while True:
            buffer = ask(self._size, dev=number, flags=flags)
            await self._control.ioctl(command, buffer)
            head = read_head(buffer)
            if head.dev != number:
                raise Malformed(f"asked of device {number:#x}, it answers of {head.dev:#x}")
            if not head.full:
                return head, buffer
            if self._size >= LARGEST:
                raise Malformed(f"an answer has more than {LARGEST} bytes")
            self._size *= 4


def _listed(device: InList) -> Listed:
    dev = f"{os.major(device.dev)}:{os.minor(device.dev)}"
    return Listed(device.name, dev, device.event_nr)


def _numbers(dev: str) -> Iterable[int]:
    return map(int, dev.split(":"))
