"""One mapped device, from its creation to its removal: what is told of it, and what the tree shows.

A resume and a rename are told from the reading that shows them, and each has a uevent: one that is
left over, when a reading shows nothing, says that the device was resumed as it was.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from zeventfs.bell import Bell
from zeventfs.dm.changes import CREATED, LIVE, REMOVED, RENAMED, RESUMED, SUSPENDED, Change, changes
from zeventfs.dm.facts import DeviceFacts
from zeventfs.dm.paths import Paths
from zeventfs.dm.shown import PathSince
from zeventfs.dm.status import multipath_of
from zeventfs.dm.uevent import PathAction

__all__ = ["Device"]

_MOST_NAMES: Final = 64
_MOST_TOLD_AT_ONCE: Final = 2  # a rename and a resume: what one reading can show of ioctls


class Device:
    """A device; a `zeventfs.dm.shown.ShownDevice`.

    *heard*: how many resumes and renames were heard of before it was read; None: it was there
    before the observer, and nothing is told of how it stands at first. *diskseq* is None as long
    as no uevent has told it.
    """

    def __init__(
        self,
        serial: int,
        facts: DeviceFacts,
        now_ns: int,
        heard: int | None = None,
        diskseq: int | None = None,
    ) -> None:
        self.serial = serial
        self.names: tuple[str, ...] = (facts.name,)
        self.facts = facts
        self.diskseq = diskseq
        self.awaited = False
        """Whether it was read before its first uevent, which then is to come: what comes before
        that is of one that had its number earlier."""
        self.changed_ns = now_ns
        self.changes = 0
        self.changed = Bell()
        self.gone = False
        # uevents of ioctls that no reading has shown; negative: readings whose uevents are to come
        self._unexplained = heard or 0
        if heard is None:
            self._paths = Paths(None, multipath_of(facts), now_ns)
        else:
            self._paths = Paths(0, None, now_ns)

    @property
    def name(self) -> str:
        """As it is called now."""
        return self.facts.name

    def paths(self) -> Mapping[str, PathSince]:
        """Since when each path is as `facts` has it; the error is not known of any."""
        return self._paths.since

    def is_same(self, facts: DeviceFacts) -> bool:
        """Whether a reading of its number is of this device, and not of one that came after it.

        A UUID is never changed, only given to one that has none; event numbers only grow.
        """
        mine = self.facts
        if facts.event_nr < mine.event_nr:
            return False
        if mine.uuid:
            return facts.uuid == mine.uuid
        return facts.name == mine.name or not facts.uuid

    # What is told

    def begin(self, now_ns: int) -> Iterator[Change]:
        """Tell that it was created, and how it stands."""
        yield Change(CREATED)
        yield from self._compare(None, self.facts, now_ns)

    def take(self, facts: DeviceFacts, now_ns: int) -> Iterator[Change]:
        """Tell what a reading shows; its names and facts are the new ones at the first of it."""
        before = self._stand(facts, now_ns)
        yield from self._compare(before, facts, now_ns)

    def _compare(
        self, before: DeviceFacts | None, facts: DeviceFacts, now_ns: int
    ) -> Iterator[Change]:
        told = [*changes(before, facts)]
        names = {change.name for change in told}
        shown = (RENAMED in names) + (not names.isdisjoint((LIVE, RESUMED)))
        if self._unexplained > 0 and not shown:
            # if it is suspended, then once more since
            still = facts.suspended and SUSPENDED not in names
            told = [Change(RESUMED), *told, *[Change(SUSPENDED)] * still]
        self._unexplained = max(min(self._unexplained - shown, 0), -_MOST_TOLD_AT_ONCE)
        yield from told
        multipath = multipath_of(facts)
        if multipath is not None:
            yield from self._paths.compare(multipath, now_ns)

    def hear_ioctl(self) -> None:
        """Take a uevent that says that the device was resumed or renamed; a reading says which."""
        self._unexplained += 1

    def hear_path(self, action: PathAction, now_ns: int) -> Iterator[Change]:
        """Tell what a path's uevent says; it has the device's present name."""
        named = self.facts._replace(name=action.name, uuid=action.uuid)
        if not self.is_same(named):
            return  # of one that had its number before
        if action.name and self.facts != named:
            yield from changes(self._stand(named, now_ns), named)
            self._unexplained = max(self._unexplained - 1, -_MOST_TOLD_AT_ONCE)
        told = self._paths.hear(action, now_ns, reloaded=self._unexplained > 0)
        if told is not None:
            yield told

    def end(self) -> Iterator[Change]:
        """Tell that it is gone."""
        self.gone = True
        yield from self._paths.end()
        yield Change(REMOVED)

    def note_loss(self) -> None:
        """Uevents were lost: those that seem to be to come may be among them."""
        self.awaited = False
        self._unexplained = 0
        self._paths.forget_skipped()

    # What is shown

    def _stand(self, facts: DeviceFacts, now_ns: int) -> DeviceFacts:
        """Have *facts* be its own; those before."""
        before, self.facts = self.facts, facts
        if facts.name != before.name:
            names = [name for name in self.names if name != facts.name]
            self.names = (*names[1 - _MOST_NAMES :], facts.name)
        if facts != before:
            self.changed_ns = now_ns
            self.changes += 1
        return before
