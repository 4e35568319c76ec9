"""Events as packed nvlists, the newest one, and the summary: real programs on a real mount."""

import base64
import errno
import json
import os
import select
import signal
import time
from io import BytesIO
from pathlib import Path

import pytest
from conftest import Mount
from lines import events, labels
from mounted_tree import CORPUS, Mounted
from programs import run
from waits import until

from zeventfs.decode import unpack as unpack_file
from zeventfs.event import Event
from zeventfs.nvlist import NVList, encode

STREAM, LOG = "events/stream.nvl", "events/log.nvl"


def unpack(given: bytes) -> list[NVList]:
    return list(unpack_file(BytesIO(given)))


def recorded() -> list[bytes]:
    lines = CORPUS.read_text().splitlines()[1:]
    return [base64.b64decode(json.loads(line)["native"]) for line in lines]


def prefixed(packed: list[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(4, "little") + each for each in packed)


def is_own(event: NVList) -> bool:
    return str(event.get("class")).startswith("zeventfs.")


def await_the_end(mounted: Mounted) -> None:
    until(
        lambda: (
            events(mounted.read("events/log"))[-1:]
            and events(mounted.read("events/log"))[-1]["class"] == "zeventfs.source.end"
        ),
        "the end of the replay",
    )


@pytest.fixture
def replayed(mount: Mount) -> Mounted:
    mounted = mount(source=f"replay:{CORPUS}")
    await_the_end(mounted)
    return mounted


def test_the_log_is_the_recorded_bytes(replayed: Mounted) -> None:
    expected = replayed.base / "expected"
    own = iter(each for each in unpack(replayed.read(LOG)) if is_own(each))
    # What was not recorded are the holes between EIDs, found missing, and the end of the replay.
    given, packed = unpack(replayed.read(LOG)), recorded()
    natives = iter(packed)
    whole = [encode(next(own)) if is_own(each) else next(natives) for each in given]
    assert next(natives, None) is None
    expected.write_bytes(prefixed(whole))
    done = run(["cmp", replayed.path(LOG), expected])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(given) == replayed.read("events/log").count(b"\n")


def test_a_copy_of_the_log_is_a_recording_that_plays_the_same(
    replayed: Mounted, mount: Mount, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.nvl"
    assert run(["cp", replayed.path(LOG), copy]).returncode == 0
    again = mount(source=f"replay:{copy}")
    await_the_end(again)
    *_, end = unpack(copy.read_bytes())
    same = copy.stat().st_size - len(encode(end)) - 4  # the end of a replay has its path in it
    done = run(["cmp", "-n", str(same), copy, again.path(LOG)])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    *_, end_again = unpack(again.read(LOG))
    assert end_again.get("replay") == str(copy)


def test_decode_prints_what_the_log_of_lines_has(replayed: Mounted) -> None:
    done = replayed.zeventfs("decode", replayed.path(LOG))
    assert (done.returncode, done.stderr) == (0, b"")
    for printed, line in zip(
        done.stdout.splitlines(), replayed.read("events/log").splitlines(), strict=True
    ):
        event = json.loads(line)
        found = json.loads(printed)
        assert (found["class"], found["time"]) == (event["class"], event["time"])
        assert found["payload"].items() <= event["payload"].items(), "it knows no version's words"
    text = replayed.zeventfs("decode", "--text", replayed.path(LOG))
    assert text.stdout == replayed.read("events/log.txt")


def test_a_stream_is_piped_into_decode(mounted: Mounted) -> None:
    made = mounted.post(3)
    size = mounted.path(STREAM).stat().st_size
    script = 'head -c "$2" "$1" | "${@:3}"'
    command = mounted.command("decode", "-")
    piped = mounted.program("bash", "-c", script, "sh", mounted.path(STREAM), str(size), *command)
    assert piped.end() == 0, piped.err
    assert labels(events(piped.out)) == made


def test_decode_prints_each_event_of_a_live_stream_as_it_comes(mounted: Mounted) -> None:
    mounted.post(1)
    script = 'cat "$1" | "${@:2}"'
    command = mounted.command("decode", "-")
    piped = mounted.program("bash", "-c", script, "sh", mounted.path(STREAM), *command)
    piped.await_output('"n0 ')
    mounted.post(1)
    piped.await_output('"n1 ', limit=2.0)
    assert labels(events(piped.whole_lines)) == ["n0", "n1"]


def test_tail_c_gives_the_last_bytes(mounted: Mounted) -> None:
    mounted.post(20)
    whole = mounted.read(LOG)
    *_, last = unpack(whole)
    size = len(encode(last)) + 4
    done = run(["tail", "-c", str(size), mounted.path(LOG)])
    assert done.stdout == whole[-size:]
    assert [each.get("eid") for each in unpack(done.stdout)] == [last.get("eid")]
    tail = mounted.program("tail", "-c", str(size), "-f", mounted.path(STREAM))
    until(lambda: tail.out == whole[-size:], "the last event")
    mounted.post(2)
    until(lambda: tail.out == mounted.read(LOG)[len(whole) - size :], "what came since")


def test_sizes_are_true_at_any_moment(mounted: Mounted) -> None:
    for _ in range(20):
        mounted.post(3)
        size = len(mounted.read(LOG))
        assert mounted.path(LOG).stat().st_size == mounted.path(STREAM).stat().st_size == size
    reader = mounted.open(STREAM, os.O_NONBLOCK)
    assert mounted.drain(reader) == mounted.read(LOG)
    reader = mounted.open(STREAM, os.O_NONBLOCK)
    assert mounted.drain(reader, 10) == mounted.read(LOG), "in small pieces it is the same"


def test_sigint_ends_a_blocked_reader_at_once(mounted: Mounted) -> None:
    mounted.post()
    cat = mounted.program("cat", mounted.path(STREAM))
    until(lambda: cat.out == mounted.read(LOG), "what is there")
    cat.await_blocked()
    begun = time.monotonic()
    os.kill(cat.pid, signal.SIGINT)
    assert cat.end(limit=5.0) == -signal.SIGINT
    assert time.monotonic() - begun < 1.0


def test_nonblocking_readers_get_eagain_and_poll_tells_when_to_read(mounted: Mounted) -> None:
    reader = mounted.open(STREAM, os.O_NONBLOCK)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(0) == []
    with pytest.raises(BlockingIOError):
        os.read(reader, 4096)
    mounted.post()
    assert poll.poll(2000) == [(reader, select.POLLIN)]
    assert len(unpack(os.read(reader, 4096))) == 1


def test_a_blocked_reader_gets_what_comes_and_its_end_with_the_mount(mounted: Mounted) -> None:
    reader = mounted.open(STREAM)
    waiting = mounted.blocked_read(reader)
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    mounted.post()
    assert waiting.result(timeout=2.0) == mounted.read(LOG)
    waiting = mounted.blocked_read(reader)
    mounted.umount()
    with pytest.raises(OSError, match="shutdown"):
        waiting.result(timeout=5.0)


@pytest.mark.parametrize("cause", ["evicted", "cleared"])
def test_a_gap_is_an_nvlist_that_adds_up(mount: Mount, cause: str) -> None:
    mounted = mount("retain=128K", "segment=64K")
    reader = mounted.open(STREAM, os.O_NONBLOCK)
    mounted.post(100, size=2000)
    if cause == "cleared":
        mounted.write("events/clear", b"1")
        mounted.post(2)
    gap, *rest = unpack(mounted.drain(reader))
    assert gap.get("class") == "zeventfs.gap"
    assert gap.get("cause") == cause
    assert gap.get("first_seq") == 1
    assert gap.get("dropped") == gap.get("last_seq")
    assert gap.get("dropped") + len(rest) == (102 if cause == "cleared" else 100)
    decoded = mounted.base / "gap"
    decoded.write_bytes(prefixed([encode(gap)]))
    assert json.loads(mounted.zeventfs("decode", decoded).stdout)["class"] == "zeventfs.gap"


def test_the_log_rotates_and_its_holder_reads_on_until_it_is_stale(mount: Mount) -> None:
    mounted = mount("retain=256K", "segment=64K")
    mounted.post(2)
    held = mounted.open(LOG)
    begun = os.read(held, 1 << 17)
    number = os.fstat(held).st_ino
    while mounted.path(LOG).stat().st_ino == number:
        mounted.post(size=2000)
    assert mounted.path(f"{LOG}.1").stat().st_ino == number
    whole = begun + mounted.drain(held)
    assert whole == mounted.read(f"{LOG}.1")
    joined = whole + mounted.read(LOG)
    assert joined == mounted.drain(mounted.open(STREAM, os.O_NONBLOCK))
    others = []
    for _ in range(16):
        others.append(mounted.open(LOG))
        mounted.post(40, size=2000)
    with pytest.raises(OSError, match=r"[Ss]tale") as refused:
        os.pread(held, 100, 0)
    assert refused.value.errno == errno.ESTALE


def test_latest_is_the_newest_line_laid_out(mounted: Mounted) -> None:
    assert mounted.read("events/latest") == b""
    for _ in range(3):
        made = mounted.post()
        shown = run(["cat", mounted.path("events/latest")]).stdout
        line = mounted.read("events/log").splitlines()[-1]
        assert json.loads(shown) == json.loads(line)
        assert list(json.loads(shown)) == list(json.loads(line))
        assert labels([json.loads(shown)]) == made
        assert run(["jq", "--indent", "2", ".", mounted.path("events/latest")]).stdout == shown
        assert mounted.path("events/latest").stat().st_size == len(shown)


def test_the_summary_is_easy_with_awk(replayed: Mounted) -> None:
    counts: dict[str, int] = {}
    times: dict[str, list[str]] = {}
    for event in events(replayed.read("events/log")):
        counts[event["class"]] = counts.get(event["class"], 0) + 1
        times.setdefault(event["class"], []).append(event["time"])
    script = "{ print $1, $2, $3, $4 }"
    done = run(["awk", script, replayed.path("events/summary")])
    assert done.stdout.decode().splitlines() == [
        f"{name} {counts[name]} {times[name][0]} {times[name][-1]}" for name in sorted(counts)
    ]
    lines = replayed.read("events/summary").splitlines()
    assert len({len(line) for line in lines}) == 1, "aligned"


def test_a_class_of_any_name_is_one_field_of_the_summary(mount: Mount, tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    names = ("two words", "a\nline", "50%", "\u00fcber")
    recording.write_bytes(prefixed([Event.make("zfs", name, 0).packed for name in names]))
    mounted = mount(source=f"replay:{recording}")
    await_the_end(mounted)
    fields = [line.split() for line in mounted.read("events/summary").decode().splitlines()]
    assert [each[:2] for each in fields if each[0] != "zeventfs.source.end"] == [
        ["50%25", "1"],
        ["a%0Aline", "1"],
        ["two%20words", "1"],
        ["%C3%BCber", "1"],
    ]


def test_the_summary_counts_what_was_cleared_and_evicted(mount: Mount) -> None:
    mounted = mount("retain=128K", "segment=64K")
    mounted.post(100, size=2000)
    mounted.write("events/clear", b"1")
    name, count, *_ = mounted.read("events/summary").split()
    assert (name, count) == (b"sysevent.fs.zfs.history_event", b"100")


def test_after_a_daemon_was_killed_the_nvlists_are_there_and_the_summary_has_what_was_kept(
    mount: Mount,
) -> None:
    mounted = mount("retain=384K", "segment=64K")
    mounted.post(150, size=2000)
    mounted.path(STREAM).stat()
    log, newest = mounted.read(LOG), mounted.read("events/latest")
    kept = len(mounted.everything())
    assert kept < 150
    assert mounted.process is not None
    os.kill(mounted.process.pid, signal.SIGKILL)
    mounted.process.wait(timeout=5.0)
    assert run(["umount", "-l", mounted.point]).returncode == 0
    mounted.start()
    assert mounted.read(LOG) == log
    assert mounted.read("events/latest") == newest
    old = sorted(mounted.path("events").glob("log.nvl.*"), reverse=True)
    assert old
    whole = b"".join(path.read_bytes() for path in old) + log
    assert mounted.path(STREAM).stat().st_size == len(whole)
    assert mounted.drain(mounted.open(STREAM, os.O_NONBLOCK)) == whole
    assert mounted.read("events/summary").split()[1] == str(kept).encode()
    assert f"summary_first_seq={151 - kept}\n" in mounted.read("events/status").decode()
