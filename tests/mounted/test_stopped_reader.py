"""A reader that stops for a while loses what it can't keep up with; nobody else loses a moment."""

import os
import re
import signal

from conftest import Mount
from lines import account, events, labels
from mounted_tree import Mounted
from programs import Program, state_of
from waits import until

KEPT = ("retain=512K", "segment=64K")


def stop(reader: Program) -> None:
    os.kill(reader.pid, signal.SIGSTOP)
    until(lambda: state_of(reader.pid) == "T", "the reader stopped")


def posted(mounted: Mounted) -> int:
    """How many events there were; during a storm only a snapshot has an end."""
    found = re.search(rb"last_seq=(\d+)", mounted.read("events/status"))
    assert found is not None
    return int(found[1])


def test_a_reader_stopped_under_a_storm_gets_its_gap_and_no_other_is_held_up(
    mount: Mount,
) -> None:
    mounted = mount(*KEPT)
    stream = mounted.path("events/stream")
    stopped, other, third = (mounted.program("cat", stream) for _ in range(3))
    mounted.post(5)
    for reader in (stopped, other, third):
        reader.await_output('"n4 ')
    stop(stopped)
    for _ in range(15):  # in portions that are kept, so that who isn't stopped loses nothing
        last = mounted.post(200, size=1000)[-1]
        for reader in (other, third):
            reader.await_output(f'"{last} ')
    seen_before = stopped.out
    os.kill(stopped.pid, signal.SIGCONT)
    last = mounted.post()[0]
    stopped.await_output(f'"{last} ')

    found = account(events(stopped.whole_lines))
    assert stopped.out.startswith(seen_before)
    assert [gap["payload"]["cause"] for gap in found.gaps] == ["evicted"]
    assert (found.first, found.last) == (1, posted(mounted))
    assert found.read + found.dropped == 3006
    for reader in (other, third):
        reader.await_output(f'"{last} ')
        assert account(events(reader.whole_lines))[:3] == (3006, 0, [])
    status = mounted.read("events/status").decode()
    assert "gaps_evicted=1\n" in status
    assert f"dropped_evicted={found.dropped}\n" in status


def test_readers_stopped_in_the_middle_of_a_simulated_storm_account_for_every_event(
    mount: Mount,
) -> None:
    mounted = mount(*KEPT, "sim.scenario=storm", "sim.rate=0")
    stream = mounted.path("events/stream")
    readers = [
        mounted.program("cat", stream),
        mounted.program("dd", "bs=100", "status=none", f"if={stream}"),
        mounted.program("cat", mounted.path("events/stream.txt")),
        mounted.program("cat", mounted.path("events/stream.nvl")),
    ]
    mounted.post(1)
    readers[0].await_output('"n0 ')
    mounted.write("simulator/rate", b"5000\n")
    until(lambda: posted(mounted) > 200, "a storm")
    for reader in readers:
        stop(reader)
    until(lambda: posted(mounted) > 5000, "a storm that overtakes them", limit=30.0)
    for reader in readers:
        os.kill(reader.pid, signal.SIGCONT)
    mounted.write("simulator/rate", b"0\n")
    last = mounted.post()[0]
    for reader in readers:
        reader.await_output(f"{last} ", limit=20.0)
    for reader in readers[:2]:
        found = account(events(reader.whole_lines))
        assert found.dropped > 0
        assert (found.first, found.last) == (1, posted(mounted))
        assert found.read + found.dropped == found.last
    assert b"\ndropped " in readers[2].out


def test_a_stopped_reader_holds_up_neither_a_clear_nor_the_umount(mounted: Mounted) -> None:
    stopped = mounted.program("cat", mounted.path("events/stream"))
    mounted.post(3)
    stopped.await_output('"n2 ')
    stop(stopped)
    made = mounted.post(2)
    mounted.write("events/clear", b"1")
    made = mounted.post(2)
    assert labels(mounted.everything()) == made
    assert mounted.umount().returncode == 0
    assert mounted.await_end() == 0
    os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.end() != 0
    assert "shutdown" in stopped.err or "not connected" in stopped.err
