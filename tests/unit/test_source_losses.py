"""A source by turns, over a queue that loses events: what is told of it, and what after a kill."""

import errno
from pathlib import Path
from typing import Any

import pytest
from source_clock import Clock

from zeventfs.event import Event
from zeventfs.nvlist import Type
from zeventfs.simulator.ring import Ring
from zeventfs.simulator.zfs import ZfsDevice
from zeventfs.sources.device import DeviceError
from zeventfs.sources.eids import LAST_PATIENCE_NS, PATIENCE_NS
from zeventfs.sources.position import Position
from zeventfs.sources.status import SourceState
from zeventfs.sources.zfs import ZfsSource, _found

NOW = 1_700_000_000 * 10**9
EPOCH = "0123456789abcdef"
PAIRS = [("class", Type.STRING, "a.b")]
TOO_LARGE = [("class", Type.STRING, "x" * 7000)]
ANEW, BACK = "module loaded anew", "the device answers"

Told = int | dict[str, Any] | None


class Mount:
    """A device, what stands for the journal, and one daemon's source after another."""

    def __init__(self, tmp_path: Path, device: Ring) -> None:
        self.device = device
        self.journal: list[Event] = []
        self.clock = Clock()
        self._path = tmp_path / "position"

    def post(self, event: Event) -> int:
        self.journal.append(event)
        return len(self.journal)

    def start(self, later: Any = "clock") -> ZfsSource:
        """Begin a source; an earlier one was killed."""
        position = Position(self._path, EPOCH)
        position.correct(reversed(list(enumerate(self.journal, 1))))
        self.device._subscribers.clear()
        self.source = ZfsSource(
            "zfs",
            self.device,
            self.post,
            lambda: NOW,
            monotonic_ns=self.clock,
            later=self.clock.later if later == "clock" else later,
            position=position,
        )
        return self.source

    def wait(self) -> None:
        """Let so much time pass that nothing more is waited for."""
        self.clock.advance(LAST_PATIENCE_NS)
        self.clock.advance()
        assert self.clock.due == []

    @property
    def told(self) -> list[Told]:
        """EIDs; of what isn't an event of the device, its payload but for what all have."""
        found: list[Told] = []
        for event in self.journal:
            if event.name.startswith("zeventfs."):
                payload = {name: value for name, _, value in event.payload.pairs()}
                del payload["time"]
                name = payload.pop("class")
                found.append(payload if name == "zeventfs.gap" else {name[16:]: payload})
            else:
                found.append(event.eid)
        return found


class Module(ZfsDevice):
    def __init__(self, len_max: int = 512) -> None:
        super().__init__(lambda: NOW, len_max=len_max, life="1")

    def add(self, count: int = 1, *, delayed: bool = False) -> None:
        for _ in range(count):
            self.post("a.b", PAIRS, delayed=delayed)

    def fail(self, count: int = 1) -> None:
        for _ in range(count):
            self.post("a.b", TOO_LARGE)

    def unheard(self, count: int) -> None:
        """Add *count* events while nobody drains, and then be heard of them."""
        subscribers, self._subscribers[:] = self._subscribers[:], []
        self.add(count)
        self._subscribers[:] = subscribers


@pytest.fixture
def module() -> Module:
    return Module(len_max=4)


@pytest.fixture
def mount(tmp_path: Path, module: Module) -> Mount:
    return Mount(tmp_path, module)


@pytest.fixture
def source(mount: Mount) -> ZfsSource:
    return mount.start()


def gap(first: int, last: int, cause: str = "source", **causes: int) -> dict[str, Any]:
    lost = {"dropped": last - first + 1, "first_eid": first, "last_eid": last, "cause": cause}
    return {**lost, **causes}


def ready(reason: str, **more: Any) -> dict[str, Any]:
    return {"ready": {"source": "zfs", "reason": reason, **more}}


def lost(reason: str = "Cannot send after transport endpoint shutdown") -> dict[str, Any]:
    return {"lost": {"source": "zfs", "reason": reason}}


# Order


@pytest.mark.usefixtures("source")
def test_a_late_event_fills_its_hole_and_the_order_is_the_queues(
    mount: Mount, module: Module
) -> None:
    module.add()
    module.add(delayed=True)
    module.add()
    assert mount.told == [1]
    module.insert_delayed()
    assert mount.told == [1, 3, 2]
    mount.wait()
    assert mount.told == [1, 3, 2]


@pytest.mark.usefixtures("source")
def test_a_hole_is_told_after_a_moment(mount: Mount, module: Module) -> None:
    module.add()
    module.fail(2)
    module.add(2)
    mount.clock.advance(PATIENCE_NS - 1)
    assert mount.told == [1]
    mount.clock.advance(1)
    assert mount.told == [1, gap(2, 3, failed=2), 4, 5]
    assert mount.clock.due == []


def test_an_event_that_is_kept_is_no_loss_and_keeps_nobody(
    mount: Mount, module: Module, source: ZfsSource
) -> None:
    module.add()
    module.add(delayed=True)
    module.add(3)
    mount.clock.advance(PATIENCE_NS)
    assert mount.told == [1, 3, 4, 5]
    mount.clock.advance(LAST_PATIENCE_NS // 2)
    module.insert_delayed()
    mount.wait()
    assert mount.told == [1, 3, 4, 5, 2]
    assert (source.status().late, source.status().dropped) == (0, 0)


def keep_the_third(mount: Mount, module: Module) -> None:
    """Post four events; the third is kept from the queue for longer than patience lasts."""
    module.add(2)
    module.add(delayed=True)
    module.add()
    mount.clock.advance(PATIENCE_NS)
    module.insert_delayed()
    mount.wait()


def test_an_event_that_is_kept_while_the_queue_is_cleared_may_come_afterwards(
    mount: Mount, module: Module, source: ZfsSource
) -> None:
    module.add()
    module.add(delayed=True)
    module.add()
    source.clear()
    assert mount.told == [1, 3]
    module.insert_delayed()
    mount.wait()
    assert mount.told == [1, 3, 2]
    assert source.status().dropped == 0


def test_what_failed_before_it_began_explains_nothing_that_is_on_its_way(
    mount: Mount, module: Module
) -> None:
    module.fail()
    mount.start()
    keep_the_third(mount, module)
    assert mount.told == [2, 3, 5, 4]


def test_what_failed_behind_the_last_event_before_it_began_is_told(
    mount: Mount, module: Module
) -> None:
    module.add()
    module.fail()
    mount.start()
    module.add()
    mount.wait()
    assert mount.told == [1, gap(2, 2, failed=1), 3]


@pytest.mark.usefixtures("source")
def test_what_failed_before_a_kill_and_is_missed_after_it_is_told(
    mount: Mount, module: Module
) -> None:
    module.add()
    module.fail()
    module.add()
    module.fail()  # counted before the hole of 2 is told
    mount.clock.advance(PATIENCE_NS)
    mount.start()
    module.add()
    mount.wait()
    assert mount.told == [1, gap(2, 2, failed=1), 3, gap(4, 4, failed=1), 5]


def test_a_failure_that_was_told_as_evicted_explains_nothing_later(
    mount: Mount, module: Module, source: ZfsSource
) -> None:
    module.add()
    module.add(delayed=True)
    module.add()
    mount.clock.advance(110 * 10**6)  # 2 is awaited, and for some time not looked after
    module.fail()
    module.unheard(6)
    module.add()
    mount.clock.advance(60 * 10**6)
    module.insert_delayed()
    mount.wait()
    keep_the_third(mount, module)
    assert mount.told[-4:] == [12, 13, 15, 14]
    assert source.status().late == 0


def test_an_event_that_is_too_late_is_posted_and_counted(
    mount: Mount, module: Module, source: ZfsSource
) -> None:
    module.add()
    module.add(delayed=True)
    module.add()
    mount.wait()
    module.insert_delayed()
    assert mount.told == [1, 3, gap(2, 2, unknown=1), 2]
    assert (source.status().dropped, source.status().late) == (1, 1)


def test_without_later_nothing_is_waited_for_but_what_is_queued(
    mount: Mount, module: Module
) -> None:
    module.add()
    module.add(delayed=True)
    module.add()
    module.insert_delayed()
    mount.start(later=None)
    assert mount.told == [1, 3, 2]
    module.fail()
    module.add()
    assert mount.told[3:] == [gap(4, 4, failed=1), 5]


# Turns


def test_a_backlog_is_worked_off_in_turns(tmp_path: Path) -> None:
    module = Module()
    module.add(300)
    mount = Mount(tmp_path, module)
    mount.start()
    seen = [len(mount.told)]
    while mount.clock.due:
        [(due_ns, _, _)] = mount.clock.due
        assert due_ns == mount.clock.now_ns
        module._subscribers[0]()  # an arrival doesn't make a turn longer
        mount.clock.turn()
        seen.append(len(mount.told))
    assert seen == [64, 128, 192, 256, 300]


def test_what_is_held_back_is_let_go_in_turns_too(tmp_path: Path) -> None:
    module = Module(len_max=200)
    mount = Mount(tmp_path, module)
    mount.start()
    module.add()
    module.unheard(400)
    mount.source.drain()
    while len(mount.told) == 1:
        mount.clock.turn()
    assert len(mount.told) < 130
    mount.wait()
    assert mount.told == [1, gap(2, 201, evicted=200), *range(202, 402)]


def test_a_clear_takes_all_in_one(tmp_path: Path) -> None:
    module = Module()
    module.add(300)
    mount = Mount(tmp_path, module)
    mount.start().clear()
    assert len(mount.told) == 300
    assert len(module) == 0
    mount.wait()
    assert len(mount.told) == 300


# Causes


@pytest.mark.usefixtures("source")
def test_what_a_full_queue_let_go_is_evicted(mount: Mount, module: Module) -> None:
    module.add()
    module.unheard(10)
    mount.source.drain()
    mount.wait()
    assert mount.told == [1, gap(2, 7, evicted=6), 8, 9, 10, 11]
    status = mount.source.status()
    assert (status.gaps, status.dropped, status.evicted, status.kernel_dropped) == (1, 6, 6, 1)


@pytest.mark.usefixtures("source")
def test_what_somebody_cleared_is_cleared(mount: Mount, module: Module) -> None:
    module.add()
    module.unheard(3)
    module.clear()
    module.add()
    assert mount.told == [1]
    mount.wait()
    assert mount.told == [1, gap(2, 4, "cleared", cleared=3), 5]


@pytest.mark.usefixtures("source")
def test_a_clear_that_took_nothing_unread_is_no_gap(mount: Mount, module: Module) -> None:
    module.add(2)
    module.clear()
    module.add()
    mount.wait()
    assert mount.told == [1, 2, 3]
    assert mount.source.status().kernel_dropped == 1


@pytest.mark.usefixtures("source")
def test_what_fell_between_our_drain_and_our_clear_is_cleared(
    mount: Mount, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.add()
    clear = module.clear

    def late_clear() -> int:
        module.unheard(2)
        return clear()

    monkeypatch.setattr(module, "clear", late_clear)
    mount.source.clear()
    module.unheard(4)  # the queue is full again, and so nobody else could tell
    mount.source.drain()
    mount.wait()
    assert mount.told == [1, gap(2, 3, "cleared", cleared=2), 4, 5, 6, 7]


@pytest.mark.usefixtures("source")
def test_our_clear_is_the_cause_of_the_next_hole_alone(mount: Mount, module: Module) -> None:
    module.add()
    mount.source.clear()
    module.add()
    module.unheard(5)
    mount.source.drain()
    mount.wait()
    assert mount.told == [1, 2, gap(3, 3, evicted=1), 4, 5, 6, 7]


@pytest.mark.usefixtures("source")
def test_a_clear_waits_for_nothing_that_is_missing(mount: Mount, module: Module) -> None:
    module.add()
    module.fail()
    module.add()
    mount.source.clear()
    assert mount.told == [1, gap(2, 2, failed=1), 3]


@pytest.mark.usefixtures("source")
def test_a_hole_of_several_causes_says_how_many_of_each(mount: Mount, module: Module) -> None:
    module.add()
    module.fail(2)
    module.unheard(3)
    module.clear()
    module.add()
    mount.wait()
    assert mount.told == [1, gap(2, 6, failed=2, cleared=3), 7]
    module.fail(2)
    module.unheard(9)
    mount.source.drain()
    mount.wait()
    assert mount.told[3] == gap(8, 14, evicted=5, failed=2)


@pytest.mark.usefixtures("source")
def test_what_failed_behind_an_eviction_is_told_there(mount: Mount, module: Module) -> None:
    module.add()
    module.unheard(6)
    module.fail()
    module.unheard(1)
    mount.source.drain()
    mount.wait()
    assert mount.told == [1, gap(2, 4, evicted=3), 5, 6, 7, gap(8, 8, failed=1), 9]


@pytest.mark.usefixtures("source")
def test_where_nothing_explains_it_the_cause_is_unknown(mount: Mount, module: Module) -> None:
    module.add()
    module._eid = 3
    module.add()
    mount.wait()
    assert mount.told == [1, 4, gap(2, 3, unknown=2)]


@pytest.mark.usefixtures("source")
def test_the_queue_may_have_been_lengthened_because_of_the_loss(
    mount: Mount, module: Module
) -> None:
    module.add()
    module.unheard(9)
    module.len_max = 8  # as zed does
    mount.source.drain()
    mount.wait()
    assert mount.told == [1, gap(2, 6, evicted=5), 7, 8, 9, 10]


@pytest.mark.usefixtures("source")
def test_rate_limited_ereports_are_counted_apart(mount: Mount, module: Module) -> None:
    module.rate_limited(3)
    module.add()
    module.rate_limited(3)
    module.add()
    module.unheard(9)
    module.rate_limited(5)
    mount.source.drain()
    mount.wait()

    def limited(count: int) -> dict[str, Any]:
        return {"dropped": count, "cause": "source", "rate_limited": count}

    # Of what a cursor that has read anything says, 1 may be its own.
    assert mount.told[:4] == [limited(3), 1, limited(2), 2]
    assert mount.told[4:6] == [limited(5), gap(3, 7, evicted=5)]
    status = mount.source.status()
    assert (status.rate_limited, status.dropped, status.kernel_dropped) == (10, 5, 12)


@pytest.mark.usefixtures("source")
def test_what_is_told_with_a_malformed_event_is_not_forgotten(
    mount: Mount, module: Module, caplog: pytest.LogCaptureFixture
) -> None:
    module.add()
    module.unheard(2)
    module.clear()
    module.rate_limited(2)
    module._eid += 1
    module.put(b"\0garbage")
    module.add()
    mount.wait()
    assert mount.told[1]["rate_limited"] == 2  # type: ignore[index] # it's a gap's
    assert mount.told[2:] == [gap(2, 4, cleared=2, unknown=1), 5]
    assert "malformed" in caplog.text


# Lost and back


def test_a_module_that_is_loaded_anew_is_lost_and_ready(
    mount: Mount, module: Module, source: ZfsSource, caplog: pytest.LogCaptureFixture
) -> None:
    module.add()
    module.fail()
    module.add()
    module.shutdown()
    assert mount.told == [1, gap(2, 2, failed=1), 3, lost()]
    assert (source.status().state, source.status().waiting) == (SourceState.LOST, 0)
    module.load("2")
    assert (source.status().state, source.status().reason) == (SourceState.READY, "")
    assert mount.told[4:] == [ready(ANEW, life="2")]
    module.add()
    module.fail()
    module.add()
    mount.wait()
    assert mount.told[5:] == [1, gap(2, 2, failed=1), 3]
    assert len(caplog.records) == 1


def test_another_life_is_told_though_nobody_saw_the_first_end(
    mount: Mount, module: Module, source: ZfsSource
) -> None:
    module.add(2)
    module._subscribers.clear()
    module.fail()
    module.add()
    source.drain()
    module.shutdown()
    module.load("2")
    module.fail()
    module.add()
    source.drain()
    mount.wait()
    assert mount.told[:4] == [1, 2, gap(3, 3, failed=1), 4]
    assert mount.told[4:] == [ready(ANEW, life="2", first_eid=2), gap(1, 1, failed=1), 2]


def test_what_failed_in_another_life_explains_nothing_in_this(
    mount: Mount, module: Module, source: ZfsSource
) -> None:
    module.add()
    module.add(delayed=True)
    module.add()
    module._subscribers.clear()
    module.shutdown()
    module.load("2")
    module.fail()
    source.drain()
    assert mount.told == [1, gap(2, 2, unknown=1), 3, ready(ANEW, life="2")]


def test_what_was_evicted_of_a_new_life_before_we_stood_in_it_is_counted(
    mount: Mount, module: Module, source: ZfsSource
) -> None:
    module.add()
    module._subscribers.clear()
    module.shutdown()
    module.load("2")
    module.add(9)
    source.drain()
    mount.wait()
    assert mount.told[1:3] == [ready(ANEW, life="2", first_eid=6), gap(1, 5, evicted=5)]


class Hidden(Module):
    """A module whose device node may be away while its queue goes on."""

    hidden = False

    def open(self) -> Any:
        self._check()
        cursor = super().open()
        cursor.next = self._checked(cursor.next)  # type: ignore[method-assign] # it is this test's
        return cursor

    def _checked(self, call: Any) -> Any:
        def checked(**arguments: Any) -> Any:
            self._check()
            return call(**arguments)

        return checked

    def _check(self) -> None:
        if self.hidden:
            raise DeviceError(errno.ENXIO, "no device")

    def show(self, *, hidden: bool) -> None:
        self.hidden = hidden
        for arrived in self._subscribers:
            arrived()


@pytest.mark.parametrize("missed", [2, 9])
def test_a_device_that_was_out_of_reach_goes_on_where_it_stood(
    tmp_path: Path, missed: int, caplog: pytest.LogCaptureFixture
) -> None:
    module = Hidden(len_max=4)
    mount = Mount(tmp_path, module)
    mount.start()
    module.add(2)
    module.show(hidden=True)
    module.add(missed)
    assert mount.told == [1, 2, lost("no device")]
    module.show(hidden=False)
    mount.wait()
    first = 3 if missed == 2 else 8
    assert mount.told[3] == ready(BACK, life="1", first_eid=first)
    assert mount.told[4:] == ([3, 4] if missed == 2 else [gap(3, 7, evicted=5), 8, 9, 10, 11])
    assert len(caplog.records) == 1


def test_a_device_that_is_not_there_at_first_is_lost_until_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = Hidden(len_max=4)
    module.add(2)
    module.hidden = True
    mount = Mount(tmp_path, module)
    source = mount.start()
    assert mount.told == [lost("no device")]
    assert (source.status().state, source.status().waiting) == (SourceState.LOST, None)
    source.clear()
    module.show(hidden=False)
    assert mount.told[1:] == [ready(BACK, life="1", first_eid=1), 1, 2]
    assert len(caplog.records) == 1


def test_an_interrupted_call_is_no_loss(mount: Mount, module: Module) -> None:
    source = mount.start()
    assert source._cursor is not None
    read = source._cursor.next

    def interrupted(**_: Any) -> Any:
        raise DeviceError(errno.EINTR, "interrupted")

    source._cursor.next = interrupted  # type: ignore[method-assign] # as a signal would
    module.add()
    assert mount.told == []
    source._cursor.next = read  # type: ignore[method-assign] # as it was
    source.drain()
    assert mount.told == [1]


def test_a_device_that_is_lost_while_it_is_sought_is_lost(
    mount: Mount, module: Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mount.start()
    module.add()

    def gone(*_: object) -> None:
        raise DeviceError(errno.ESHUTDOWN, "gone")

    monkeypatch.setattr("zeventfs.simulator.ring.RingCursor.seek", gone)
    monkeypatch.setattr("zeventfs.simulator.ring.RingCursor.waiting", lambda _: 0)
    assert mount.start().status().reason == "gone"
    assert mount.told == [1, lost("gone")]
    assert len(caplog.records) == 1


# After a kill


def test_after_a_kill_it_goes_on_where_it_stopped(mount: Mount, module: Module) -> None:
    mount.start()
    module.add(3)
    module._subscribers.clear()
    module.add(1)
    mount.start()
    module.add()
    assert mount.told == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("source")
def test_what_was_lost_meanwhile_is_counted(mount: Mount, module: Module) -> None:
    module.add(3)
    module.unheard(9)
    mount.start()
    mount.wait()
    assert mount.told == [1, 2, 3, gap(4, 8, evicted=5), 9, 10, 11, 12]
    module.unheard(2)
    module.clear()
    mount.start()
    module.add()
    mount.wait()
    assert mount.told[8:] == [gap(13, 14, "cleared", cleared=2), 15]


@pytest.mark.usefixtures("source")
def test_what_was_held_back_when_it_was_killed_is_not_lost(mount: Mount, module: Module) -> None:
    module.add()
    module.fail()
    module.add(2)
    assert mount.told == [1]
    mount.clock.due.clear()
    mount.start()
    mount.wait()
    assert mount.told == [1, gap(2, 2, failed=1), 3, 4]


def test_the_modules_other_life_is_said(mount: Mount, module: Module) -> None:
    mount.start()
    module.add(3)
    module._subscribers.clear()
    module.shutdown()
    module.load("2")
    module.add(2)
    mount.start()
    assert mount.told == [1, 2, 3, ready(ANEW, life="2", first_eid=1), 1, 2]
    mount.start()
    module.add()
    assert mount.told[4:] == [1, 2, 3], "it is said once"


def test_another_life_without_an_event_yet_is_said_too(mount: Mount, module: Module) -> None:
    mount.start()
    module.add()
    module._subscribers.clear()
    module.shutdown()
    module.load("2")
    mount.start()
    assert mount.told == [1, ready(ANEW, life="2")]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("afterwards", [False, True])
@pytest.mark.parametrize("at", range(1, 9))
def test_wherever_it_is_killed_nothing_is_told_twice(
    mount: Mount, module: Module, at: int, *, afterwards: bool
) -> None:
    module.add(2)
    module.fail()
    module.add()
    module.add(delayed=True)
    module.add()
    module.len_max = 10
    module.insert_delayed()
    module.add()

    def post(event: Event) -> int:
        if len(mount.journal) + 1 == at:
            if afterwards:
                mount.journal.append(event)
            raise Killed
        return Mount.post(mount, event)

    mount.post = post  # type: ignore[method-assign] # the first daemon's
    with pytest.raises(Killed) if at < 8 else nothing():
        mount.start(later=None)
    del mount.post  # as it was
    mount.start(later=None)
    assert mount.told == [1, 2, gap(3, 3, failed=1), 4, 6, 5, 7]


def nothing() -> Any:
    return pytest.MonkeyPatch.context()


def test_a_device_without_lives_is_read_from_its_beginning(tmp_path: Path) -> None:
    module = Module()
    module.life = ""
    mount = Mount(tmp_path, module)
    mount.start()
    module.add(2)
    mount.start()
    assert mount.told == [1, 2, 1, 2]


def test_what_comes_back_without_lives_may_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = Module()
    module.life = ""
    mount = Mount(tmp_path, module)
    mount.start()
    module.add(2)
    module.shutdown()
    module.load("")
    module.add(2)
    assert mount.told == [1, 2, lost(), ready(BACK, life=""), 1, 2]
    assert len(caplog.records) == 1


def test_what_cannot_be_posted_is_not_noted_as_posted(
    mount: Mount, module: Module, caplog: pytest.LogCaptureFixture
) -> None:
    def post(event: Event) -> int:
        if event.eid == 2:
            raise ZeroDivisionError
        return Mount.post(mount, event)

    mount.post = post  # type: ignore[method-assign] # the first daemon's
    source = mount.start()
    module.add(3)
    assert (mount.told, source.malformed) == ([1, 3], 1)
    assert "an event was not posted" in caplog.text


def test_at_the_end_what_is_held_back_is_posted(
    mount: Mount, module: Module, source: ZfsSource
) -> None:
    module.add()
    module.fail()
    module.add()
    source.end("end of the recording")
    assert mount.told == [1, gap(2, 2, failed=1), 3]
    assert source.status().state is SourceState.ENDED


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_device_that_is_lost_while_it_is_sought_is_read_out_first(ahead: int) -> None:
    class Going:
        def seek(self, _: int) -> None:
            raise DeviceError(errno.ESHUTDOWN, "gone")

        def waiting(self) -> int:
            return ahead

    going: Any = Going()
    if ahead:
        assert not _found(going, 1)
    else:
        with pytest.raises(DeviceError):
            _found(going, 1)
