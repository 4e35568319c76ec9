"""Packed nvlists to rendered JSON lines in the journal, in this process: without views and with.

Beside it msgspec decodes the same lines. Run as a process of its own, so that what was measured
before doesn't weigh on it; prints JSON, for each round events a second by what they were taken
with, and lines a second that msgspec decodes.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import trio

from benchmarks.corpus import varied
from zeventfs.event import Event
from zeventfs.filter import Expression
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.store import Store
from zeventfs.nodes.streams import JsonFormat
from zeventfs.nodes.views import Views
from zeventfs.pools.pools import Pools
from zeventfs.render import Renderer

__all__ = ["decode", "ingest"]

LIMITS = Limits(retain=1 << 30, segment=16 << 20)  # nothing is evicted, and a few rotations
EPOCH = "0123456789abcdef"
DECODED = "msgspec decodes the lines"

Prepare = Callable[[Journal], object]  # gives what must live as long as the journal takes events


def ingest(events: Sequence[bytes], journal: Journal) -> float:
    """Events a second from packed nvlists to lines in *journal*, as the daemon takes them in."""
    begin = time.perf_counter()
    for packed in events:
        journal.append(Event.from_packed("zfs", packed))
    return len(events) / (time.perf_counter() - begin)


def _open_views(expressions: Sequence[str]) -> Prepare:
    """Views that are looked up and open, as a reader's open of their streams makes them."""

    def prepare(journal: Journal) -> object:
        views = Views(journal, (JsonFormat(journal),))
        journal.subscribe(views.arrived)
        found = [views.view(Expression.parse(each)) for each in expressions]
        for view in found:
            trio.run(view.formats[0].hold)
        return found

    return prepare


def _looked_up_views(expressions: Sequence[str]) -> Prepare:
    """Views that the kernel knows and nobody has open."""

    def prepare(journal: Journal) -> object:
        views = Views(journal, (JsonFormat(journal),))
        journal.subscribe(views.arrived)
        return [views.view(Expression.parse(each)) for each in expressions]

    return prepare


def _nobody(_event: Event, _seq: int) -> None:
    """See nothing."""


def _number(count: int, expression: str) -> list[str]:
    return [expression.format(number) for number in range(count)]


POOLS = "pools/"
_BY_KIND, _BY_KEY = "class=no.such.class.{}", "vdev_path=no such path {}"
WITH: dict[str, Prepare] = {
    "no views": lambda _: None,
    POOLS: lambda _: None,
    "64 views looked up": _looked_up_views(_number(64, _BY_KIND)),
    "1 view of a class open": _open_views(_number(1, _BY_KIND)),
    "64 views of classes open": _open_views(_number(64, _BY_KIND)),
    "1 view of a key open": _open_views(_number(1, _BY_KEY)),
    "64 views of keys open": _open_views(_number(64, _BY_KEY)),
}


def decode(lines: Sequence[bytes]) -> float:
    """Lines a second that msgspec decodes."""
    decode = msgspec.json.Decoder().decode
    begin = time.perf_counter()
    for line in lines:
        decode(line)
    return len(lines) / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    count = arguments.events
    rounds = []
    for number in range(arguments.rounds):
        events = list(varied(count, 1 + number * count))
        rates = {}
        lines: list[bytes] = []
        for name, prepare in WITH.items():
            gc.collect()
            with TemporaryDirectory(prefix="zeventfs-ingest-") as directory:
                renderer = Renderer(EPOCH, "2.1.11")
                store = Store(Path(directory))
                witness = Pools().take if name == POOLS else _nobody
                journal = Journal(EPOCH, renderer, LIMITS, time.time_ns, store, witness)
                kept = prepare(journal)
                rates[name] = ingest(events, journal)
                del kept
                lines = [
                    line
                    for segment in journal.segments
                    for line in bytes(segment.lines.buffer[: segment.lines.length]).splitlines()
                ]
                assert len(lines) == count
        del events
        gc.collect()
        rates[DECODED] = decode(lines)
        rounds.append(rates)
    print(json.dumps(rounds))


if __name__ == "__main__":
    main()
