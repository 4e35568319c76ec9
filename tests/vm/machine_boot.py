"""Boots the machine: a throw-away copy of an image, with one directory of the host's in it.

However the boot ends, its QEMU has ended too: it is killed here, and if whoever runs this is
killed, the kernel kills it.
"""

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

__all__ = ["Ended", "boot"]

MEMORY = "1536M"
KERNEL = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr net.ifnames=0 "
    # On a busy host an emulated timer may be so late that the kernel thinks there is none
    "no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
)


class Ended(Exception):
    """The machine ended without a result; the message says how."""


def _acceleration() -> list[str]:
    """KVM where there is real virtualisation; elsewhere the machine is emulated, ten times slower.

    A /dev/kvm alone isn't enough: without VT-x or AMD-V behind it no stock kernel boots.
    """
    virtual = re.search(r"\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text())
    if virtual and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem"]


def _command(image: Path, share: Path) -> list[str]:
    drive = f"file={image / 'root.ext4'},format=raw,if=none,id=root"
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("qemu-system-x86_64", "-machine", "q35,usb=off", "-nodefaults", "-no-user-config"),
        *_acceleration(),
        *("-m", MEMORY, "-smp", "2", "-display", "none", "-no-reboot"),
        *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img")),
        *("-append", KERNEL),
        # What the machine writes goes to an unnamed file, which ends with QEMU.
        *("-drive", f"{drive},snapshot=on,cache=unsafe,file.locking=off"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-virtfs", f"local,path={share},mount_tag=host,security_model=none,id=host"),
        *("-device", "virtio-rng-pci"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
    ]


def boot(image: Path, share: Path, limit: float) -> int:
    """Run SHARE/run in the machine, show its console, and return the program's exit status.

    Raises Ended where there is none: no boot, a panic, or no end within *limit* seconds.
    """
    if shutil.which("qemu-system-x86_64") is None:
        raise Ended("there is no qemu-system-x86_64: install qemu-system-x86")
    status = share / "status"
    status.unlink(missing_ok=True)
    with subprocess.Popen(
        _command(image, share),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TMPDIR": os.environ.get("TMPDIR", "/var/tmp")},
    ) as qemu:
        assert qemu.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            qemu.kill()

        timer = threading.Timer(limit, expire)
        timer.start()
        try:
            for line in qemu.stdout:
                print(line.decode(errors="backslashreplace").rstrip("\r\n"), flush=True)
        finally:
            timer.cancel()
            qemu.kill()
    if status.exists():
        return int(status.read_text())
    if expired.is_set():
        raise Ended(f"the machine was killed: it had not ended after {limit:.0f} seconds")
    raise Ended("the machine ended by itself and without a result: a panic, or it didn't boot")
