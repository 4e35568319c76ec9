"""events/stream by its offsets: what a read returns, where it goes on, and when it doesn't wait."""

import errno
import fcntl
import os
import selectors
import stat
from itertools import pairwise

import pytest
from conftest import Mount
from lines import events, labels
from mounted_tree import Mounted
from waits import in_thread


def test_a_read_at_the_end_blocks_until_an_event_is_posted(mounted: Mounted) -> None:
    descriptor = mounted.open("events/stream")
    mounted.drain(mounted.stream())
    mounted.post(2)
    first = events(os.read(descriptor, 1 << 17))
    waiting = mounted.blocked_read(descriptor)
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    made = mounted.post()
    assert labels(events(waiting.result(timeout=1.0))) == made
    assert labels(first) == ["n0", "n1"]


def test_each_reader_has_its_own_cursor(mounted: Mounted) -> None:
    made = mounted.post(6)
    one, other = mounted.stream(), mounted.stream()
    begun = os.read(one, 1 << 17)
    made += mounted.post(2)
    assert labels(events(begun + mounted.drain(one))) == made
    assert labels(events(mounted.drain(other))) == made


def test_a_reader_opened_later_begins_at_the_oldest_kept(mount: Mount) -> None:
    mounted = mount("retain=128K", "segment=64K")
    mounted.post(150, size=2000)
    seen = mounted.everything()
    assert "n0" not in labels(seen)
    assert labels(seen)[-1] == "n149"
    assert not [event for event in seen if event["class"] == "zeventfs.gap"]


def test_a_read_gives_as_many_whole_lines_as_fit(mounted: Mounted) -> None:
    mounted.post(60)
    mounted.post(3, size=3000)
    size = 4096
    descriptor = mounted.stream()
    answers = []
    while True:
        try:
            answers.append(os.read(descriptor, size))
        except BlockingIOError:
            break
    assert all(answer.endswith(b"\n") for answer in answers)
    for answer, following in pairwise(answers):
        assert len(answer) + following.index(b"\n") + 1 > size, "one more line had fitted"
    assert len(labels(events(b"".join(answers)))) == 63


def test_a_buffer_smaller_than_a_line_gets_each_byte_once(mounted: Mounted) -> None:
    mounted.post(5)
    whole = mounted.drain(mounted.stream())
    assert mounted.drain(mounted.stream(), 16) == whole
    assert mounted.drain(mounted.stream(), 7) == whole


def test_after_a_part_of_a_line_the_next_read_gives_its_rest(mounted: Mounted) -> None:
    mounted.post(5)
    whole = mounted.drain(mounted.stream())
    descriptor = mounted.stream()
    part = os.read(descriptor, 16)
    rest = os.read(descriptor, 1 << 17)
    assert rest.endswith(b"\n")
    assert part + rest + mounted.drain(descriptor) == whole


def test_an_offset_within_the_last_answer_continues_it(mounted: Mounted) -> None:
    mounted.post(9)
    descriptor = mounted.stream()
    answer = os.read(descriptor, 1 << 17)
    one = answer.index(b"\n") + 1
    os.lseek(descriptor, one, os.SEEK_SET)
    assert mounted.drain(descriptor) == answer[one:]
    os.lseek(descriptor, one + 10, os.SEEK_SET)  # inside a line: its rest first
    assert mounted.drain(descriptor) == answer[one + 10 :]


def test_an_offset_within_the_last_answer_continues_it_after_an_eviction(mount: Mount) -> None:
    """There the handle's skew isn't 0: the reader's offset 0 is the oldest event kept at open."""
    mounted = mount("retain=128K", "segment=64K")
    mounted.post(150, size=2000)
    descriptor = mounted.stream()
    whole = mounted.drain(mounted.stream())
    answer = os.read(descriptor, 30_000)
    assert whole.startswith(answer)
    one = answer.index(b"\n") + 1
    os.lseek(descriptor, one, os.SEEK_SET)
    assert mounted.drain(descriptor, 30_000) == whole[one:]


def test_any_other_offset_is_a_seek(mount: Mount) -> None:
    mounted = mount("retain=128K", "segment=64K")
    mounted.post(150, size=2000)
    descriptor = mounted.stream()
    whole = mounted.drain(descriptor, 8192)
    os.lseek(descriptor, 0, os.SEEK_SET)  # below the oldest kept: begins there
    assert mounted.drain(descriptor, 8192) == whole
    end = os.fstat(descriptor).st_size
    last = whole[whole[:-1].rindex(b"\n") + 1 :]
    os.lseek(descriptor, end - 3 * len(last), os.SEEK_SET)
    assert os.read(descriptor, 8192).endswith(whole[-len(last) :])
    os.lseek(descriptor, end - len(last), os.SEEK_SET)
    assert mounted.drain(descriptor) == last


def test_pread_reads_the_place_that_it_names(mounted: Mounted) -> None:
    mounted.post(20)
    descriptor = mounted.stream()
    whole = mounted.drain(descriptor)
    lines = whole.splitlines(keepends=True)
    for at in (0, 7, 3, 19, 0):
        offset = sum(map(len, lines[:at]))
        assert os.pread(descriptor, len(lines[at]), offset) == lines[at]


def test_a_reader_at_the_end_of_the_file_gets_only_what_is_new(mounted: Mounted) -> None:
    mounted.post(5)
    descriptor = mounted.stream()
    assert os.lseek(descriptor, 0, os.SEEK_END) == os.fstat(descriptor).st_size
    with pytest.raises(BlockingIOError):
        os.read(descriptor, 4096)
    made = mounted.post(2)
    assert labels(events(mounted.drain(descriptor))) == made


def test_st_size_is_true_and_grows(mounted: Mounted) -> None:
    for _ in range(3):
        mounted.post(4)
        assert mounted.path("events/stream").stat().st_size == len(mounted.drain(mounted.stream()))
    facts = mounted.path("events/stream").stat()
    assert stat.S_ISREG(facts.st_mode)


def test_st_size_counts_what_is_evicted_too(mount: Mount) -> None:
    mounted = mount("retain=256K", "segment=64K")
    size = mounted.path("events/stream").stat().st_size
    reader = mounted.stream()
    for _ in range(12):
        mounted.post(15, size=2000)
        size += len(mounted.drain(reader))
        assert os.fstat(reader).st_size == size
    assert len(mounted.drain(mounted.stream())) < size


def test_nonblock_at_open_or_set_later_is_eagain(mounted: Mounted) -> None:
    descriptor = mounted.open("events/stream", os.O_NONBLOCK)
    mounted.drain(descriptor)
    with pytest.raises(BlockingIOError):
        os.read(descriptor, 4096)
    later = mounted.open("events/stream")
    mounted.post()
    assert events(os.read(later, 1 << 17))
    fcntl.fcntl(later, fcntl.F_SETFL, os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.read(later, 4096)
    fcntl.fcntl(later, fcntl.F_SETFL, 0)
    waiting = mounted.blocked_read(later)
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.1)
    made = mounted.post()
    assert labels(events(waiting.result(timeout=1.0))) == made


def test_seq_has_no_holes_and_the_epoch_is_one(mounted: Mounted) -> None:
    mounted.post(700)  # more than the simulator's ring holds
    seen = mounted.everything()
    numbers = [event["seq"] for event in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len({event["epoch"] for event in seen}) == 1
    assert labels(seen) == [f"n{index}" for index in range(700)]


def test_an_event_has_its_parts_in_their_order(mounted: Mounted) -> None:
    mounted.post()
    event = mounted.everything()[-1]
    assert list(event) == ["seq", "epoch", "source", "class", "eid", "time", "pool", "payload"]
    assert event["class"] == "sysevent.fs.zfs.history_event"
    assert event["source"] == "zfs"
    assert event["pool"] == "tank"


SELECTORS = [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector]


@pytest.mark.parametrize("kind", SELECTORS)
def test_selectors_sleep_at_the_end_and_wake(
    mounted: Mounted, kind: type[selectors.BaseSelector]
) -> None:
    mounted.post(3)
    descriptor = mounted.stream()
    with kind() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        assert selector.select(5.0), "a backlog is there to be read"
        os.read(descriptor, 500)  # a part: ready still
        assert selector.select(5.0)
        mounted.drain(descriptor)
        assert selector.select(0) == []
        for _ in range(3):
            woken = in_thread(lambda: selector.select(10.0))
            with pytest.raises(TimeoutError):
                woken.result(timeout=0.1)
            made = mounted.post()
            assert woken.result(timeout=1.0)
            assert labels(events(mounted.drain(descriptor))) == made
            assert selector.select(0) == []


@pytest.mark.parametrize("kind", SELECTORS)
def test_selectors_answer_for_the_end_after_a_seek_to_it(
    mounted: Mounted, kind: type[selectors.BaseSelector]
) -> None:
    mounted.post(3)
    descriptor = mounted.stream()
    os.lseek(descriptor, 0, os.SEEK_END)
    with kind() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        assert selector.select(0) == []
        made = mounted.post()
        assert selector.select(5.0)
    assert labels(events(mounted.drain(descriptor))) == made


def test_many_pollers_wake_at_one_event(mounted: Mounted) -> None:
    readers = [mounted.stream() for _ in range(50)]
    with selectors.EpollSelector() as selector:
        for reader in readers:
            mounted.drain(reader)
            selector.register(reader, selectors.EVENT_READ)
        assert selector.select(0) == []
        made = mounted.post()
        ready = {key.fd for key, _ in selector.select(5.0)}
        while len(ready) < len(readers):
            more = {key.fd for key, _ in selector.select(5.0)} - ready
            assert more, f"only {len(ready)} woke"
            ready |= more
    assert all(labels(events(mounted.drain(reader))) == made for reader in readers)


def test_writing_to_the_stream_is_refused(mounted: Mounted) -> None:
    with pytest.raises(OSError, match=r"denied|permitted") as refused:
        mounted.open("events/stream", os.O_WRONLY)
    assert refused.value.errno in {errno.EACCES, errno.EPERM}


def test_who_goes_to_the_end_of_an_empty_stream_waits_for_the_first_event(mounted: Mounted) -> None:
    descriptor = mounted.open("events/stream")
    assert os.lseek(descriptor, 0, os.SEEK_END) == 1
    waiting = mounted.blocked_read(descriptor)
    made = mounted.post(1)
    assert labels(events(waiting.result(timeout=3.0))) == made
