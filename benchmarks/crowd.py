"""10,000 blocked readers: what everybody else waits for meanwhile, and how they are woken."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.bench import PYFUSE3, STREAM, Bench, blocked, targets
from benchmarks.report import Must, Result, percentile
from benchmarks.servers import Server, ServerFailed, settle

__all__ = ["crowd"]

NUMBER = 10_000  # as many as may block
NOBODY = "no readers"
PLAIN = "as many plain files"


def crowd(bench: Bench) -> Iterator[Result]:
    """10,000 blocked readers: `ls -l events/` beside them, one more reader, and their wake-up."""
    with ExitStack() as stack:
        ours, why = stack.enter_context(bench.ours())
        if ours is None:
            yield Result(f"ls -l events/, {NUMBER:,} blocked, p99", "ms", [], why=why)
        else:
            nobody, _ = stack.enter_context(bench.ours())
            assert nobody is not None
            yield from _beside(bench, ours, nobody)
    yield from _woken(bench)


def _beside(bench: Bench, ours: Server, nobody: Server) -> Iterator[Result]:
    """What `ls -l` takes, and its share that isn't ls's own: the names, and a stat of each."""
    (target,) = targets(ours, None)
    events = STREAM.parent
    before = ours.memory().resident
    with blocked(bench, target, NUMBER, 1) as reader:
        settle([*ours.pids(), reader.pid], 60)
        memory = (ours.memory().resident - before) / NUMBER / 1000
        _refused(ours.mountpoint / STREAM)
        directories = {
            "": ours.mountpoint / events,
            NOBODY: nobody.mountpoint / events,
            PLAIN: _plain_files(bench.place.path / "plain", _names(ours.mountpoint / events)),
        }
        for what, look in (("ls -l events/", _list), ("its names and stats alone", _scan)):
            rounds = [
                {name: _times(look, directory) for name, directory in directories.items()}
                for _ in range(bench.times(8))
            ]
            for part in (0.5, 0.99):
                figures = {
                    name: [percentile(each[name], part) for each in rounds] for name in directories
                }
                yield Result(
                    f"{what}, {NUMBER:,} blocked, p{part * 100:.0f}",
                    "ms",
                    figures.pop(""),
                    figures,
                    Must(5) if part == 0.99 and look is _list else None,
                    {"memory of a blocked reader, kB": memory} if look is _list else {},
                )


def _times(look: Callable[[Path], None], directory: Path) -> list[float]:
    """Milliseconds that each of 200 looks took."""
    times = []
    for _ in range(200):
        begin = time.perf_counter()
        look(directory)
        times.append((time.perf_counter() - begin) * 1000)
    return times


def _list(directory: Path) -> None:
    nowhere = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    pid = os.posix_spawnp("ls", ["ls", "-l", str(directory)], os.environ, file_actions=[nowhere])
    if os.waitpid(pid, 0)[1]:
        raise ServerFailed(f"ls -l {directory} failed")


def _scan(directory: Path) -> None:
    for name in _names(directory):
        os.lstat(f"{directory}/{name}")


def _names(directory: Path) -> list[str]:
    return os.listdir(directory)  # noqa: PTH208 - as cheap as can be: it is timed


def _plain_files(directory: Path, names: list[str]) -> Path:
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).touch()
    return directory


def _refused(stream: Path) -> None:
    """One more reader: EAGAIN, or ServerFailed."""
    try:
        done = subprocess.run(
            ["cat", stream], check=False, capture_output=True, env={"LC_ALL": "C"}, timeout=5
        )
    except subprocess.TimeoutExpired:
        raise ServerFailed("one more reader is not refused") from None
    if b"Resource temporarily unavailable" not in done.stderr:
        raise ServerFailed(f"one more reader: {done.stderr.decode()}")


def _woken(bench: Bench) -> Iterator[Result]:
    """One event wakes them all."""
    rounds = bench.times(8)
    until: dict[str, list[float]] = {}
    first: dict[str, list[float]] = {}
    with ExitStack() as stack:
        ours, why = stack.enter_context(bench.ours())
        floor = stack.enter_context(bench.place.pyfuse3(tasks=NUMBER + 100))
        waiting = [
            (target, stack.enter_context(blocked(bench, target, NUMBER, rounds)))
            for target in targets(ours, floor)
        ]
        for _ in range(rounds):
            for target, reader in waiting:
                settle([*target.server.pids(), reader.pid], 60)
                target.post.write_bytes(target.message)
                got = reader.woken()
                posted = target.posted_ns(got.answer)
                name = target.server.name
                until.setdefault(name, []).append((got.last_ns - posted) / 1e6)
                first.setdefault(name, []).append((got.first_ns - posted) / 1e6)
    yield Result(
        f"{NUMBER:,} readers, until the last has it",
        "ms",
        until.pop("zeventfs", []),
        until,
        Must(1.5, floor=PYFUSE3),
        {f"first reader, {name}, ms": median(times) for name, times in first.items()},
        why,
    )
