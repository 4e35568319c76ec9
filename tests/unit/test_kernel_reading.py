"""The device that a thread reads: what the loop gets of it, when it is rung for, how it ends."""

import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import trio
from zevents_fake import NOT_LOADED, FakeZevents, Module, event

from zeventfs.sources.device import SEEK_END, SEEK_START, DeviceError
from zeventfs.sources.kernel import reader
from zeventfs.sources.kernel.device import KernelCursor, KernelDevice

PATIENCE = 20  # seconds; what is waited for comes at once


class Loop:
    """An event loop: calls that are waiting to be made, and what they led to."""

    def __init__(self, device: Callable[["Loop"], KernelDevice]) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.over = False
        self.heard: list[int | str] = []  # EIDs and refusals, in order
        self.lives: list[str] = []  # at each event
        self.device = device(self)
        self.cursor: KernelCursor = self.device.open()

    def wake(self, call: Callable[[], None]) -> None:
        if self.over:
            raise RuntimeError("the loop is over")
        self.calls.put(call)

    def drain(self) -> None:
        while True:
            try:
                packed = self.cursor.next(nonblock=True, size=1 << 24).packed
            except DeviceError as error:
                if error.errno != errno.ENOENT:
                    self.heard.append(str(error.strerror))
                return
            self.heard.append(int.from_bytes(packed[-12:-4], "little"))
            self.lives.append(self.device.life)

    def run_until(self, count: int) -> None:
        """Make calls until so much was heard."""
        while len(self.heard) < count:
            self.calls.get(timeout=PATIENCE)()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    return Module(monkeypatch)


@pytest.fixture
def loop(module: Module) -> Iterator[Loop]:
    loop = Loop(lambda loop: KernelDevice(loop.wake))
    before = threading.active_count()
    with loop.device:
        yield loop
    assert threading.active_count() == before
    assert all(each.closed for each in module.opened)


def until(true: Callable[[], object]) -> None:
    """Give way to other threads until it is *true*."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        os.sched_yield()


def waits(loop: Loop, count: int) -> bool:
    return loop.cursor.waiting() == count


def refusal(call: Callable[[], object]) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        call()
    return caught.value


def test_events_are_taken_in_order_each_once(module: Module, loop: Loop) -> None:
    module.post(1, 2)
    loop.device.subscribe(loop.drain)
    loop.run_until(2)
    module.post(3)
    loop.run_until(3)
    assert loop.heard == [1, 2, 3]


def test_the_sleep_of_the_reader_is_guarded(module: Module, loop: Loop) -> None:
    module.post(1)
    loop.device.subscribe(loop.drain)
    loop.run_until(1)
    assert module.opened[0].guarded


def test_many_arrivals_ring_once_until_the_loop_has_heard(module: Module, loop: Loop) -> None:
    loop.device.subscribe(loop.drain)
    for eid in range(1, 100):
        module.post(eid)
        until(partial(waits, loop, eid))
    assert loop.calls.qsize() == 1
    loop.calls.get()()
    assert loop.heard == list(range(1, 100))
    module.post(100)
    loop.run_until(100)


def test_what_waits_is_counted(module: Module, loop: Loop) -> None:
    module.post(1, 2, 3)
    assert loop.cursor.waiting() == 0
    loop.cursor.next(nonblock=True, size=100)
    assert loop.cursor.waiting() == 2


def test_what_the_kernel_says_was_dropped_stands_with_its_event(module: Module, loop: Loop) -> None:
    module.post(1, 2)
    module.dropped = 7
    assert [loop.cursor.next(nonblock=True, size=100).dropped for _ in range(2)] == [7, 0]


def test_a_buffer_that_is_too_small_leaves_the_event(module: Module, loop: Loop) -> None:
    module.post(1)
    refused = refusal(lambda: loop.cursor.next(nonblock=True, size=39))
    assert (refused.errno, refused.needed) == (errno.ENOMEM, 40)
    assert loop.cursor.next(nonblock=True, size=40).packed == event(1)


def test_an_event_larger_than_the_readers_buffer_makes_it_grow(module: Module, loop: Loop) -> None:
    module.post(1, size=3 << 20)
    loop.device.subscribe(loop.drain)
    loop.run_until(1)
    assert loop.heard == [1]
    assert module.opened[0].asked_for[:2] == [1 << 20, (3 << 20) + 16]


def test_with_nothing_there_a_call_that_may_not_block_is_refused(loop: Loop) -> None:
    for _ in range(2):
        assert refusal(lambda: loop.cursor.next(nonblock=True, size=100)).errno == errno.ENOENT
        loop.device.subscribe(lambda: None)


def test_a_blocking_call_waits_for_an_event(module: Module, loop: Loop) -> None:
    poster = threading.Thread(target=module.post, args=(1,))
    poster.start()
    assert loop.cursor.next(nonblock=False, size=100).packed == event(1)
    poster.join()


def test_an_interrupt_ends_a_blocking_call(loop: Loop) -> None:
    loop.cursor.interrupt()
    assert refusal(lambda: loop.cursor.next(nonblock=False, size=100)).errno == errno.EINTR


def test_before_the_reading_begins_the_cursor_can_be_moved(module: Module, loop: Loop) -> None:
    module.post(1, 2, 3, 4)
    loop.cursor.seek(2)
    assert loop.cursor.next(nonblock=True, size=100).packed == event(3)
    loop.cursor.seek(SEEK_END)
    assert loop.cursor.waiting() == 0
    assert refusal(lambda: loop.cursor.next(nonblock=True, size=100)).errno == errno.ENOENT
    loop.cursor.seek(SEEK_START)
    assert refusal(lambda: loop.cursor.seek(9)).errno == errno.ENOENT
    loop.device.subscribe(loop.drain)
    loop.run_until(4)
    assert loop.heard == [1, 2, 3, 4]


def test_a_cursor_that_could_not_be_moved_stands_where_it_stood(module: Module, loop: Loop) -> None:
    module.post(1, 2, 3)
    loop.cursor.next(nonblock=True, size=100)
    assert refusal(lambda: loop.cursor.seek(9)).errno == errno.ENOENT
    assert loop.cursor.next(nonblock=True, size=100).packed == event(2)


def test_a_cursor_can_be_moved_while_it_is_read(module: Module, loop: Loop) -> None:
    module.post(1, 2, 3)
    loop.device.subscribe(loop.drain)
    until(partial(waits, loop, 3))
    loop.cursor.seek(2)
    module.post(4)
    loop.run_until(2)
    assert refusal(lambda: loop.cursor.seek(9)).errno == errno.ENOENT
    loop.cursor.seek(SEEK_START)
    loop.run_until(6)
    assert loop.heard == [3, 4, 1, 2, 3, 4]


def test_a_cursor_is_moved_though_no_thread_can_be_had(module: Module, loop: Loop) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    module.post(1, 2, 3)
    loop.device.subscribe(loop.drain)
    until(partial(waits, loop, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        loop.cursor.seek(2)
        loop.run_until(1)  # its guard is a thread, too
        assert "can't start new thread" in str(loop.heard[0])
    loop.run_until(2)
    assert loop.heard[-1] == 3


class Interrupted(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        super().wait(timeout)
        raise KeyboardInterrupt


def test_a_pause_that_is_interrupted_is_over(
    module: Module, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.post(1, 2, 3)
    loop.device.subscribe(loop.drain)
    until(partial(waits, loop, 3))
    init = reader._Pause.__init__

    def interrupt(pause: reader._Pause) -> None:
        init(pause)
        pause.begun = Interrupted()

    monkeypatch.setattr(reader._Pause, "__init__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.cursor.seek(2)
    monkeypatch.setattr(reader._Pause, "__init__", init)
    loop.cursor.seek(2)
    loop.run_until(1)
    assert loop.heard == [3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_cursor_whose_thread_has_died_keeps_nobody(module: Module, loop: Loop) -> None:
    def wake(_: object) -> None:
        raise MemoryError

    loop.device.subscribe(loop.drain)
    loop.device._wake = wake
    module.broken = MemoryError()
    module.post(1)
    thread = loop.cursor._reader._thread
    assert thread is not None
    thread.join(PATIENCE)
    assert refusal(lambda: loop.cursor.seek(1)).errno == errno.ESHUTDOWN


def test_a_cursor_of_a_device_that_was_just_lost_can_not_be_moved(
    module: Module, loop: Loop
) -> None:
    loop.device.subscribe(loop.drain)
    module.unload()
    until(lambda: module.looks > 5)
    refused = refusal(lambda: loop.cursor.seek(1))
    assert (refused.errno, refused.strerror) == (errno.ESHUTDOWN, NOT_LOADED)
    module.load("boot/2", 1)
    loop.run_until(3)
    assert loop.heard[-1] == 1


def test_a_cursor_is_not_moved_in_a_life_that_it_was_not_told_of(
    module: Module, loop: Loop
) -> None:
    module.post(1, 2, 3)
    loop.device.subscribe(loop.drain)
    until(partial(waits, loop, 3))
    module.unload()
    module.load("boot/2", 1, 2, 3)
    until(partial(waits, loop, 6))
    refused = refusal(lambda: loop.cursor.seek(2))
    assert (refused.errno, refused.strerror) == (errno.ESHUTDOWN, "the ZFS module was loaded anew")
    loop.run_until(7)
    assert loop.heard[:3] == [1, 2, 3] == loop.heard[-3:]
    assert loop.lives == ["boot/1"] * 3 + ["boot/2"] * 3


def test_an_event_says_whether_the_queues_end_was_seen_before_it(
    module: Module, loop: Loop
) -> None:
    def after_end() -> bool:
        return loop.cursor.next(nonblock=True, size=100).after_end

    module.post(1, 2)
    assert [after_end(), after_end()] == [False, False]
    module.post(3, 4)
    assert [after_end(), after_end()] == [True, False]
    module.post(5)
    loop.cursor.seek(3)
    assert [after_end(), after_end()] == [False, False]


def test_an_event_for_which_the_buffer_had_no_room_is_not_after_the_end(
    module: Module, loop: Loop
) -> None:
    module.post(1, 2, size=600_000)
    taken = [loop.cursor.next(nonblock=True, size=1 << 20) for _ in range(2)]
    assert not taken[1].after_end


def test_there_is_one_cursor(loop: Loop) -> None:
    assert refusal(loop.device.open).errno == errno.EBUSY


def test_a_cursor_may_be_opened_after_the_subscription(module: Module) -> None:
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    with KernelDevice(calls.put) as device:
        device.subscribe(lambda: None)
        assert device.life == "boot/1"
        cursor = device.open()
        module.post(1)
        until(cursor.waiting)
        calls.get(timeout=PATIENCE)
        assert cursor.next(nonblock=True, size=100).packed == event(1)


def test_clear_empties_the_queue_and_says_of_how_many(module: Module, loop: Loop) -> None:
    module.post(1, 2, 3)
    assert loop.device.clear() == 3
    assert loop.device.clear() == 0
    assert module.opened[-1].closed


def test_a_device_that_nobody_reads_can_be_cleared(module: Module) -> None:
    module.post(1, 2)
    assert KernelDevice(lambda _: None).clear() == 2


def test_clear_takes_what_was_read_ahead_with_it(module: Module, loop: Loop) -> None:
    module.post(1, 2, 3)
    loop.device.subscribe(loop.drain)
    until(partial(waits, loop, 3))
    assert loop.cursor.next(nonblock=True, size=100).packed == event(1)
    loop.device.clear()
    assert loop.cursor.waiting() == 0
    module.post(4)
    loop.run_until(1)
    assert loop.heard == [4]


def test_what_was_read_ahead_stays_if_the_queue_could_not_be_emptied(
    module: Module, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: FakeZevents) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    module.post(1, 2)
    loop.device.subscribe(loop.drain)
    until(partial(waits, loop, 2))
    monkeypatch.setattr(FakeZevents, "clear", refuse)
    assert refusal(loop.device.clear).errno == errno.EIO
    loop.run_until(2)
    assert loop.heard == [1, 2]


def test_clear_says_why_it_could_not(module: Module, loop: Loop) -> None:
    module.failure = errno.EPERM
    assert refusal(loop.device.clear).errno == errno.EPERM
    module.unload()
    gone = refusal(loop.device.clear)
    assert (gone.errno, gone.strerror) == (errno.ESHUTDOWN, NOT_LOADED)


def test_a_lost_device_is_told_after_its_last_event(module: Module, loop: Loop) -> None:
    module.post(1)
    loop.device.subscribe(loop.drain)
    loop.run_until(1)
    module.unload()
    loop.run_until(2)
    assert loop.heard[1] == "the ZFS module is being unloaded"
    loop.run_until(3)  # and then what is the matter now
    assert loop.heard[2] == NOT_LOADED
    assert refusal(lambda: loop.cursor.next(nonblock=True, size=1)).errno == errno.ESHUTDOWN


def test_a_device_that_is_back_goes_on_with_the_new_lifes_oldest(
    module: Module, loop: Loop
) -> None:
    module.post(1, 2)
    loop.device.subscribe(loop.drain)
    loop.run_until(2)
    module.unload()
    loop.run_until(4)
    module.load("boot/2", 1)
    loop.run_until(5)
    assert [each for each in loop.heard if isinstance(each, int)] == [1, 2, 1]
    assert loop.lives == ["boot/1", "boot/1", "boot/2"]


def test_a_loss_that_is_over_already_is_told_all_the_same(module: Module, loop: Loop) -> None:
    loop.device.subscribe(loop.drain)
    module.post(1)
    until(loop.cursor.waiting)
    module.unload()
    module.load("boot/2", 1)
    until(lambda: loop.cursor.waiting() == 2)
    assert loop.calls.qsize() == 1  # for all of it
    loop.run_until(3)
    assert loop.heard[0] == 1
    assert isinstance(loop.heard[1], str)
    assert loop.heard[-1] == 1
    assert loop.lives == ["boot/1", "boot/2"]


def test_in_the_same_life_it_goes_on_where_it_was(module: Module, loop: Loop) -> None:
    module.post(1, 2)
    loop.device.subscribe(loop.drain)
    loop.run_until(2)
    module.unload(errno.EIO)
    loop.run_until(4)
    assert loop.heard[2] == "/dev/zfs can't be read: Input/output error"
    module.load("boot/1", 3)
    loop.run_until(5)
    assert loop.heard[4] == 3


def test_where_that_is_gone_it_goes_on_with_the_oldest(module: Module, loop: Loop) -> None:
    module.post(1, 2)
    loop.device.subscribe(loop.drain)
    loop.run_until(2)
    module.unload()
    loop.run_until(4)
    module.queue.clear()
    module.load("boot/1", 7)
    loop.run_until(5)
    assert loop.heard[4] == 7


def test_a_device_that_comes_later_becomes_ready(module: Module) -> None:
    module.unload()
    loop = Loop(lambda loop: KernelDevice(loop.wake))
    with loop.device:
        assert loop.device.life == ""
        loop.drain()
        assert loop.heard == [NOT_LOADED]
        assert refusal(lambda: loop.cursor.seek(1)).errno == errno.ESHUTDOWN
        loop.device.subscribe(loop.drain)
        until(lambda: module.looks > 5)
        assert loop.calls.empty()  # it is still the same that is missing
        module.vanishing = True
        module.load("boot/2", 1)
        loop.run_until(3)
        assert loop.heard[1] == "/dev/zfs can't be opened: No such device or address"
        assert loop.heard[2] == 1
        assert loop.device.life == "boot/2"


def test_an_error_in_the_thread_is_logged_and_the_reading_goes_on(
    module: Module, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    module.broken = MemoryError()
    module.post(1)
    loop.device.subscribe(loop.drain)
    loop.run_until(2)
    assert loop.heard == ["MemoryError()", 1]
    assert caplog.messages == ["reading /dev/zfs broke off"]


def test_a_full_backlog_stops_the_reading_until_it_is_taken(
    module: Module, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(lambda loop: KernelDevice(loop.wake, backlog=150))
    with loop.device, caplog.at_level(logging.WARNING):
        loop.device.subscribe(loop.drain)
        for eid in range(1, 8):
            module.post(eid)
            until(partial(waits, loop, eid) if eid < 4 else lambda: caplog.messages)
        assert loop.cursor.waiting() == 3
        loop.run_until(7)
        assert loop.heard == [1, 2, 3, 4, 5, 6, 7]
        assert len(caplog.messages) == 1
        assert "faster than they are taken in" in caplog.messages[0]


def test_a_full_backlog_does_not_delay_the_end(module: Module) -> None:
    loop = Loop(lambda loop: KernelDevice(loop.wake, backlog=1))
    with loop.device:
        module.post(1)
        loop.device.subscribe(loop.drain)
        until(loop.cursor.waiting)


def test_an_end_while_the_device_is_missing_comes_at_once(module: Module) -> None:
    module.unload()
    loop = Loop(lambda loop: KernelDevice(loop.wake))
    with loop.device:
        loop.device.subscribe(loop.drain)


def test_without_a_loop_nothing_is_rung_for(module: Module, loop: Loop) -> None:
    loop.over = True
    loop.device.subscribe(loop.drain)
    module.post(1)
    until(loop.cursor.waiting)
    loop.drain()
    assert loop.heard == [1]
    loop.over = False  # as one that hadn't begun yet
    module.post(2)
    loop.run_until(2)


async def test_trios_loop_is_rung_for(module: Module) -> None:
    arrived = trio.Event()
    with KernelDevice(trio.lowlevel.current_trio_token().run_sync_soon) as device:
        cursor = device.open()
        device.subscribe(arrived.set)
        module.post(1)
        await arrived.wait()
        assert cursor.next(nonblock=True, size=100).packed == event(1)


def test_after_the_end_everything_is_refused(module: Module, loop: Loop) -> None:
    module.post(1, 2)
    loop.cursor.next(nonblock=True, size=100)
    loop.device.close()
    loop.device.subscribe(loop.drain)
    for call in (lambda: loop.cursor.next(nonblock=True, size=100), lambda: loop.cursor.seek(1)):
        assert refusal(call).errno == errno.EBADF


def test_a_device_without_a_cursor_has_nothing_to_end(module: Module) -> None:
    with KernelDevice(lambda _call: None) as device:
        device.subscribe(lambda: None)
        assert device.losses().failed >= 0
    assert not module.opened
