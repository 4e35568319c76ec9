"""All mapped devices: uevents and facts in, the events to post and what is to be read anew out.

What is read is the truth: after each reading, what was told agrees with it, and every difference
was told once. Uevents only say it sooner, and say that something is to be read.

Whoever drives it gives facts that were read after all uevents given so far (take the uevents that
wait, then read, then give what was read; uevents that come meanwhile wait). It knows no I/O, no
trio task and no clock: *now_ns* is ns since 1970, the time of the events. What is returned is to
be posted at once, before anybody whom a bell wakes can run.
"""

from collections.abc import Iterable
from typing import NamedTuple

from zeventfs.dm.facts import DeviceFacts
from zeventfs.dm.shown import ShownDevices
from zeventfs.dm.uevent import Uevent
from zeventfs.event import Event

__all__ = ["Listed", "Observer", "Wanted"]


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


class Observer:
    """The devices, and what is wanted of who reads them. At first, everything is."""

    devices: ShownDevices
    gaps: int
    """How many gaps were told."""
    dropped: int
    """How many uevents and path events these counted."""

    @property
    def wanted(self) -> Wanted:
        """What is to be read now. It stays wanted until `take` or `take_all` has given it."""
        raise NotImplementedError

    def take_uevent(self, uevent: Uevent, now_ns: int) -> list[Event]:
        """Take a uevent, of any device, in the order in which they come."""
        raise NotImplementedError

    def overflowed(self, now_ns: int) -> list[Event]:
        """Take note that the socket lost uevents (ENOBUFS). How many, the next one's SEQNUM says.

        If there is no next one, the gap is told with the reading of all devices that is wanted
        then.
        """
        raise NotImplementedError

    def take_all(self, devices: Iterable[DeviceFacts], now_ns: int) -> list[Event]:
        """Take the facts of all devices that there are; others are gone.

        The first time it is what everything begins with, and tells no events. Until then uevents
        only have their SEQNUM looked at.
        """
        raise NotImplementedError

    def take_list(self, listed: Iterable[Listed], now_ns: int) -> list[Event]:
        """Take a list of all devices, as after the control device polled readable.

        Those whose name or event number is another are wanted; those not in it are gone.
        """
        raise NotImplementedError

    def take(self, dev: str, facts: DeviceFacts | None, now_ns: int) -> list[Event]:
        """Take the facts of the device *dev* (major:minor); None: there is none (ENXIO)."""
        raise NotImplementedError
