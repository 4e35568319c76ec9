"""What the targets' status lines say, as facts; a line that can't be read says nothing (None).

Formats: Documentation/admin-guide/device-mapper/ of the kernel, and what goes beyond it in the
targets' own status functions (drivers/md/dm-mpath.c, dm-raid1.c, dm-snap.c, dm-thin.c). Whatever
is in a line, nothing is raised, and numbers are no greater than the kernel's.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from zeventfs.dm.facts import DeviceFacts, TargetFacts

__all__ = [
    "Group",
    "Leg",
    "Log",
    "Mirror",
    "Multipath",
    "Path",
    "Snapshot",
    "ThinPool",
    "Usage",
    "mirror",
    "multipath",
    "multipath_of",
    "multipath_shape",
    "snapshot",
    "thin_pool",
]

_DEV: Final = re.compile(r"[0-9]{1,10}:[0-9]{1,10}")
_U32: Final = 2**32 - 1
_U64: Final = 2**64 - 1


class Path(NamedTuple):
    """A path of a multipath target, as the kernel has it."""

    dev: str
    """major:minor"""
    group: int
    """The number of its group, from 1."""
    active: bool
    """A; else F, failed."""
    fail_count: int
    """How often it has failed since its table was loaded."""


class Group(NamedTuple):
    """A priority group; numbered from 1."""

    number: int
    state: str
    """A: active, in use. E: enabled. D: disabled, that is bypassed as long as there is another."""
    paths: tuple[Path, ...]


class Multipath(NamedTuple):
    """A multipath target."""

    next_group: int
    """The group that I/O goes to next; 1 also where that is not decided; 0 without groups."""
    groups: tuple[Group, ...]

    def paths(self) -> Iterator[Path]:
        """All paths, in the groups' order."""
        for group in self.groups:
            yield from group.paths


class Leg(NamedTuple):
    """One device of a mirror."""

    dev: str
    health: str
    """A: alive. D: a write failed, S: a sync, R: a read, F: a flush. U: unknown."""


class Log(NamedTuple):
    """A mirror's log."""

    kind: str
    """ "core" or "disk", and others."""
    dev: str
    """Empty if it has none."""
    health: str
    """A: alive. D: failed. F: a flush failed."""


class Mirror(NamedTuple):
    """A mirror target."""

    legs: tuple[Leg, ...]
    in_sync: int
    regions: int
    log: Log


class Snapshot(NamedTuple):
    """A snapshot or snapshot-merge target."""

    origin: str
    cow: str
    invalid: str
    """Why it can't be used any more, in the kernel's words; empty if it can."""


class Usage(NamedTuple):
    """Blocks used, of so many."""

    used: int
    total: int

    @property
    def free(self) -> int:
        """How many are left."""
        return max(self.total - self.used, 0)


class ThinPool(NamedTuple):
    """A thin-pool target."""

    mode: str
    """ "rw", "ro", "out_of_data_space", or "Fail"; then there are no figures."""
    needs_check: bool
    no_space: str
    """What becomes of writes that have no room: "queue_if_no_space" or "error_if_no_space"."""
    data: Usage
    metadata: Usage
    low_water: int
    """The kernel tells when so many data blocks are left."""
    metadata_low_water: int
    """The same of the metadata's; 0 where the kernel has none (before 4.19)."""


_FAILED: Final = ThinPool(
    mode="Fail",
    needs_check=True,
    no_space="",
    data=Usage(0, 0),
    metadata=Usage(0, 0),
    low_water=0,
    metadata_low_water=0,
)


class _Unreadable(Exception):
    pass


class _Words:
    """A line's words, one after the other. Raises _Unreadable for what is not as it should be."""

    def __init__(self, line: str) -> None:
        self._words = line.split()
        self._at = 0

    def word(self, default: str | None = None) -> str:
        if self._at < len(self._words):
            self._at += 1
            return self._words[self._at - 1]
        if default is None:
            raise _Unreadable
        return default

    def number(self, most: int = _U32, default: str | None = None) -> int:
        return _number(self.word(default), most)

    def dev(self) -> str:
        word = self.word()
        if _DEV.fullmatch(word) is None:
            raise _Unreadable
        return word

    def one_of(self, words: str) -> str:
        word = self.word()
        if word not in words.split():
            raise _Unreadable
        return word

    def counted(self) -> list[str]:
        """Words that stand behind their number."""
        return [self.word() for _ in range(self.number())]

    def usage(self) -> Usage:
        used, slash, total = self.word().partition("/")
        if not slash:
            raise _Unreadable
        return Usage(_number(used, _U64), _number(total, _U64))


def _number(text: str, most: int) -> int:
    # int() takes signs, blanks, underscores and other alphabets' digits too
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= most):
        raise _Unreadable
    return int(text)


def multipath(target: TargetFacts) -> Multipath | None:
    """The status of a multipath target: `2 1 0 0 2 1 E 0 1 0 7:1 F 1 E 0 1 0 7:2 A 0`."""
    if target.kind != "multipath":
        return None
    words = _Words(target.status)
    try:
        words.counted()  # whether it queues, and how many initialisations are under way
        words.counted()  # the hardware handler
        number, next_group = words.number(), words.number()
        return Multipath(next_group, tuple([_group(words, at + 1) for at in range(number)]))
    except _Unreadable:
        return None


def _group(words: _Words, number: int) -> Group:
    state = words.one_of("A E D")
    words.counted()  # the path selector
    paths, selector_words = words.number(), words.number()
    return Group(number, state, tuple([_path(words, number, selector_words) for _ in range(paths)]))


def _path(words: _Words, group: int, selector_words: int) -> Path:
    path = Path(words.dev(), group, words.one_of("A F") == "A", words.number())
    for _ in range(selector_words):
        words.word()
    return path


def multipath_of(facts: DeviceFacts) -> Multipath | None:
    """The status of a device's multipath target; a table has one at most (DM_TARGET_SINGLETON)."""
    for target in facts.targets:
        if target.kind == "multipath":
            return multipath(target)
    return None


def multipath_shape(table: str) -> str:
    """A multipath target's *table* without what messages change in it.

    These are its features (queue_if_no_path) and its next group (switch_group).
    """
    words = _Words(table)
    try:
        words.counted()
        handler, groups = words.counted(), words.number()
        words.number()
    except _Unreadable:
        return table
    rest = [*handler, str(groups)]
    while word := words.word(""):
        rest.append(word)
    return " ".join(rest)


def mirror(target: TargetFacts) -> Mirror | None:
    """The status of a mirror target: `2 253:6 253:7 31/32 1 AD 1 core`."""
    if target.kind != "mirror":
        return None
    words = _Words(target.status)
    try:
        devs = [words.dev() for _ in range(words.number())]
        sync = words.usage()
        healths = "".join(words.counted())
        kind, *log = words.counted() or [""]
    except _Unreadable:
        return None
    if len(healths) != len(devs) or not set(healths) <= set("ADSRFU"):
        return None
    dev, health = log if len(log) == 2 else ("", "A")
    legs = tuple([Leg(*leg) for leg in zip(devs, healths, strict=True)])
    return Mirror(legs, sync.used, sync.total, Log(kind, dev, health))


def snapshot(target: TargetFacts) -> Snapshot | None:
    """The status of a snapshot or snapshot-merge: `16/65536 16`, or why it is invalid."""
    if target.kind not in ("snapshot", "snapshot-merge"):
        return None
    invalid = target.status.strip()
    if invalid not in ("Invalid", "Overflow", "Merge failed"):
        invalid = ""
        try:
            _Words(target.status).usage()
        except _Unreadable:
            return None
    table = _Words(target.table)
    return Snapshot(table.word(""), table.word(""), invalid)


def thin_pool(target: TargetFacts) -> ThinPool | None:
    """The status of a thin-pool: `0 112/1024 96/320 - rw discard_passdown queue_if_no_space - 256`.

    Its low-water mark is its table's.
    """
    if target.kind != "thin-pool":
        return None
    try:
        table = _Words(target.table)
        for _ in ("metadata", "data", "block size"):
            table.word()
        low_water = table.number(_U64)
        if target.status.strip() == "Fail":
            return _FAILED._replace(low_water=low_water)
        words = _Words(target.status)
        words.word()  # the transaction
        metadata, data = words.usage(), words.usage()
        words.word()  # the held root
        mode = words.one_of("rw ro out_of_data_space")
        words.word()  # what becomes of discards
        no_space = words.one_of("queue_if_no_space error_if_no_space")
        needs_check = words.word("-") == "needs_check"
        return ThinPool(
            mode, needs_check, no_space, data, metadata, low_water, words.number(_U64, "0")
        )
    except _Unreadable:
        return None
