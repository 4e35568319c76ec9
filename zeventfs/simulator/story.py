"""What the simulator tells by itself: a small pool's life, over and over, never quite the same.

A scenario is data: which pool, which disks, and scenes that are played once or again and again. A
scene is an act, one function here, and what it is told to do. The same seed tells the same events,
but for the times that the clock says.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from random import Random
from typing import Any, NamedTuple

from zeventfs.simulator.shapes import fill, shape_of
from zeventfs.simulator.zfs import Pair

__all__ = ["SCENARIOS", "Scenario", "Scene", "Told", "tell"]

Told = tuple[str, list[Pair]]

_NS = 1_000_000_000
_MS = 1_000_000
_ONLINE, _DEGRADED, _FAULTED = 7, 6, 5
_CREATING = 6  # pool_context


class Scene(NamedTuple):
    """One act, by its name, and what it is told."""

    act: str
    told: Mapping[str, Any] = {}


class Scenario(NamedTuple):
    """A pool, the paths of its mirrored disks and of spare ones, and what happens to it."""

    pool: str
    disks: tuple[str, ...]
    shelf: tuple[str, ...]
    opening: tuple[Scene, ...]
    ever_after: tuple[Scene, ...]


SCENARIOS: Mapping[str, Scenario] = {
    "tank": Scenario(
        pool="tank",
        disks=("/dev/sda1", "/dev/sdb1"),
        shelf=("/dev/sdc1", "/dev/sdd1"),
        opening=(
            Scene("create"),
            Scene("dataset", {"name": "home"}),
            Scene("snapshot", {"of": "home"}),
            Scene("scrub", {"errors": 3}),
        ),
        ever_after=(
            Scene("slow", {"times": 2}),
            Scene("dataset", {"name": "vm"}),
            Scene("snapshot", {"of": "vm"}),
            Scene("degrade", {"errors": 3}),
            Scene("snapshot", {"of": "home"}),
            Scene("replace"),
            Scene("scrub", {"errors": 0}),
            Scene("trim"),
            Scene("snapshot", {"of": "vm"}),
            Scene("scrub", {"errors": 2}),
            Scene("remove", {"name": "vm"}),
        ),
    ),
}


def tell(seed: int, clock: Callable[[], int], scenario: str = "tank") -> Iterator[Told]:
    """Tell a scenario without end: classes and their pairs, ready for ZfsDevice.post.

    *clock* gives nanoseconds since 1970; it is asked for a history record's time. Raises KeyError
    for a scenario that doesn't exist.
    """
    script = SCENARIOS[scenario]
    pool = _Pool(script, Random(seed), clock)  # noqa: S311 - a story, no secret
    for scene in script.opening:
        yield from _ACTS[scene.act](pool, **scene.told)
    while True:
        for scene in script.ever_after:
            yield from _ACTS[scene.act](pool, **scene.told)


@dataclasses.dataclass(slots=True)
class _Disk:
    path: str
    state: int = _ONLINE
    read_errors: int = 0
    cksum_errors: int = 0
    delays: int = 0


class _Pool:
    """The pool as it stands: what the next event has to agree with."""

    def __init__(self, script: Scenario, random: Random, clock: Callable[[], int]) -> None:
        self.name = script.pool
        self.disks = [_Disk(path) for path in script.disks]
        self.shelf = list(script.shelf)
        self.random = random
        self.datasets: dict[str, int] = {}  # name below the pool -> dsid
        self.snapshots = count(1)
        self._clock = clock
        self._txg = 4
        self._dsid = 0x90
        self._uptime = 100 * _NS
        self._context = _CREATING

    def created(self) -> None:
        """Be past `zpool create`."""
        self._context = 0

    def path(self, name: str) -> str:
        """Return a dataset's whole name."""
        return f"{self.name}/{name}"

    def new_dsid(self) -> int:
        self._dsid += self.random.randint(3, 12)
        return self._dsid

    def txg(self) -> int:
        """Let some transaction groups go by; return the one that is open."""
        self._txg += self.random.randint(1, 6)
        return self._txg

    def event(self, name: str, **values: Any) -> Told:
        """Return an event of the pool."""
        known = {"pool": self.name, "pool_context": self._context} | values
        return name, fill(name, shape_of(name), known)

    def sysevent(self, subclass: str, disk: _Disk | None = None, **values: Any) -> Told:
        """Return a sysevent of the pool or of one of its disks."""
        vdev = {} if disk is None else {"vdev_path": disk.path, "vdev_state": disk.state}
        return self.event(f"sysevent.fs.zfs.{subclass}", **vdev, **values)

    def history(self, internal_name: str, text: str, **dataset: Any) -> Told:
        """Return the event of an internal history record; *dataset* are its dsname and dsid."""
        return self.sysevent(
            "history_event",
            history_hostname="simulator",
            history_internal_name=internal_name,
            history_internal_str=text,
            history_txg=self.txg(),
            history_time=self._clock() // _NS,
            **{f"history_{key}": value for key, value in dataset.items()},
        )

    def statechange(self, disk: _Disk, state: int) -> Told:
        """Give *disk* a new state."""
        last, disk.state = disk.state, state
        return self.event(
            "resource.fs.zfs.statechange",
            vdev_path=disk.path,
            vdev_state=state,
            vdev_laststate=last,
        )

    def ereport(self, subclass: str, disk: _Disk, delta: int, **values: Any) -> Told:
        """Return the ereport of one I/O on *disk* that took *delta* nanoseconds."""
        self._uptime += self.random.randint(_MS, 2 * _NS)
        begun = self._uptime - delta
        return self.event(
            f"ereport.fs.zfs.{subclass}",
            ena=(self._uptime // 1024) << 20 | 1,
            vdev_path=disk.path,
            vdev_complete_ts=self._uptime,
            vdev_delta_ts=delta,
            vdev_read_errors=disk.read_errors,
            vdev_cksum_errors=disk.cksum_errors,
            vdev_delays=disk.delays,
            zio_timestamp=begun,
            zio_delta=delta,
            zio_delay=delta - delta // 16,
            zio_offset=self.random.randrange(1 << 21) << 12,
            zio_objset=0x91,
            zio_object=self.random.randint(2, 200),
            zio_blkid=self.random.randint(0, 400),
            **values,
        )


def _create(pool: _Pool) -> Iterator[Told]:
    yield pool.sysevent("pool_create")
    yield pool.history("create", "pool version 5000; software version zfs-2.1.11; uts simulator")
    yield pool.sysevent("config_sync")
    pool.created()


def _dataset(pool: _Pool, name: str) -> Iterator[Told]:
    pool.datasets[name] = dsid = pool.new_dsid()
    yield pool.history("create", " ", dsname=pool.path(name), dsid=dsid)
    yield pool.history("set", "compression=lz4", dsname=pool.path(name), dsid=dsid)


def _snapshot(pool: _Pool, of: str) -> Iterator[Told]:
    name = f"{pool.path(of)}@auto-{next(pool.snapshots):04}"
    yield pool.history("snapshot", " ", dsname=name, dsid=pool.new_dsid())


def _remove(pool: _Pool, name: str) -> Iterator[Told]:
    yield pool.history("destroy", " ", dsname=pool.path(name), dsid=pool.datasets.pop(name))


def _scrub(pool: _Pool, errors: int) -> Iterator[Told]:
    yield pool.sysevent("scrub_start")
    yield pool.history("scan setup", f"func=1 mintxg=0 maxtxg={pool.txg()}")
    disk = pool.random.choice(pool.disks)
    for _ in range(errors):
        yield _checksum(pool, disk)
    yield pool.history("scan done", "errors=0")
    yield pool.sysevent("scrub_finish")


def _checksum(pool: _Pool, disk: _Disk) -> Told:
    random = pool.random
    disk.cksum_errors += 1
    begin = random.randrange(0, 0x10000, 8)
    end = begin + random.randrange(64, 0x8000, 8)
    flipped = (end - begin) * 2  # a quarter of the bits set, a quarter cleared: random data
    return pool.ereport(
        "checksum",
        disk,
        random.randint(2 * _MS, 30 * _MS),
        zio_flags=0x1808B0,
        zio_stage=0x800000,
        zio_pipeline=0x1F00000,
        zio_priority=4,
        zio_size=0x20000,
        cksum_expected=tuple(random.getrandbits(64) for _ in range(4)),
        cksum_actual=tuple(random.getrandbits(64) for _ in range(4)),
        bad_ranges=(begin, end),
        bad_range_sets=(flipped,),
        bad_range_clears=(flipped,),
        bad_set_histogram=_histogram(random, flipped),
        bad_cleared_histogram=_histogram(random, flipped),
    )


def _histogram(random: Random, flipped: int) -> tuple[int, ...]:
    """Return how often each of 64 bits differs, about evenly."""
    return tuple(
        max(0, round(random.gauss(flipped / 64, (flipped / 64) ** 0.5))) for _ in range(64)
    )


def _slow(pool: _Pool, times: int) -> Iterator[Told]:
    disk = pool.random.choice(pool.disks)
    for _ in range(times):
        disk.delays += 1
        yield pool.ereport(
            "delay",
            disk,
            pool.random.randint(30 * _NS, 45 * _NS),  # zio_slow_io_ms is 30,000
            zio_flags=0x180880,
            zio_stage=0x1000000,
            zio_pipeline=0x1F00000,
            zio_size=0x1000,
        )


def _degrade(pool: _Pool, errors: int) -> Iterator[Told]:
    disk = pool.random.choice(pool.disks)
    for _ in range(errors):
        disk.read_errors += 1
        yield pool.ereport(
            "io",
            disk,
            pool.random.randint(_MS, 900 * _MS),
            zio_flags=0x1808B0,
            zio_stage=0x1000000,
            zio_pipeline=0x1F00000,
            zio_priority=pool.random.choice((0, 2)),
            zio_size=0x20000,
        )
    yield pool.statechange(disk, _DEGRADED)
    yield pool.statechange(disk, _FAULTED)


def _replace(pool: _Pool) -> Iterator[Told]:
    """Put a disk off the shelf in the worst one's place; that one goes to the shelf, repaired."""
    old = min(pool.disks, key=lambda disk: disk.state)
    new = _Disk(pool.shelf.pop(0))
    yield pool.sysevent("vdev_attach", new)
    yield pool.history("vdev attach", f"replace vdev={new.path} for vdev={old.path}")
    yield pool.sysevent("resilver_start", resilver_type="healing")
    yield pool.history("scan setup", f"func=2 mintxg=3 maxtxg={pool.txg()}")
    yield pool.sysevent("config_sync")
    yield pool.history("scan done", "errors=0")
    yield pool.sysevent("resilver_finish", resilver_type="healing")
    yield pool.sysevent("vdev_remove", old)
    pool.disks[pool.disks.index(old)] = new
    pool.shelf.append(old.path)


def _trim(pool: _Pool) -> Iterator[Told]:
    for disk in pool.disks:
        yield pool.sysevent("trim_start", disk)
        yield pool.history("trim", f"vdev={disk.path} activated")
    for disk in pool.disks:
        yield pool.history("trim", f"vdev={disk.path} complete")
        yield pool.sysevent("trim_finish", disk)


_ACTS: Mapping[str, Callable[..., Iterator[Told]]] = {
    "create": _create,
    "dataset": _dataset,
    "degrade": _degrade,
    "remove": _remove,
    "replace": _replace,
    "scrub": _scrub,
    "slow": _slow,
    "snapshot": _snapshot,
    "trim": _trim,
}
