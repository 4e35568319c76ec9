"""Tries mutants on all cores: `make fuzz COUNT=10000000 SEED=7`; see mutants and mutant_checks.

On a failure it says the seed, the batch, the mutant in hex, and how to have it again, and is 1.
"""

import argparse
import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache

from mutant_checks import BATCH, Checks, Failure, Outcome, try_batch
from mutants import Mutant, Mutants

_EVERY_S = 30.0  # between two lines that say how far it is
_STUCK_S = 300  # a batch takes a second


@cache
def _mutants() -> Mutants:
    return Mutants()


def _try(seed: int, batch: int) -> Outcome | str:
    """Try a batch in a process of the pool; a failure is told as text."""
    faulthandler.dump_traceback_later(_STUCK_S, exit=True)
    try:
        return try_batch(_mutants(), seed, batch)
    except Failure:
        return traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()


def _outcomes(seed: int, batches: range, jobs: int) -> Iterator[Outcome | str]:
    """Give the outcomes of *batches* as they come, few of them under way at any time."""
    left = iter(batches)
    under_way: dict[Future[Outcome | str], int] = {}
    with ProcessPoolExecutor(jobs, initializer=faulthandler.enable) as pool:
        try:
            while True:
                while len(under_way) < 2 * jobs and (batch := next(left, None)) is not None:
                    under_way[pool.submit(_try, seed, batch)] = batch
                if not under_way:
                    return
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield done.result()
                    del under_way[done]
        except BrokenProcessPool:
            yield f"a process died or hung in one of the batches {sorted(under_way.values())}"
        finally:
            pool.shutdown(cancel_futures=True)


def _run(seed: int, batches: range, jobs: int) -> int:
    began = said = time.monotonic()
    tried = understood = 0
    print(f"seed {seed}: {len(batches) * BATCH:,} mutants, {jobs} processes", flush=True)
    for outcome in _outcomes(seed, batches, jobs):
        if isinstance(outcome, str):
            print(f"{outcome}\nFAILED after {tried:,} mutants. Once more:", file=sys.stderr)
            print(f"  make fuzz SEED={seed} BATCH=N    (N is the batch)", file=sys.stderr)
            print("  python tests/unit/fuzz.py --hex KIND HEX    (by itself)", file=sys.stderr)
            return 1
        tried += outcome.tried
        understood += outcome.understood
        now = time.monotonic()
        if now - said > _EVERY_S or tried == len(batches) * BATCH:
            said = now
            rate = tried / (now - began)
            print(f"{tried:,} mutants, {understood:,} understood, {rate:,.0f}/s", flush=True)
    return 0


def _try_one(kind: str, raw: bytes) -> int:
    checks = Checks()
    try:
        print("understood" if checks.check(Mutant(kind, raw)) else "refused")
    finally:
        checks.close()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000_000, help="how many mutants")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="which mutants")
    parser.add_argument("--batch", type=int, help="only this batch of the seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many processes")
    parser.add_argument("--hex", nargs=2, metavar=("KIND", "HEX"), help="only this mutant")
    given = parser.parse_args()
    if given.hex:
        return _try_one(given.hex[0], bytes.fromhex(given.hex[1]))
    first = given.batch or 0
    count = -(-given.count // BATCH) if given.batch is None else 1
    return _run(given.seed, range(first, first + count), given.jobs)


if __name__ == "__main__":
    sys.exit(main())
