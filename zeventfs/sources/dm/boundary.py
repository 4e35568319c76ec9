"""Where device-mapper ends and the source begins: three descriptors, the kernel's or simulated.

They tell through epoll that there is something to be taken, and are never asked otherwise.
"""

from typing import NamedTuple, Protocol

__all__ = ["Control", "DeviceMapper", "Received", "Uevents", "Uses"]


class Received(NamedTuple):
    """A datagram of the group of kobject uevents, and who has sent it: 0 is the kernel."""

    datagram: bytes
    sender: int


class Uevents(Protocol):
    """A socket in the group; readable while something waits."""

    def fileno(self) -> int: ...

    def receive(self) -> Received | None:
        """Take the next datagram; None if none waits. OSError ENOBUFS: some were lost here."""
        ...

    def seqnum(self) -> int | None:
        """The SEQNUM of the last one that was sent; None if that can't be known."""
        ...

    def close(self) -> None: ...


class Control(Protocol):
    """/dev/mapper/control, open: readable when an event number has moved since it was armed.

    Armed by DM_DEV_ARM_POLL; before that it tells nothing.
    """

    def fileno(self) -> int: ...

    async def ioctl(self, command: int, buffer: bytearray) -> None:
        """Do as in `zeventfs.dm.ioctl`; the answer is in *buffer*. Raises OSError as the kernel.

        A cancelled one may still go on, in the kernel and in *buffer*.
        """
        ...

    def close(self) -> None: ...


class Uses(Protocol):
    """Readable when somebody else has closed the control device.

    What was done with it then may have told itself in no other way, as suspending a device does.
    """

    def fileno(self) -> int: ...

    def take(self) -> None:
        """Take note of all uses so far: not readable until the next one."""
        ...

    def close(self) -> None: ...


class DeviceMapper(Protocol):
    """What can be opened; each raises OSError where it can't."""

    def uevents(self) -> Uevents: ...

    def control(self) -> Control: ...

    def uses(self) -> Uses: ...
