"""The kernel's device-mapper: its uevents by netlink(7), and /dev/mapper/control.

While it is open the control device keeps the module dm_mod from being unloaded. Where that isn't
loaded nothing is opened, which would load it.
"""

import ctypes
import errno
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from zeventfs.dm.ioctl import HEAD_SIZE, Command, ask, read_head, read_version
from zeventfs.errors import Malformed
from zeventfs.sources.dm.boundary import Control, Received, Uevents, Uses

__all__ = ["CONTROL", "KernelDeviceMapper", "answers", "preflight"]

CONTROL: Final = "/dev/mapper/control"
_MODULE: Final = Path("/sys/class/misc/device-mapper")  # whether loaded or built in
_SEQNUM: Final = Path("/sys/kernel/uevent_seqnum")
_MISSING: Final = "there is no device-mapper in this kernel, or not yet: modprobe dm_mod"
_NETLINK_KOBJECT_UEVENT: Final = 15  # linux/netlink.h; Python doesn't name it
_KERNELS_GROUP: Final = 1  # what udevd tells is in 2
_BUFFER: Final = 128 << 20  # of the socket, in bytes: as udevd's own
_DATAGRAM: Final = 1 << 14  # the kernel's are at most UEVENT_BUFFER_SIZE (2,048) and a header
_SO_RCVBUFFORCE: Final = 33
_IN_CLOSE: Final = 0x18  # by a writer or not, sys/inotify.h
_UCRED: Final = struct.Struct("=iII")  # pid, uid, gid
_ANCILLARY: Final = socket.CMSG_SPACE(_UCRED.size)

_libc = ctypes.CDLL(None, use_errno=True)


class KernelDeviceMapper:
    """The running kernel's: its control device *path*, which is there if *module* is."""

    def __init__(self, path: str = CONTROL, module: Path = _MODULE) -> None:
        self._path = path
        self._module = module
        self._asked: set[int] = set()

    def uevents(self) -> Uevents:
        return _Netlink()

    def control(self) -> Control:
        if not self._module.exists():
            raise OSError(errno.ENODEV, _MISSING)
        return _ControlDevice(self._path, self._asked)

    def uses(self) -> Uses:
        return _Closings(Path(self._path).parent)


class _Netlink:
    """A socket of its own in the kernel's group."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
        try:
            self._enlarge()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind((0, _KERNELS_GROUP))
        except OSError:
            self._socket.close()
            raise

    def _enlarge(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # without CAP_NET_ADMIN there is as much as anybody may have
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Received | None:
        try:
            datagram, ancillary, _, (port, _) = self._socket.recvmsg(_DATAGRAM, _ANCILLARY)
        except BlockingIOError:
            return None
        return Received(datagram, _sender(port, ancillary))

    def seqnum(self) -> int | None:
        try:
            return int(_SEQNUM.read_text())
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        self._socket.close()


def _sender(port: int, ancillary: list[tuple[int, int, bytes]]) -> int:
    """Who sent a datagram: 0 for the kernel, whose port is 0 and who is root."""
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid, uid, _ = _UCRED.unpack_from(value)
            return port or pid or (-1 if uid else 0)
    return port or -1  # without credentials, nobody knows


class _ControlDevice:
    """An open control device."""

    def __init__(self, path: str, asked: set[int]) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        # devices that are being asked how they stand, through one that was closed since, too
        self._asked = asked

    def fileno(self) -> int:
        return self._fd

    async def ioctl(self, command: int, buffer: bytearray) -> None:
        """As in `Control`; EBUSY while a device still owes the answer of a cancelled one."""
        if command != Command.TABLE_STATUS:
            _ioctl(self._fd, command, buffer)
            return
        # A pool of thin volumes doesn't say how it stands while it commits, and that waits for its
        # disk. The mount doesn't: so in a thread, and without the GIL, which fcntl.ioctl holds
        # with a buffer of that size.
        dev = read_head(buffer).dev
        if dev in self._asked:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

        def asked() -> None:
            self._asked.add(dev)
            try:
                _ioctl(self._fd, command, buffer)
            finally:
                self._asked.discard(dev)

        await trio.to_thread.run_sync(asked, abandon_on_cancel=True, limiter=_unlimited())

    def close(self) -> None:
        fd, self._fd = self._fd, -1  # somebody may still ask it for a device that takes its time
        os.close(fd)


def _unlimited() -> trio.CapacityLimiter:
    """For one thread: those that hang must not count among the others of the mount."""
    return trio.CapacityLimiter(1)


class _Closings:
    """That something in *directory* was closed, by inotify(7): there is the control device only."""

    def __init__(self, directory: Path) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), _IN_CLOSE))
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        return self._fd

    def take(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._fd, _DATAGRAM):
                pass

    def close(self) -> None:
        os.close(self._fd)


def answers() -> bool:
    """Whether there is a device-mapper here that can be watched. Loads nothing."""
    return preflight() is None


def preflight(path: str = CONTROL, module: Path = _MODULE) -> str | None:
    """What is missing, in a sentence; None if nothing is. Loads nothing."""
    if not module.exists():
        return _MISSING
    buffer = ask(HEAD_SIZE)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _ioctl(fd, Command.VERSION, buffer)
        finally:
            os.close(fd)
        read_version(buffer)
    except FileNotFoundError:
        return f"there is no {path}: dmsetup mknodes makes it"
    except PermissionError:
        return f"{path} is for root alone, with CAP_SYS_ADMIN"
    except OSError as error:
        return f"{path} does not answer: {error.strerror}"
    except Malformed as error:
        return f"{path} is of no use: {error}"
    return None


def _ioctl(fd: int, command: int, buffer: bytearray) -> None:
    """ioctl(2), without the GIL. Raises OSError."""
    pointed = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    _checked(_libc.ioctl(fd, ctypes.c_ulong(command), pointed))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
