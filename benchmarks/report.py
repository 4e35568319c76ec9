"""What was measured, beside its floors and what it must be: as a table, and as JSON."""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

__all__ = ["Must", "Result", "as_table", "percentile", "write_json"]

Rounds = list[float]


@dataclass(frozen=True, slots=True)
class Must:
    """A bound: of the value, or of the ratio to the floor that it names."""

    bound: float
    at_least: bool = False
    floor: str = ""

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.bound:g} x {self.floor}" if self.floor else f"{sign} {self.bound:g}"

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: a number for each round, ours and the floors', the rounds side by side.

    *ours* is empty when there is nothing to measure, and *why* says so. *also* are figures
    without a target.
    """

    name: str
    unit: str
    ours: Rounds
    floors: dict[str, Rounds] = field(default_factory=dict)
    must: Must | None = None
    also: dict[str, float] = field(default_factory=dict)
    why: str = ""

    @property
    def value(self) -> float | None:
        """The median of ours."""
        return median(self.ours) if self.ours else None

    def ratio(self, floor: str) -> float | None:
        """The median of the rounds' ratios, ours to *floor*'s: what drifts, drifts for both."""
        pairs = zip(self.ours, self.floors.get(floor, []), strict=False)
        ratios = [ours / other for ours, other in pairs if other]
        return median(ratios) if ratios else None

    @property
    def holds(self) -> bool | None:
        """Whether the figure is as it must be; None when that can't be said."""
        if self.must is None:
            return None
        judged = self.ratio(self.must.floor) if self.must.floor else self.value
        return None if judged is None else self.must.holds(judged)


def percentile(values: Iterable[float], part: float) -> float:
    """The value below which *part* (0 to 1) of *values* lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def as_table(results: Iterable[Result]) -> str:
    """A line for each figure and one for each of its floors."""
    rows = [("", "median", "", "ratio", "must be", "")]
    for result in results:
        judged = "" if result.must is None else str(result.must)
        held = {True: "holds", False: "MISSED", None: "not measured" if judged else ""}
        value = "-" if result.value is None else _figure(result.value)
        rows.append((result.name, value, result.unit, "", judged, held[result.holds]))
        for name, rounds in result.floors.items():
            ratio = result.ratio(name)
            shown = "" if ratio is None else f"{ratio:.2f}"
            rows.append((f"  {name}", _figure(median(rounds)), result.unit, shown, "", ""))
        rows += [
            (f"  {name}", _figure(extra), "", "", "", "") for name, extra in result.also.items()
        ]
        if result.why:
            rows.append((f"  {result.why}", "", "", "", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    widths[0] = min(widths[0], 58)
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        cell.rjust(width) if column in {1, 3} else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def write_json(path: Path, results: Iterable[Result]) -> None:
    """Write every round of every figure, with where it was measured."""
    figures = [
        asdict(result)
        | {
            "value": result.value,
            "ratios": {name: result.ratio(name) for name in result.floors},
            "medians": {name: median(rounds) for name, rounds in result.floors.items()},
            "must_be": None if result.must is None else str(result.must),
            "holds": result.holds,
        }
        for result in results
    ]
    machine = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
    }
    path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
