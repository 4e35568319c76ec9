"""What can happen in a scenario: each act is a class, whose fields are what may be said of it.

An act happens to a scene's pool and disk, and only where it can: one that the pool's state doesn't
allow (a scrub of an exported pool, an error of a disk that has faulted) is passed over. A number of
times is either a number or two, between which the seed draws.
"""

import dataclasses
from collections.abc import Iterator
from random import Random
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from zeventfs.simulator.pool import MS, NS, VDEV_STATES, Disk, Happened, Pool, Standing

__all__ = ["ACTS", "Act", "AnyAct", "Pause", "Stage", "Times"]

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
# No tuple[Count, Count]: beside a Count, msgspec 0.22 crashes when it is garbage-collected.
Times = Count | Annotated[tuple[Count, ...], Meta(min_length=2, max_length=2)]
_SLOW_S = 30  # zio_slow_io_ms is 30,000: what takes less makes no event
Seconds = Annotated[float, Meta(ge=_SLOW_S, le=86_400)]
Name = Annotated[str, Meta(pattern=r"^[-_.: /A-Za-z0-9]*$", max_length=200)]

_SCRUBBING = {"zio_flags": 0x1808B0, "zio_pipeline": 0x1F00000, "zio_priority": 4}
_DATA = {"zio_flags": 0x180880, "zio_pipeline": 0x1F00000}
_SPECULATIVE = 0x100  # ZIO_FLAG_SPECULATIVE up to 2.2
_IO_RETRY = 0x8000  # without it an error of a vdev isn't counted: vdev_stat_update
_DONE, _VERIFY = 0x1000000, 0x800000  # zio_stage: DONE, CHECKSUM_VERIFY


@dataclasses.dataclass(slots=True)
class Stage:
    """Where a scene is set: its pool, and the disk that its acts happen to."""

    pool: Pool
    disk: Disk


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="act"):
    """The base of all acts; `needs` is how the pool must stand for it."""

    needs: ClassVar[frozenset[Standing]] = frozenset({Standing.ACTIVE})

    def play(self, stage: Stage) -> Iterator[Happened]:
        """Yield the events of it; none where it can't happen."""
        raise NotImplementedError


def _drawn(random: Random, times: Times) -> int:
    """Return how often, for this time."""
    return times if isinstance(times, int) else random.randint(times[0], times[1])


class Pause(Act, tag="pause", frozen=True):
    """Nothing, for so many times the interval between two events (1 / rate)."""

    intervals: Annotated[float, Meta(ge=0, le=1_000_000)]


class PoolCreate(Act, tag="pool_create", frozen=True):
    """`zpool create`: the pool is new and empty, its disks in order."""

    needs = frozenset({Standing.ABSENT})

    def play(self, stage: Stage) -> Iterator[Happened]:
        yield from stage.pool.created()


class PoolExport(Act, tag="pool_export", frozen=True):
    """`zpool export`."""

    def play(self, stage: Stage) -> Iterator[Happened]:
        yield stage.pool.gone("pool_export", Standing.EXPORTED, 1)


class PoolImport(Act, tag="pool_import", frozen=True):
    """`zpool import`, of a pool that was exported."""

    needs = frozenset({Standing.EXPORTED})

    def play(self, stage: Stage) -> Iterator[Happened]:
        yield from stage.pool.imported()


class PoolDestroy(Act, tag="pool_destroy", frozen=True):
    """`zpool destroy`."""

    def play(self, stage: Stage) -> Iterator[Happened]:
        yield stage.pool.gone("pool_destroy", Standing.ABSENT, 2)


class DatasetCreate(Act, tag="dataset_create", frozen=True):
    """`zfs create`, unless there is such a dataset."""

    name: Annotated[Name, Meta(min_length=1)]

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool = stage.pool
        if self.name not in pool.datasets:
            dsid = pool.add_dataset(self.name)
            yield pool.history("create", " ", dsname=pool.path(self.name), dsid=dsid)
            yield pool.history("set", "compression=lz4", dsname=pool.path(self.name), dsid=dsid)


class DatasetDestroy(Act, tag="dataset_destroy", frozen=True):
    """`zfs destroy -r`."""

    name: Annotated[Name, Meta(min_length=1)]

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool = stage.pool
        if dataset := pool.datasets.pop(self.name, None):
            for name, dsid in dataset.snapshots:
                yield pool.history("destroy", " ", dsname=name, dsid=dsid)
            yield pool.history("destroy", " ", dsname=pool.path(self.name), dsid=dataset.dsid)


class Snapshot(Act, tag="snapshot", frozen=True):
    """`zfs snapshot` of a dataset, or, without one, of the pool's own."""

    dataset: Name = ""
    times: Times = 1

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool = stage.pool
        if self.dataset in pool.datasets:
            for _ in range(_drawn(pool.random, self.times)):
                name, dsid = pool.add_snapshot(self.dataset)
                yield pool.history("snapshot", " ", dsname=name, dsid=dsid)


class SnapshotDestroy(Act, tag="snapshot_destroy", frozen=True):
    """`zfs destroy` of a dataset's oldest snapshots, as many as there are."""

    dataset: Name = ""
    times: Times = 1

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool = stage.pool
        if self.dataset in pool.datasets:
            snapshots = pool.datasets[self.dataset].snapshots
            for _ in range(min(_drawn(pool.random, self.times), len(snapshots))):
                name, dsid = snapshots.popleft()
                yield pool.history("destroy", " ", dsname=name, dsid=dsid)


class Scrub(Act, tag="scrub", frozen=True):
    """`zpool scrub`, which finds so many checksum errors on the disk."""

    errors: Times = 0
    paused: bool = False
    aborted: bool = False

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool = stage.pool
        yield pool.sysevent("scrub_start")
        yield pool.history("scan setup", f"func=1 mintxg=0 maxtxg={pool.txg()}")
        if stage.disk.works:
            for _ in range(_drawn(pool.random, self.errors)):
                yield _checksum(stage)
        if self.paused:
            yield pool.sysevent("scrub_paused")
            yield pool.sysevent("scrub_resume")
        yield pool.history("scan cancelled" if self.aborted else "scan done", "errors=0")
        yield pool.sysevent("scrub_abort" if self.aborted else "scrub_finish")


class Trim(Act, tag="trim", frozen=True):
    """`zpool trim` of all disks that work."""

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool = stage.pool
        disks = [disk for disk in pool.disks if disk.works]
        for disk in disks:
            yield pool.sysevent("trim_start", disk)
            yield pool.history("trim", f"vdev={disk.path} activated")
        for disk in disks:
            yield pool.history("trim", f"vdev={disk.path} complete")
            yield pool.sysevent("trim_finish", disk)


class Checksum(Act, tag="checksum", frozen=True):
    """Reads of the disk whose checksums are wrong."""

    times: Times = 1

    def play(self, stage: Stage) -> Iterator[Happened]:
        if stage.disk.works:
            for _ in range(_drawn(stage.pool.random, self.times)):
                yield _checksum(stage)


def _checksum(stage: Stage) -> Happened:
    pool, disk = stage.pool, stage.disk
    random = pool.random
    disk.cksum_errors += 1
    begin = random.randrange(0, 0x10000, 8)
    end = begin + random.randrange(64, 0x8000, 8)
    flipped = (end - begin) * 2  # a quarter of the bits set, a quarter cleared: random data
    return pool.ereport(
        "checksum",
        disk,
        random.randint(2 * MS, 30 * MS),
        **_SCRUBBING,
        zio_stage=_VERIFY,
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


class Io(Act, tag="io", frozen=True):
    """Reads that the disk fails; speculative ones are those that ZFS only tried, as a probe."""

    times: Times = 1
    speculative: bool = False

    def play(self, stage: Stage) -> Iterator[Happened]:
        if stage.disk.works:
            for _ in range(_drawn(stage.pool.random, self.times)):
                yield _io(stage, speculative=self.speculative)


def _io(stage: Stage, *, speculative: bool = False) -> Happened:
    random = stage.pool.random
    stage.disk.read_errors += not speculative
    return stage.pool.ereport(
        "io",
        stage.disk,
        random.randint(MS, 900 * MS),
        **_DATA | {"zio_flags": _DATA["zio_flags"] | (_SPECULATIVE if speculative else _IO_RETRY)},
        zio_stage=_DONE,
        zio_priority=random.choice((0, 2)),
        zio_size=0x20000,
    )


class Delay(Act, tag="delay", frozen=True):
    """I/O for which the disk took so long: at least the 30 s of zio_slow_io_ms."""

    times: Times = 1
    seconds: Annotated[tuple[Seconds, ...], Meta(min_length=2, max_length=2)] = (30.0, 45.0)

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool, disk = stage.pool, stage.disk
        if disk.works:
            for _ in range(_drawn(pool.random, self.times)):
                disk.delays += 1
                delay = round(pool.random.uniform(self.seconds[0], self.seconds[1]) * NS)
                yield pool.ereport("delay", disk, delay, **_DATA, zio_stage=_DONE, zio_size=0x1000)


class Data(Act, tag="data", frozen=True):
    """Blocks that no disk has any more."""

    times: Times = 1

    def play(self, stage: Stage) -> Iterator[Happened]:
        for _ in range(_drawn(stage.pool.random, self.times)):
            yield _lost(stage.pool)


def _lost(pool: Pool) -> Happened:
    return pool.pool_ereport(
        "data",
        zio_flags=0xC801,
        zio_stage=_DONE,
        zio_pipeline=0x1F00000,
        zio_objset=0x91,
        zio_object=pool.random.randint(2, 200),
        zio_blkid=pool.random.randint(0, 400),
    )


class Statechange(Act, tag="statechange", frozen=True):
    """The disk gets another state, with the events that ZFS posts beside that."""

    state: Literal["OFFLINE", "REMOVED", "UNAVAIL", "FAULTED", "DEGRADED", "ONLINE"]

    def play(self, stage: Stage) -> Iterator[Happened]:
        if stage.disk.state != VDEV_STATES[self.state]:
            yield from _become(stage.pool, stage.disk, self.state)


def _become(pool: Pool, disk: Disk, state: str) -> Iterator[Happened]:
    if state == "UNAVAIL":
        yield pool.open_failed(disk)
    yield pool.statechange(disk, VDEV_STATES[state])
    if state == "REMOVED":
        yield pool.removed(disk)
    if state == "ONLINE":
        yield pool.sysevent("vdev_online", disk)


class Resilver(Act, tag="resilver", frozen=True):
    """A resilver of the pool, from its start to its end."""

    def play(self, stage: Stage) -> Iterator[Happened]:
        yield from _resilver(stage.pool)


def _resilver(pool: Pool) -> Iterator[Happened]:
    yield pool.sysevent("resilver_start", resilver_type="healing")
    yield pool.history("scan setup", f"func=2 mintxg=3 maxtxg={pool.txg()}")
    yield pool.sysevent("config_sync")
    yield pool.history("scan done", "errors=0")
    yield pool.sysevent("resilver_finish", resilver_type="healing")


class Replace(Act, tag="replace", frozen=True):
    """`zpool replace` of the disk by the first spare, which the scene goes on with.

    The old one becomes the last spare, as good as new.
    """

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool, old = stage.pool, stage.disk
        if not pool.spares:
            return
        new = Disk(pool.spares.popleft())
        yield pool.sysevent("vdev_attach", new)
        yield pool.history("vdev attach", f"replace vdev={new.path} for vdev={old.path}")
        yield from _resilver(pool)
        yield pool.sysevent("vdev_remove", old)
        pool.disks[pool.disks.index(old)] = stage.disk = new
        pool.spares.append(old.path)


class Suspend(Act, tag="suspend", frozen=True):
    """All disks fail at once, and the pool waits (failmode=wait) for `clear`."""

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool = stage.pool
        for disk in pool.disks:
            if disk.works:
                yield _io(Stage(pool, disk))
                yield from _become(pool, disk, "UNAVAIL")
        yield _lost(pool)
        yield pool.pool_ereport("io_failure")
        pool.standing = Standing.SUSPENDED


class Clear(Act, tag="clear", frozen=True):
    """`zpool clear`: errors are forgotten, the disks are back, and a suspended pool goes on."""

    needs = frozenset({Standing.ACTIVE, Standing.SUSPENDED})

    def play(self, stage: Stage) -> Iterator[Happened]:
        pool = stage.pool
        pool.standing = Standing.ACTIVE
        back = [disk for disk in pool.disks if not disk.works]
        for disk in pool.disks:
            disk.clear()
            if disk in back:
                yield pool.statechange(disk, VDEV_STATES["ONLINE"])
            yield pool.sysevent("vdev_clear", disk)
        if back:
            yield from _resilver(pool)


AnyAct = (
    Checksum
    | Clear
    | Data
    | DatasetCreate
    | DatasetDestroy
    | Delay
    | Io
    | Pause
    | PoolCreate
    | PoolDestroy
    | PoolExport
    | PoolImport
    | Replace
    | Resilver
    | Scrub
    | Snapshot
    | SnapshotDestroy
    | Statechange
    | Suspend
    | Trim
)
ACTS: tuple[type[Act], ...] = AnyAct.__args__
