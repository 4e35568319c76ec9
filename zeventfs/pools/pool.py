"""One pool as its events tell it: how it stands, its vdevs, its errors and delays.

What events don't tell is as the kernel said when it was asked (`seed`). Only what was said is kept,
and bounded: however many vdevs events name, each with whatever in it, a pool takes a limited room.
Nothing here raises for what an event says.

What each class does is in one table, `ACTS`. Classes that aren't there change nothing but the
pool's counts, which `Pools` keeps. Which class says what: docs of openzfs/zfs, zpool-events(8);
when they are posted: module/zfs/{spa.c,vdev.c,dsl_scan.c,zio.c}.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from zeventfs.event import Event
from zeventfs.pools.delays import Delays
from zeventfs.pools.errors import Errors
from zeventfs.pools.facts import Facts
from zeventfs.pools.vdev import Vdev, text

__all__ = [
    "ABSENT",
    "ACTIVE",
    "ACTS",
    "DESTROYED",
    "EXPORTED",
    "STANDING",
    "UNAVAIL",
    "Pool",
    "Scan",
]

ACTIVE, EXPORTED, DESTROYED = 0, 1, 2  # pool_state_t, include/sys/fs/zfs.h
_UNINITIALIZED, UNAVAIL = 5, 6
ABSENT = -1  # the kernel doesn't know it, and no event told where it has gone
STANDING: Final = {
    "sysevent.fs.zfs.pool_create": ACTIVE,
    "sysevent.fs.zfs.pool_import": ACTIVE,
    "sysevent.fs.zfs.pool_export": EXPORTED,
    "sysevent.fs.zfs.pool_destroy": DESTROYED,
}
"""How a pool stands after an event of these classes, whatever its pool_state says."""

_MOST_VDEVS = 512
_MOST_REPLACED = 64
_LONGEST_RECORD = 4096  # bytes; two paths, and what is between them
_PASSING = ("replacing", "spare")  # vdevs that are there while another is replaced
_REPLACED = re.compile(rb"(?:replace|spare in) vdev=(.*) for vdev=(.*)", re.DOTALL)


class Scan(NamedTuple):
    """A resilver or scrub: which, how it stands, since when."""

    kind: str
    state: str
    since_ns: int


class Pool:
    """The pool called *name*, first heard of at *first_ns*.

    `state` is as pool_state_t or ABSENT, `suspended` None as long as nothing told; `others` stands
    for the vdevs that there was no room for. `health` is zpool's word for it when the kernel was
    asked, at `asked_ns`, and "" once it or a vdev has changed since; `stood_ns` is when it last
    changed how it stands, as events tell.
    """

    __slots__ = (
        "_replaced",
        "_txg",
        "_vdevs",
        "asked_ns",
        "delays",
        "errors",
        "events",
        "first_ns",
        "guid",
        "health",
        "last_ns",
        "last_seq",
        "name",
        "others",
        "scan",
        "state",
        "stood_ns",
        "suspended",
        "suspended_ns",
    )

    def __init__(self, name: str, first_ns: int) -> None:
        self.name = name
        self.guid: int | None = None
        self.state: int | None = None
        self.suspended: bool | None = None
        self.suspended_ns = 0
        self.scan: Scan | None = None
        self.health = ""
        self.asked_ns = 0
        self.stood_ns = 0
        self.first_ns = self.last_ns = first_ns
        self.last_seq = 0
        self.events = 0
        self.errors = Errors()
        self.delays = Delays()
        self.others: Vdev | None = None
        self._vdevs: dict[int, Vdev] = {}
        self._replaced: dict[bytes, bytes] = {}  # the new one's path by the old one's
        self._txg: int | None = None  # that of the first history record since it is suspended

    @property
    def gone(self) -> bool:
        """Whether it was exported or destroyed."""
        return self.state in (ABSENT, EXPORTED, DESTROYED)

    def vdevs(self) -> Iterator[Vdev]:
        """Its vdevs, also those that have left it."""
        yield from self._vdevs.values()

    def find(self, guid: int) -> Vdev | None:
        """The vdev with that *guid*."""
        return self._vdevs.get(guid)

    def stand(self, event: Event, facts: Facts) -> None:
        """Take over how an event says that it stands, and its guid."""
        if facts.pool_guid is not None:
            self.guid = facts.pool_guid
        state = STANDING.get(event.name, facts.pool_state)
        # What is exported or imported is uninitialized in passing, as config_sync tells
        if state is None or state in (self.state, _UNINITIALIZED):
            return
        self.stood_ns = event.time_ns
        self.become(state)

    def become(self, state: int) -> None:
        """Be in pool_state_t *state*, or ABSENT."""
        was_gone = self.gone
        self.state = state
        if was_gone and not self.gone:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Be imported: how the vdevs stood before says nothing about now, nor their counts."""
        for vdev in self._vdevs.values():
            vdev.forget()
        if self.scan is not None and self.scan.state == "running":
            self.scan = None

    # What events do

    def note_ereport(self, event: Event, facts: Facts) -> None:
        """Count an ereport."""
        self.errors.count(event.name, event.time_ns, facts)
        vdev = self._vdev(event, facts)
        if vdev is None:
            return
        vdev.note(facts)
        # A deadman's I/O is still at the device: its zio_delay is when it was sent there (zio.c)
        if facts.zio_delay is not None and not event.name.endswith(".deadman"):
            vdev.delays.count(facts.zio_delay)
            self.delays.count(facts.zio_delay)

    def suspend(self, event: Event, facts: Facts) -> None:
        """Stop: I/O failed that may not fail. It is told again as often as more I/O fails."""
        self.note_ereport(event, facts)
        self.stood_ns = event.time_ns
        if not self.suspended:
            self.suspended, self.suspended_ns = True, event.time_ns
            self.health = ""
            self._txg = None

    def resume(self, event: Event, facts: Facts) -> None:
        """Go on, or have nothing that would stop it."""
        del facts
        self.stood_ns = event.time_ns
        if self.suspended:
            self.health = ""
        self.suspended = False

    def end(self, event: Event, facts: Facts) -> None:
        """Do nothing any more, and so not wait either."""
        del facts
        self.stood_ns = event.time_ns
        self.suspended = None

    def note_history(self, event: Event, facts: Facts) -> None:
        """Learn which vdev replaces which, and that a suspended pool goes on.

        A record is posted while its transaction group is written. The first one since the pool was
        suspended may be of the group that is stuck; but when one of a later group comes, that one
        has been written.
        """
        if facts.history_internal_name == b"vdev attach":
            said = facts.history_internal_str or b""
            found = _REPLACED.fullmatch(said)
            if found is not None and len(said) <= _LONGEST_RECORD:
                if len(self._replaced) >= _MOST_REPLACED:
                    self._replaced.clear()
                new, old = found.groups()
                self._replaced[old] = new
        if self.suspended and facts.history_txg is not None:
            if self._txg is None:
                self._txg = facts.history_txg
            elif facts.history_txg > self._txg:
                self.resume(event, facts)

    def note_vdev(self, event: Event, facts: Facts) -> None:
        """Learn of a vdev and its state in passing."""
        self._change_vdev(event, facts, known=False)

    def change_vdev(self, event: Event, facts: Facts) -> None:
        """Learn of a vdev's new state."""
        self._change_vdev(event, facts, known=True)

    def _change_vdev(self, event: Event, facts: Facts, *, known: bool) -> Vdev | None:
        vdev = self._vdev(event, facts)
        if vdev is not None and facts.vdev_state is not None:
            if self.asked_ns and facts.vdev_state != vdev.state:
                self._doubt(vdev)
            vdev.change(facts.vdev_state, event.time_ns, known=known)
        return vdev

    def _doubt(self, changed: Vdev) -> None:
        """Know no more how those stand within which *changed* is: no event tells it."""
        self.health = ""
        above, within = changed.parent, set[int]()
        while above is not None and above in self._vdevs and above not in within:
            within.add(above)
            self._vdevs[above].state = None
            above = self._vdevs[above].parent

    def attach_vdev(self, event: Event, facts: Facts) -> None:
        """Have a new vdev, or one again."""
        vdev = self._vdev(event, facts)
        if vdev is not None:
            vdev.join()
            self.change_vdev(event, facts)

    def clear_vdev(self, event: Event, facts: Facts) -> None:
        """Forget a vdev's errors, as somebody asked; that resumes a pool too."""
        vdev = self._change_vdev(event, facts, known=True)
        if vdev is not None:
            vdev.clear()
        self.resume(event, facts)

    def detach_vdev(self, event: Event, facts: Facts) -> None:
        """Lose one side of a mirror, or what was replaced, or a spare that was in use."""
        path = facts.vdev_path or b""
        new = self._replaced.get(path)
        self._replaced = {old: by for old, by in self._replaced.items() if path not in (old, by)}
        how = "detached" if new is None else f"replaced by {text(new)}"
        vdev = self._lose(event, facts, how)
        if new is not None and vdev is not None and vdev.placed:
            self._hand_on_place(vdev, text(new))

    def _hand_on_place(self, old: Vdev, path: str) -> None:
        """Know that the vdev at *path* is where *old* was, unless it has told itself by now."""
        within = None if old.parent is None else self._vdevs.get(old.parent)
        if within is not None and within.type in _PASSING:  # which has gone with the old one
            return
        for vdev in self._vdevs.values():
            if vdev.path == path and not (vdev.placed or vdev.gone):
                vdev.placed, vdev.parent = True, old.parent

    def remove_vdev(self, event: Event, facts: Facts) -> None:
        """Lose a spare, a cache, a log, or a whole top-level vdev, which was asked for."""
        self._lose(event, facts, "removed")

    def _lose(self, event: Event, facts: Facts, how: str) -> Vdev | None:
        vdev = self._change_vdev(event, facts, known=False)
        if vdev is not None:
            vdev.leave(how, event.time_ns)
        return vdev

    # Its vdevs

    def vdev(self, guid: int) -> Vdev:
        """The vdev with that *guid*, from now on known; one without a guid if there's no room."""
        return self._vdevs.get(guid) or self._new_vdev(guid)

    def forget_vdev(self, guid: int) -> None:
        """Know no more that there was a vdev with that *guid*."""
        del self._vdevs[guid]

    def _vdev(self, event: Event, facts: Facts) -> Vdev | None:
        """The vdev that an event is about, described by it; None if it is about none."""
        if facts.vdev_guid is None:
            return None
        vdev = self.vdev(facts.vdev_guid)
        if vdev.guid is None:
            return vdev
        vdev.told_ns = event.time_ns
        if vdev.describe(facts) and vdev.parent is not None:
            parent = self.vdev(vdev.parent)
            if not parent.seen and facts.parent_type is not None:
                parent.type = text(facts.parent_type)
        return vdev

    def _new_vdev(self, guid: int) -> Vdev:
        if len(self._vdevs) >= _MOST_VDEVS:
            gone = next((vdev.guid for vdev in self._vdevs.values() if vdev.gone), None)
            if gone is None:
                return self._any_other()
            del self._vdevs[gone]
        vdev = self._vdevs[guid] = Vdev(guid)
        return vdev

    def _any_other(self) -> Vdev:
        if self.others is None:
            self.others = Vdev(None)
            self.others.seen = True
        return self.others


Act = Callable[[Pool, Event, Facts], None]


def _scan(kind: str, state: str) -> Act:
    def act(pool: Pool, event: Event, facts: Facts) -> None:
        before = pool.scan
        pool.scan = Scan(kind, state, event.time_ns)
        if (
            pool.suspended
            and state == "finished"
            and before is not None
            and (before.kind, before.state) == (kind, "running")
            and before.since_ns >= pool.suspended_ns
        ):  # so the transaction group in which it began has been written
            pool.resume(event, facts)

    return act


_SCAN_STATES = {
    "start": "running",
    "resume": "running",
    "paused": "paused",
    "abort": "aborted",
    "finish": "finished",
}

ACTS: Final[Mapping[str, Act]] = {
    "ereport.fs.zfs.io_failure": Pool.suspend,
    "resource.fs.zfs.removed": Pool.change_vdev,
    "resource.fs.zfs.statechange": Pool.change_vdev,
    "sysevent.fs.zfs.pool_create": Pool.resume,
    "sysevent.fs.zfs.pool_destroy": Pool.end,
    "sysevent.fs.zfs.pool_export": Pool.end,
    "sysevent.fs.zfs.pool_import": Pool.resume,
    "sysevent.fs.zfs.bootfs_vdev_attach": Pool.attach_vdev,
    "sysevent.fs.zfs.vdev_attach": Pool.attach_vdev,
    "sysevent.fs.zfs.vdev_spare": Pool.attach_vdev,
    "sysevent.fs.zfs.vdev_clear": Pool.clear_vdev,
    "sysevent.fs.zfs.vdev_online": Pool.change_vdev,
    "sysevent.fs.zfs.vdev_remove": Pool.detach_vdev,
    "sysevent.fs.zfs.vdev_remove_aux": Pool.remove_vdev,
    "sysevent.fs.zfs.vdev_remove_dev": Pool.remove_vdev,
    **{
        f"sysevent.fs.zfs.{subclass}": Pool.note_vdev
        for subclass in (
            "trim_cancel",
            "trim_finish",
            "trim_resume",
            "trim_start",
            "trim_suspend",
            "vdev_autoexpand",
            "vdev_check",
        )
    },
    **{
        f"sysevent.fs.zfs.{kind}_{word}": _scan(kind, state)
        for kind in ("resilver", "scrub", "errorscrub")
        for word, state in _SCAN_STATES.items()
    },
}
"""What an event of each class does, beside being counted."""
