"""The targets that the simulator's devices are made of: how they stand, and the lines that say so.

What each line looks like: the status() functions of drivers/md/dm-mpath.c, dm-raid1.c, dm-snap.c
and dm-thin.c; real ones were compared.
"""

from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "Group",
    "Linear",
    "Mirror",
    "Multipath",
    "Path",
    "Snapshot",
    "Target",
    "ThinPool",
]


class Target(Protocol):
    """A target of *length* sectors; it stands behind those before it."""

    length: int

    @property
    def kind(self) -> str: ...

    def table(self) -> str:
        """Its parameters, as DM_TABLE_STATUS tells them with STATUS_TABLE."""
        ...

    def status(self) -> str:
        """As DM_TABLE_STATUS tells it."""
        ...


@dataclass(slots=True)
class Linear:
    """Any target that is all in its parameters."""

    length: int
    params: str = "7:0 0"
    kind: str = "linear"

    def table(self) -> str:
        return self.params

    def status(self) -> str:
        return ""


@dataclass(slots=True)
class Path:
    """A path of a multipath device."""

    dev: str
    active: bool = True
    fails: int = 0


@dataclass(slots=True)
class Group:
    """Paths of one priority."""

    paths: list[Path]
    bypassed: bool = False


@dataclass(slots=True)
class Multipath:
    """Groups of paths, of which one is used; `current` is 0 until the first I/O."""

    length: int
    groups: list[Group]
    current: int = 0
    following: int = 1
    kind: str = field(default="multipath", init=False)

    def paths(self) -> list[Path]:
        return [path for group in self.groups for path in group.paths]

    def valid(self) -> int:
        """How many paths are active."""
        return sum(path.active for path in self.paths())

    def table(self) -> str:
        groups = (
            " ".join(
                [f"round-robin 0 {len(group.paths)} 1", *(f"{path.dev} 1" for path in group.paths)]
            )
            for group in self.groups
        )
        return f"0 0 {len(self.groups)} {self.following} {' '.join(groups)} "

    def status(self) -> str:
        groups = (
            f"{self._state(number)} 0 {len(group.paths)} 0 "
            + "".join(
                f"{path.dev} {'A' if path.active else 'F'} {path.fails} " for path in group.paths
            )
            for number, group in enumerate(self.groups, 1)
        )
        return f"2 0 0 0 {len(self.groups)} {self.following} {''.join(groups)}"

    def _state(self, number: int) -> str:
        if self.groups[number - 1].bypassed:
            return "D"
        return "A" if number == self.current else "E"


@dataclass(slots=True)
class Mirror:
    """Legs that hold the same; `health` has a letter for each: A, D, S, R, F or U."""

    length: int
    legs: list[str]
    regions: int
    synced: int
    health: list[str] = field(default_factory=list)
    log: str = ""
    """major:minor of its log's device; empty: in core."""
    log_health: str = "A"
    kind: str = field(default="mirror", init=False)

    def __post_init__(self) -> None:
        self.health = self.health or ["A"] * len(self.legs)

    def table(self) -> str:
        log = f"disk 2 {self.log} 1024" if self.log else "core 1 1024"
        legs = " ".join(f"{leg} 0" for leg in self.legs)
        return f"{log} {len(self.legs)} {legs} 1 handle_errors"

    def status(self) -> str:
        log = f"3 disk {self.log} {self.log_health}" if self.log else "1 core"
        legs = " ".join(self.legs)
        return (
            f"{len(self.legs)} {legs} {self.synced}/{self.regions} 1 {''.join(self.health)} {log}"
        )


@dataclass(slots=True)
class Snapshot:
    """A snapshot, of which so many sectors of its store are used; or a word for its end."""

    length: int
    origin: str
    store: str
    total: int
    used: int = 16
    metadata: int = 16
    ended: str = ""
    """Empty, or "Invalid", "Merge failed", "Overflow"."""
    kind: str = field(default="snapshot", init=False)

    def table(self) -> str:
        return f"{self.origin} {self.store} P 8"

    def status(self) -> str:
        return self.ended or f"{self.used}/{self.total} {self.metadata}"


@dataclass(slots=True)
class ThinPool:
    """A pool of thin volumes: blocks of metadata and of data."""

    length: int
    metadata: str
    data: str
    metadata_total: int
    data_total: int
    low_water: int
    metadata_used: int = 10
    data_used: int = 0
    transaction: int = 0
    mode: str = "rw"
    """ "rw", "ro", "out_of_data_space" or "Fail", which is all that is told then."""
    needs_check: bool = False
    kind: str = field(default="thin-pool", init=False)

    def table(self) -> str:
        return f"{self.metadata} {self.data} 128 {self.low_water} 0 "

    def status(self) -> str:
        if self.mode == "Fail":
            return "Fail"
        return (
            f"{self.transaction} {self.metadata_used}/{self.metadata_total}"
            f" {self.data_used}/{self.data_total} - {self.mode} discard_passdown"
            f" queue_if_no_space {'needs_check' if self.needs_check else '-'} 256 "
        )
