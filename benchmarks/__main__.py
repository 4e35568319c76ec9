"""Measure zeventfs beside its floors, in one run: `python -m benchmarks [NAME...]`."""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measures import MEASURES
from benchmarks.profile import Profiler
from benchmarks.report import Result, as_table, write_json
from benchmarks.servers import Place, ServerFailed, end_on_sigterm

__all__ = ["main"]

SECONDS = 180  # for one server's measurement, after which it is aborted


def main() -> int:
    """Measure, print, write; 0, or with --strict 1 when something isn't as it must be."""
    arguments = _arguments()
    end_on_sigterm()
    results: list[Result] = []
    profiler = Profiler(wanted=arguments.profile)
    with Place(seconds=SECONDS) as place:
        bench = Bench(place, arguments.quick, arguments.floors, profiler)
        for name in arguments.names or MEASURES:
            print(f"{name}: {MEASURES[name].__doc__}", file=sys.stderr, flush=True)
            results += _measured(name, bench)
    print(as_table(results))
    for found in profiler.found:
        print(f"\nwhere the time goes, {found}")
    if arguments.json:
        write_json(arguments.json, results)
    missed = any(result.why or result.holds is False for result in results)
    return int(arguments.strict and missed)


def _measured(name: str, bench: Bench) -> list[Result]:
    try:
        return list(MEASURES[name](bench))
    except (ServerFailed, OSError, subprocess.SubprocessError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return [Result(name, "", [], why=str(error))]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a smaller backlog")
    parser.add_argument("--floors", action="store_true", help="only the floors")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    parser.add_argument("--strict", action="store_true", help="status 1 if anything is missed")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(MEASURES):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
