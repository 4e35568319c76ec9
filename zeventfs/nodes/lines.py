"""Small files for scripts and for a person: KEY=value, and tables; a line is always a line."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from zeventfs.printable import shown

__all__ = ["encoded", "pairs", "table"]


def pairs(facts: Mapping[str, object]) -> bytes:
    """One KEY=value a line."""
    return encoded(f"{key}={value}" for key, value in facts.items())


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()
) -> bytes:
    """The columns below their heads: *numbers* to the right, words to the left."""
    cells = [head, *[[shown(cell) for cell in row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    signs = [">" if title in numbers else "<" for title in head]
    return encoded(
        "  ".join(
            f"{cell:{sign}{width}}" for cell, sign, width in zip(row, signs, widths, strict=True)
        ).rstrip()
        for row in cells
    )


def encoded(lines: Iterable[str]) -> bytes:
    """*lines*, each as one line."""
    return "".join(f"{shown(line)}\n" for line in lines).encode()
