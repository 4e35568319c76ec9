"""events/latest and events/summary: what happened last, and what happens how often."""

from collections.abc import Iterator
from functools import lru_cache

import msgspec

from zeventfs.journal.journal import Journal
from zeventfs.journal.summary import Summary, Tally
from zeventfs.printable import printable
from zeventfs.render import time_text

__all__ = ["latest", "summary_table"]

_OTHERS = "(others)"  # no class is shown so: parentheses are escaped
_INDENT = 2
# Of most classes neither the name nor the times are other than when somebody last looked.
_name = lru_cache(2048)(printable)
_time = lru_cache(4096)(time_text)
_WIDEST = 60  # characters; a longer name is out of line, and not all the others


def latest(journal: Journal) -> bytes:
    """The newest event that is kept, cleared or not, as its line, but laid out for a person.

    Nothing where there is none.
    """
    for segment in reversed(journal.segments):
        lines = segment.lines
        if lines.ends:
            line = lines.event(lines.next_seq - 1)
            return msgspec.json.format(line.rstrip(b"\n"), indent=_INDENT) + b"\n"
    return b""


def summary_table(summary: Summary) -> bytes:
    """A line a class, sorted, in columns: class, count, time of the first and of the last event.

    Classes for which there was no room are together in one line, the last.
    """
    rows = list(_rows(summary))
    name_width = min(max((len(name) for name, _ in rows), default=0), _WIDEST)
    count_width = max((len(str(tally.count)) for _, tally in rows), default=0)
    return "".join(
        f"{name:<{name_width}}  {tally.count:>{count_width}}"
        f"  {_time(tally.first_ns)}  {_time(tally.last_ns)}\n"
        for name, tally in rows
    ).encode()


def _rows(summary: Summary) -> Iterator[tuple[str, Tally]]:
    for name, tally in summary:
        yield _name(name), tally
    if summary.others is not None:
        yield _OTHERS, summary.others
