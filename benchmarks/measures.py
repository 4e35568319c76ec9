"""The measurements, one function each: what zeventfs takes and what its floors take, in turns.

A round measures each of them once, one right after the other, so that whatever else the machine
does weighs on all alike. Servers that aren't being measured are up and idle.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import readers
from benchmarks.bench import PYFUSE3, STREAM, Bench, Target, blocked, targets, wait_for_backlog
from benchmarks.corpus import write_backlog
from benchmarks.crowd import crowd
from benchmarks.report import Must, Result, percentile
from benchmarks.servers import ServerFailed, activity, settle
from benchmarks.vbds import vbds
from benchmarks.views import views, where

__all__ = ["MEASURES"]

READ = 128 << 10


def drain(bench: Bench) -> Iterator[Result]:
    """A backlog of 200,000 events, drained by one reader, 128 KiB at a time."""
    events = 20_000 if bench.quick else 200_000
    program = bench.place.readers
    backlog = bench.place.path / "backlog"
    with ExitStack() as stack:
        if not bench.floors_only:
            write_backlog(backlog, events)
        ours, why = stack.enter_context(bench.ours(f"replay:{backlog}", retain="1G"))
        floors = [
            stack.enter_context(bench.place.pyfuse3()),
            stack.enter_context(bench.place.libfuse()),
        ]
        total, also = events * 1000, {}
        files = {floor.name: floor.mountpoint / "constant" for floor in floors}
        if ours is not None:
            wait_for_backlog(ours, events)
            total, lines = readers.count(program, ours.mountpoint / STREAM, READ)
            if lines < events:
                raise ServerFailed(f"{lines} lines to be read of {events} events")
            also = {"lines": float(lines), "bytes of a line": total / lines}
            files = {ours.name: ours.mountpoint / STREAM} | files
        rates: dict[str, list[float]] = {name: [] for name in files}
        for _ in range(bench.times(9)):
            for name, file in files.items():
                rates[name].append(readers.drain(program, file, READ, total) / 1e6)
        if ours is not None:
            bench.profiler.profile(
                "drain",
                ours.pids(),
                lambda: [readers.drain(program, files[ours.name], READ, total) for _ in range(20)],
            )
        yield Result(
            "drain a backlog, 128 KiB reads",
            "MB/s",
            rates.pop("zeventfs", []),
            rates,
            Must(0.8, at_least=True, floor=PYFUSE3),
            also,
            why,
        )


def wake(bench: Bench) -> Iterator[Result]:
    """One blocked reader, woken by one event; and a pipe's reader by a write."""
    posts, rounds = (20 if bench.quick else 50), bench.times(8)
    with ExitStack() as stack:
        ours, why = stack.enter_context(bench.ours())
        floor = stack.enter_context(bench.place.pyfuse3())
        waiting = {
            target.server.name: (
                target,
                stack.enter_context(blocked(bench, target, 1, posts * rounds)),
            )
            for target in targets(ours, floor)
        }
        pipe = stack.enter_context(readers.Waiting(bench.place.readers, None, 1, posts * rounds))
        woken: dict[str, list[list[float]]] = {name: [] for name in (*waiting, "pipe")}
        written: dict[str, list[list[float]]] = {name: [] for name in waiting}
        for _ in range(rounds):
            for name, (target, reader) in waiting.items():
                pairs = _wake(target, reader, posts)
                woken[name].append([from_post for from_post, _ in pairs])
                written[name].append([from_write for _, from_write in pairs])
            woken["pipe"].append([_wake_pipe(pipe) for _ in range(posts)])
    yield from _wake_results(woken, written, why)
    if ours is not None:
        _profile_wake(bench)


def _wake_results(
    woken: dict[str, list[list[float]]], written: dict[str, list[list[float]]], why: str
) -> Iterator[Result]:
    middle = {name: [median(times) for times in each] for name, each in woken.items()}
    high = {name: [percentile(times, 0.99) for times in each] for name, each in woken.items()}
    ends = {name: [median(times) for times in each] for name, each in written.items()}
    must = Must(1.5, floor=PYFUSE3)
    yield Result(
        "posted to blocked reader has it, p50",
        "us",
        middle.pop("zeventfs", []),
        middle,
        must,
        why=why,
    )
    yield Result("posted to blocked reader has it, p99", "us", high.pop("zeventfs", []), high)
    yield Result("written to blocked reader has it, p50", "us", ends.pop("zeventfs", []), ends)


def _profile_wake(bench: Bench) -> None:
    posts = 400
    with bench.ours() as (ours, _):
        if ours is None or not bench.profiler.wanted:
            return
        (target,) = targets(ours, None)
        with blocked(bench, target, 1, posts) as reader:
            bench.profiler.profile("wake", ours.pids(), lambda: _wake(target, reader, posts))


def fan_out(bench: Bench) -> Iterator[Result]:
    """1,000 blocked readers, woken by one event, until the last has it."""
    number, rounds = 1000, bench.times(12)
    with ExitStack() as stack:
        ours, why = stack.enter_context(bench.ours())
        floor = stack.enter_context(bench.place.pyfuse3(tasks=number + 100))
        waiting = [
            (target, stack.enter_context(blocked(bench, target, number, rounds)))
            for target in targets(ours, floor)
        ]
        until: dict[str, list[float]] = {}
        first: dict[str, list[float]] = {}
        for _ in range(rounds):
            for target, reader in waiting:
                settle([*target.server.pids(), reader.pid])
                with target.post.open("wb", buffering=0) as file:
                    file.write(target.message)
                got = reader.woken()
                posted = target.posted_ns(got.answer)
                name = target.server.name
                until.setdefault(name, []).append((got.last_ns - posted) / 1e6)
                first.setdefault(name, []).append((got.first_ns - posted) / 1e6)
    also = {f"first reader, {name}, ms": median(times) for name, times in first.items()}
    must = Must(1.5, floor=PYFUSE3)
    yield Result(
        "1,000 readers, until the last has it",
        "ms",
        until.pop("zeventfs", []),
        until,
        must,
        also,
        why,
    )


def ingest(bench: Bench) -> Iterator[Result]:
    """Packed nvlist to rendered line in the journal, over the recorded mix; also with views."""
    rounds: list[dict[str, float]] = []
    why = "only floors were asked for"
    if not bench.floors_only:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.ingest", "--rounds", str(bench.times(7))],
            check=False,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        why = "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2]
        rounds = json.loads(done.stdout or "[]")
    rates = {name: [each[name] for each in rounds] for name in (rounds[0] if rounds else [])}
    ours = rates.pop("no views", [])
    floors = {name: rates.pop(name) for name in list(rates) if name.startswith("msgspec")}
    must = Must(40_000, at_least=True)
    yield Result("packed nvlist to line in the journal", "events/s", ours, floors, must, why=why)
    for name, each in rates.items():
        yield Result(f"the same, {name}", "events/s", each, {"no views": ours})


def memory(bench: Bench) -> Iterator[Result]:
    """What 2,000 blocked readers add to the server, for each of them."""
    number = 2000
    resident: dict[str, list[float]] = {}
    also: dict[str, float] = {}
    with ExitStack() as stack:
        ours, why = stack.enter_context(bench.ours())
        floor = stack.enter_context(bench.place.pyfuse3(tasks=number + 100))
        for target in targets(ours, floor):
            name = target.server.name
            settle(target.server.pids())
            before = target.server.memory()
            with blocked(bench, target, number, 1) as reader:
                settle([*target.server.pids(), reader.pid])
                after = target.server.memory()
                with target.post.open("wb", buffering=0) as file:
                    file.write(target.message)
                reader.woken()
            resident[name] = [(after.resident - before.resident) / number / 1000]
            also[f"{name}, PSS, kB"] = (after.proportional - before.proportional) / number / 1000
    must = Must(12)
    yield Result(
        "memory per blocked reader", "kB", resident.pop("zeventfs", []), resident, must, also, why
    )


def idle(bench: Bench) -> Iterator[Result]:
    """The daemon that nobody uses: what it holds, and how often it runs in 10 s."""
    seconds = 10
    resident: dict[str, list[float]] = {}
    switches: dict[str, list[float]] = {}
    also: dict[str, float] = {}
    with ExitStack() as stack:
        ours, why = stack.enter_context(bench.ours())
        servers = [stack.enter_context(bench.place.pyfuse3())]
        if ours is not None:
            servers.insert(0, ours)
        for server in servers:
            settle(server.pids())
        before = [activity(server.pids())[0] for server in servers]
        time.sleep(seconds)
        for server, count in zip(servers, before, strict=True):
            switches[server.name] = [activity(server.pids())[0] - count]
            held = server.memory()
            resident[server.name] = [held.resident / (1 << 20)]
            also[f"{server.name}, PSS, MiB"] = held.proportional / (1 << 20)
    yield Result(
        "resident, idle", "MiB", resident.pop("zeventfs", []), resident, Must(45), also, why
    )
    yield Result(
        f"context switches in {seconds} s, idle",
        "",
        switches.pop("zeventfs", []),
        switches,
        Must(0),
        why=why,
    )


MEASURES: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "drain": drain,
    "wake": wake,
    "fan-out": fan_out,
    "ingest": ingest,
    "memory": memory,
    "crowd": crowd,
    "where": where,
    "views": views,
    "vbds": vbds,
    "idle": idle,
}


def _wake(target: Target, reader: readers.Waiting, posts: int) -> list[tuple[float, float]]:
    """Microseconds until the reader has each of *posts*: since it was posted, since its write."""
    times = []
    file = os.open(target.post, os.O_WRONLY)
    try:
        for _ in range(posts):
            time.sleep(0.003)  # the reader blocks again, and the server goes to sleep
            written = time.time_ns()
            os.write(file, target.message)
            got = reader.woken()
            posted = target.posted_ns(got.answer)
            times.append(((got.last_ns - posted) / 1000, (got.last_ns - written) / 1000))
    finally:
        os.close(file)
    return times


def _wake_pipe(reader: readers.Waiting) -> float:
    time.sleep(0.003)
    written = time.time_ns()
    os.write(reader.pipe, b"set\n")
    return (reader.woken().last_ns - written) / 1000
