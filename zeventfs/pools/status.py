"""What zpool(8) prints of pools, as facts; the words that its text and its JSON have in common.

What a release doesn't print is None or "". Source: cmd/zpool/zpool_main.c of openzfs/zfs.
"""

import re
from typing import Final, NamedTuple

__all__ = [
    "LATEST_S",
    "ROLES",
    "SPARES",
    "VDEV_STATES",
    "PoolStatus",
    "Question",
    "ScanStatus",
    "VdevStatus",
    "number_of",
    "type_of",
]

ROLES: Final = ("dedup", "special", "logs", "cache", "spares")
"""What a vdev at the top may be for, beside the pool's data, in zpool's order and words."""


class Question(NamedTuple):
    """When the kernel was asked and when it had answered, by the clock of events' times."""

    asked_ns: int
    answered_ns: int

    def before(self, told_ns: int) -> bool:
        """Whether an event of *told_ns* is newer than the question.

        One from after the answer is of before the clock was set back.
        """
        return self.asked_ns < told_ns <= self.answered_ns


class VdevStatus(NamedTuple):
    """A vdev, in zpool's order; what isn't printed of it is None or "".

    `parent` is the guid of the vdev within which it is, None at the top; `role` one of ROLES or "".
    `name` is as zpool's, `type` as in events; `state` as vdev_state_t. `spare` is AVAIL or INUSE of
    a spare that is well.
    """

    guid: int
    parent: int | None
    role: str
    name: str
    path: str
    type: str
    state: int | None
    spare: str
    read_errors: int | None
    write_errors: int | None
    cksum_errors: int | None
    slow: int | None


class ScanStatus(NamedTuple):
    """The latest resilver or scrub, in the words of `pool.Scan`."""

    kind: str
    state: str
    since_ns: int


class PoolStatus(NamedTuple):
    """A pool; `health` is zpool's one word for it. What isn't known of vdevs and scan is None."""

    name: str
    guid: int | None
    health: str
    scan: ScanStatus | None = None
    vdevs: tuple[VdevStatus, ...] | None = None


VDEV_STATES: Final = {
    "UNKNOWN": 0,
    "CLOSED": 1,
    "OFFLINE": 2,
    "REMOVED": 3,
    "CANT_OPEN": 4,  # JSON's word
    "UNAVAIL": 4,
    "SPLIT": 4,  # zpool_state_to_name's word for a CANT_OPEN
    "FAULTED": 5,
    "DEGRADED": 6,
    "ONLINE": 7,
    "AVAIL": 7,
    "INUSE": 7,
}
SPARES: Final = frozenset({"AVAIL", "INUSE"})
_NUMBERED = re.compile(r"(mirror|raidz|draid|replacing|spare|indirect|hole|missing)[0-9:a-z]*-\d+")
_DRAID_SPARE = re.compile(r"draid\d+-\d+-\d+")
_MOST_DIGITS = 20  # of 2^64 - 1
LATEST_S: Final = 253402300799  # the end of the year 9999


def number_of(word: str | int | None) -> int | None:
    """A count or a guid; None for what is none of 64 bits."""
    if isinstance(word, str):
        if not (word.isascii() and word.isdecimal() and len(word) <= _MOST_DIGITS):
            return None
        word = int(word)
    return word if word is not None and 0 <= word < 1 << 64 else None


def type_of(name: str) -> str:
    """The type that a vdev's name says, "" if it says none."""
    if _DRAID_SPARE.fullmatch(name):
        return "dspare"
    found = _NUMBERED.fullmatch(name)
    return found[1] if found else ""
