"""Views: how soon a new one gives its first byte, and how late the readers of open ones are.

A view is opened by its path, as everybody opens it; nothing here knows how it is made.
"""

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import readers
from benchmarks.bench import EVENT, INJECT, STREAM, Bench, wait_for_backlog
from benchmarks.corpus import write_backlog
from benchmarks.report import Result
from benchmarks.servers import TICK_US, Server, ServerFailed, activity, settle

__all__ = ["views", "where"]

WHERE = STREAM.parent / "where"
RATE = Path("simulator/rate")
PER_SECOND = 5000
ROOM = 4 << 30  # bytes of memory, and of /run, without which there is no run with retain=1G
GREP, GREP_HERE = "grep in copies of the logs", "grep in events/log*"
ONE = "sysevent.fs.zfs.one_in_a_million"


class Search(NamedTuple):
    """Something to look for: by a view, and by grep."""

    what: str
    expression: str
    pattern: str


SEARCHES = (
    Search("one event, by class", f"class={ONE}", f'"class":"{ONE}"'),
    Search("all events", "class=*", '"class":"'),
    Search("a payload key", "zio_err=52", '"zio_err":52,'),
)


def where(bench: Bench) -> Iterator[Result]:
    """1,000,000 posted events: until a view that nobody had open gives its first byte."""
    events = 100_000 if bench.quick else 1_000_000
    backlog = bench.place.path / "posted"
    if not bench.floors_only:
        write_backlog(backlog, events)
    for retain in ("64M", "1G"):
        if retain == "1G" and _room() < ROOM:
            yield Result("views, retain=1G", "ms", [], why="too little memory for it")
            continue
        with bench.ours(f"sim+replay:{backlog}", retain=retain) as (ours, why):
            if ours is None:
                yield Result(f"views, retain={retain}", "ms", [], why=why)
            else:
                wait_for_backlog(ours, events)
                (ours.mountpoint / INJECT).write_bytes(
                    EVENT.replace(_class_of(EVENT), ONE.encode())
                )
                yield from _searched(bench, ours, retain)
    backlog.unlink(missing_ok=True)


def _room() -> int:
    """Bytes that may be filled: of memory, and of the runtime directories' file system."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return min(available * 1024, shutil.disk_usage("/run").free)


def _class_of(line: bytes) -> bytes:
    return str(json.loads(line)["class"]).encode()


def _searched(bench: Bench, ours: Server, retain: str) -> Iterator[Result]:
    """Each search on `stream` and `log`, by a new view each time, then by that view once more.

    `log` has the current segment only, and so is searched grep's log.
    """
    events = ours.mountpoint / STREAM.parent
    logs = _logs(events)
    copies = _copied(logs, bench.place.path / f"logs-{retain}")
    number = 0
    for search in SEARCHES:
        for name, grepped in (("stream", slice(None)), ("log", slice(-1, None))):
            new: list[float] = []
            again: list[float] = []
            greps: dict[str, list[float]] = {GREP: [], GREP_HERE: []}
            for _ in range(bench.times(3)):
                number += 1  # another view, which shows the same
                expression = f"{search.expression},class!=no.such.class.{number}"
                view = events / "where" / expression / name
                new.append(_first_byte(view))
                again.append(_first_byte(view))
                greps[GREP].append(_first_grepped(search.pattern, copies[grepped]))
                greps[GREP_HERE].append(_first_grepped(search.pattern, logs[grepped]))
            yield Result(
                f"{search.what}, {name}, retain={retain}",
                "ms",
                new,
                greps,
                also={"the same view once more, ms": median(again)},
            )
    held = ours.memory()
    yield Result(f"resident, retain={retain}", "MiB", [held.resident / (1 << 20)])
    shutil.rmtree(copies[0].parent)


def _logs(events: Path) -> list[Path]:
    """`log` and its elders, the oldest first."""
    found = [path for path in events.iterdir() if path.name.strip("0123456789") in {"log", "log."}]
    return sorted(found, key=lambda path: int(path.name.partition(".")[2] or 0), reverse=True)


def _copied(logs: Sequence[Path], directory: Path) -> list[Path]:
    directory.mkdir()
    return [Path(shutil.copyfile(log, directory / log.name)) for log in logs]


def _first_byte(file: Path) -> float:
    """Milliseconds from before the open(2) until the first read(2) has given something."""
    begin = time.perf_counter()
    descriptor = os.open(file, os.O_RDONLY)
    try:
        if not os.read(descriptor, readers.READ):
            raise ServerFailed(f"nothing in {file}")
        return (time.perf_counter() - begin) * 1000
    finally:
        os.close(descriptor)


def _first_grepped(pattern: str, files: Sequence[Path]) -> float:
    """Milliseconds from before grep's start until its first line."""
    command = ["grep", "-hF", "--line-buffered", "--", pattern, *map(str, files)]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"LC_ALL": "C"}) as grep:
        assert grep.stdout is not None
        found = os.read(grep.stdout.fileno(), readers.READ)
        took = (time.perf_counter() - begin) * 1000
        grep.kill()
    if not found:
        raise ServerFailed(f"grep finds no {pattern}")
    return took


class Shown(NamedTuple):
    """A view, and which lines of the journal belong into it."""

    expression: str
    shows: Callable[[str, int], bool]  # of a class and an EID


def _shown() -> list[Shown]:
    """64 views: each of these classes, and as many last digits of EIDs as are wanted still."""
    classes = [
        *("io", "checksum", "data", "delay", "deadman", "io_failure", "vdev.open_failed"),
        *("vdev.unknown", "vdev.bad_label", "config_cache_write"),
    ]
    names = [f"ereport.fs.zfs.{each}" for each in classes]
    names += [f"resource.fs.zfs.{each}" for each in ("statechange", "removed")]
    names += [
        f"sysevent.fs.zfs.{each}"
        for each in (
            *("history_event", "config_sync", "pool_create", "pool_destroy", "pool_import"),
            *("pool_export", "resilver_start", "resilver_finish", "scrub_start", "scrub_finish"),
            *("scrub_paused", "scrub_resume", "scrub_abort", "trim_start", "trim_finish"),
            *("vdev_attach", "vdev_online", "vdev_clear", "vdev_remove", "vdev_add"),
        )
    ]
    by_class = [
        Shown(f"class={name}", lambda found, _, name=name: found == name)  # type: ignore[misc]
        for name in names
    ]
    by_eid = [
        Shown(f"eid=*{rest}", lambda _, eid, rest=rest: str(eid).endswith(rest))  # type: ignore[misc]
        for rest in [f"{number:02d}" for number in range(64 - len(names))]
    ]
    return by_class + by_eid


class Told(NamedTuple):
    """What the simulator told in one go: how many events, in how long, at what cost."""

    events: int
    seconds: float
    cpu_us: float

    @property
    def cost(self) -> float:
        """The daemon's CPU time for an event, us."""
        return self.cpu_us / self.events


def _told(ours: Server, seconds: float, *others: int) -> Told:
    """Have the simulator tell at PER_SECOND for so long, then come to rest, *others* (pids) too."""
    rate = ours.mountpoint / RATE
    pids = ours.pids()
    settle([*pids, *others])
    first, ticks, begin = _last_seq(ours), activity(pids)[1], time.monotonic()
    rate.write_text(f"{PER_SECOND}\n")
    time.sleep(seconds)
    rate.write_text("0\n")
    took = time.monotonic() - begin
    settle([*pids, *others])
    used = activity(pids)[1] - ticks
    return Told(max(_last_seq(ours) - first, 1), took, used * TICK_US)


def _last_seq(ours: Server) -> int:
    status = (ours.mountpoint / STREAM.parent / "status").read_text()
    return int(dict(line.split("=", 1) for line in status.splitlines())["last_seq"])


def views(bench: Bench) -> Iterator[Result]:
    """64 readers on 64 views under 5,000 events/s: all arrive, how late, at what cost."""
    shown = _shown()
    cost: list[float] = []
    nobody_cost: list[float] = []
    lags: list[readers.Lag] = []
    reached: list[float] = []
    with ExitStack() as stack:
        ours, why = stack.enter_context(bench.ours(retain="1G"))
        nobody, _ = stack.enter_context(bench.ours(retain="1G"))
        if ours is not None and nobody is not None:
            at = [ours.mountpoint / WHERE / each.expression / "stream" for each in shown]
            for _ in range(bench.times(4)):
                before = _last_seq(ours)
                with readers.Following(bench.place.readers, at) as following:
                    told = _told(ours, 3 if bench.quick else 10, following.pid)
                    had, lag = following.end()
                _compare(ours, before, shown, had)
                cost.append(told.cost)
                lags.append(lag)
                reached.append(told.events / told.seconds)
                nobody_cost.append(_told(nobody, 3 if bench.quick else 10).cost)
    yield Result(
        f"64 readers on 64 views, {PER_SECOND:,} events/s, CPU of an event",
        "us",
        cost,
        {"no views": nobody_cost},
        also={"events/s that came": median(reached)} if reached else {},
        why=why,
    )
    yield Result("posted to a view's reader has it, p50", "ms", [lag.middle for lag in lags])
    yield Result("posted to a view's reader has it, p99", "ms", [lag.p99 for lag in lags])


def _compare(
    ours: Server, before: int, shown: Sequence[Shown], had: Sequence[readers.Followed]
) -> None:
    """ServerFailed unless every reader has had each event of its view since *before*."""
    kinds: Counter[tuple[str, int]] = Counter()
    for log in _logs(ours.mountpoint / STREAM.parent):
        for line in log.read_bytes().splitlines():
            event = json.loads(line)
            if event["seq"] > before and "eid" in event:
                kinds[event["class"], event["eid"]] += 1
    for view, reader in zip(shown, had, strict=True):
        must = sum(count for kind, count in kinds.items() if view.shows(*kind))
        if reader.lines != must:
            raise ServerFailed(f"{view.expression}: {reader.lines} events of {must} came")
