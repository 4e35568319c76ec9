"""Real programs as readers: started, watched through /proc, and always ended by their own pid."""

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from waits import PATIENCE, until

__all__ = ["Argument", "Program", "Terminal", "run", "state_of", "waits_in_kernel"]

Argument = str | Path


def run(
    argv: Iterable[Argument], *, limit: float = 15.0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and return its output and status; past *limit* seconds, fail."""
    return subprocess.run(
        [str(argument) for argument in argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=limit * PATIENCE,
        check=False,
        env=env,
    )


def state_of(pid: int) -> str:
    """Return the state letter of proc(5) (R, S, D, T, Z), or "" when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0]


def waits_in_kernel(pid: int) -> bool:
    """Tell whether *pid* waits for a FUSE daemon's answer (kernel: fs/fuse/dev.c)."""
    return "request_wait_answer" in _waits_for(pid)


def _waits_for(pid: int) -> str:
    """The kernel function in which *pid* sleeps, see proc(5); "" or "0" if it doesn't."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Program:
    """A program in a session of its own, its output in a file that can be read at any time."""

    def __init__(self, argv: Iterable[Argument], output: Path) -> None:
        command = [str(argument) for argument in argv]
        self.output = output
        self._errors = output.with_suffix(".err")
        with output.open("wb") as out, self._errors.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> bytes:
        return self.output.read_bytes()

    @property
    def err(self) -> str:
        return self._errors.read_text()

    @property
    def whole_lines(self) -> bytes:
        """The output up to the last newline: the program may be writing the rest just now."""
        return self.out[: self.out.rfind(b"\n") + 1]

    def await_blocked(self) -> None:
        """Wait until the program sleeps in a read of the tree."""
        until(lambda: waits_in_kernel(self.pid), f"{self.process.args!r} blocked: {self.err}")

    def await_asleep(self) -> None:
        """Wait until the program sleeps for a time, as tail does between two looks."""
        until(lambda: "nanosleep" in _waits_for(self.pid), f"{self.process.args!r} asleep")

    def await_output(self, *patterns: str, limit: float = 10.0) -> None:
        """Wait until each regular expression is found in the output."""
        for pattern in patterns:
            found = re.compile(pattern.encode())
            until(lambda f=found: f.search(self.out), f"{pattern} in {self.output}", limit=limit)  # type: ignore[misc]  # mypy can't infer a lambda's default

    def end(self, limit: float = 10.0) -> int:
        """Wait for the program's own end and return its status (minus the signal's number)."""
        return self.process.wait(timeout=limit * PATIENCE)

    def kill(self) -> None:
        """End it and what it started; where the kernel holds it for a stuck daemon, give up."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5.0)


class Terminal:
    """A program on a terminal of its own, as a person would run it."""

    def __init__(self, argv: Iterable[Argument], env: Mapping[str, str]) -> None:
        self._master, slave = os.openpty()
        # Wide enough that no line of the tree wraps: what is on the screen can be searched.
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))
        self._seen = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *(str(argument) for argument in argv)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "TERM": "vt100", "LESSHISTFILE": "-"},
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """End it: the program by its pid, its jobs by the hang-up of their terminal."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.hang_up()
        self.process.wait()

    def hang_up(self) -> None:
        """Close the terminal, as a person closes its window."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    @property
    def seen(self) -> str:
        """Everything that was written to the terminal up to now."""
        written = select.poll()
        written.register(self._master, select.POLLIN)
        while written.poll(0):
            try:
                self._seen += os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                break
        return self._seen.decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def await_seen(self, pattern: str, limit: float = 10.0) -> None:
        until(lambda: re.search(pattern, self.seen), f"{pattern} on the terminal", limit=limit)

    def end(self, limit: float = 10.0) -> int:
        """Wait for the program's own end; its last output stays to be seen."""
        until(lambda: self.seen is not None and self.process.poll() is not None, "end", limit=limit)
        return self.process.returncode
