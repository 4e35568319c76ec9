"""A group of processes with a limit on their memory (cgroups(7)): version 1 or 2, as the host has.

Where neither can be made, a test that needs one fails.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from waits import until

__all__ = ["MemoryGroup", "memory_group"]


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
