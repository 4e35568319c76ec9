"""Clearing the queue, ours and the kernel's, from here and from elsewhere; signals to who waits."""

import os
import signal

from kernel_queue import (
    await_eid,
    clear,
    coverage,
    newest_eid,
    records,
    standing_still,
    text,
)
from lines import events, is_own_gap
from mounted_tree import Mounted
from pools_on_files import FilePool


def test_clear_empties_the_kernel_s_queue_before_it_returns_and_readers_wait_on(
    pool: FilePool, mounted: Mounted
) -> None:
    await_eid(mounted, newest_eid())
    waiting = mounted.program("cat", mounted.path("events/stream"))
    waiting.await_output("pool_create")
    waiting.await_blocked()
    unread = mounted.stream()
    count = len(mounted.everything())
    mounted.write("events/clear", b"1\n")
    assert text() == b""
    assert mounted.everything() == []
    (gap,) = events(mounted.drain(unread))
    assert is_own_gap(gap)
    assert (int(gap["payload"]["dropped"]), gap["payload"]["cause"]) == (count, "cleared")

    pool.set("test:x", b"after")
    waiting.await_output("test:x=after")
    seen = events(waiting.whole_lines)
    assert not any(is_own_gap(event) for event in seen), "who had read all lost nothing"
    assert coverage(seen).lost == 0


def test_clearing_under_a_storm_loses_count_of_nothing(pool: FilePool, mounted: Mounted) -> None:
    first = records()[0].eid
    reader = mounted.program("cat", mounted.path("events/stream"))
    with pool.storm():
        for _ in range(5):
            mounted.write("events/clear", b"1\n")
    pool.set("test:x", b"the end")
    last = newest_eid()
    await_eid(mounted, last)
    reader.await_output("the end")
    seen = events(reader.whole_lines)
    own = [event for event in seen if is_own_gap(event)]
    kernel = [event for event in seen if not is_own_gap(event) and event["source"] == "zfs"]
    assert all(gap["payload"]["cause"] == "cleared" for gap in own)
    seqs = [event["seq"] for event in seen if not is_own_gap(event)]
    lost = sum(int(gap["payload"]["dropped"]) for gap in own)
    assert len(seqs) + lost == seqs[-1]
    told = [event["eid"] for event in kernel if event.get("eid") is not None]
    assert len(told) == len(set(told))
    assert first <= min(told)
    assert max(told) == last


def test_somebody_else_s_clear_is_a_gap_with_its_cause(pool: FilePool, mounted: Mounted) -> None:
    first = records()[0].eid
    await_eid(mounted, newest_eid())
    with standing_still(mounted):  # or it would have read what is cleared
        pool.set("test:x", b"never seen")
        cleared = newest_eid()
        clear()
    pool.set("test:x", b"after")
    last = newest_eid()
    await_eid(mounted, last)
    found = coverage(mounted.everything())
    assert (found.first, found.last) == (first, last)
    assert found.lost >= 1
    (gap,) = (event["payload"] for event in mounted.everything() if "gap" in event["class"])
    assert (gap["last_eid"], gap["cause"]) == (cleared, "cleared")
    assert found.causes == {"cleared": found.lost}


def test_somebody_else_s_clear_of_what_was_read_is_no_loss(
    pool: FilePool, mounted: Mounted
) -> None:
    first = records()[0].eid
    await_eid(mounted, newest_eid())
    clear()
    pool.set("test:x", b"after")
    await_eid(mounted, newest_eid())
    found = coverage(mounted.everything())
    assert (found.first, found.last, found.lost) == (first, newest_eid(), 0)


def test_ctrl_c_ends_a_reader_that_waits_for_the_kernel_and_nobody_else(
    pool: FilePool, mounted: Mounted
) -> None:
    stream = mounted.path("events/stream")
    interrupted, other = (mounted.program("cat", stream) for _ in range(2))
    for reader in (interrupted, other):
        reader.await_output("pool_create")
        reader.await_blocked()
    os.kill(interrupted.pid, signal.SIGINT)
    assert interrupted.end() == -signal.SIGINT
    pool.set("test:x", b"after")
    other.await_output("test:x=after")


def test_umount_while_the_source_waits_in_the_kernel(pool: FilePool, mounted: Mounted) -> None:
    await_eid(mounted, newest_eid())
    reader = mounted.program("cat", mounted.path("events/stream"))
    reader.await_output(pool.name)
    reader.await_blocked()
    assert mounted.umount().returncode == 0
    assert mounted.await_end() == 0
    assert reader.end() != 0
    mounted.assert_over()
