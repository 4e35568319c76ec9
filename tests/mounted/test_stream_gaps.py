"""Loss is counted: for each reader, events read + events in its own gaps = events posted."""

import os
import re

import pytest
from conftest import Mount
from lines import account, events, is_own_gap, labels
from mounted_tree import Mounted

SMALL = ("retain=128K", "segment=64K")


def newest(mounted: Mounted) -> int:
    seq: int = mounted.everything()[-1]["seq"]
    return seq


def test_an_overtaken_reader_gets_one_gap_in_its_place(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(10, size=2000)
    reader = mounted.stream()
    begun = os.read(reader, 8192)
    mounted.post(300, size=2000)
    seen = events(begun + mounted.drain(reader))
    found = account(seen)
    assert len(found.gaps) == 1
    assert seen.index(found.gaps[0]) == len(events(begun))
    assert found.gaps[0]["payload"]["cause"] == "evicted"
    assert found.last == newest(mounted)
    assert found.read + found.dropped == found.last - found.first + 1
    assert labels(seen)[0] == "n0"


def test_a_reader_that_has_not_read_yet_gets_its_gap_first(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(10)
    first = mounted.everything()[0]["seq"]
    reader = mounted.stream()
    mounted.post(300, size=2000)
    seen = events(mounted.drain(reader))
    found = account(seen)
    assert [is_own_gap(event) for event in seen[:2]] == [True, False]
    assert (found.first, found.last, len(found.gaps)) == (first, newest(mounted), 1)


def test_a_reader_overtaken_again_gets_a_gap_again(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(10, size=2000)
    reader = mounted.stream()
    seen = events(os.read(reader, 8192))
    for times in range(1, 4):
        mounted.post(200, size=2000)
        seen += events(os.read(reader, 8192))
        seen += events(os.read(reader, 8192))
        assert len(account(seen).gaps) == times
    seen += events(mounted.drain(reader))
    found = account(seen)
    assert (len(found.gaps), found.last) == (3, newest(mounted))


def test_a_gap_in_small_pieces_has_each_byte_once(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(10)
    reader = mounted.stream()
    mounted.post(300, size=2000)
    found = account(events(mounted.drain(reader, 16)))
    assert (len(found.gaps), found.last) == (1, newest(mounted))


def test_a_reader_overtaken_inside_a_line_has_whole_lines_all_the_same(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(10, size=2000)
    reader = mounted.stream()
    begun = os.read(reader, 100)
    mounted.post(300, size=2000)
    seen = events(begun + mounted.drain(reader))
    found = account(seen)
    assert labels(seen)[0] == "n0"
    assert (len(found.gaps), found.last) == (1, newest(mounted))


def test_readers_of_every_speed_can_account_for_every_event(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(3)
    first = mounted.everything()[0]["seq"]
    stream = mounted.path("events/stream")
    in_bash = r'while IFS= read -r line; do printf "%s\n" "$line"; done < "$1"'
    readers = [
        mounted.program("cat", stream),
        mounted.program("dd", "bs=16", "status=none", f"if={stream}"),
        mounted.program("dd", "bs=1000", "status=none", f"if={stream}"),
        mounted.program("bash", "-c", in_bash, "reader", stream),
    ]
    for reader in readers:
        reader.await_output('"n2 ')
    held = mounted.stream()
    for _ in range(20):
        mounted.post(60, size=1000)
    last = mounted.post()[0]
    for reader in readers:
        reader.await_output(f'"{last} ', limit=20.0)
    for seen in [*(events(reader.whole_lines) for reader in readers), events(mounted.drain(held))]:
        found = account(seen)
        assert (found.first, found.last) == (first, newest(mounted))
        assert found.read + found.dropped == found.last - first + 1


def test_clear_gives_each_reader_its_own_gap(mounted: Mounted) -> None:
    mounted.post(6)
    before = mounted.everything()
    unread, partly, done = mounted.stream(), mounted.stream(), mounted.stream()
    blocked = mounted.open("events/stream")
    os.lseek(blocked, 0, os.SEEK_END)
    waiting = mounted.blocked_read(blocked)
    read = events(os.read(partly, 2 * len(mounted.drain(done)) // 6 + 10))
    assert 0 < len(read) < len(before)

    mounted.write("events/clear", b"1\n")

    for reader, missed in ((unread, before), (partly, before[len(read) :])):
        (gap,) = events(mounted.drain(reader))
        assert is_own_gap(gap)
        assert gap["payload"]["cause"] == "cleared"
        assert int(gap["payload"]["dropped"]) == len(missed)
        assert int(gap["payload"]["first_seq"]) == missed[0]["seq"]
        assert int(gap["payload"]["last_seq"]) == missed[-1]["seq"]
    assert mounted.drain(done) == b"", "who had read all lost nothing"
    assert mounted.drain(mounted.stream()) == b"", "who opens later finds an empty queue"

    made = mounted.post()
    for reader in (unread, partly, done, mounted.stream()):
        (event,) = events(mounted.drain(reader))
        assert labels([event]) == made
        assert event["seq"] == before[-1]["seq"] + 1
    assert labels(events(waiting.result(timeout=1.0))) == made


def test_clear_tells_readers_of_the_text_too(mounted: Mounted) -> None:
    mounted.post(3)
    unread = mounted.open("events/stream.txt", os.O_NONBLOCK)
    done = mounted.open("events/stream.txt", os.O_NONBLOCK)
    mounted.drain(done)
    mounted.write("events/clear", b"1")
    mounted.post()
    assert mounted.drain(unread).startswith(b"dropped 3 events\n")
    assert b"dropped" not in mounted.drain(done)


def test_status_counts_what_readers_lost_by_cause(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(3)
    reader = mounted.stream()
    mounted.post(300, size=2000)
    evicted = int(events(os.read(reader, 1 << 17))[0]["payload"]["dropped"])
    mounted.write("events/clear", b"1")
    cleared = int(events(mounted.drain(reader))[-1]["payload"]["dropped"])
    text = mounted.read("events/status").decode()
    assert re.search(rf"evicted\D*{evicted}\b", text)
    assert re.search(rf"cleared\D*{cleared}\b", text)


def test_evicted_and_then_cleared_are_told_apart(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(10)
    first = mounted.everything()[0]["seq"]
    reader = mounted.stream()
    mounted.post(300, size=2000)
    last = newest(mounted)
    mounted.write("events/clear", b"x")
    mounted.post(2)
    found = account(events(mounted.drain(reader)))
    assert (found.first, found.last) == (first, last + 2)
    assert found.read == 2
    causes = [gap["payload"]["cause"] for gap in found.gaps]
    assert causes in (["evicted", "cleared"], ["cleared"])


@pytest.mark.parametrize("content", [b"1\n", b"clear", b"\n", b"\0\xff" * 3000])
def test_any_write_to_clear_flushes(mounted: Mounted, content: bytes) -> None:
    mounted.post(3)
    mounted.write("events/clear", content)
    assert mounted.everything() == []


def test_truncating_clear_alone_does_nothing(mounted: Mounted) -> None:
    mounted.post(3)
    for flags in (os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        descriptor = mounted.open("events/clear", flags)
        os.write(descriptor, b"")
        mounted.close(descriptor)
    assert len(mounted.everything()) == 3


def test_clearing_an_empty_queue_is_no_loss(mounted: Mounted) -> None:
    reader = mounted.stream()
    mounted.drain(reader)
    for _ in range(3):
        mounted.write("events/clear", b"1")
    assert mounted.drain(reader) == b""
    made = mounted.post()
    assert labels(events(mounted.drain(reader))) == made
