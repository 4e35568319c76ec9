"""What the measurements share: one run's settings, and servers with readers to be woken."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks import readers
from benchmarks.profile import Profiler
from benchmarks.servers import Place, Server, ServerFailed

__all__ = [
    "EVENT",
    "INJECT",
    "PYFUSE3",
    "STREAM",
    "Bench",
    "Target",
    "blocked",
    "event_time",
    "targets",
    "wait_for_backlog",
]

PYFUSE3 = "pyfuse3"
STREAM = Path("events/stream")
INJECT = Path("simulator/inject")
# What is injected to wake readers: an event of common shape, without time or EID: it is new.
EVENT = b'{"class":"sysevent.fs.zfs.config_sync","pool":"tank","payload":{}}\n'


class Bench(NamedTuple):
    """One run: where, how thoroughly, and whether zeventfs itself is measured."""

    place: Place
    quick: bool
    floors_only: bool
    profiler: Profiler

    @contextmanager
    def ours(self, source: str = "sim", **options: str) -> Iterator[tuple[Server | None, str]]:
        """The daemon under test; None, and why, when there is none."""
        if self.floors_only:
            yield None, "only floors were asked for"
            return
        with ExitStack() as stack:
            try:
                server = stack.enter_context(self.place.zeventfs(source, **options))
            except ServerFailed as error:
                yield None, str(error)
                return
            yield server, ""

    def times(self, full: int) -> int:
        """How many rounds: *full* of them, or a quick run's few."""
        return max(full // 4, 2) if self.quick else full


class Target(NamedTuple):
    """A server with readers on one of its files and another file that wakes them."""

    server: Server
    file: Path
    post: Path
    message: bytes
    posted_ns: Callable[[bytes], int]
    settled: bool


def targets(ours: Server | None, floor: Server | None) -> Iterator[Target]:
    if ours is not None:
        at = ours.mountpoint
        yield Target(ours, at / STREAM, at / INJECT, EVENT, event_time, settled=True)
    if floor is not None:
        at = floor.mountpoint
        yield Target(floor, at / "wait", at / "set", b"set\n", int, settled=False)


def event_time(line: bytes) -> int:
    """The time of the first event of an answer, ns since 1970."""
    text = json.loads(line.partition(b"\n")[0])["time"].removesuffix("Z")
    whole, _, fraction = text.partition(".")
    second = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return int(second.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def blocked(bench: Bench, target: Target, number: int, rounds: int) -> readers.Waiting:
    return readers.Waiting(bench.place.readers, target.file, number, rounds, settled=target.settled)


def wait_for_backlog(server: Server, events: int) -> None:
    """Return when the whole replay is in the journal: the stream has stopped growing."""
    stream = server.mountpoint / STREAM
    until = time.monotonic() + 30 + events / 5000
    size = -1
    while (grown := stream.stat().st_size) != size or grown < events * 100:
        if time.monotonic() > until:
            raise ServerFailed(
                f"{grown} bytes of {events} events after a long time: {server.said()}"
            )
        size = grown
        time.sleep(0.5)
