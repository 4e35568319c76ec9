"""A source over a queue to which everything happens: each event once, in order, each loss counted.

The oracle is the device: which EIDs were given in each life of the module, which of them were
queued and in which order, how many failed, whether the queue was ever full or cleared.
"""

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from source_clock import Clock

from zeventfs.event import Event
from zeventfs.nvlist import Type, decode
from zeventfs.simulator.ring import RingCursor
from zeventfs.simulator.zfs import ERPT_DATA_SZ, ZfsDevice
from zeventfs.sources.causes import Split
from zeventfs.sources.device import DeviceError, Taken
from zeventfs.sources.eids import LAST_PATIENCE_NS
from zeventfs.sources.position import Position
from zeventfs.sources.zfs import ZfsSource

EPOCH = "0123456789abcdef"
LEN_MAX = 6
SIZE = 1 << 16


class Killed(BaseException):
    """The daemon was killed; nothing of it runs any more."""


class Life:
    """What has truly happened in one life of the module."""

    def __init__(self) -> None:
        self.queued: list[int] = []
        self.delayed: set[int] = set()
        self.failed = 0
        self.cleared = False
        self.full = False


class Module(ZfsDevice):
    """The simulated module, which notes all that happens to it."""

    def __init__(self) -> None:
        super().__init__(lambda: 10**18, len_max=LEN_MAX, life="1")
        self.lives = {"1": Life()}

    @property
    def now(self) -> Life:
        return self.lives[self.life]

    def put(self, packed: bytes) -> None:
        self.now.queued.append(decode(packed).get("eid"))
        super().put(packed)
        self.now.full |= len(self) >= LEN_MAX

    def clear(self) -> int:
        self.now.cleared = True
        return super().clear()


class ReadAhead:
    """A device whose events are read in advance, as by a thread, a few at a time."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._cursor = RingCursor(module._queue)
        self.read: list[Taken] = []
        self.life = module.life
        self.losses = module.losses
        self.subscribe = module.subscribe
        self._blocked = False

    def open(self) -> "ReadAhead":
        return self

    def read_on(self, most: int) -> bool:
        """Read *most* events; whether there may be more."""
        if self._module.life != self.life:
            return False
        for _ in range(most):
            try:
                self.read.append(self._cursor.next(nonblock=True, size=SIZE))
            except DeviceError:
                return False
        return True

    def clear(self) -> int:
        self._check()
        self.read.clear()
        return self._module.clear()

    def _check(self) -> None:
        if self.read:
            return
        if self._module._queue.down:
            raise DeviceError(errno.ESHUTDOWN, "gone")
        self.life = self._module.life

    def next(self, *, nonblock: bool, size: int) -> Taken:
        assert nonblock
        self._check()
        if not self.read:
            raise DeviceError(errno.ENOENT, "nothing")
        if len(self.read[0].packed) > size:
            raise DeviceError(errno.ENOMEM, "more", needed=len(self.read[0].packed))
        return self.read.pop(0)

    def seek(self, eid: int) -> None:
        self._check()
        self._cursor.seek(eid)
        self.read.clear()

    def waiting(self) -> int:
        return len(self.read)

    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class SourceMachine(RuleBasedStateMachine):
    """Posts, losses, clears, restarts and unloadings, in any order."""

    reads_ahead = False
    in_turns = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "position"
        self.module = Module()
        self.journal: list[Event] = []
        self.limited = 0
        self.kill_at: tuple[int, bool] | None = None
        self.start()

    def teardown(self) -> None:
        try:
            self.kill_at = None
            self.settle()
            self.check()
        finally:
            self.directory.cleanup()

    # The daemon

    def start(self) -> None:
        """Start a daemon, which may be killed as it begins."""
        self.clock = Clock()
        position = Position(self.path, EPOCH)
        position.correct(self.newest())
        self.module._subscribers.clear()
        self.ahead = ReadAhead(self.module) if self.reads_ahead else None
        try:
            self.source = ZfsSource(
                "zfs",
                self.ahead or self.module,
                self.post,
                lambda: 10**18,
                monotonic_ns=self.clock,
                later=self.clock.later if self.in_turns else None,
                position=position,
            )
        except Killed:
            self.kill_at = None
            self.start()
        if self.in_turns:
            self.module._subscribers.clear()  # it is called when the rules say so

    def newest(self) -> Iterator[tuple[int, Event]]:
        for index in range(len(self.journal) - 1, -1, -1):
            yield index + 1, self.journal[index]

    def post(self, event: Event) -> int:
        if self.kill_at is not None:
            left, afterwards = self.kill_at
            if left == 0:
                if afterwards:
                    self.journal.append(event)
                raise Killed
            self.kill_at = left - 1, afterwards
        self.journal.append(event)
        return len(self.journal)

    def daemon(self, work: Callable[[], object]) -> None:
        """Have the daemon do *work*; it may be killed by that, and is started again."""
        try:
            work()
        except Killed:
            self.kill_at = None
            self.start()

    @rule()
    def restart(self) -> None:
        self.start()

    @rule(left=st.integers(0, 8), afterwards=st.booleans())
    def will_be_killed(self, *, left: int, afterwards: bool) -> None:
        self.kill_at = left, afterwards

    @rule()
    def drain(self) -> None:
        self.daemon(self.source.drain)

    @rule(ms=st.sampled_from((0, 1, 20, 51, 2000)))
    def pass_time(self, ms: int) -> None:
        self.daemon(lambda: self.clock.advance(ms * 10**6))

    @rule()
    def clear(self) -> None:
        self.daemon(self.source.clear)

    # The module

    def is_up(self) -> bool:
        return not self.module._queue.down

    @precondition(is_up)
    @rule(count=st.integers(1, 9))
    def post_events(self, count: int) -> None:
        for _ in range(count):
            self.daemon(lambda: self.module.post("a.b", [("class", Type.STRING, "a.b")]))

    @precondition(is_up)
    @rule()
    def post_event(self) -> None:
        self.post_events(1)

    @precondition(is_up)
    @rule(count=st.integers(1, 3))
    def fail(self, count: int) -> None:
        for _ in range(count):
            large = [("class", Type.STRING, "x" * ERPT_DATA_SZ)]
            assert self.module.post("a.b", large) is None
            self.module.now.failed += 1

    @precondition(is_up)
    @rule()
    def delay(self) -> None:
        eid = self.module.post("a.b", [("class", Type.STRING, "a.b")], delayed=True)
        assert eid is not None
        self.module.now.delayed.add(eid)

    @precondition(is_up)
    @rule()
    def insert_delayed(self) -> None:
        self.daemon(self.module.insert_delayed)

    @precondition(is_up)
    @rule(count=st.integers(1, 3))
    def limit(self, count: int) -> None:
        self.module.rate_limited(count)
        self.limited += count

    @precondition(is_up)
    @rule()
    def others_clear(self) -> None:
        self.module.clear()

    @precondition(is_up)
    @rule()
    def unload(self) -> None:
        self.daemon(self.module.shutdown)

    @precondition(lambda self: not self.is_up())
    @rule()
    def load(self) -> None:
        life = str(len(self.module.lives) + 1)
        self.module.lives[life] = Life()
        self.daemon(lambda: self.module.load(life))

    @precondition(lambda self: self.ahead is not None)
    @rule(count=st.integers(1, 7))
    def read_on(self, count: int) -> None:
        assert self.ahead is not None
        self.ahead.read_on(count)

    # What must hold

    def settle(self) -> None:
        """Bring all to its end: nothing is delayed, and the last event is no hole."""
        if not self.is_up():
            self.load()
        self.drain()
        self.insert_delayed()
        self.post_event()
        for _ in range(4):
            while self.ahead is not None and self.ahead.read_on(1):
                pass
            self.drain()
            self.clock.advance(LAST_PATIENCE_NS)
        assert self.clock.due == []
        last = [event for event in self.journal if event.eid is not None][-1]
        assert last.eid == self.module.eid

    @invariant()
    def check(self) -> None:
        self.check_lives()
        limited = [event.payload.get("rate_limited", 0) for event in self.journal]
        assert sum(limited) <= self.limited

    def check_lives(self) -> None:
        """Go through the journal, life by life, as a reader would."""
        life, first = self.module.lives["1"], 0
        events: list[int] = []
        gaps: list[Event] = []
        for event in self.journal:
            if event.name == "zeventfs.source.ready":
                told = self.module.lives[event.payload.get("life")]
                if told is not life:
                    self.check_life(life, events, gaps, first)
                    life, events, gaps, first = told, [], [], 1
                    assert event.payload.get("reason") == "module loaded anew"
            elif event.name == "zeventfs.gap" and event.payload.get("first_eid"):
                gaps.append(event)
            elif event.eid is not None:
                events.append(event.eid)
        self.check_life(life, events, gaps, first)

    def check_life(self, life: Life, events: list[int], gaps: list[Event], first: int) -> None:
        """Check that *events* and *gaps* are all that was given in *life*, from *first* on."""
        assert len(events) == len(set(events)), "nothing is told twice"
        places = [life.queued.index(eid) for eid in events]
        assert places == sorted(places), "the queue's order is kept"
        missing: list[int] = []
        lost = dict.fromkeys(Split._fields, 0)
        for gap in gaps:
            get = gap.payload.get
            assert get("dropped") == get("last_eid") - get("first_eid") + 1
            missing += range(get("first_eid"), get("last_eid") + 1)
            split = {cause: get(cause, 0) for cause in lost}
            assert sum(split.values()) == get("dropped")
            assert (get("cause") == "cleared") == (split["cleared"] == get("dropped"))
            for cause, count in split.items():
                lost[cause] += count
        assert len(missing) == len(set(missing)), "nothing is missed twice"
        late = set(missing) & set(events)
        assert late <= life.delayed
        # Those before the first event are no loss to a source that began in the midst of this life.
        known = set(missing) | set(events)
        if known:
            held = set(range(first or events[0], max(known) + 1)) - known
            may_come = life is self.module.now and self.source._eids.deadline_ns is not None
            assert may_come or held <= life.delayed, "what isn't told is on its way, or may be"
        assert lost["failed"] <= life.failed, "no more have failed than did"
        # One that comes after patience is over is told by what else would explain it.
        assert not lost["cleared"] or life.cleared or life.delayed
        assert not lost["evicted"] or life.full


class ReadAheadMachine(SourceMachine):
    reads_ahead = True


class SynchronousMachine(SourceMachine):
    in_turns = False


PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink takes longer than a test may
EXAMPLES = int(os.environ.get("SOURCE_EXAMPLES", "30"))


@pytest.fixture(autouse=True)
def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """A module that is unloaded a thousand times needn't be told of."""
    caplog.set_level(logging.ERROR, "zeventfs.sources.zfs")


@pytest.mark.parametrize("machine", [SourceMachine, ReadAheadMachine, SynchronousMachine])
def test_whatever_happens_each_event_is_told_once_in_order_or_is_counted(
    machine: type[SourceMachine],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=EXAMPLES, stateful_step_count=40, phases=PHASES
        ),
    )
