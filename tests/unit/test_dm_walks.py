"""Random walks of a kernel with mapped devices, of its uevents, losses and readings.

Every step of a path and every change of a device is told once; what was lost is counted; and after
the last reading, what was told adds up to how the devices stand.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from dm_facts import LINEAR, device, multipath, other, told, two_groups, uevent
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zeventfs.dm.facts import DeviceFacts
from zeventfs.dm.observer import Listed, Observer
from zeventfs.dm.uevent import Uevent
from zeventfs.event import Event

pytestmark = pytest.mark.timeout(300)  # seconds when it passes; what fails is made small first

MINORS = st.integers(1, 2)
NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.sampled_from(["7:1", "7:2"])
COOKIE = {"DM_COOKIE": 1}


@dataclass
class Mapped:
    """A device in the kernel."""

    name: str
    minor: int
    diskseq: int
    suspended: bool = False
    read_only: bool = False
    event_nr: int = 0
    dm_seqnum: int = 0
    places: dict[str, int] = field(default_factory=lambda: {"7:1": 0, "7:2": 0})
    """Steps since the table was loaded: odd ones are failures."""
    to: int = 1

    def facts(self) -> DeviceFacts:
        first, second = (
            f"{'F' if place % 2 else 'A'} {(place + 1) // 2}" for place in self.places.values()
        )
        return device(
            self.name,
            multipath(two_groups(first, second, "AE" if self.to == 1 else "EA", self.to)),
            LINEAR._replace(start=65536),
            minor=self.minor,
            uuid=f"uuid-{self.diskseq}",
            suspended=self.suspended,
            read_only=self.read_only,
            event_nr=self.event_nr,
        )


@dataclass
class Known:
    """A device as whoever reads the events knows it."""

    name: str
    suspended: bool = False
    read_only: bool | None = None
    failed: set[str] = field(default_factory=set)
    to: int | None = None


class Walk(RuleBasedStateMachine):
    """Without loss, and without tables that begin anew: exact."""

    def __init__(self) -> None:
        super().__init__()
        self.seqnum = 100
        self.diskseqs = count(1)
        self.mapped: dict[int, Mapped] = {}
        self.uevents: deque[Uevent] = deque()
        self.steps: list[tuple[str, str, str]] = []
        self.told_steps: list[tuple[str, str, str]] = []
        self.known: dict[str, Known] = {}
        self.counted = 0
        self.lossy = self.reloaded = False
        self.observer = Observer()
        old = self.mapped[9] = Mapped("old", 9, next(self.diskseqs))
        old.dm_seqnum = 40
        assert self.observer.take_all([old.facts()], 1) == []
        self.observer.take_uevent(other(100), 1)
        self.known["253:9"] = Known("old")

    # What the kernel does

    def send(self, action: str, mapped: Mapped, **keys: object) -> None:
        self.seqnum += 1
        keys["DISKSEQ"] = mapped.diskseq
        self.uevents.append(uevent(action, mapped.minor, self.seqnum, **keys))

    @rule(minor=MINORS, name=NAMES)
    def create(self, minor: int, name: str) -> None:
        if minor not in self.mapped and name not in self.names():
            mapped = self.mapped[minor] = Mapped(name, minor, next(self.diskseqs))
            self.send("add", mapped)
            self.send("change", mapped, **COOKIE)

    def names(self) -> list[str]:
        return [mapped.name for mapped in self.mapped.values()]

    def some(self, minor: int) -> Mapped:
        return self.mapped.get(minor, self.mapped[9])

    @rule(minor=MINORS)
    def remove(self, minor: int) -> None:
        mapped = self.mapped.pop(minor, None)
        if mapped is not None:
            self.send("remove", mapped, **COOKIE)
            self.send("remove", mapped)

    @rule(minor=MINORS, name=NAMES)
    def rename(self, minor: int, name: str) -> None:
        mapped = self.some(minor)
        if name not in self.names():
            mapped.name = name
            self.send("change", mapped, **COOKIE)

    @rule(minor=MINORS)
    def suspend_or_resume(self, minor: int) -> None:
        mapped = self.some(minor)
        mapped.suspended = not mapped.suspended
        if not mapped.suspended:
            self.send("change", mapped, **COOKIE)

    @rule(minor=MINORS)
    def make_read_only_or_not(self, minor: int) -> None:
        mapped = self.some(minor)
        mapped.read_only = not mapped.read_only
        mapped.suspended = False
        self.send("change", mapped, DISK_RO=1)
        self.send("change", mapped, **COOKIE)

    @rule(minor=MINORS)
    def switch_group(self, minor: int) -> None:
        mapped = self.some(minor)
        mapped.to = 3 - mapped.to
        mapped.event_nr += 1

    @rule(minor=MINORS, path=PATHS, times=st.integers(1, 5))
    def flap(self, minor: int, path: str, times: int) -> None:
        mapped = self.some(minor)
        for _ in range(times):
            mapped.places[path] += 1
            mapped.dm_seqnum += 1
            mapped.event_nr += 1
            failed = mapped.places[path] % 2
            self.steps.append(
                (f"uuid-{mapped.diskseq}", path, "failed" if failed else "reinstated")
            )
            self.send(
                "change",
                mapped,
                DM_TARGET="multipath",
                DM_ACTION="PATH_FAILED" if failed else "PATH_REINSTATED",
                DM_SEQNUM=mapped.dm_seqnum,
                DM_PATH=path,
                DM_NR_VALID_PATHS=sum(place % 2 == 0 for place in mapped.places.values()),
                DM_NAME=mapped.name,
                DM_UUID=f"uuid-{mapped.diskseq}",
            )

    @rule()
    def something_else(self) -> None:
        self.seqnum += 1
        self.uevents.append(other(self.seqnum))

    # What is taken

    @rule(most=st.integers(1, 10))
    def take_some(self, most: int) -> None:
        for _ in range(min(most, len(self.uevents))):
            self.hear(self.observer.take_uevent(self.uevents.popleft(), 1))

    @rule()
    def read_wanted(self) -> None:
        wanted = self.observer.wanted
        if wanted.everything:
            facts = [mapped.facts() for mapped in self.mapped.values()]
            self.hear(self.observer.take_all(facts, 1))
        for dev in wanted.devs:
            self.read(int(dev.partition(":")[2]))
        assert not self.observer.wanted

    @rule(minor=MINORS)
    def read(self, minor: int) -> None:
        mapped = self.mapped.get(minor)
        facts = None if mapped is None else mapped.facts()
        self.hear(self.observer.take(f"253:{minor}", facts, 1))

    @rule()
    def take_list(self) -> None:
        facts = [mapped.facts() for mapped in self.mapped.values()]
        listed = [Listed(each.name, each.dev, each.event_nr) for each in facts]
        self.hear(self.observer.take_list(listed, 1))

    def settle(self) -> None:
        """Take and read all that there is to be."""
        self.take_some(len(self.uevents))
        self.take_list()
        self.read_wanted()
        for minor in list(self.mapped):
            self.read(minor)

    # What is told

    def hear(self, events: list[Event]) -> None:
        for name, says in told(events):
            getattr(self, "on_" + name.partition(".")[2].replace(".", "_"))(says)

    def on_created(self, says: dict[str, Any]) -> None:
        assert says["dev"] not in self.known
        self.known[says["dev"]] = Known(says["name"])

    def on_removed(self, says: dict[str, Any]) -> None:
        assert self.known.pop(says["dev"]).name == says["name"]

    def on_renamed(self, says: dict[str, Any]) -> None:
        known = self.known[says["dev"]]
        assert known.name == says["old_name"] != says["name"]
        known.name = says["name"]

    def on_suspended(self, says: dict[str, Any]) -> None:
        known = self.known[says["dev"]]
        assert not known.suspended
        known.suspended = True

    def on_resumed(self, says: dict[str, Any]) -> None:
        self.known[says["dev"]].suspended = False

    def on_table_live(self, says: dict[str, Any]) -> None:
        known = self.known[says["dev"]]
        assert known.read_only is not says["read_only"]
        known.read_only = says["read_only"]

    def on_path_failed(self, says: dict[str, Any]) -> None:
        self.on_step(says, "failed")

    def on_path_reinstated(self, says: dict[str, Any]) -> None:
        self.on_step(says, "reinstated")

    def on_step(self, says: dict[str, Any], verb: str) -> None:
        self.told_steps.append((says["uuid"], says["path"], verb))
        known = self.known[says["dev"]]
        assert known.name == says["name"]
        if not self.lossy and not self.reloaded:
            assert (says["path"] in known.failed) is (verb == "reinstated")
        if verb == "failed":
            known.failed.add(says["path"])
        else:
            known.failed.discard(says["path"])

    def on_group_switched(self, says: dict[str, Any]) -> None:
        known = self.known[says["dev"]]
        assert known.to in (None, says["from"])
        known.to = says["to"]

    def on_gap(self, says: dict[str, Any]) -> None:
        assert says["cause"] == "source"
        if says["reason"] in ("DM_SEQNUM", "fail_count"):
            self.counted += says["dropped"]
        assert self.lossy

    # What always holds

    @invariant()
    def the_tree_shows_what_was_told(self) -> None:
        names = {known.name for known in self.known.values()}
        assert list(self.observer.devices) == sorted(names)
        for dev, known in self.known.items():
            assert self.observer.devices.at[dev].name == known.name

    def teardown(self) -> None:
        self.settle()
        there = {f"253:{minor}": mapped for minor, mapped in self.mapped.items()}
        assert self.known.keys() == there.keys()
        for dev, mapped in there.items():
            known = self.known[dev]
            assert (known.name, known.suspended) == (mapped.name, mapped.suspended)
            assert bool(known.read_only) is mapped.read_only
            assert known.failed == {path for path, place in mapped.places.items() if place % 2}
        self.compare_steps(there)

    def compare_steps(self, there: dict[str, Mapped]) -> None:
        """Of devices that are there, each step was told once, and in its order."""
        uuids = {f"uuid-{mapped.diskseq}" for mapped in there.values()}
        for uuid in uuids:
            for path in ("7:1", "7:2"):
                happened = [verb for *whose, verb in self.steps if whose == [uuid, path]]
                heard = [verb for *whose, verb in self.told_steps if whose == [uuid, path]]
                assert heard == happened


class LossyWalk(Walk):
    """Uevents are lost too: what was not told is counted."""

    @precondition(lambda self: self.uevents)
    @rule(data=st.data(), told_of=st.booleans())
    def lose(self, data: st.DataObject, told_of: bool) -> None:  # noqa: FBT001 - drawn
        begin = data.draw(st.integers(0, len(self.uevents) - 1))
        end = data.draw(st.integers(begin + 1, len(self.uevents)))
        uevents = list(self.uevents)
        self.uevents = deque(uevents[:begin] + uevents[end:])
        self.lossy = True
        if told_of:
            self.observer.overflowed()

    def compare_steps(self, there: dict[str, Mapped]) -> None:
        uuids = {f"uuid-{mapped.diskseq}" for mapped in there.values()}
        happened = sum(uuid in uuids for uuid, *_ in self.steps)
        heard = sum(uuid in uuids for uuid, *_ in self.told_steps)
        assert heard + self.counted >= happened


class ReloadingWalk(Walk):
    """Tables are loaded anew, in which all paths are active and never failed."""

    @rule(minor=MINORS)
    def reload(self, minor: int) -> None:
        mapped = self.some(minor)
        mapped.places = {"7:1": 0, "7:2": 0}
        mapped.suspended = False
        self.reloaded = True
        self.send("change", mapped, **COOKIE)

    def compare_steps(self, there: dict[str, Mapped]) -> None:
        """Where a path's table began anew, only where it ended is known for certain."""


WALKS = settings(deadline=None, max_examples=40, stateful_step_count=25, derandomize=True)
Walk.TestCase.settings = LossyWalk.TestCase.settings = ReloadingWalk.TestCase.settings = WALKS
TestWalk = Walk.TestCase
TestLossyWalk = LossyWalk.TestCase
TestReloadingWalk = ReloadingWalk.TestCase
