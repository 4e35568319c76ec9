"""Boots the machine: a throw-away copy of an image, with one directory of the host's in it.

However the boot ends, its QEMU has ended too: it is killed here, and if whoever runs this is
killed, the kernel kills it.
"""

import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

__all__ = ["Ended", "Stuck", "boot"]

MEMORY = "1536M"
STILL = 180.0  # seconds until a machine that doesn't touch SHARE/alive is taken for dead
KERNEL = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr net.ifnames=0 "
    # On a busy host an emulated timer may be so late that the kernel thinks there is none
    "no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
)


class Ended(Exception):
    """The machine ended without a result; the message says how."""


class Stuck(Ended):
    """The machine was killed since nothing moved in it any more.

    QEMU 7.2 with a thread for each processor sometimes goes on with a breakpoint (int3) in the
    kernel's text that was there for a moment, while the kernel patched itself; it runs into it for
    ever.
    """


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

    The program has to touch SHARE/alive every few seconds. Raises Ended where there is no status: a
    panic, no end within *limit* seconds; and Stuck.
    """
    if shutil.which("qemu-system-x86_64") is None:
        raise Ended("there is no qemu-system-x86_64: install qemu-system-x86")
    status, alive = share / "status", share / "alive"
    status.unlink(missing_ok=True)
    alive.touch()
    with subprocess.Popen(
        _command(image, share),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TMPDIR": os.environ.get("TMPDIR", "/var/tmp")},
    ) as qemu:
        assert qemu.stdout is not None
        over = threading.Event()
        killed: list[Ended] = []
        watch = threading.Thread(target=_watch, args=(qemu, alive, limit, over, killed))
        watch.start()
        try:
            for line in qemu.stdout:
                print(line.decode(errors="backslashreplace").rstrip("\r\n"), flush=True)
        finally:
            over.set()
            watch.join()
            qemu.kill()
    if status.exists():
        return int(status.read_text())
    if killed:
        raise killed[0]
    raise Ended("the machine ended by itself and without a result: a panic, or it didn't boot")


def _watch(
    qemu: "subprocess.Popen[bytes]",
    alive: Path,
    limit: float,
    over: threading.Event,
    killed: list[Ended],
) -> None:
    """Kill *qemu* when its time is up, or nothing moves in it, and say so in *killed*."""
    begun = time.monotonic()
    while not over.wait(5):
        if time.monotonic() - begun > limit:
            killed.append(Ended(f"the machine was killed: no end after {limit:.0f} seconds"))
        elif time.time() - alive.stat().st_mtime > STILL:
            killed.append(Stuck(f"the machine was killed: nothing moved in it for {STILL:.0f} s"))
        else:
            continue
        qemu.kill()
        return
