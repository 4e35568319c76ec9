"""The file systems under test and their floors, each a process that is owned by its pid.

Whatever happens, leaving a server's context ends the process and takes the mount away; one that
hangs is aborted when its time is up, so that nobody stays blocked in a call to it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

__all__ = [
    "TICK_US",
    "Memory",
    "Place",
    "Server",
    "ServerFailed",
    "activity",
    "end_on_sigterm",
    "settle",
]

HERE = Path(__file__).parent
START_SECONDS = 20
END_SECONDS = 10
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """A server did not come up, or did not do what was asked of it."""


class Memory(NamedTuple):
    """What a server holds, in bytes: all of it, and with shared pages counted in proportion."""

    resident: int
    proportional: int


class Server:
    """A process that serves a mount.

    *command* gets the mount point where it says MOUNTPOINT. *seconds* is how long the server may
    be there before it is aborted.
    """

    def __init__(self, name: str, command: list[str], place: Path, seconds: float) -> None:
        self.name = name
        self.mountpoint = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))
        self._command = [part.replace("MOUNTPOINT", str(self.mountpoint)) for part in command]
        self._log = place / f"{self.mountpoint.name}.out"
        self._process: subprocess.Popen[bytes] | None = None
        self._timer = threading.Timer(seconds, self.abort)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=HERE.parent,
                start_new_session=True,
            )
        self._timer.start()
        try:
            self._wait_for_mount(self._process)
        except BaseException:
            self._end(self._process)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._end(self._process)

    def pids(self) -> list[int]:
        """The server's process and its descendants."""
        assert self._process is not None
        found = [self._process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, children.read_text().split())
        return found

    def memory(self) -> Memory:
        """What its processes hold now."""
        total = {"Rss": 0, "Pss": 0}
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                key, value, *_ = line.split()
                if key[:-1] in total:
                    total[key[:-1]] += int(value) * 1024
        return Memory(total["Rss"], total["Pss"])

    def abort(self) -> None:
        """End the mount's connection at once, whoever waits for an answer."""
        if (device := _mounted(self.mountpoint)) is not None:
            _abort_connection(device)
        if self._process is not None and self._process.poll() is None:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _wait_for_mount(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_SECONDS
        while _mounted(self.mountpoint) is None:
            if process.poll() is not None:
                raise ServerFailed(f"{self.name} ended at start: {self.said()}")
            if time.monotonic() > until:
                raise ServerFailed(f"{self.name} did not mount in {START_SECONDS} s: {self.said()}")
            time.sleep(0.02)
        self.mountpoint.stat()  # returns when the server answers

    def said(self) -> str:
        """The last lines that the server printed."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-6:]) or "(it said nothing)"

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._timer.cancel()
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end on SIGTERM", file=sys.stderr)
            self.abort()
            process.wait()
        if _mounted(self.mountpoint) is not None:
            subprocess.run(["umount", "-l", self.mountpoint], check=False)
        self.mountpoint.rmdir()


def activity(pids: list[int]) -> tuple[int, int]:
    """How often the processes' threads were switched out, and their CPU time in clock ticks."""
    switches = ticks = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that ended meanwhile
                lines = (task / "status").read_text().splitlines()
                switches += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return switches, ticks


def settle(pids: list[int], seconds: float = 20) -> None:
    """Return when the processes have done nothing for 60 ms; ServerFailed after *seconds*."""
    until = time.monotonic() + seconds
    before = activity(pids)
    while True:
        time.sleep(0.06)
        if (after := activity(pids)) == before:
            return
        if time.monotonic() > until:
            raise ServerFailed(f"still busy after {seconds} s")
        before = after


def _mounted(mountpoint: Path) -> str | None:
    """The MAJOR:MINOR of what is mounted there; None when nothing is. Never asks the mount."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(mountpoint):
            return fields[2]
    return None


def _abort_connection(device: str) -> None:
    """Abort the FUSE connection through a fusectl of our own; the last resort."""
    control = Path(tempfile.mkdtemp(prefix="fusectl-"))
    mount = ["mount", "-t", "fusectl", "none", str(control)]
    try:
        if subprocess.run(mount, check=False, capture_output=True).returncode == 0:
            with contextlib.suppress(OSError):
                (control / device.partition(":")[2] / "abort").write_text("1")
            subprocess.run(["umount", control], check=False)
    finally:
        control.rmdir()


class Place:
    """A temporary directory with the compiled programs in it, from which servers are started."""

    def __init__(self, *, seconds: float) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="zeventfs-benchmarks-"))
        self._seconds = seconds

    def __enter__(self) -> Self:
        try:
            self.readers = self._compile("readers.c", "-pthread")
            flags = subprocess.run(
                ["pkg-config", "--cflags", "--libs", "fuse3"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            self._libfuse = self._compile("floor_libfuse.c", *flags)
        except BaseException:
            shutil.rmtree(self.path)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)

    def zeventfs(self, source: str = "sim", **options: str) -> Server:
        """The daemon under test on *source*; the simulator posts only what is injected."""
        given = {"sim.rate": "0", "log": str(self.path / "zeventfs.log")} | options
        joined = ",".join(f"{key}={value}" for key, value in given.items())
        command = [sys.executable, "-m", "zeventfs", "mount", "--foreground", source]
        return Server("zeventfs", [*command, "MOUNTPOINT", "-o", joined], self.path, self._seconds)

    def pyfuse3(
        self,
        *,
        size: int = 131072,
        length: int = 512,
        tasks: int = 99,
        children: int = 0,
        directory: str | Path = "",
    ) -> Server:
        """pyfuse3 answering a constant of *size* bytes, and blocking reads with *length* bytes.

        Those are woken by each end of so many *children*, too: tapdisks that are in *directory*.
        """
        command = [sys.executable, "-m", "benchmarks.floor_pyfuse3", "MOUNTPOINT"]
        options: dict[str, int | str | Path] = {"--size": size, "--length": length}
        options |= {"--tasks": tasks, "--children": children, "--directory": directory}
        given = [text for key, value in options.items() for text in (key, str(value))]
        return Server("pyfuse3", [*command, *given], self.path, self._seconds)

    def libfuse(self, *, size: int = 131072) -> Server:
        """C libfuse answering a constant of *size* bytes."""
        command = [str(self._libfuse), "MOUNTPOINT", str(size)]
        return Server("libfuse", command, self.path, self._seconds)

    def _compile(self, source: str, *flags: str) -> Path:
        target = self.path / source.removesuffix(".c")
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", HERE / source, "-o", target, *flags], check=True)
        return target


def end_on_sigterm() -> None:
    """Have SIGTERM unwind the stack, and so end servers and mounts, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
