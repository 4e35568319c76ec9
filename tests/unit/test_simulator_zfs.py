"""The simulated /dev/zfs: every habit of module/zfs/fm.c that a reader can notice, by name."""

import errno
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zeventfs.errors import Invalid
from zeventfs.nvlist import NVList, Type, decode
from zeventfs.simulator.ring import RingCursor
from zeventfs.simulator.zfs import ERPT_DATA_SZ, FmCounters, ZfsDevice
from zeventfs.sources.device import (
    SEEK_END,
    SEEK_START,
    Cursor,
    Device,
    DeviceError,
    Losses,
    Taken,
)

SIZE = 1 << 16
NOW = 1_700_000_000_123_456_789


def make_device(**options: Any) -> ZfsDevice:
    return ZfsDevice(lambda: NOW, **options)


def post(device: ZfsDevice, count: int = 1, text: str = "x") -> int | None:
    eid = None
    for _ in range(count):
        eid = device.post("a.b", [("class", Type.STRING, "a.b"), ("text", Type.STRING, text)])
    return eid


def take(cursor: Cursor, size: int = SIZE) -> tuple[int, int]:
    """Return the eid and the dropped count of the next event."""
    taken = cursor.next(nonblock=True, size=size)
    return decode(taken.packed).get("eid"), taken.dropped


def refused(call: Callable[[], object]) -> int:
    with pytest.raises(DeviceError) as info:
        call()
    assert info.value.errno is not None
    return info.value.errno


def eids(cursor: Cursor) -> Iterator[int]:
    while True:
        try:
            eid, _ = take(cursor)
        except DeviceError:
            return
        yield eid


def test_the_device_and_its_cursors_keep_the_protocol() -> None:
    device: Device = make_device()
    cursor: Cursor = device.open()
    assert isinstance(cursor, RingCursor)


def test_post_puts_time_and_eid_last_whatever_the_caller_brought() -> None:
    device = make_device()
    cursor = device.open()
    device.post("a.b", [("eid", Type.STRING, "mine"), ("class", Type.STRING, "a.b")])
    assert list(decode(cursor.next(nonblock=True, size=SIZE).packed).pairs()) == [
        ("class", Type.STRING, "a.b"),
        ("time", Type.INT64_ARRAY, (1_700_000_000, 123_456_789)),
        ("eid", Type.UINT64, 1),
    ]


def test_eids_count_every_post_from_1() -> None:
    device = make_device()
    assert device.eid == 0
    assert [post(device) for _ in range(3)] == [1, 2, 3]
    assert device.eid == 3


def test_two_cursors_read_the_same_events_each_at_its_own_pace() -> None:
    device = make_device()
    post(device, 2)
    one, other = device.open(), device.open()
    assert list(eids(one)) == [1, 2]
    post(device)
    assert list(eids(one)) == [3]
    assert list(eids(other)) == [1, 2, 3]


def test_a_cursor_opened_later_begins_at_the_oldest_event() -> None:
    device = make_device()
    post(device, 2)
    assert take(device.open()) == (1, 0)


def test_nothing_new_is_enoent() -> None:
    assert refused(lambda: take(make_device().open())) == errno.ENOENT


def test_a_buffer_too_small_is_enomem_with_the_size_needed_and_the_same_event_comes_next() -> None:
    device = make_device()
    post(device, 2)
    cursor = device.open()
    with pytest.raises(DeviceError) as info:
        cursor.next(nonblock=True, size=10)
    assert info.value.errno == errno.ENOMEM
    needed = info.value.needed
    assert refused(lambda: take(cursor, needed - 1)) == errno.ENOMEM
    assert take(cursor, needed) == (1, 0)


def test_a_blocking_read_with_size_0_finds_an_event_with_enomem_and_leaves_it() -> None:
    device = make_device()
    post(device)
    cursor = device.open()
    assert refused(lambda: cursor.next(nonblock=False, size=0)) == errno.ENOMEM
    assert take(cursor) == (1, 0)


def test_enomem_keeps_the_dropped_count_for_the_read_that_succeeds() -> None:
    device = make_device()
    device.rate_limited(4)
    post(device)
    cursor = device.open()
    assert refused(lambda: take(cursor, 0)) == errno.ENOMEM
    assert take(cursor) == (1, 4)


def test_over_the_cap_the_oldest_event_is_freed() -> None:
    device = make_device()
    post(device, 515)
    assert len(device) == 512
    assert take(device.open()) == (4, 0)


def test_a_cursor_that_read_nothing_loses_events_without_a_dropped_count() -> None:
    device = make_device(len_max=2)
    cursor = device.open()
    post(device, 10)
    assert take(cursor) == (9, 0)


def test_a_cursor_whose_event_was_evicted_sees_dropped_1_once_however_many_went() -> None:
    device = make_device(len_max=2)
    post(device)
    cursor = device.open()
    take(cursor)
    post(device, 1000)
    assert take(cursor) == (1000, 1)
    assert take(cursor) == (1001, 0)


def test_a_cursor_that_lost_nothing_can_see_dropped_1_too() -> None:
    device = make_device(len_max=2)
    post(device)
    cursor = device.open()
    take(cursor)
    post(device, 2)
    assert take(cursor) == (2, 1)


def test_an_eviction_between_reads_that_find_nothing_is_counted_once() -> None:
    device = make_device()
    post(device)
    cursor = device.open()
    take(cursor)
    device.clear()
    for _ in range(2):
        assert refused(lambda: take(cursor)) == errno.ENOENT
    device.clear()
    post(device)
    assert take(cursor) == (2, 1)


def test_lowering_the_cap_frees_nothing_by_itself_and_one_event_a_post_afterwards() -> None:
    device = make_device()
    post(device, 5)
    device.len_max = 2
    assert len(device) == 5
    post(device)
    assert len(device) == 5
    assert take(device.open()) == (2, 0)


def test_with_a_cap_of_0_no_event_stays() -> None:
    device = make_device(len_max=0)
    assert post(device) == 1
    assert len(device) == 0


def test_clear_counts_what_went_and_eids_go_on() -> None:
    device = make_device()
    post(device, 3)
    assert device.clear() == 3
    assert device.clear() == 0
    assert post(device) == 4


def test_clear_counts_as_dropped_1_for_each_cursor_that_had_read_anything() -> None:
    device = make_device()
    post(device, 3)
    at_end, at_first, fresh = device.open(), device.open(), device.open()
    at_end.seek(SEEK_END)
    take(at_first)
    device.clear()
    post(device, 2)
    assert [take(each) for each in (at_end, at_first, fresh)] == [(4, 1), (4, 1), (4, 0)]
    assert take(at_end) == (5, 0)


def test_rate_limited_events_are_reported_to_whichever_cursor_reads_first() -> None:
    device = make_device()
    one, other = device.open(), device.open()
    device.rate_limited(3)
    device.rate_limited(4)
    post(device)
    assert take(other) == (1, 7)
    assert take(one) == (1, 0)


def test_seek_to_an_eid_stands_on_it() -> None:
    device = make_device()
    post(device, 3)
    cursor = device.open()
    cursor.seek(2)
    assert take(cursor) == (3, 0)


def test_seek_to_an_absent_eid_is_enoent_and_moves_nothing() -> None:
    device = make_device()
    post(device, 3)
    cursor = device.open()
    take(cursor)
    assert refused(lambda: cursor.seek(7)) == errno.ENOENT
    assert take(cursor) == (2, 0)


def test_seek_start_and_end_never_fail_and_end_is_after_the_newest() -> None:
    device = make_device()
    cursor = device.open()
    cursor.seek(SEEK_END)
    cursor.seek(SEEK_START)
    post(device, 2)
    cursor.seek(SEEK_END)
    assert refused(lambda: take(cursor)) == errno.ENOENT
    cursor.seek(SEEK_START)
    assert take(cursor) == (1, 0)


def test_seek_does_not_forget_an_eviction() -> None:
    device = make_device(len_max=1)
    post(device)
    cursor = device.open()
    take(cursor)
    post(device)
    cursor.seek(SEEK_START)
    assert take(cursor) == (2, 1)


def test_a_closed_cursor_is_ebadf() -> None:
    device = make_device()
    cursor = device.open()
    cursor.close()
    cursor.close()
    assert refused(lambda: take(cursor)) == errno.EBADF
    assert refused(lambda: cursor.seek(SEEK_START)) == errno.EBADF


@pytest.mark.parametrize(
    "call",
    [
        lambda device, _: device.open(),
        lambda device, _: device.clear(),
        lambda device, _: post(device),
        lambda device, _: device.put(b""),
        lambda _, cursor: take(cursor),
        lambda _, cursor: cursor.seek(SEEK_START),
        lambda _, cursor: cursor.next(nonblock=False, size=SIZE),
    ],
)
def test_after_shutdown_every_call_is_eshutdown(call: Callable[[Any, Any], object]) -> None:
    device = make_device()
    post(device)
    cursor = device.open()
    device.shutdown()
    assert refused(lambda: call(device, cursor)) == errno.ESHUTDOWN
    assert device.eid == 1


class Blocked:
    """A blocking read in a thread, which is known to wait before the test goes on."""

    def __init__(self, device: ZfsDevice, cursor: Cursor) -> None:
        self.result: Taken | int | None = None
        self._cursor = cursor
        changed = device._queue.changed
        waiting = threading.Event()
        wait = changed.wait

        def announced_wait() -> bool:
            waiting.set()
            return wait()  # gives the lock back only once the thread is among the waiters

        changed.wait = announced_wait  # type: ignore[method-assign,assignment] # to see it wait
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        waiting.wait()
        with changed:  # it can be had now that the reader waits
            pass

    def _read(self) -> None:
        try:
            self.result = self._cursor.next(nonblock=False, size=SIZE)
        except DeviceError as error:
            self.result = error.errno

    def end(self) -> int | None:
        """Return its errno, or the eid that it got."""
        self._thread.join()
        if isinstance(self.result, Taken):
            return int(decode(self.result.packed).get("eid"))
        return self.result


def test_a_blocked_read_gets_the_next_event() -> None:
    device = make_device()
    blocked = Blocked(device, device.open())
    post(device)
    assert blocked.end() == 1


def test_an_interrupt_ends_a_blocked_read_with_eintr_and_it_can_be_repeated() -> None:
    device = make_device()
    cursor = device.open()
    blocked = Blocked(device, cursor)
    cursor.interrupt()
    assert blocked.end() == errno.EINTR
    post(device)
    assert cursor.next(nonblock=False, size=SIZE).dropped == 0


def test_an_interrupt_wakes_no_other_cursor() -> None:
    device = make_device()
    cursor = device.open()
    blocked = Blocked(device, cursor)
    device.open().interrupt()
    post(device)
    assert blocked.end() == 1


def test_an_interrupt_just_before_the_wait_ends_it_and_touches_no_nonblocking_read() -> None:
    cursor = make_device().open()
    cursor.interrupt()
    assert refused(lambda: take(cursor)) == errno.ENOENT
    assert refused(lambda: cursor.next(nonblock=False, size=SIZE)) == errno.EINTR


def test_shutdown_wakes_blocked_reads_with_eshutdown() -> None:
    device = make_device()
    blocked = Blocked(device, device.open())
    device.shutdown()
    assert blocked.end() == errno.ESHUTDOWN


def test_a_clear_leaves_a_blocked_read_blocked() -> None:
    device = make_device()
    blocked = Blocked(device, device.open())
    device.clear()
    post(device)
    assert blocked.end() == 1


def test_a_read_blocked_while_its_cursor_is_closed_still_gets_its_event() -> None:
    device = make_device()
    cursor = device.open()
    blocked = Blocked(device, cursor)
    cursor.close()
    post(device)
    assert blocked.end() == 1


def test_subscribers_are_called_after_the_post_in_its_stack_and_may_drain() -> None:
    device = make_device()
    cursor = device.open()
    seen: list[tuple[int, int]] = []
    device.subscribe(lambda: seen.extend((eid, threading.get_ident()) for eid in eids(cursor)))
    post(device, 2)
    assert seen == [(1, threading.get_ident()), (2, threading.get_ident())]


def test_an_event_larger_than_6144_bytes_leaves_an_eid_hole_and_is_counted() -> None:
    device = make_device()
    called: list[None] = []
    device.subscribe(lambda: called.append(None))
    cursor = device.open()
    post(device)
    spare = ERPT_DATA_SZ - len(cursor.next(nonblock=True, size=SIZE).packed)
    assert post(device, text="x" * (spare + 1 + 7)) is None
    assert post(device, text="x" * (spare + 1)) == 3
    assert len(cursor.next(nonblock=True, size=SIZE).packed) == ERPT_DATA_SZ
    assert device.fm == FmCounters(erpt_dropped=1)
    assert len(called) == 2


def test_a_value_that_its_type_cannot_hold_is_invalid_and_takes_no_eid() -> None:
    device = make_device()
    with pytest.raises(Invalid):
        device.post("a.b", [("n", Type.UINT8, 256)])
    assert post(device) == 1


def test_the_console_gets_one_line_an_event_while_it_is_switched_on() -> None:
    lines: list[str] = []
    device = make_device(console=lines.append)
    inner = NVList.of([("n", Type.INT8, -1)])
    pairs = [
        ("class", Type.STRING, "a.b"),
        ("text", Type.STRING, "two\nlines"),
        ("list", Type.NVLIST, inner),
        ("lists", Type.NVLIST_ARRAY, (inner, inner)),
        ("there", Type.BOOLEAN, True),
        ("yes", Type.BOOLEAN_VALUE, True),
        ("no", Type.BOOLEAN_VALUE, False),
        ("names", Type.STRING_ARRAY, ("a", "b")),
        ("half", Type.DOUBLE, 0.5),
        ("small", Type.INT32_ARRAY, (-1, 2)),
        ("big", Type.UINT64, 2**64 - 1),
    ]
    device.post("a.b", pairs)
    assert lines == []
    device.zfs_zevent_console = True
    device.post("a.b", pairs)
    device.post("a.b", [("text", Type.STRING, "x" * ERPT_DATA_SZ)])
    (printed,) = lines
    assert printed == (
        'a.b text="two\\nlines" list=[ n=0xff ] lists=[ n=0xff n=0xff ] there= 1 yes=1 no=0'
        " names=[...] half= small=[ 0xffffffffffffffff 0x2 ] big=0xffffffffffffffff"
        " time=[ 0x6553f100 0x75bcd15 ] eid=0x2"
    )


def test_a_cursor_says_how_many_events_wait_for_it() -> None:
    device = make_device()
    device.len_max = 3
    cursor = device.open()
    assert cursor.waiting() == 0
    for _ in range(2):
        post(device)
    assert cursor.waiting() == 2
    take(cursor)
    assert cursor.waiting() == 1
    for _ in range(10):
        post(device)
    assert cursor.waiting() == 3
    device.clear()
    assert cursor.waiting() == 0
    post(device)
    device.shutdown()
    assert cursor.waiting() == 0


def test_a_device_that_goes_away_says_so_to_its_subscribers() -> None:
    device = make_device()
    answers: list[int | None] = []
    device.subscribe(lambda: answers.append(refused(device.open)))
    device.shutdown()
    assert answers == [errno.ESHUTDOWN]


def test_an_event_says_whether_the_end_was_seen_before_it() -> None:
    device = make_device()
    cursor = device.open()
    post(device, 2)
    seen = [cursor.next(nonblock=True, size=SIZE).after_end for _ in range(2)]
    assert seen == [False, False]
    post(device, 2)
    seen = [cursor.next(nonblock=True, size=SIZE).after_end for _ in range(2)]
    assert seen == [True, False]
    cursor.seek(2)
    seen = [cursor.next(nonblock=True, size=SIZE).after_end for _ in range(2)]
    assert seen == [False, False]


def test_a_delayed_event_has_its_eid_and_is_queued_later() -> None:
    device = make_device()
    cursor = device.open()
    assert device.post("a.b", [("class", Type.STRING, "a.b")], delayed=True) == 1
    assert post(device, 2) == 3
    assert list(eids(cursor)) == [2, 3]
    device.insert_delayed()
    device.insert_delayed()
    assert list(eids(cursor)) == [1]


def test_losses_are_what_failed_and_how_long_the_queue_may_be() -> None:
    device = make_device(len_max=7)
    post(device, text="x" * ERPT_DATA_SZ)
    device.fm.erpt_set_failed += 2
    device.fm.payload_set_failed += 4
    assert device.losses() == Losses(failed=3, len_max=7)


def test_a_module_that_is_loaded_anew_is_another_life_and_counts_from_1() -> None:
    device = make_device(life="1", len_max=2)
    cursor, closed = device.open(), device.open()
    closed.close()
    called: list[str] = []
    post(device, 2, text="x" * ERPT_DATA_SZ)
    post(device, 2)
    take(cursor)
    post(device, 2)
    device.post("a.b", [("class", Type.STRING, "a.b")], delayed=True)
    device.rate_limited(5)
    device.subscribe(lambda: called.append(device.life))
    device.shutdown()
    device.load("2")
    assert called == ["1", "2"]
    assert device.losses().failed == 0
    device.insert_delayed()
    assert post(device) == 1
    assert cursor.waiting() == 1
    assert take(cursor) == (1, 0), "it is as if new: nothing was dropped"
    assert refused(lambda: take(closed)) == errno.EBADF
