"""Where the kernel posts faster than anybody reads, events read + events in gaps = posted."""

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest
from kernel_fixtures import Figure, Mount
from kernel_queue import await_eid, coverage, newest_eid, records, set_parameter, standing_still
from lines import Event, account, events
from mounted_tree import Mounted
from pools_on_files import FilePool
from programs import Program, state_of
from waits import until


def overrun(mounted: Mounted, pool: FilePool, bursts: int) -> None:
    """Have the ring overflow for certain: the daemon stands still meanwhile."""
    with standing_still(mounted):
        for index in range(bursts):
            pool.burst(f"b{index} ")


@pytest.mark.parametrize("length", [512, 64, 5])
def test_what_the_ring_lost_is_counted_exactly(
    pool: FilePool, mounted: Mounted, length: int, figure: Figure
) -> None:
    set_parameter("zfs_zevent_len_max", length)
    first = records()[0].eid
    last_seen = newest_eid()
    await_eid(mounted, last_seen)
    overrun(mounted, pool, 3)
    pool.set("test:x", b"after")
    last = newest_eid()
    await_eid(mounted, last)
    found = coverage(mounted.everything())
    assert (found.first, found.last) == (first, last)
    assert found.read + found.lost == last - first + 1
    assert found.lost > 0
    assert found.causes == {"evicted": found.lost}
    figure(f"ring {length}: posted {last - last_seen}, {found}")


def test_bursts_into_a_ring_of_512_are_all_accounted_for(
    pool: FilePool, mounted: Mounted, figure: Figure
) -> None:
    first = records()[0].eid
    for index in range(8):
        pool.burst(f"b{index} ")
    last = newest_eid()
    await_eid(mounted, last)
    found = coverage(mounted.everything())
    assert (found.first, found.last) == (first, last)
    assert found.read + found.lost == last - first + 1
    figure(f"posted {last - first + 1}: {found}")


def test_two_concurrent_readers_see_the_same(pool: FilePool, mounted: Mounted) -> None:
    stream = mounted.path("events/stream")
    readers = [mounted.program("cat", stream) for _ in range(2)]
    pool.burst()
    pool.set("test:x", b"the end")
    await_eid(mounted, newest_eid())
    for reader in readers:
        reader.await_output("the end")
    first, second = (reader.whole_lines for reader in readers)
    assert first == second
    assert coverage(events(first)).lost == 0


def stop(reader: Program) -> None:
    os.kill(reader.pid, signal.SIGSTOP)
    until(lambda: state_of(reader.pid) == "T", "the reader stopped")


def test_64_readers_of_a_storm_one_of_them_stopped_account_for_all_that_was_posted(
    pool: FilePool, mount: Mount, figure: Figure
) -> None:
    mounted = mount("retain=512K", "segment=64K", source="zfs")
    first = records()[0].eid
    await_eid(mounted, newest_eid())
    stream = mounted.path("events/stream")
    stopped, *others = (mounted.program("cat", stream) for _ in range(64))
    for reader in (stopped, *others):
        reader.await_blocked()
    stop(stopped)
    with pool.storm():
        await_eid(mounted, first + 500, limit=20)  # far more by the time it ends
    pool.set("test:x", b"the end")
    last = newest_eid()
    await_eid(mounted, last)
    os.kill(stopped.pid, signal.SIGCONT)
    for reader in (stopped, *others):
        until(lambda reader=reader: b"the end" in tail(reader), "the end", limit=20)  # type: ignore[misc]  # mypy can't infer a lambda's default

    posted = mounted.everything()[-1]["seq"]
    complete = []
    for reader in (stopped, *others):
        found = account(skimmed(reader.whole_lines))
        assert (found.first, found.last) == (1, posted)
        assert found.read + found.dropped == posted
        if not found.dropped:
            complete.append(reader)
    figure(f"{len(complete)} of 64 readers lost nothing of {posted} events")
    # What the journal itself says of the kernel's events, who lost nothing has read.
    for reader in complete[:1]:
        seen = coverage(events(reader.whole_lines))
        assert (seen.first, seen.last) == (first, last)
        assert seen.read + seen.lost == last - first + 1
        figure(f"posted {last - first + 1}: {seen}")


def tail(reader: Program) -> bytes:
    """Return the end of what *reader* has written: all of it, of 64, is too much to search."""
    with reader.output.open("rb") as output:
        output.seek(max(0, output.seek(0, os.SEEK_END) - (1 << 14)))
        return output.read()


def skimmed(given: bytes) -> Iterator[Event]:
    """Yield of most lines only what `account` asks for; parsed are those without a seq."""
    for line in given.splitlines():
        seq = re.match(rb'\{"seq":(\d+),', line)
        yield {"seq": int(seq[1]), "class": ""} if seq else json.loads(line)


def test_a_storm_is_accounted_for_to_the_last_event(
    pool: FilePool, mounted: Mounted, figure: Figure
) -> None:
    first = records()[0].eid
    with pool.storm():
        await_eid(mounted, first + 1500, limit=20)
    pool.set("test:x", b"the end")
    last = newest_eid()
    await_eid(mounted, last)
    found = coverage(mounted.everything())
    assert (found.first, found.last) == (first, last)
    assert found.read + found.lost == last - first + 1
    figure(f"posted {last - first + 1}: {found}")
