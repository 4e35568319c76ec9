"""What device-mapper tells by, open all at once, so that one task can wait for any of it."""

import logging
import select
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import trio

from zeventfs.sources.dm.boundary import Control, DeviceMapper, Uevents, Uses

__all__ = ["Opened", "opened"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """The control device, with its uses if they can be known, beside the uevents."""

    uevents: Uevents
    control: Control
    uses: Uses | None
    epoll: select.epoll

    async def ready(self) -> set[int]:
        """Wait for any; the descriptors that are readable."""
        await trio.lowlevel.wait_readable(self.epoll.fileno())
        return {descriptor for descriptor, _ in self.epoll.poll(0)}


@contextmanager
def opened(device_mapper: DeviceMapper, uevents: Uevents) -> Iterator[Opened]:
    """Open all that *device_mapper* has. Raises OSError where there is no control device."""
    with ExitStack() as stack:
        control = stack.enter_context(closing(device_mapper.control()))
        uses: Uses | None = None
        try:
            uses = stack.enter_context(closing(device_mapper.uses()))
        except OSError as error:
            log.warning(
                "uses of device-mapper can't be watched, so suspended devices are noticed late: %s",
                error.strerror,
            )
        epoll = stack.enter_context(closing(select.epoll()))
        for each in (uevents, control, uses):
            if each is not None:
                epoll.register(each.fileno(), select.EPOLLIN)
        yield Opened(uevents, control, uses, epoll)
