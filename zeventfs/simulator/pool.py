"""A simulated pool as it stands, and the events that it posts: each agrees with those before it.

What changes an event's values (states, error counts, transaction groups, the time since boot) is
kept here and nowhere else. Which values a real event has was looked up in the recorded ones.
"""

import dataclasses
import enum
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from zeventfs.simulator.shapes import fill, guid, shape_of
from zeventfs.simulator.zfs import Pair

__all__ = ["MS", "NS", "VDEV_STATES", "Disk", "Happened", "Pool", "PoolSetup", "Standing"]

NS = 1_000_000_000  # nanoseconds in a second
MS = 1_000_000  # and in a millisecond

# enum vdev_state, include/sys/fs/zfs.h, by the names that zpool status shows
VDEV_STATES = {"OFFLINE": 2, "REMOVED": 3, "UNAVAIL": 4, "FAULTED": 5, "DEGRADED": 6, "ONLINE": 7}
_CREATING = 6  # pool_context, SPA_LOAD_CREATE
_SOFTWARE = "pool version 5000; software version zfs-2.1.11; uts simulator"
_SNAPSHOTS_MOST = 10_000  # remembered of one dataset, so that a story without end needs no more

_PARENTS = {"mirror": "mirror", "raidz": "raidz", "stripe": "root"}  # layout -> parent_type

DiskPath = Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=200)]
Happened = tuple[str, list[Pair]]


class Standing(enum.Enum):
    """Whether a pool is there, for those that post its events."""

    ABSENT = "absent"
    ACTIVE = "active"
    EXPORTED = "exported"
    SUSPENDED = "suspended"


@dataclasses.dataclass(slots=True, eq=False)
class Disk:
    """A leaf vdev: its state as in VDEV_STATES, its errors since it was attached or cleared."""

    path: str
    state: int = VDEV_STATES["ONLINE"]
    read_errors: int = 0
    cksum_errors: int = 0
    delays: int = 0

    @property
    def works(self) -> bool:
        """Whether I/O is sent to it: of others' errors the kernel makes no events."""
        return self.state >= VDEV_STATES["DEGRADED"]

    def clear(self) -> None:
        """Forget its errors."""
        self.read_errors = self.cksum_errors = self.delays = 0


class PoolSetup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pool's disks by their paths, those that may replace them, and how it is at the start."""

    disks: Annotated[tuple[DiskPath, ...], Meta(min_length=1, max_length=256)]
    spares: Annotated[tuple[DiskPath, ...], Meta(max_length=256)] = ()
    layout: Literal["mirror", "raidz", "stripe"] = "mirror"
    state: Literal["active", "exported", "absent"] = "active"


class Dataset(NamedTuple):
    """A dataset's id and its snapshots: whole name and id, the oldest first."""

    dsid: int
    snapshots: deque[tuple[str, int]]


class Pool:
    """A pool as *setup* says; what is drawn comes from *random*, *clock* is as in `tell`."""

    def __init__(
        self, name: str, setup: PoolSetup, random: Random, clock: Callable[[], int]
    ) -> None:
        self.name = name
        self.disks = [Disk(path) for path in setup.disks]
        self.spares = deque(setup.spares)
        self.random = random
        self.standing = Standing(setup.state)
        self.datasets: dict[str, Dataset] = {}
        self._parent_type = _PARENTS[setup.layout]
        self._clock = clock
        self._context = 0
        self._state = 0
        self.begin()

    def begin(self) -> None:
        """Be new and empty, but for the dataset that every pool is."""
        self._txg = 4
        self._dsid = 0x36
        self._snapshot = 0
        self._uptime = 100 * NS
        self.datasets = {"": Dataset(self._dsid, deque(maxlen=_SNAPSHOTS_MOST))}
        for disk in self.disks:
            disk.state = VDEV_STATES["ONLINE"]
            disk.clear()

    # Datasets

    def path(self, dataset: str) -> str:
        """Return a dataset's whole name."""
        return f"{self.name}/{dataset}" if dataset else self.name

    def add_dataset(self, name: str) -> int:
        """Return the id of a new dataset."""
        dsid = self._new_dsid()
        self.datasets[name] = Dataset(dsid, deque(maxlen=_SNAPSHOTS_MOST))
        return dsid

    def add_snapshot(self, of: str) -> tuple[str, int]:
        """Return the whole name and the id of a new snapshot of dataset *of*."""
        self._snapshot += 1
        made = f"{self.path(of)}@auto-{self._snapshot:04}", self._new_dsid()
        self.datasets[of].snapshots.append(made)
        return made

    def _new_dsid(self) -> int:
        self._dsid += self.random.randint(3, 12)
        return self._dsid

    def txg(self) -> int:
        """Let some transaction groups go by; return the one that is open."""
        self._txg += self.random.randint(1, 6)
        return self._txg

    # Events

    def created(self) -> list[Happened]:
        """What `zpool create` posts."""
        self.begin()
        self._context = _CREATING
        self.standing = Standing.ACTIVE
        events = [
            self.sysevent("pool_create"),
            self.history("create", _SOFTWARE),
            self.sysevent("config_sync"),
        ]
        self._context = 0
        return events

    def imported(self) -> list[Happened]:
        """What `zpool import` posts."""
        self.standing = Standing.ACTIVE
        return [
            self.history("open", _SOFTWARE),
            self.history("import", _SOFTWARE),
            self.sysevent("config_sync"),
            self.sysevent("pool_import"),
        ]

    def gone(self, subclass: str, standing: Standing, state: int) -> Happened:
        """The last event of the pool, whose pool_state is *state*."""
        self._state = state
        event = self.sysevent(subclass)
        self._state = 0
        self.standing = standing
        return event

    def event(self, name: str, **values: Any) -> Happened:
        """Return an event of the pool."""
        known = {"pool": self.name, "pool_context": self._context, "pool_state": self._state}
        return name, fill(name, shape_of(name), known | values)

    def sysevent(self, subclass: str, disk: Disk | None = None, **values: Any) -> Happened:
        """Return a sysevent of the pool or of one of its disks."""
        vdev = {} if disk is None else {"vdev_path": disk.path, "vdev_state": disk.state}
        return self.event(f"sysevent.fs.zfs.{subclass}", **vdev, **values)

    def history(self, internal_name: str, text: str, **dataset: Any) -> Happened:
        """Return the event of an internal history record; *dataset* are its dsname and dsid."""
        return self.sysevent(
            "history_event",
            history_hostname="simulator",
            history_internal_name=internal_name,
            history_internal_str=text,
            history_txg=self.txg(),
            history_time=self._clock() // NS,
            **{f"history_{key}": value for key, value in dataset.items()},
        )

    def statechange(self, disk: Disk, state: int) -> Happened:
        """Give *disk* a new state."""
        last, disk.state = disk.state, state
        return self.event(
            "resource.fs.zfs.statechange",
            vdev_path=disk.path,
            vdev_state=state,
            vdev_laststate=last,
        )

    def removed(self, disk: Disk) -> Happened:
        """Return the event of a device that is not there any more."""
        return self.event(
            "resource.fs.zfs.removed",
            vdev_path=disk.path,
            vdev_state=disk.state,
            vdev_devid=f"scsi-SSIMULATED_{guid(disk.path):016x}-part1",
        )

    def open_failed(self, disk: Disk) -> Happened:
        """Return the ereport of a device that can't be opened."""
        return self.event(
            "ereport.fs.zfs.vdev.open_failed",
            ena=self._ena(),
            parent_type=self._parent_type,
            vdev_path=disk.path,
            vdev_read_errors=disk.read_errors,
            vdev_cksum_errors=disk.cksum_errors,
            vdev_delays=disk.delays,
            prev_state=disk.state,
        )

    def pool_ereport(self, subclass: str, **values: Any) -> Happened:
        """Return an ereport that is of no single disk."""
        return self.event(f"ereport.fs.zfs.{subclass}", ena=self._ena(), **values)

    def ereport(self, subclass: str, disk: Disk, delay: int, **values: Any) -> Happened:
        """Return the ereport of one I/O for which *disk* took *delay* nanoseconds.

        *values* may say otherwise what every such ereport has.
        """
        ena = self._ena()
        delta = delay + delay // 16  # with the time in ZFS's own queues
        known = {
            "ena": ena,
            "parent_type": self._parent_type,
            "vdev_path": disk.path,
            "vdev_complete_ts": self._uptime,
            "vdev_delta_ts": delta,
            "vdev_read_errors": disk.read_errors,
            "vdev_cksum_errors": disk.cksum_errors,
            "vdev_delays": disk.delays,
            "zio_timestamp": max(0, self._uptime - delta),
            "zio_delta": delta,
            "zio_delay": delay,
            "zio_offset": self.random.randrange(1 << 21) << 12,
            "zio_objset": 0x91,
            "zio_object": self.random.randint(2, 200),
            "zio_blkid": self.random.randint(0, 400),
        }
        return self.event(f"ereport.fs.zfs.{subclass}", **known | values)

    def _ena(self) -> int:
        """Let some time go by; return a time of it as fm_ena_generate (fm.c, format 1) does."""
        self._uptime += self.random.randint(MS, 2 * NS)
        return (self._uptime // 1024) << 20 | 1
