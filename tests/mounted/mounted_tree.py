"""One mount of zeventfs for one test: its daemon, its mountpoint, its log, and a sure end.

Whatever a test or the daemon does, after `finish` the machine is as before: a timer kills the
daemon when a test takes too long, so that nothing (the test runner included) can stay blocked in a
call on the tree.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from lines import Event, events, posted
from programs import Argument, Program, run, state_of
from waits import PATIENCE, in_thread, until

__all__ = ["CHECKOUT", "CORPUS", "MOUNT_FAILURE", "Mounted"]

CHECKOUT = Path(__file__).resolve().parents[2]
CORPUS = CHECKOUT / "tests" / "corpus" / "zevents.jsonl"

MOUNT_FAILURE = 32  # mount(8), EXIT STATUS

# Longer than any test needs, shorter than pytest's own limit, which can't end a blocked call.
WATCHDOG = 45.0 * PATIENCE

COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^Traceback|Exception ignored")


class MountInfo(NamedTuple):
    """A line of /proc/self/mountinfo: the device's minor number, type, source and options."""

    minor: int
    kind: str
    source: str
    options: frozenset[str]


class Mounted:
    """A source mounted on a directory that only this test knows."""

    def __init__(
        self, source: str, options: Iterable[str], env: Mapping[str, str] | None = None
    ) -> None:
        self.token = secrets.token_hex(8)
        self.base = Path(tempfile.mkdtemp(prefix=f"zeventfs{self.token}"))
        self.base.chmod(0o755)  # another user must come as far as the mountpoint
        self.point = self.base / "mnt"
        self.point.mkdir()
        (self.base / "run").mkdir(mode=0o700)
        self.source = source
        self.options = list(options)
        self.env = {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "XDG_RUNTIME_DIR": str(self.base / "run"),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            **(env or {}),
        }
        self.log_file = self.base / "daemon.log"
        self.log_file.touch()
        self.process: subprocess.Popen[bytes] | None = None
        self._expected: list[re.Pattern[str]] = []
        self._programs: list[Program] = []
        self._descriptors: list[int] = []
        self._calls: list[Future[bytes]] = []
        self._next_label = 0
        self._stuck = False
        self._watchdog = threading.Timer(WATCHDOG, self._too_long)
        self._watchdog.daemon = True
        self._watchdog.start()

    # Starting and ending the daemon

    def command(self, *arguments: Argument) -> list[str]:
        return [sys.executable, "-m", "zeventfs", *(str(argument) for argument in arguments)]

    def zeventfs(
        self, *arguments: Argument, limit: float = 20.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a `zeventfs` command to its end."""
        return run(self.command(*arguments), limit=limit, env=self.env)

    @property
    def mount_arguments(self) -> list[Argument]:
        options = ["-o", ",".join(self.options)] if self.options else []
        return [self.source, self.point, *options]

    def start(self) -> None:
        """Start the daemon as a child, again if the test ended it, and wait until it answers."""
        if self.process is not None:
            self.process.wait(timeout=10)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("mount", "--foreground", *self.mount_arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.base,
                start_new_session=True,
            )
        until(self._answers, f"{self.source} mounted", limit=20.0)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"no mount, {self.process.returncode}: {self.log}"
        return self.info is not None and bool(self.read("events/status"))

    def umount(self) -> subprocess.CompletedProcess[bytes]:
        return self.zeventfs("umount", self.point)

    def await_end(self, limit: float = 10.0) -> int:
        """Wait for the daemon's own end and return its status."""
        assert self.process is not None
        return self.process.wait(timeout=limit * PATIENCE)

    @property
    def info(self) -> MountInfo | None:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            fields, (kind, source, options) = before.split(), after.split()[:3]
            if fields[4] == str(self.point):
                every = frozenset([*fields[5].split(","), *options.split(",")])
                return MountInfo(int(fields[2].partition(":")[2]), kind, source, every)
        return None

    @property
    def runtime(self) -> list[Path]:
        """This mount's runtime directory: a list of one, or of none when it is gone."""
        parents = [Path("/run/zeventfs"), self.base / "run" / "zeventfs"]
        return [
            entry
            for parent in parents
            if parent.is_dir()
            for entry in parent.iterdir()
            if self.token in entry.name
        ]

    def processes(self) -> list[int]:
        """Return the pids of everything alive that has this mount's path in its command line."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.token.encode() in (directory / "cmdline").read_bytes():
                    found.append(int(directory.name))
        return [pid for pid in found if state_of(pid) not in {"", "Z"}]

    @property
    def connection(self) -> str:
        """The name of this mount's directory in fusectl, which is its device's minor number."""
        assert self.info is not None
        return str(self.info.minor)

    def _too_long(self) -> None:
        """End every call on the tree with an error: the kernel lets go when its daemon is gone."""
        self._stuck = True
        self._kill()

    def _kill(self) -> None:
        if (info := self.info) is not None:  # where a daemon waits for itself SIGKILL isn't enough
            with contextlib.suppress(OSError):
                Path(f"/sys/fs/fuse/connections/{info.minor}/abort").write_text("1")
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def assert_over(self) -> None:
        """Wait until daemon, mount and runtime directory are gone."""
        until(lambda: not self.processes(), "the daemon's end")
        assert self.info is None
        assert self.runtime == []

    # Using the tree

    def path(self, name: str) -> Path:
        return self.point / name

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def open(self, name: str, flags: int = 0) -> int:
        """Open a file of the tree; `finish` closes what the test leaves open."""
        descriptor = os.open(self.path(name), os.O_CLOEXEC | flags)
        self._descriptors.append(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._descriptors.remove(descriptor)
        os.close(descriptor)

    def stream(self) -> int:
        """Open events/stream so that a read at the end answers EAGAIN."""
        return self.open("events/stream", os.O_NONBLOCK)

    @staticmethod
    def drain(descriptor: int, size: int = 1 << 17) -> bytes:
        """Read until EAGAIN, or until end of file."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(descriptor, size):
                found.append(piece)
        return b"".join(found)

    def everything(self) -> list[Event]:
        """Return what a reader that opens the stream now finds."""
        descriptor = self.stream()
        found = events(self.drain(descriptor))
        self.close(descriptor)
        return found

    def blocked_read(self, descriptor: int, size: int = 1 << 17) -> Future[bytes]:
        """Begin a read in a thread; the future has its bytes or its error."""
        call = in_thread(lambda: os.read(descriptor, size))
        self._calls.append(call)
        return call

    def write(self, name: str, content: bytes) -> None:
        """Open, write *content* in one write(2), close."""
        descriptor = os.open(self.path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            assert os.write(descriptor, content) == len(content)
        finally:
            os.close(descriptor)

    def post(self, count: int = 1, *, size: int = 0, into: int | None = None) -> list[str]:
        """Inject *count* events with *size* bytes of ballast; return their labels, in order.

        *into* is a descriptor of simulator/inject that is open already.
        """
        made = [f"n{self._next_label + index}" for index in range(count)]
        self._next_label += count
        step = max(1, 60_000 // (size + 200))  # well below the longest write of one FUSE request
        for at in range(0, count, step):
            content = b"".join(posted(label, size) for label in made[at : at + step])
            if into is None:
                self.write("simulator/inject", content)
            else:
                assert os.write(into, content) == len(content)
        return made

    def program(self, *argv: Argument) -> Program:
        """Start a program that `finish` ends, its output in a file of this test."""
        started = Program(argv, self.base / f"program{len(self._programs)}.out")
        self._programs.append(started)
        return started

    # The log

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def expects(self, pattern: str) -> None:
        """Announce that log lines which match *pattern* belong to what the test does."""
        self._expected.append(re.compile(pattern))

    def _complaints(self) -> list[str]:
        return [
            line
            for line in self.log.splitlines()
            if COMPLAINT.search(line) and not any(known.search(line) for known in self._expected)
        ]

    # The end

    def finish(self) -> None:
        """End everything, and fail if anything had to be forced, was left, or was complained of."""
        problems = [*self._end_in_order(), *self._force()]
        self._watchdog.cancel()
        if self._stuck:
            problems.append(f"the test hung: everything was killed after {WATCHDOG:g} s")
        problems += [f"unexpected in the log: {line[:200]}" for line in self._complaints()]
        print(f"--- log of {self.source} ---\n{self.log}")  # pytest shows it when a test fails
        if self.info is None:  # never remove what is below a mount
            shutil.rmtree(self.base)
        assert not problems, "\n".join(problems)

    def _end_in_order(self) -> list[str]:
        problems = []
        for program in self._programs:
            program.kill()
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self.info is not None:
            ended = self.umount()
            if ended.returncode or ended.stderr:  # it says there what it had to force
                problems.append(f"umount: status {ended.returncode}, {ended.stderr.decode()}")
        with contextlib.suppress(AssertionError):
            until(self._over, "the daemon's end", limit=10.0)
        return problems

    def _over(self) -> bool:
        if self.process is not None:
            self.process.poll()
        return not self.processes()

    def _force(self) -> list[str]:
        problems = []
        if left := self.processes():
            problems.append(f"left running: {left}")
            self._kill()
        while self.info is not None:
            problems.append("left mounted")
            if run(["umount", "-l", self.point]).returncode:
                break
        if self.process is not None:
            self.process.wait(timeout=10)
        for program in self._programs:
            program.process.wait(timeout=10)
        if waiting := [call for call in self._calls if not call.done()]:
            problems.append(f"{len(waiting)} reads still blocked")
        for directory in self.runtime:
            problems.append(f"left behind: {directory}")
            shutil.rmtree(directory)
        return problems
