"""Packed nvlists to rendered JSON lines in the journal, in this process, beside msgspec's decode.

Run as a process of its own, so that what was measured before doesn't weigh on it; prints JSON.
"""

import argparse
import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.corpus import varied
from zeventfs.event import Event
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.store import Store
from zeventfs.render import Renderer

__all__ = ["decode", "ingest"]

LIMITS = Limits(retain=1 << 30, segment=16 << 20)  # nothing is evicted, and a few rotations
EPOCH = "0123456789abcdef"


def ingest(events: Sequence[bytes], journal: Journal) -> float:
    """Events a second from packed nvlists to lines in *journal*, as the daemon takes them in."""
    begin = time.perf_counter()
    for packed in events:
        journal.append(Event.from_packed("zfs", packed))
    return len(events) / (time.perf_counter() - begin)


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
        gc.collect()
        with TemporaryDirectory(prefix="zeventfs-ingest-") as directory:
            journal = Journal(
                EPOCH,
                Renderer(EPOCH, "2.1.11"),
                LIMITS,
                time.time_ns,
                Store(Path(directory)),
            )
            ours = ingest(events, journal)
            lines = [
                line
                for segment in journal.segments
                for line in bytes(segment.lines.buffer[: segment.lines.length]).splitlines()
            ]
            assert len(lines) == count
        del events
        gc.collect()
        rounds.append((ours, decode(lines)))
    print(json.dumps(rounds))


if __name__ == "__main__":
    main()
