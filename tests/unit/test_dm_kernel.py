"""What is the kernel's is opened, waited for and closed, even where it has no device-mapper."""

import errno
import os
import socket
import struct
import threading
from pathlib import Path

import pytest
import trio

from zeventfs.dm.ioctl import Command, ask
from zeventfs.sources.dm import kernel
from zeventfs.sources.dm.kernel import KernelDeviceMapper, answers, preflight

KERNEL = 0


def credentials(pid: int, uid: int) -> list[tuple[int, int, bytes]]:
    value = struct.pack("=iII", pid, uid, uid)
    return [
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, b""),
        (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, value),
    ]


@pytest.mark.parametrize(
    ("port", "pid", "uid", "sender"),
    [(0, 0, 0, KERNEL), (4711, 4711, 0, 4711), (0, 4711, 0, 4711), (0, 0, 1000, -1)],
)
def test_only_what_has_the_kernels_credentials_is_the_kernels(
    port: int, pid: int, uid: int, sender: int
) -> None:
    assert kernel._sender(port, credentials(pid, uid)) == sender


def test_a_datagram_without_credentials_is_nobodys() -> None:
    assert kernel._sender(0, []) == -1
    assert kernel._sender(12, []) == 12


def test_without_the_module_nothing_is_opened(tmp_path: Path) -> None:
    control, module = tmp_path / "control", tmp_path / "module"
    control.touch()
    reason = "there is no device-mapper in this kernel, or not yet: modprobe dm_mod"
    assert preflight(str(control), module) == reason
    with pytest.raises(OSError, match=reason) as raised:
        KernelDeviceMapper(str(control), module).control()
    assert raised.value.errno == errno.ENODEV


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    control = tmp_path / "control"
    assert preflight(str(control), tmp_path) == f"there is no {control}: dmsetup mknodes makes it"
    control.touch()
    assert preflight(str(control), tmp_path) == (
        f"{control} does not answer: Inappropriate ioctl for device"
    )
    assert isinstance(answers(), bool)


def test_who_may_not_ask_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    control = tmp_path / "control"
    control.touch()
    monkeypatch.setattr(kernel, "_ioctl", refuse)
    assert preflight(str(control), tmp_path) == f"{control} is for root alone, with CAP_SYS_ADMIN"


def test_a_device_mapper_that_answers_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = tmp_path / "control"
    control.touch()
    minor = 47

    def answer(_fd: int, _command: int, buffer: bytearray) -> None:
        buffer[4] = minor

    monkeypatch.setattr(kernel, "_ioctl", answer)
    assert preflight(str(control), tmp_path) is None
    minor = 36
    reason = "the interface is of version 4.36.0, and tells events from 4.37.0 on"
    assert preflight(str(control), tmp_path) == f"{control} is of no use: {reason}"


def test_uevents_are_received_without_waiting() -> None:
    try:
        uevents = KernelDeviceMapper().uevents()
    except OSError as error:  # pragma: no cover - a container may have no such sockets
        pytest.skip(f"no uevents here: {error}")
    assert uevents.receive() is None or uevents.fileno() >= 0
    seqnum = uevents.seqnum()
    assert seqnum is None or seqnum > 0
    uevents.close()
    assert uevents.fileno() == -1


def test_a_sequence_number_that_cannot_be_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_SEQNUM", Path("/nowhere"))
    uevents = KernelDeviceMapper().uevents()
    assert uevents.seqnum() is None
    uevents.close()


async def test_uses_of_the_control_device_are_told(tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.touch()
    uses = KernelDeviceMapper(str(control)).uses()
    uses.take()
    with trio.move_on_after(0.01) as nothing:
        await trio.lowlevel.wait_readable(uses.fileno())
    assert nothing.cancelled_caught
    for _ in range(3):
        control.open().close()
    await trio.lowlevel.wait_readable(uses.fileno())
    uses.take()
    with trio.move_on_after(0.01) as nothing:
        await trio.lowlevel.wait_readable(uses.fileno())
    assert nothing.cancelled_caught
    uses.close()


def test_where_there_is_no_directory_no_uses_can_be_told() -> None:
    with pytest.raises(FileNotFoundError):
        KernelDeviceMapper("/nowhere/control").uses()


async def test_a_device_that_has_yet_to_answer_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    asked: list[int] = []

    def wait(_fd: int, command: int, _buffer: bytearray) -> None:
        asked.append(command)
        if command == Command.TABLE_STATUS and len(asked) == 1:
            answered.wait(10)

    control_path = tmp_path / "control"
    control_path.touch()
    control = KernelDeviceMapper(str(control_path), tmp_path).control()
    monkeypatch.setattr(kernel, "_ioctl", wait)
    dev = os.makedev(253, 1)
    with trio.move_on_after(0.05) as slow:
        await control.ioctl(Command.TABLE_STATUS, ask(512, dev=dev))
    assert slow.cancelled_caught
    with pytest.raises(OSError, match="busy") as raised:
        await control.ioctl(Command.TABLE_STATUS, ask(512, dev=dev))
    assert raised.value.errno == errno.EBUSY
    await control.ioctl(Command.TABLE_STATUS, ask(512, dev=dev + 1))
    await control.ioctl(Command.DEV_STATUS, ask(512, dev=dev))
    answered.set()
    with trio.fail_after(10):
        while True:
            try:
                await control.ioctl(Command.TABLE_STATUS, ask(512, dev=dev))
                break
            except OSError:
                await trio.sleep(0.01)
    control.close()


async def test_what_the_kernel_refuses_is_raised(tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    control = KernelDeviceMapper(str(tmp_path / "control"), tmp_path).control()
    assert control.fileno() >= 0
    for command in Command:
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            await control.ioctl(command, ask(16384))
    control.close()
