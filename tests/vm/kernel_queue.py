"""The kernel's own queue of events, as zpool(8) shows it, and what a reader saw of it, by EID."""

import os
import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lines import Event
from mounted_tree import Mounted
from programs import Argument, run
from waits import until

__all__ = [
    "PARAMETERS",
    "Coverage",
    "Record",
    "await_eid",
    "classes",
    "clear",
    "coverage",
    "newest_eid",
    "records",
    "set_parameter",
    "standing_still",
    "text",
    "tool",
]

PARAMETERS = Path("/sys/module/zfs/parameters")
CAUSES = "evicted", "failed", "cleared", "unknown"
EID = re.compile(rb"^        eid = 0x([0-9a-f]+)$", re.MULTILINE)


def tool(*argv: Argument, limit: float = 20.0) -> bytes:
    """Run one of ZFS's programs and return its output; what it complains of fails the test."""
    ended = run(argv, limit=limit)
    assert ended.returncode == 0, f"{argv}: {ended.returncode}, {ended.stderr!r}"
    return ended.stdout


def set_parameter(name: str, value: int) -> None:
    (PARAMETERS / name).write_text(f"{value}\n")


# The queue


class Record(NamedTuple):
    """An event of `zpool events -v`, with its whole text, the empty line after it included."""

    eid: int
    name: str
    pool: str
    text: bytes


def text() -> bytes:
    """What `zpool events -v` prints, but for its heading; during a storm it has no end."""
    heading, _, events = tool("zpool", "events", "-v").partition(b"\n")
    assert heading.split() == [b"TIME", b"CLASS"]
    return events


def records() -> list[Record]:
    """Return all events in the kernel's queue, as it orders them."""
    found = []
    begin = 0
    given = text()
    for match in EID.finditer(given):
        end = match.end() + 2  # the line's end, and the empty line
        event = given[begin:end]
        name = re.search(rb'^        class = "(.*)"$', event, re.MULTILINE)
        pool = re.search(rb'^        pool = "(.*)"$', event, re.MULTILINE)
        assert name is not None
        of_pool = "" if pool is None else pool[1].decode(errors="backslashreplace")
        found.append(Record(int(match[1], 16), name[1].decode(), of_pool, event))
        begin = end
    assert begin == len(given), given[begin:]
    return found


def newest_eid() -> int:
    """Return the greatest EID in the kernel's queue; 0 when it is empty."""
    return max((int(eid, 16) for eid in EID.findall(text())), default=0)


def clear() -> None:
    tool("zpool", "events", "-c")


# What came of it


def _state(stat: Path) -> str:
    return stat.read_text().rpartition(")")[2].split()[0]


@contextmanager
def standing_still(mounted: Mounted) -> Iterator[None]:
    """Stop the daemon meanwhile, all of its threads: what the kernel posts, nobody takes."""
    assert mounted.process is not None
    pid = mounted.process.pid
    threads = Path(f"/proc/{pid}/task")
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: set(map(_state, threads.glob("*/stat"))) == {"T"}, "the daemon stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def await_eid(mounted: Mounted, eid: int, limit: float = 20.0) -> None:
    """Wait until the source has taken everything up to *eid*."""

    def taken() -> bool:
        found = re.search(rb"^last_eid=(\d+)$", mounted.read("sources/zfs/counters"), re.MULTILINE)
        return found is not None and int(found[1]) >= eid

    until(taken, f"EID {eid} taken", limit=limit)


class Coverage(NamedTuple):
    """Which EIDs a reader can account for: events read, events in gaps, first and last EID."""

    read: int
    lost: int
    first: int
    last: int
    causes: Counter[str]  # of the gaps, how many events for each cause


def coverage(seen: Iterable[Event]) -> Coverage:
    """Add up what *seen* says of the kernel's events; fail where an EID is missing or doubled."""
    read: list[int] = []
    lost: list[int] = []
    causes: Counter[str] = Counter()
    for event in seen:
        if event["source"] != "zfs":
            continue
        if event["class"] != "zeventfs.gap":
            read.append(int(event["eid"]))
        elif "first_eid" in event["payload"]:
            gap = event["payload"]
            missing = range(int(gap["first_eid"]), int(gap["last_eid"]) + 1)
            assert int(gap["dropped"]) == len(missing), event
            lost += missing
            causes.update({cause: int(gap.get(cause, 0)) for cause in CAUSES})
    every = sorted([*read, *lost])
    assert every, "saw nothing"
    twice = [eid for eid, count in Counter(every).items() if count > 1]
    assert not twice, f"told twice: {twice[:20]}"
    skipped = sorted(set(range(every[0], every[-1] + 1)) - set(every))
    assert not skipped, f"skipped: {skipped[:20]}"
    assert causes.total() == len(lost)
    return Coverage(len(read), len(lost), every[0], every[-1], +causes)


def classes(seen: Iterable[Event], pool: str) -> set[str]:
    """Return the classes of *seen*'s events of *pool*, without what all of ZFS's begin with."""
    return {
        str(event["class"]).partition(".fs.zfs.")[2] for event in seen if event.get("pool") == pool
    }
