"""What the simulator tells by itself: a scenario, event by event, never quite the same.

The same scenario and seed tell the same events, but for the times that the clock says.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from zeventfs.simulator.acts import Act, Pause, Stage
from zeventfs.simulator.pool import Pool
from zeventfs.simulator.scenario import Scenario, Scene
from zeventfs.simulator.zfs import Pair

__all__ = ["Told", "tell"]

_SILENT_MOST = 1000  # acts in a row without an event, after which nothing is expected any more


class Told(NamedTuple):
    """An event for ZfsDevice.post, and how many intervals after the one before it happens."""

    wait: float
    name: str
    pairs: list[Pair]


def tell(seed: int, clock: Callable[[], int], scenario: Scenario) -> Iterator[Told]:
    """Tell a scenario: without end, or until nothing happens any more.

    It is over when there is nothing to be played ever after, or when 1,000 acts in a row found
    nothing to do. *clock* gives nanoseconds since 1970; it is asked for a history record's time.
    """
    random = Random(seed)  # noqa: S311 - a story, no secret
    pools = {name: Pool(name, setup, random, clock) for name, setup in scenario.pools.items()}
    wait = 0.0
    silent = 0
    for scene in _scenes(scenario, random):
        for _ in range(scene.repeat):
            stage = _stage(scene, pools, random)
            for act in scene.acts:
                silent += 1
                if isinstance(act, Pause):
                    wait += act.intervals
                elif stage is not None:
                    for name, pairs in _played(act, stage):
                        yield Told(wait, name, pairs)
                        wait = 0.0 if scene.burst else 1.0
                        silent = 0
                if silent == _SILENT_MOST:
                    return
            wait = max(wait, 1.0)


def _scenes(scenario: Scenario, random: Random) -> Iterator[Scene]:
    yield from scenario.opening
    later = scenario.ever_after
    weights = [scene.weight for scene in later]
    while later:
        yield from random.choices(later, weights) if scenario.at_random else later


def _stage(scene: Scene, pools: dict[str, Pool], random: Random) -> Stage | None:
    """Set a scene; None when the disk that it names is not in the pool now."""
    pool = pools[scene.pool or random.choice(list(pools))]
    if scene.disk is None:
        return Stage(pool, random.choice(pool.disks))
    return next((Stage(pool, disk) for disk in pool.disks if disk.path == scene.disk), None)


def _played(act: Act, stage: Stage) -> Iterator[tuple[str, list[Pair]]]:
    return act.play(stage) if stage.pool.standing in act.needs else iter(())
