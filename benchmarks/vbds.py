"""VBDs on processes: what polling them costs, and how soon their readers know what became of one.

The processes are the simulator's tapdisks, on both sides: how long one takes to die, or to pause,
is in ours and in the floors alike.
"""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from benchmarks import readers
from benchmarks.bench import PYFUSE3, Bench, event_time
from benchmarks.report import Must, Result, percentile
from benchmarks.servers import TICK_US, Server, ServerFailed, activity
from zeventfs.tapdisk import protocol, wire

__all__ = ["vbds"]

VBDS = Path("vbd")
ACTS = Path("simulator/vbd")
ROUNDS = 4
BATCH = 20  # VBDs that are started at a time, well within the time limit of a start
BATCH_SECONDS = 30
IDLE_SECONDS = 10
REST = 0.02  # s, in which the reader blocks again, and the server goes to sleep
LINES = 16  # of one change at most: as many reads, should each line come alone
IDLE_MUST = Must(5)
WAKE_MUST = Must(1.5, floor=PYFUSE3)
IDLE = "VBDs are polled and nothing happens, CPU"
ZEVENTFS = "zeventfs"
ALONE = "PAUSE and its answer alone"
BOTH = "the same, and pyfuse3 is written to and has woken one"

T = TypeVar("T")


class Reached(NamedTuple):
    """A change and its reader: us until it has it, from the cause, and from when it was posted."""

    from_cause: float
    from_post: float


class Reader(NamedTuple):
    """Somebody blocked, and the time (ns since 1970) that a line says it was posted at."""

    waiting: readers.Waiting
    posted_ns: Callable[[bytes], int]

    def reached(self, cause: Callable[[], object], pattern: bytes = b"") -> Reached:
        """Until it has the first line in which *pattern* (of re) is found, after *cause*."""
        time.sleep(REST)
        begun = time.time_ns()
        cause()
        while True:
            got = self.waiting.woken()
            for line in got.answer.splitlines():
                if re.search(pattern, line):
                    since = got.last_ns - self.posted_ns(line)
                    return Reached((got.last_ns - begun) / 1000, since / 1000)


class Sides(NamedTuple):
    """What is compared: the daemon and its reader, if there is one, and the floor and its."""

    ours: Server | None
    here: Reader | None
    floor: Server
    there: Reader


def vbds(bench: Bench) -> Iterator[Result]:
    """500 VBDs on 500 processes: the cost of polling them, kills and pauses until readers know."""
    number = 100 if bench.quick else 500
    times = number // 5
    program = bench.place.readers
    directory = bench.place.path / "tapdisks"
    directory.mkdir()
    with ExitStack() as stack:
        ours, why = stack.enter_context(bench.ours())
        floor = stack.enter_context(bench.place.pyfuse3(children=times * 2, directory=directory))
        children = [int(pid) for pid in (floor.mountpoint / "children").read_text().split()]
        for minor, pid in enumerate(children):
            _open(directory, pid, minor)
        here = None
        if ours is None:
            yield Result(IDLE, "% of a core", [], must=IDLE_MUST, why=why)
        else:
            began = time.monotonic()
            _start(ours, number)
            yield _idle(ours, number, time.monotonic() - began)
            stream = ours.mountpoint / VBDS / "stream"
            waiting = readers.Waiting(program, stream, 1, LINES * 2 * times, settled=True)
            here = Reader(stack.enter_context(waiting), event_time)
        waiting = readers.Waiting(program, floor.mountpoint / "wait", 1, 2 * times)
        there = Reader(stack.enter_context(waiting), int)
        sides = Sides(ours, here, floor, there)
        yield from _kills(sides, children[:times])
        yield from _pauses(sides, directory, dict(enumerate(children[times:], times)))


def _start(ours: Server, number: int) -> None:
    """Add VBDs from 0 on, and return when all of them run."""
    for first in range(0, number, BATCH):
        batch = range(first, min(first + BATCH, number))
        (ours.mountpoint / ACTS).write_text("".join(f"add {vbd}\n" for vbd in batch))
        until = time.monotonic() + BATCH_SECONDS
        for vbd in batch:
            while _state(ours, vbd)["CHANNEL"] != "RUNNING":
                if time.monotonic() > until:
                    raise ServerFailed(f"VBD {vbd} does not run: {ours.said()}")
                time.sleep(0.02)


def _state(ours: Server, vbd: int) -> dict[str, str]:
    lines = (ours.mountpoint / VBDS / str(vbd) / "state").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def _idle(ours: Server, number: int, started: float) -> Result:
    """The daemon's own CPU time while it does nothing but poll."""
    time.sleep(2)  # until what came of the start is over
    daemon, *tapdisks = ours.pids()
    if len(tapdisks) != number:
        raise ServerFailed(f"{number} VBDs are on {len(tapdisks)} processes")
    begin, before = time.monotonic(), _ticks([daemon], tapdisks)
    time.sleep(IDLE_SECONDS)
    after, took = _ticks([daemon], tapdisks), time.monotonic() - begin
    used, theirs = (
        (now - then) * TICK_US / 1e4 / took for now, then in zip(after, before, strict=True)
    )
    also = {"the tapdisks together, %": theirs, "until all ran, s": started}
    return Result(IDLE, "% of a core", [used], must=IDLE_MUST, also={"VBDs": number, **also})


def _ticks(*groups: list[int]) -> list[int]:
    return [activity(pids)[1] for pids in groups]


def _kills(sides: Sides, children: Sequence[int]) -> Iterator[Result]:
    """From before a tapdisk is killed until the first line of that is at a blocked reader."""
    reached: dict[str, list[Reached]] = {ZEVENTFS: [], PYFUSE3: []}
    for vbd, child in enumerate(children):
        if sides.ours is not None and sides.here is not None:
            kill = partial(os.kill, int(_state(sides.ours, vbd)["PID"]), signal.SIGKILL)
            reached[ZEVENTFS].append(sides.here.reached(kill, b'"vbd":"%d"' % vbd))
        kill = partial(os.kill, child, signal.SIGKILL)
        reached[PYFUSE3].append(sides.there.reached(kill))
    causes = {name: [one.from_cause for one in each] for name, each in reached.items()}
    posts = {name: [one.from_post for one in each] for name, each in reached.items()}
    yield _middle("a tapdisk is killed to blocked reader has it, p50", causes, WAKE_MUST)
    yield _high("a tapdisk is killed to blocked reader has it, p99", causes)
    yield _middle("its end is posted to blocked reader has it, p50", posts, WAKE_MUST)


def _pauses(sides: Sides, directory: Path, children: Mapping[int, int]) -> Iterator[Result]:
    """From before `pause` is written until PAUSED is at a blocked reader; *children* by minor."""
    reached: dict[str, list[Reached]] = {ZEVENTFS: [], PYFUSE3: []}
    alone: list[float] = []
    with (sides.floor.mountpoint / "set").open("wb", buffering=0) as post:
        for vbd, child in children.items():
            if sides.ours is not None and sides.here is not None:
                control = sides.ours.mountpoint / VBDS / str(vbd) / "control"
                paused = b'"class":"tapdisk.vbd".*"vbd":"%d".*"to":"PAUSED"' % vbd
                with control.open("wb", buffering=0) as file:
                    pause = partial(file.write, b"pause\n")
                    reached[ZEVENTFS].append(sides.here.reached(pause, paused))
            reached[PYFUSE3].append(sides.there.reached(partial(post.write, b"set\n")))
            alone.append(_pause_alone(directory, child, vbd))
    causes = {name: [one.from_cause for one in each] for name, each in reached.items()}
    posts = {name: [one.from_post for one in each] for name, each in reached.items()}
    causes[ALONE] = alone
    causes[BOTH] = [sum(pair) for pair in zip(alone, causes.pop(PYFUSE3), strict=True)]
    yield _middle("pause is written to blocked reader has PAUSED, p50", causes)
    yield _high("pause is written to blocked reader has PAUSED, p99", causes)
    yield _middle("PAUSED is posted to blocked reader has it, p50", posts, WAKE_MUST)


def _open(directory: Path, pid: int, minor: int) -> None:
    """Give nobody's tapdisk a VBD, as ours have one."""
    (directory / wire.marker_name(minor)).touch()
    path = directory / wire.socket_name(pid)
    _order(path, protocol.ask_attach(minor))
    _order(path, protocol.ask_open(minor, "ram:/x"))


def _pause_alone(directory: Path, pid: int, minor: int) -> float:
    """us that nobody's tapdisk takes to answer PAUSE, from before the connection is made."""
    time.sleep(REST)
    begun = time.perf_counter()
    _order(directory / wire.socket_name(pid), protocol.ask_pause(minor))
    return (time.perf_counter() - begun) * 1e6


def _order(path: Path, request: protocol.Request[T]) -> T:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(request.message)
        return request.answer(connection.recv(wire.SIZE, socket.MSG_WAITALL))


def _middle(name: str, times: dict[str, list[float]], must: Must | None = None) -> Result:
    """Their medians, in rounds of one change after the other."""
    medians = {
        who: [median(each[at::ROUNDS]) for at in range(ROUNDS)] if each else []
        for who, each in times.items()
    }
    return Result(name, "us", medians.pop(ZEVENTFS), medians, must)


def _high(name: str, times: dict[str, list[float]]) -> Result:
    high = {who: [percentile(each, 0.99)] if each else [] for who, each in times.items()}
    return Result(name, "us", high.pop(ZEVENTFS), high)
