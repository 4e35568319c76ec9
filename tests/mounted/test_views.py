"""class/, source/ and where/: the same cursors, gaps, poll and rotation as events/, of some events.

The events are told apart by their label, which `Mounted.post` numbers, and by their class.
"""

import contextlib
import errno
import json
import os
import re
import select
import signal
import time
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import Mount
from lines import Event, events, is_own_gap, labels
from mounted_tree import Mounted
from programs import Program, Terminal, run
from waits import until

CLASS = "sysevent.fs.zfs.history_event"  # of what `Mounted.post` posts
RARE = "sysevent.fs.zfs.config_sync"
SMALL = ("retain=256K", "segment=64K")


def post_rare(mounted: Mounted, number: int, name: str = RARE, size: int = 0) -> None:
    """Inject an event of class *name* with `n` = *number*."""
    event = {"class": name, "pool": "tank", "payload": {"n": number, "filler": "x" * size}}
    mounted.write("simulator/inject", json.dumps(event).encode() + b"\n")


def numbers(seen: list[Event]) -> list[int]:
    return [int(each["payload"]["n"]) for each in seen if "n" in each["payload"]]


def where(expression: str, file: str = "stream") -> str:
    return f"events/where/{expression}/{file}"


def names(mounted: Mounted, directory: str) -> list[str]:
    return [each.name for each in mounted.path(directory).iterdir()]


def drained(mounted: Mounted, name: str) -> list[Event]:
    descriptor = mounted.open(name, os.O_NONBLOCK)
    found = events(mounted.drain(descriptor))
    mounted.close(descriptor)
    return found


def follow(mounted: Mounted, *argv: str, view: str = f"class/{RARE}/stream") -> Program:
    return mounted.program(*argv, mounted.path(f"events/{view}"))


# ---- Streams


@pytest.mark.parametrize(
    "view", [f"class/{RARE}", f"where/class={RARE}", "where/n>=0", "where/class=*sync,pool=t?nk"]
)
def test_cat_has_the_events_of_its_view_and_each_new_one_at_once(
    mounted: Mounted, view: str
) -> None:
    post_rare(mounted, 0)
    mounted.post(3)
    cat = follow(mounted, "cat", view=f"{view}/stream")
    cat.await_output('"n":"?0')
    cat.await_blocked()
    mounted.post(50)
    cat.await_blocked()
    post_rare(mounted, 1)
    cat.await_output('"n":"?1', limit=1.0)
    assert numbers(events(cat.out)) == [0, 1]
    assert labels(events(cat.out)) == []


def test_only_events_of_the_view_end_a_blocked_read(mounted: Mounted) -> None:
    post_rare(mounted, 0)
    descriptor = mounted.open(f"events/class/{RARE}/stream")
    os.read(descriptor, 1 << 17)
    waiting = mounted.blocked_read(descriptor)
    mounted.post(200)
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.2)
    post_rare(mounted, 1)
    assert numbers(events(waiting.result(timeout=1.0))) == [1]


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_signal_ends_a_blocked_reader_of_a_view_and_no_other(mounted: Mounted, name: str) -> None:
    post_rare(mounted, 0)
    cat, other = follow(mounted, "cat"), follow(mounted, "cat")
    for reader in (cat, other):
        reader.await_output('"n":"?0')
        reader.await_blocked()
    os.kill(cat.pid, signal.Signals[name])
    assert cat.end(limit=5.0) == -signal.Signals[name]
    post_rare(mounted, 1)
    other.await_output('"n":"?1', limit=1.0)


def test_umount_ends_blocked_readers_of_views(mounted: Mounted) -> None:
    post_rare(mounted, 0)
    views = [f"class/{RARE}/stream", "where/n>=9/stream", "source/zfs/stream.txt"]
    readers = [follow(mounted, "cat", view=view) for view in views]
    for reader in readers:
        reader.await_blocked()
    assert mounted.umount().returncode == 0
    for reader in readers:
        assert reader.end() == 1
        assert "shutdown" in reader.err


def test_poll_answers_for_events_of_the_view_only(mounted: Mounted) -> None:
    post_rare(mounted, 0)
    descriptor = mounted.open(f"events/class/{RARE}/stream", os.O_NONBLOCK)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(0)
    assert numbers(events(os.read(descriptor, 1 << 17))) == [0]
    mounted.post(5)
    assert poller.poll(100) == []
    with pytest.raises(BlockingIOError):
        os.read(descriptor, 1 << 17)
    post_rare(mounted, 1)
    assert poller.poll(1000)
    assert numbers(events(mounted.drain(descriptor))) == [1]
    post_rare(mounted, 2)
    os.lseek(descriptor, 0, os.SEEK_END)
    assert poller.poll(0) == []
    line = json.dumps({"class": RARE, "payload": {"n": 3}})
    code = 'sleep 0.2; printf "%s\\n" "$1" > "$2"'
    mounted.program("sh", "-c", code, "sh", line, mounted.path("simulator/inject"))
    assert poller.poll(5000), "an event wakes who sleeps in poll"


def test_programs_read_a_view_as_they_read_any_log(mounted: Mounted) -> None:
    for number in range(15):
        post_rare(mounted, number)
        mounted.post(2)
    stream = mounted.path(f"events/class/{RARE}/stream")
    whole = mounted.drain(mounted.open(f"events/class/{RARE}/stream", os.O_NONBLOCK))
    assert stream.stat().st_size == len(whole)
    assert numbers(events(run(["head", "-n", "3", stream]).stdout)) == [0, 1, 2]
    assert numbers(events(run(["tail", "-n", "5", stream]).stdout)) == [10, 11, 12, 13, 14]
    cut = run(["dd", "bs=64", "skip=1", "count=2", "status=none", f"if={stream}"]).stdout
    assert cut == whole[64 : 3 * 64]
    dd = mounted.program("dd", "bs=16", "status=none", f"if={stream}")
    tail = mounted.program("tail", "-f", stream)
    code = 'while IFS= read -r line; do printf "%s\\n" "$line"; done < "$1"'
    bash = mounted.program("bash", "-c", code, "reader", stream)
    for reader in (dd, tail, bash):
        reader.await_output('"n":"?14"?[,}].*\n')
    mounted.post(3)
    post_rare(mounted, 15)
    for reader, first in ((dd, 0), (bash, 0), (tail, 5)):
        reader.await_output('"n":"?15"?[,}].*\n', limit=3.0)
        assert numbers(events(reader.out)) == list(range(first, 16))


def test_less_follows_a_view(mounted: Mounted) -> None:
    post_rare(mounted, 0)
    with Terminal(["less", "-S", "+F", mounted.path("events/where/n>=0/stream")], mounted.env) as (
        less
    ):
        less.await_seen('"n":"?0')
        mounted.post(3)
        post_rare(mounted, 1)
        less.await_seen('"n":"?1', limit=3.0)
        less.type("\x03")
        less.type("q")
        assert less.end(limit=3.0) == 0
        assert "history_event" not in less.seen


# ---- Gaps


def test_an_evicted_reader_of_a_view_learns_how_many_of_its_own_it_lost(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mine, every = (
        mounted.open(where(expression), os.O_NONBLOCK)
        for expression in (f"class={RARE}", "class=*")
    )
    for number in range(6):
        post_rare(mounted, number)
        mounted.post(number)
    mounted.post(200, size=2000)
    post_rare(mounted, 6)
    seen = events(mounted.drain(mine))
    (gap,) = filter(is_own_gap, seen)
    payload = gap["payload"]
    assert seen[0] is gap
    assert numbers(seen) == [6]
    assert (payload["cause"], int(payload["dropped"])) == ("evicted", 6)
    first = mounted.everything()[0]["seq"]
    assert payload["first_seq"] == 1
    assert payload["last_seq"] == first - 1
    payload = next(filter(is_own_gap, events(mounted.drain(every))))["payload"]
    assert payload["dropped"] == payload["last_seq"] - payload["first_seq"] + 1 == first - 1


def test_a_reader_that_lost_nothing_of_its_view_gets_no_gap(mount: Mount) -> None:
    mounted = mount(*SMALL)
    reader = mounted.open(where(f"class={RARE}"), os.O_NONBLOCK)
    mounted.post(400, size=2000)
    post_rare(mounted, 1)
    seen = events(mounted.drain(reader))
    assert not [each for each in seen if is_own_gap(each)]


def test_clear_gives_each_reader_of_a_view_its_own_gap(mounted: Mounted) -> None:
    for number in range(4):
        post_rare(mounted, number)
        mounted.post(2)
    unread, done = (mounted.open(f"events/class/{RARE}/stream", os.O_NONBLOCK) for _ in range(2))
    mounted.drain(done)
    text = mounted.open("events/source/zfs/stream.txt", os.O_NONBLOCK)
    mounted.write("events/clear", b"1")
    (gap,) = events(mounted.drain(unread))
    payload = gap["payload"]
    assert (payload["cause"], payload["dropped"]) == ("cleared", 4)
    assert mounted.drain(done) == b""
    assert mounted.drain(text) == b"dropped 12 events\n"
    assert drained(mounted, f"events/class/{RARE}/stream") == []
    assert mounted.read(f"events/class/{RARE}/log") == b""
    assert numbers(events(mounted.read(f"events/class/{RARE}/log.1"))) == [0, 1, 2, 3]


# ---- Logs


def test_a_views_log_rotates_with_the_log(mount: Mount) -> None:
    mounted = mount(*SMALL)
    post_rare(mounted, 0)
    log = mounted.path(f"events/class/{RARE}/log")
    held = mounted.open(f"events/class/{RARE}/log")
    inode = log.stat().st_ino
    while not mounted.path("events/log.1").exists():
        mounted.post(5, size=2000)
    post_rare(mounted, 1)
    assert log.stat().st_ino != inode
    assert log.with_name("log.1").stat().st_ino == inode == os.fstat(held).st_ino
    assert numbers(events(log.read_bytes())) == [1]
    assert numbers(events(mounted.drain(held))) == [0]
    logs = [each for each in names(mounted, "events") if re.fullmatch(r"log(\.\d+)?", each)]
    assert sorted(names(mounted, f"events/class/{RARE}")) == sorted([*logs, "stream"])


def test_a_held_log_of_a_view_stays_until_it_is_stale(mount: Mount) -> None:
    mounted = mount(*SMALL)
    post_rare(mounted, 0, size=30_000)
    path = f"events/where/class={RARE}/log"
    held = mounted.open(path)
    whole = mounted.drain(held)
    inode = os.fstat(held).st_ino
    for number in count(1):
        assert number < 400
        mounted.post(10, size=2000)
        if inode not in {each.stat().st_ino for each in mounted.path(path).parent.iterdir()}:
            break
    assert os.fstat(held).st_size == len(whole)
    assert os.pread(held, 1 << 17, 0) == whole
    assert Path(f"/proc/self/fd/{held}").read_bytes() == whole, "opened anew"
    others = []

    def stale() -> bool:
        others.append(mounted.open(path))
        mounted.post(30, size=2000)
        try:
            os.pread(held, 1, 0)
        except OSError as error:
            return error.errno == errno.ESTALE
        return False

    until(stale, "ESTALE", limit=20.0)
    with pytest.raises(OSError, match="Stale"):
        os.fstat(held)


def test_tail_by_name_follows_a_views_log_through_a_rotation(mount: Mount) -> None:
    mounted = mount(*SMALL)
    post_rare(mounted, 0)
    argv = ("tail", "-F", "-s", "0.1", "--max-unchanged-stats=1")
    tail = follow(mounted, *argv, view=f"class/{RARE}/log")
    tail.await_output('"n":"?0')
    while not mounted.path("events/log.1").exists():
        mounted.post(5, size=2000)
    post_rare(mounted, 1)
    tail.await_output('"n":"?1')
    assert numbers(events(tail.out)) == [0, 1]


def test_offsets_count_from_the_oldest_segment_when_first_looked_up(mount: Mount) -> None:
    mounted = mount(*SMALL)
    post_rare(mounted, 0)
    mounted.post(200, size=2000)
    stream = mounted.path(f"events/class/{RARE}/stream")
    assert stream.stat().st_size == 0, "what was evicted before is not of its bytes"
    post_rare(mounted, 1)
    size = stream.stat().st_size
    assert size > 0
    mounted.post(200, size=2000)
    assert mounted.read(f"events/class/{RARE}/log") == b""
    post_rare(mounted, 2)
    assert stream.stat().st_size > size, "sizes only grow"
    assert numbers(drained(mounted, f"events/class/{RARE}/stream")) == [2]


# ---- Sources


def test_a_sources_files_are_those_of_all_events_where_there_is_no_other(mounted: Mounted) -> None:
    mounted.post(30)
    post_rare(mounted, 0)
    for suffix in ("", ".txt", ".nvl"):
        whole = mounted.read(f"events/log{suffix}")
        assert mounted.read(f"events/source/zfs/log{suffix}") == whole != b""
        streams = [
            mounted.open(f"{place}/stream{suffix}", os.O_NONBLOCK)
            for place in ("events", "events/source/zfs")
        ]
        assert mounted.drain(streams[0]) == mounted.drain(streams[1]) == whole
        sizes = {os.fstat(each).st_size for each in streams}
        assert sizes == {len(whole)}


# ---- Names


@pytest.mark.parametrize("file", ["stream", "log"])
def test_a_class_seen_is_a_directory_and_another_is_not(mounted: Mounted, file: str) -> None:
    assert names(mounted, "events/class") == []
    post_rare(mounted, 0)
    assert names(mounted, "events/class") == [RARE]
    assert mounted.path(f"events/class/{RARE}/{file}").exists()
    for name in ("x", CLASS, RARE.upper(), quote(RARE, safe="").replace(".", "%2E")):
        assert not mounted.path(f"events/class/{name}").exists()


def test_listings_of_the_whole_tree_end(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(150, size=2000)
    post_rare(mounted, 0)
    for argv in (["find", "."], ["ls", "-lR", "."], ["du", "-a", "."], ["find", ".", "-ls"]):
        code = 'cd "$1" && shift && exec "$@"'
        done = run(["sh", "-c", code, "sh", mounted.path("events"), *argv])
        assert (done.returncode, done.stderr) == (0, b""), argv
        assert b"README" in done.stdout
        assert b"where/README" in done.stdout or argv[0] == "ls"
    assert names(mounted, "events/where") == ["README"]
    tarred = mounted.base / "tar"
    options = ("--exclude=stream*", "--exclude=clear", "-cf", tarred)
    done = run(["tar", "-C", mounted.path("events"), *options, "class", "source", "where"])
    assert (done.returncode, done.stderr) == (0, b"")
    listed = run(["tar", "-tvf", tarred]).stdout.decode()
    assert f"class/{RARE}/log" in listed
    assert "source/zfs/log.nvl" in listed


def test_a_sidecar_that_is_given_one_view_sees_nothing_else(mounted: Mounted) -> None:
    post_rare(mounted, 0)
    mounted.post()
    inside = mounted.base / "inside"
    inside.mkdir()
    code = 'mount --bind -o ro "$1" "$2" && ls "$2" && cat "$2/../class" >&2; exec cat "$2/stream"'
    view = mounted.path(f"events/where/class={RARE}")
    cat = mounted.program("unshare", "-m", "sh", "-c", code, "sh", view, inside)
    cat.await_output('"n":"?0')
    cat.await_blocked()
    mounted.post(3)
    post_rare(mounted, 1)
    cat.await_output('"n":"?1', limit=1.0)
    listed, _, rest = cat.out.partition(b"{")
    assert listed.split() == [b"log", b"stream"]
    assert numbers(events(b"{" + rest)) == [0, 1]
    os.kill(cat.pid, signal.SIGINT)
    assert cat.end(limit=1.0) == -signal.SIGINT


# ---- Expressions


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("n=3", [3]),
        ("n!=3", [0, 1, 2, 4]),
        ("n>=3", [3, 4]),
        ("n<=1", [0, 1]),
        ("n>=1,n<=3,n!=2", [1, 3]),
        ("n=[12]", [1, 2]),
        ("n=%33", [3]),
        ("%6e=4", [4]),
        ("filler=*%2F*", []),
        ("class=sysevent.%66s.*,n=?", [0, 1, 2, 3, 4]),
        ("class=*,source=zfs,pool=tank,seq>=2,seq<=3", [1, 2]),
        ("eid=*,payload!=x,n=0", [0]),
        ("since=1h,n>=4", [4]),
        ("since=2999-01-01", []),
        ("since=2020-01-01T00:00:00.5+02:00,n=2", [2]),
    ],
)
def test_an_expression_shows_the_events_for_which_it_holds(
    mounted: Mounted, expression: str, found: list[int]
) -> None:
    for number in range(5):
        post_rare(mounted, number)
    assert numbers(drained(mounted, where(expression))) == found
    if expression.startswith("since"):
        assert names(mounted, f"events/where/{expression}") == ["stream"]
    else:
        assert numbers(events(mounted.read(where(expression, "log")))) == found


def test_a_path_is_matched_by_its_escapes(mounted: Mounted) -> None:
    event = {"class": RARE, "payload": {"vdev_path": "/dev/sd,50%=a", "n": 7}}
    mounted.write("simulator/inject", json.dumps(event).encode() + b"\n")
    for expression in ("vdev_path=%2Fdev%2Fsd%2C50%25=a", "vdev_path=%2Fdev*a", "vdev_path=*%25*"):
        assert numbers(drained(mounted, where(expression))) == [7]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pool==tank", "'==' is no operator"),
        ("n>=x", "'x' is no decimal number"),
        ("since=5x", "no unit of time"),
        ("pool=tank,", "it is empty"),
        ("a=50%", "is no byte"),
        ("\udcff\n", "there is no operator"),
    ],
)
def test_a_bad_expression_is_not_there_and_the_log_says_why(
    mounted: Mounted, name: str, reason: str
) -> None:
    mounted.expects("events/where/")
    with pytest.raises(FileNotFoundError):
        mounted.path(f"events/where/{name}").stat()
    until(lambda: reason in mounted.log, reason)
    with pytest.raises(FileNotFoundError):
        mounted.open(where(name))


def test_expressions_in_use_are_bounded_and_there_is_room_again(mounted: Mounted) -> None:
    mounted.expects("others are in use")
    for number in range(1500):
        assert mounted.path(f"events/where/x={number}").is_dir(), "looked at, and not kept"
    held = [mounted.open(f"events/where/n={number}/stream") for number in range(1024)]
    with pytest.raises(OSError, match="No space") as refused:
        mounted.open("events/where/one=more/stream")
    assert refused.value.errno == errno.ENOSPC
    assert mounted.path("events/where/n=5").is_dir(), "one that is in use is there"
    mounted.close(held.pop())

    def room() -> bool:
        with contextlib.suppress(OSError):
            return mounted.path("events/where/one=more").is_dir()
        return False

    until(room, "room for another")
    for descriptor in held:
        mounted.close(descriptor)
    for number in range(1500):
        assert mounted.path(f"events/where/y={number}/stream").is_file()


def test_a_reader_is_left_alone_when_other_names_are_taken_back(mounted: Mounted) -> None:
    post_rare(mounted, 0)
    cat = follow(mounted, "cat", view="where/n>=0/stream")
    log = mounted.open(where("n>=0", "log"))
    directory = mounted.open("events/where/n<=9")
    cat.await_blocked()
    for number in range(600):
        assert mounted.path(f"events/where/x={number}/stream").is_file()
    post_rare(mounted, 1)
    cat.await_output('"n":"?1', limit=1.0)
    assert numbers(events(mounted.drain(log))) == [0, 1]
    inside = os.open("log", os.O_RDONLY, dir_fd=directory)
    assert numbers(events(mounted.drain(inside))) == [0, 1]
    os.close(inside)
    assert mounted.path(where("n<=9", "log")).stat().st_size > 0


# ---- Since


def test_a_reader_that_stopped_goes_on_where_it_was(mounted: Mounted) -> None:
    for number in range(6):
        post_rare(mounted, number)
        mounted.post()
    stream = mounted.path(f"events/where/class={RARE}/stream")
    begun = events(run(["head", "-n", "3", stream]).stdout)
    last = begun[-1]
    post_rare(mounted, 6)
    resumed = f"class={RARE},since-seq={last['epoch']}:{last['seq'] + 1}"
    cat = follow(mounted, "cat", view=f"where/{resumed}/stream")
    cat.await_output('"n":"?6')
    cat.await_blocked()
    mounted.post()
    post_rare(mounted, 7)
    cat.await_output('"n":"?7', limit=1.0)
    assert numbers(begun + events(cat.out)) == list(range(8))


def test_a_reader_that_stopped_too_long_or_in_another_epoch_gets_a_gap(mount: Mount) -> None:
    mounted = mount(*SMALL)
    post_rare(mounted, 0)
    (first,) = mounted.everything()
    mounted.post(200, size=2000)
    oldest = mounted.everything()[0]["seq"]
    for epoch, seq, begin in ((first["epoch"], 2, 2), ("0123456789abcdef", 7, 1)):
        seen = drained(mounted, where(f"since-seq={epoch}:{seq}"))
        payload = seen[0]["payload"]
        assert is_own_gap(seen[0])
        assert (payload["first_seq"], payload["last_seq"]) == (begin, oldest - 1)
        assert payload["dropped"] == oldest - begin
        assert payload["cause"] == "evicted"
        assert seen[1]["seq"] == oldest


def test_a_time_ago_is_before_the_open_and_not_before_the_look_up(mounted: Mounted) -> None:
    directory = mounted.open("events/where/since=1s")
    post_rare(mounted, 0)
    held = os.open("stream", os.O_RDONLY | os.O_NONBLOCK, dir_fd=directory)
    assert numbers(events(mounted.drain(held))) == [0]
    posted = time.monotonic()
    until(lambda: time.monotonic() > posted + 1.1, "a second later")
    post_rare(mounted, 1)
    late = os.open("stream", os.O_RDONLY | os.O_NONBLOCK, dir_fd=directory)
    assert numbers(events(mounted.drain(late))) == [1]
    assert numbers(events(mounted.drain(held))) == [1]
    os.close(held)
    os.close(late)
