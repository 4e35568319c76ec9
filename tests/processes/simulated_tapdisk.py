"""Simulated tapdisks as processes of their own: started, asked and ended, each by its pid."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from zeventfs.simulator.tapdisk import command, tell
from zeventfs.tapdisk import wire
from zeventfs.tapdisk.protocol import Request, T

__all__ = ["Simulated", "Tapdisks"]

LIMIT_S = 20


class Simulated:
    """One process; *line* is what it printed once ready."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, shared: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.directory = directory
        self.path = str(directory / wire.socket_name(self.pid))
        self.counters = shared / wire.shared_memory_name(self.pid)
        self.shared = shared
        assert process.stdout is not None
        self.line = process.stdout.readline().decode()

    def exchange(self, request: bytes) -> bytes:
        """All that is answered to *request*, until the connection ends."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT_S)
            connection.connect(self.path)
            connection.sendall(request)
            reply = b""
            while piece := connection.recv(65536):
                reply += piece
        return reply

    def ask(self, request: Request[T]) -> T:
        """What is answered to *request*."""
        return request.answer(self.exchange(request.message))

    def tell(self, line: str) -> str:
        """Tell it *line*; it must understand."""
        said = tell(str(self.directory), self.pid, line, LIMIT_S)
        assert not said.startswith("error"), said
        return said

    def mark(self, minor: int) -> None:
        """Make the marker of *minor*, as tap-ctl allocate does."""
        (self.directory / wire.marker_name(minor)).touch()

    def wait(self) -> int:
        """Its exit status, or the negative signal that ended it."""
        return self.process.wait(LIMIT_S)

    def end(self) -> None:
        """Kill it, if it still runs, and reap it."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait(LIMIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Tapdisks:
    """As context: simulated tapdisks below *place*, none of which outlives it."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "ctl"
        self.shared = place / "shm"
        self._started: list[Simulated] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self._started:
            each.end()

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Simulated:
        """A new one, which has said that it is ready, or has ended."""
        places = ("--dir", str(self.directory), "--shm", str(self.shared))
        process = subprocess.Popen(
            command("-D", *places, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        simulated = Simulated(process, self.directory, self.shared)
        self._started.append(simulated)
        return simulated
