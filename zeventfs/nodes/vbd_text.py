"""What a VBD's files say: KEY=value for scripts, a table of errors for a person.

Each is text in which a line is a line, whatever a tapdisk or an image's name has in it.
"""

import errno
from collections.abc import Mapping

from zeventfs.nodes.lines import encoded, pairs, table
from zeventfs.printable import printable
from zeventfs.render import time_text
from zeventfs.vbd.counters import Kicks, Queue
from zeventfs.vbd.dispersion import Dispersion
from zeventfs.vbd.shown import Status
from zeventfs.vbd.states import State

__all__ = [
    "errors_text",
    "image_text",
    "info_text",
    "kicks_text",
    "queue_text",
    "state_text",
    "word_text",
]

_HEAD = ("ERRNO", "PLACE", "COUNT", "FIRST", "LAST", "REASON")
_NUMBERS = frozenset({"COUNT"})
_UNKEPT = "(others)"  # no errno is called so


def state_text(status: Status) -> bytes:
    """One KEY=value a line, all of one moment; nothing behind PID= where there is no tapdisk."""
    channel, vbd, shutdown = status.states
    return pairs(
        {
            "CHANNEL": channel.name,
            "VBD": vbd.name,
            "SHUTDOWN": shutdown.name,
            "PID": _known(status.pid),
            "REASON": status.reason,
            "SINCE": time_text(status.changed_ns),
            "IMAGE": status.image,
        }
    )


def word_text(state: State) -> bytes:
    """One state's word."""
    return encoded([state.name])


def image_text(status: Status) -> bytes:
    """driver:path, or nothing."""
    return encoded([status.image] if status.image else [])


def info_text(info: Mapping[str, str]) -> bytes:
    """One key=value a line, as they are known."""
    return pairs(info)


def queue_text(queue: Queue) -> bytes:
    """One key=value a line; nothing behind the = where the tapdisk doesn't tell."""
    return pairs({key: _known(count) for key, count in queue._asdict().items()})


def kicks_text(kicks: Kicks | None) -> bytes:
    """Those that came in from the guest, and those that went out to it; nothing if unknown."""
    return pairs(
        {
            "in": _known(None if kicks is None else kicks.incoming),
            "out": _known(None if kicks is None else kicks.outgoing),
        }
    )


def errors_text(errors: Dispersion) -> bytes:
    """A line for each errno and place, below their heads; the last one counts what has no line."""
    rows = [
        (
            errno.errorcode.get(bucket.errno, str(bucket.errno)),
            printable(bucket.place),
            str(bucket.count),
            time_text(bucket.first_ns),
            time_text(bucket.last_ns),
            bucket.reason,
        )
        for bucket in errors
    ]
    if errors.unkept:
        rows.append((_UNKEPT, "", str(errors.unkept), "", "", ""))
    return table(_HEAD, rows, _NUMBERS)


def _known(number: int | None) -> str:
    return "" if number is None else str(number)
