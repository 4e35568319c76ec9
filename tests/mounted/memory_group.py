"""A group of processes with a limit on their memory (cgroups(7)): version 1 or 2, as the host has.

Where neither can be made, a test that needs one fails.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from waits import until

__all__ = ["MemoryGroup", "hog_of", "memory_group"]

# Takes all the memory there is, in pages that have to be found anew each time; what can't be found
# ends it, and not the daemon.
HOG = """
import mmap, pathlib, sys
pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
step, file, kept = 1 << 20, open(sys.argv[1], "r+b"), []
while True:
    file.seek(0)
    while file.read(step):
        pass
    kept.append(mmap.mmap(-1, 8 * step))
    for at in range(0, 8 * step, 4096):
        kept[-1][at] = 1
"""


def hog_of(directory: Path) -> list[str]:
    """The command that has a group be at its limit, again and again, until it is killed."""
    cold = directory / "cold"
    cold.write_bytes(bytes(32 << 20))
    again = 'while :; do nice -n 19 "$@"; done'
    return ["sh", "-c", again, "hog", sys.executable, "-c", HOG, str(cold)]


class MemoryGroup(NamedTuple):
    """The group's directory, and which version's."""

    path: Path
    version: int

    @property
    def refusals(self) -> int:
        """How often the group was at its limit."""
        if self.version == 1:
            return int((self.path / "memory.failcnt").read_text())
        found = re.search(r"^max (\d+)$", (self.path / "memory.events").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def await_limit(self) -> None:
        """Wait until it is at its limit once more, and more than once."""
        least = self.refusals
        until(lambda: self.refusals > least + 10, "its limit", limit=20.0)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Have what is started meanwhile be in the group."""
        own = _own(self.version)
        (self.path / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (own / "cgroup.procs").write_text(str(os.getpid()))


def _own(version: int) -> Path:
    """The directory of this process's own group."""
    wanted, kind = ("memory", "cgroup") if version == 1 else ("", "cgroup2")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if wanted not in controllers.split(",") and controllers != wanted:
            continue
        for mounted in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = mounted.partition(" - ")
            root, point = before.split()[3:5]
            found, _, options = after.split()[:3]
            if found == kind and (version == 2 or "memory" in options.split(",")):
                return Path(point) / os.path.relpath(path, root)
    raise AssertionError(f"no group of cgroups {version} here")


@contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """Make a group whose memory is *limit* bytes at most; afterwards it is empty and gone."""
    controllers = Path("/proc/cgroups").read_text()
    first = re.search(r"^memory\s+([1-9]\d*)\s", controllers, re.MULTILINE)  # 0: in version 2
    version = 1 if first is not None else 2
    parent = _own(version)
    name = "memory.limit_in_bytes" if version == 1 else "memory.max"
    if version == 2:  # the group above must have no processes: cgroups(7)
        parent = parent.parent if parent.parent.joinpath("cgroup.procs").exists() else parent
        (parent / "cgroup.subtree_control").write_text("+memory")
    path = parent / f"zeventfs{os.getpid()}"
    path.mkdir()
    try:
        (path / name).write_text(str(limit))
        yield MemoryGroup(path, version)
    finally:
        until(lambda: not (path / "cgroup.procs").read_text(), "the group's end")
        path.rmdir()
