"""Events of pools: the recorded ones, those that a scenario tells, and single ones."""

import base64
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from zeventfs.event import NS, Event
from zeventfs.nvlist import Type
from zeventfs.pools.pool import Pool
from zeventfs.pools.pools import Pools
from zeventfs.simulator.scenario import load
from zeventfs.simulator.shapes import known_type
from zeventfs.simulator.story import tell

__all__ = ["BEGIN", "event", "only", "pools_of", "recorded", "told"]

BEGIN = 1_700_000_000  # 2023-11-14T22:13:20Z
CORPUS = Path(__file__).parent.parent / "corpus" / "zevents.jsonl"
_MADE_BY_EVENT = {"class", "time", "eid"}


def recorded() -> Iterator[Event]:
    with CORPUS.open(encoding="utf-8") as lines:
        next(lines)  # what the corpus is
        for line in lines:
            yield Event.from_packed("zfs", base64.b64decode(json.loads(line)["native"]))


def told(scenario: str, count: int, seed: int = 7) -> Iterator[Event]:
    """The first events of a scenario, one a second or as it pauses."""
    now = BEGIN
    story = tell(seed, lambda: now * NS, load(scenario))
    for eid, each in enumerate(islice(story, count), 1):
        now += int(each.wait)
        pairs = [pair for pair in each.pairs if pair[0] not in _MADE_BY_EVENT]
        yield Event.make("zfs", each.name, now * NS, pairs, eid)


def event(name: str, second: int = 0, **values: Any) -> Event:
    """An event of pool tank, unless it says otherwise, *second* seconds after BEGIN.

    *name* is its class without fs.zfs ("ereport.io"). A value is of its key's type in ZFS, or a
    pair of a type and a value.
    """
    pairs = []
    for key, value in ({"pool": "tank"} | values).items():
        if isinstance(value, tuple):
            pairs.append((key, *value))
        else:
            kind = Type.STRING if isinstance(value, str) else known_type(key)
            assert kind is not None
            pairs.append((key, kind, value))
    category, subclass = name.split(".", 1)
    return Event.make("zfs", f"{category}.fs.zfs.{subclass}", (BEGIN + second) * NS, pairs)


def pools_of(events: Iterable[Event]) -> Pools:
    """What a journal's *events* tell, the first of them with seq 1."""
    pools = Pools()
    for seq, each in enumerate(events, 1):
        pools.take(each, seq)
    return pools


def only(*events: Event) -> Pool:
    """The one pool that *events* tell of."""
    (pool,) = pools_of(events).current(0).values()
    return pool
