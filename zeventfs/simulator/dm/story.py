"""What happens to the simulator's mapped devices by itself: the same from the same seed.

A few devices, one of each kind that has something to tell; each tale leaves its device as good as
it was, whatever it went through. A device that somebody else has removed is left alone.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Final

from zeventfs.simulator.dm.devices import Devices
from zeventfs.simulator.dm.targets import (
    Group,
    Linear,
    Mirror,
    Multipath,
    Path,
    Snapshot,
    Target,
    ThinPool,
)

__all__ = ["made", "tell"]

_GIB: Final = 2 << 20  # in sectors
_MULTIPATH, _VOLUME, _MIRROR, _SNAPSHOT, _POOL = (
    "mpatha",
    "vg0-home",
    "vg0-mirror",
    "vg0-snap",
    "vg0-pool",
)
_KINDS: Final = {
    _MULTIPATH: "multipath",
    _VOLUME: "linear",
    _MIRROR: "mirror",
    _SNAPSHOT: "snapshot",
    _POOL: "thin-pool",
}
_LONG: Final = 4.0  # beats; one is as long as an event of the rest of the story

Tale = Callable[[Devices, Random], Iterator[float]]


def made(kind: str) -> list[Target]:
    """A new table of that *kind*, and of none other than `_KINDS` has. Raises KeyError."""
    return [_MADE[kind]()]


def tell(devices: Devices, random: Random) -> Iterator[float]:
    """Tell without end; yields how many beats nothing happens."""
    for name, kind in _KINDS.items():
        with suppress(OSError):
            devices.create(name, made(kind), f"{'mpath' if kind == 'multipath' else 'LVM'}-{name}")
        yield 1.0
    while True:
        [tale] = random.choices(_TALES, _WEIGHTS)
        with suppress(OSError):  # somebody else has other plans with the device
            yield from tale(devices, random)
        yield _LONG


# Multipath


def _controller_away(devices: Devices, random: Random) -> Iterator[float]:
    """All paths of the group in use fail, the other is used meanwhile."""
    target = devices.target(_MULTIPATH, Multipath)
    for path in target.groups[0].paths:
        devices.fail_path(_MULTIPATH, path.dev)
        yield 1.0
    devices.use_group(_MULTIPATH, 2)
    yield random.uniform(1, 2) * _LONG
    for path in target.groups[0].paths:
        devices.reinstate_path(_MULTIPATH, path.dev)
        yield 1.0
    devices.use_group(_MULTIPATH, 1)


def _flapping(devices: Devices, random: Random) -> Iterator[float]:
    """A path that fails and comes back, again and again."""
    path = random.choice(devices.target(_MULTIPATH, Multipath).paths())
    for _ in range(random.randint(2, 6)):
        devices.fail_path(_MULTIPATH, path.dev)
        yield 0.5
        devices.reinstate_path(_MULTIPATH, path.dev)
        yield 0.5


def _all_away(devices: Devices, random: Random) -> Iterator[float]:
    """No path is left, for a while."""
    paths = devices.target(_MULTIPATH, Multipath).paths()
    for path in paths:
        devices.fail_path(_MULTIPATH, path.dev)
        yield 0.2
    yield random.uniform(1, 2) * _LONG
    for path in paths:
        devices.reinstate_path(_MULTIPATH, path.dev)
        yield 0.2


def _bypass(devices: Devices, random: Random) -> Iterator[float]:
    """A group is not to be used for a while."""
    number = random.choice((1, 2))
    devices.bypass_group(_MULTIPATH, number, bypassed=True)
    yield _LONG
    devices.bypass_group(_MULTIPATH, number, bypassed=False)


# The others


def _volume(devices: Devices, random: Random) -> Iterator[float]:
    """A volume is suspended and goes on, larger as often as not; once in a while it is renamed."""
    table = devices.device(_VOLUME).table or ()
    devices.suspend(_VOLUME)
    yield 1.0
    if random.random() < 0.5:
        devices.load(_VOLUME, [*table, Linear(_GIB)] if len(table) < 8 else made("linear"))
    devices.resume(_VOLUME)
    yield 1.0
    if random.random() < 0.3:
        devices.rename(_VOLUME, f"{_VOLUME}-old")
        yield 1.0
        devices.rename(f"{_VOLUME}-old", _VOLUME)


def _leg(devices: Devices, random: Random) -> Iterator[float]:
    """A leg fails and is replaced, and all is copied to the new one."""
    leg = random.randrange(len(devices.target(_MIRROR, Mirror).legs))
    devices.fail_leg(_MIRROR, leg, random.choice("DRF"))
    yield _LONG
    yield from _replaced(devices, leg, f"8:{random.randint(64, 96)}")


def _log(devices: Devices, random: Random) -> Iterator[float]:
    """The log fails and is replaced."""
    devices.fail_log(_MIRROR, random.choice("DF"))
    yield _LONG
    yield from _replaced(devices, None, "")


def _replaced(devices: Devices, leg: int | None, dev: str) -> Iterator[float]:
    old = devices.target(_MIRROR, Mirror)
    new = Mirror(old.length, [*old.legs], old.regions, old.regions, log=old.log)
    if leg is not None:
        new.legs[leg], new.health[leg], new.synced = dev, "S", 0
    devices.load(_MIRROR, [new])
    devices.suspend(_MIRROR)
    devices.resume(_MIRROR)
    for quarter in range(1, 5):
        yield 1.0
        devices.sync_mirror(_MIRROR, new.regions * quarter // 4)


def _snapshot(devices: Devices, random: Random) -> Iterator[float]:
    """A snapshot's store fills up until it is no good any more, and there is a new one."""
    target = devices.target(_SNAPSHOT, Snapshot)
    while not target.ended:
        devices.fill_snapshot(_SNAPSHOT, target.used + target.total // random.randint(2, 5))
        yield 1.0
    uuid = devices.device(_SNAPSHOT).uuid
    devices.remove(_SNAPSHOT)
    yield 1.0
    devices.create(_SNAPSHOT, made("snapshot"), uuid)


def _pool(devices: Devices, random: Random) -> Iterator[float]:
    """A pool falls below its low-water mark, or is full, and gets more room."""
    target = devices.target(_POOL, ThinPool)
    last = target.data_total - (0 if random.random() < 0.3 else target.low_water // 2)
    for part in range(1, 5):
        devices.fill_pool(_POOL, last * part // 4, target.metadata_used + 1)
        yield 1.0
    yield _LONG
    devices.extend_pool(_POOL, target.data_total + 1024)
    yield 1.0
    devices.fill_pool(_POOL, random.randint(0, 64))  # its volumes were trimmed


_TALES: Final[tuple[Tale, ...]] = (
    _controller_away,
    _flapping,
    _all_away,
    _bypass,
    _volume,
    _leg,
    _log,
    _snapshot,
    _pool,
)
_WEIGHTS: Final = (4, 4, 1, 2, 3, 2, 1, 2, 2)

_MADE: Final[dict[str, Callable[[], Target]]] = {
    "linear": lambda: Linear(_GIB),
    "multipath": lambda: Multipath(
        4 * _GIB, [Group([Path("8:16"), Path("8:32")]), Group([Path("8:48"), Path("8:64")])], 1
    ),
    "mirror": lambda: Mirror(_GIB, ["8:80", "8:96"], 2048, 2048, log="8:112"),
    "snapshot": lambda: Snapshot(_GIB, "8:128", "8:144", 65536),
    "thin-pool": lambda: ThinPool(_GIB, "8:160", "8:176", 1024, 16384, 1024),
}
