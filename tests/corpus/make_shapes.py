"""Makes zeventfs/simulator/shapes.json from the recorded events: python tests/corpus/make_shapes.py

For each class, its keys in the recorded order, as [name, type] or [name, "NVLIST", [keys]]; a name
that ends in "?" was absent from some recorded events. `time` and `eid`, which end every event, are
left out: posting puts them there.
"""

import base64
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zeventfs.nvlist import NVList, Type, decode

CORPUS = Path(__file__).with_name("zevents.jsonl")
SHAPES = Path(__file__).parents[2] / "zeventfs" / "simulator" / "shapes.json"
TAIL = ["time", "eid"]


def recorded_events() -> list[tuple[str, NVList]]:
    """Return every recorded event's class and nvlist, in the recorded order."""
    lines = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]
    return [
        (line["class"], decode(base64.b64decode(line["native"])))
        for line in lines
        if "native" in line
    ]


def merged_order(orders: Iterable[list[str]]) -> list[str]:
    """Return all names in an order that each of *orders* keeps; ValueError if there is none."""
    merged: list[str] = []
    for order in orders:
        at = 0
        for name in order:
            if name not in merged:
                merged.insert(at, name)
            if (found := merged.index(name)) < at:
                raise ValueError(f"{name} was recorded before and after the same key")
            at = found + 1
    return merged


def shape(instances: list[NVList]) -> list[list[Any]]:
    """Return the keys of one class, or of one embedded list, from all its recorded instances."""
    keys = []
    for name in merged_order([[name for name, _, _ in each.pairs()] for each in instances]):
        if name in TAIL:
            continue
        found = [pair for each in instances for pair in each.pairs() if pair[0] == name]
        kinds = {kind for _, kind, _ in found}
        if len(kinds) != 1:
            raise ValueError(f"{name} was recorded with several types: {kinds}")
        kind = kinds.pop()
        key = [name if len(found) == len(instances) else f"{name}?", kind.name]
        keys.append([*key, shape([value for _, _, value in found])] if kind is Type.NVLIST else key)
    return keys


def shapes_text() -> str:
    """Return what shapes.json holds: a class a line, so that a difference shows where it is."""
    instances: dict[str, list[NVList]] = {}
    for name, nvlist in recorded_events():
        instances.setdefault(name, []).append(nvlist)
    lines = [
        f"{json.dumps(name)}: {json.dumps(shape(instances[name]))}" for name in sorted(instances)
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.exit(SHAPES.write_text(shapes_text(), "utf-8") and None)
