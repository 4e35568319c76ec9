"""The readers' program (readers.c) from the outside: drains, and threads that wait to be woken."""

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from benchmarks.servers import ServerFailed

__all__ = ["Followed", "Following", "Lag", "Waiting", "Woken", "count", "drain"]

SECONDS = 60  # for one answer
EVENT_BYTES = 16384  # a waking reader's buffer
READ = 128 << 10  # a follower's


class Woken(NamedTuple):
    """One wake-up of all readers: the first's and the last's time (CLOCK_REALTIME, ns), and what
    the first thread read."""

    first_ns: int
    last_ns: int
    answer: bytes


def count(program: Path, file: Path, size: int) -> tuple[int, int]:
    """Bytes and lines that a reader that won't block finds in *file*."""
    found, lines = _numbers(program, "count", file, str(size))
    return found, lines


def drain(program: Path, file: Path, size: int, total: int) -> float:
    """Bytes a second at which one reader takes *total* bytes, *size* at a time."""
    got, nanoseconds = _numbers(program, "drain", file, str(size), str(total))
    return got / nanoseconds * 1e9


def _numbers(program: Path, *arguments: str | Path) -> list[int]:
    try:
        done = subprocess.run(
            [program, *arguments], check=False, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ServerFailed(f"{arguments[0]} {arguments[1]}: not done in {SECONDS} s") from None
    if done.returncode:
        raise ServerFailed(f"{arguments[0]} {arguments[1]}: {done.stderr.strip()}")
    return [int(number) for number in done.stdout.split()]


class Followed(NamedTuple):
    """What a follower of one file has had: how many lines, the seqs of the first and the last."""

    lines: int
    first_seq: int
    last_seq: int


class Lag(NamedTuple):
    """From when a line was posted, as it says, until its reader had it, in ms; 0 without lines."""

    middle: float
    p99: float
    most: float


class Following:
    """A thread for each of *files*, which reads whatever comes; what is there already, at once."""

    def __init__(self, program: Path, files: Sequence[Path]) -> None:
        self._number = len(files)
        self._process = subprocess.Popen(
            [program, "follow", str(READ), *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"SETTLE": "1"},
            text=True,
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._end()
            raise ServerFailed("the followers don't begin")
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> tuple[list[Followed], Lag]:
        """End them; what each has had, and the lag of all lines."""
        said, _ = self._process.communicate(timeout=SECONDS)
        lines = [list(map(int, line.split())) for line in said.splitlines()]
        if self._process.returncode or len(lines) != self._number + 1:
            raise ServerFailed(f"the followers ended: {self._process.returncode}")
        return [Followed(*line) for line in lines[:-1]], Lag(*[ns / 1e6 for ns in lines[-1]])

    def _end(self) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=5)


class Waiting:
    """*number* threads, each blocked in a read of *file* (None: of a pipe) on an open of its own.

    With *settled*, what the file has at first is read first. They end after *rounds* wake-ups.
    """

    def __init__(
        self, program: Path, file: Path | None, number: int, rounds: int, *, settled: bool = False
    ) -> None:
        environment = dict(os.environ)
        environment.pop("SETTLE", None)
        if settled:
            environment["SETTLE"] = "1"
        self._process = subprocess.Popen(
            [program, "wake", file or "-", str(EVENT_BYTES), str(number), str(rounds)],
            stdin=subprocess.PIPE if file is None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._buffer = b""

    def __enter__(self) -> Self:
        try:
            self._line()  # "ready"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pipe(self) -> int:
        """The pipe's end to write to."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def woken(self) -> Woken:
        """Wait until every reader has its answer; ServerFailed if any got an error."""
        first, last, failed, length = map(int, self._line().split())
        while len(self._buffer) < length:
            self._more()
        answer, self._buffer = self._buffer[:length], self._buffer[length:]
        if failed:
            raise ServerFailed(f"{failed} blocked reads failed")
        return Woken(first, last, answer)

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _more(self) -> None:
        assert self._process.stdout is not None
        until = time.monotonic() + SECONDS
        if not select.select([self._process.stdout], [], [], until - time.monotonic())[0]:
            raise ServerFailed(f"no reader answered in {SECONDS} s")
        got = os.read(self._process.stdout.fileno(), 65536)
        if not got:
            raise ServerFailed("the readers ended early")
        self._buffer += got

    def _end(self) -> None:
        """Kill what still reads. A reader that its server holds ends when the server does."""
        assert self._process.stdout is not None
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(0.5)  # the last round's threads are just ending
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        self._process.stdout.close()
