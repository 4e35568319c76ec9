"""Programs that nobody here wrote read events/stream, each in its own way."""

import os
import re
import signal

import pytest
from lines import account, events, labels
from mounted_tree import Mounted
from programs import Terminal, run
from waits import until


def test_cat_has_a_new_event_at_once(mounted: Mounted) -> None:
    made = mounted.post(3)
    cat = mounted.program("cat", mounted.path("events/stream"))
    cat.await_output('"n2 ')
    cat.await_blocked()
    made += mounted.post()
    cat.await_output('"n3 ', limit=0.5)
    assert labels(events(cat.out)) == made


def test_tail_f_shows_the_last_ten_and_every_new_one(mounted: Mounted) -> None:
    made = mounted.post(15)
    tail = mounted.program("tail", "-f", mounted.path("events/stream"))
    tail.await_output('"n14 ')
    for _ in range(3):
        made += mounted.post(2)
        tail.await_output(f'"{made[-1]} ', limit=3.0)
    assert labels(events(tail.out)) == made[5:]
    assert tail.err == ""


def test_tail_f_follows_a_stream_that_was_empty(mounted: Mounted) -> None:
    tail = mounted.program("tail", "-f", "-s", "0.1", mounted.path("events/stream"))
    tail.await_blocked()
    made = mounted.post(1)
    tail.await_output('"n0 ', limit=3.0)
    made += mounted.post(3)
    tail.await_output('"n3 ', limit=3.0)
    assert labels(events(tail.out)) == made


def test_tail_f_begins_after_a_clear(mounted: Mounted) -> None:
    mounted.post(5)
    mounted.path("events/clear").write_bytes(b"1\n")
    tail = mounted.program("tail", "-f", "-s", "0.1", mounted.path("events/stream"))
    tail.await_asleep()
    made = []
    for _ in range(3):
        made += mounted.post(1)
        tail.await_output(f'"{made[-1]} ', limit=3.0)
    assert labels(events(tail.out)) == made


def test_tail_n_5_ends(mounted: Mounted) -> None:
    made = mounted.post(100)
    done = run(["tail", "-n", "5", mounted.path("events/stream")], limit=5.0)
    assert labels(events(done.stdout)) == made[-5:]


def test_head_ends(mounted: Mounted) -> None:
    made = mounted.post(10)
    done = run(["head", "-n", "3", mounted.path("events/stream")], limit=5.0)
    assert labels(events(done.stdout)) == made[:3]


def test_head_ends_with_the_event_that_it_waits_for(mounted: Mounted) -> None:
    made = mounted.post(2)
    head = mounted.program("head", "-n", "3", mounted.path("events/stream"))
    head.await_blocked()
    made += mounted.post()
    assert head.end(limit=2.0) == 0
    assert labels(events(head.out)) == made


def test_grep_m1_ends_with_the_event_that_it_waits_for(mounted: Mounted) -> None:
    mounted.post(3)
    stream = mounted.path("events/stream")
    grep = mounted.program("grep", "--line-buffered", "-m1", "n4 ", stream)
    grep.await_blocked()
    mounted.post()
    grep.await_blocked()
    assert grep.process.poll() is None
    mounted.post()
    assert grep.end(limit=2.0) == 0
    assert labels(events(grep.out)) == ["n4"]


def test_grep_shows_each_match_as_it_comes(mounted: Mounted) -> None:
    grep = mounted.program("grep", "--line-buffered", "tank", mounted.path("events/stream"))
    made = []
    for _ in range(5):
        made += mounted.post()
        grep.await_output(f'"{made[-1]} ', limit=2.0)
    assert labels(events(grep.out)) == made


def test_dd_with_a_small_block_has_each_byte_once(mounted: Mounted) -> None:
    mounted.post(20)
    whole = mounted.drain(mounted.stream())
    dd = mounted.program("dd", "bs=16", "status=none", f"if={mounted.path('events/stream')}")
    until(lambda: len(dd.out) >= len(whole), "everything read")
    dd.await_blocked()
    assert dd.out == whole


def test_dd_skips_by_seeking(mounted: Mounted) -> None:
    mounted.post(20)
    whole = mounted.drain(mounted.stream())
    stream = mounted.path("events/stream")
    done = run(["dd", "bs=64", "skip=9", "count=4", "status=none", f"if={stream}"])
    assert done.stdout == whole[9 * 64 : 13 * 64]


def test_bash_while_read_takes_each_line_once(mounted: Mounted) -> None:
    made = mounted.post(60)
    code = r'n=0; while IFS= read -r line; do printf "%s\n" "$line"; ((++n == 61)) && break; done'
    stream = mounted.path("events/stream")
    bash = mounted.program("bash", "-c", f'{code} < "$1"', "reader", stream)
    bash.await_output('"n59 ')
    bash.await_blocked()
    made += mounted.post()
    assert bash.end(limit=2.0) == 0
    found = events(bash.out)
    account(found)
    assert labels(found) == made


def test_two_descriptors_of_one_shell_are_two_readers(mounted: Mounted) -> None:
    made = mounted.post(4)
    code = 'exec 3< "$1" 4< "$1"; head -n 4 <&3; echo; head -n 4 <&4'
    done = run(["bash", "-c", code, "reader", mounted.path("events/stream")])
    one, _, other = done.stdout.partition(b"\n\n")
    assert labels(events(one + b"\n")) == labels(events(other)) == made


def test_less_f_follows_until_ctrl_c(mounted: Mounted) -> None:
    made = mounted.post(5)
    with Terminal(["less", "-S", "+F", mounted.path("events/stream")], mounted.env) as less:
        less.await_seen('"n4 ')
        for _ in range(3):
            made += mounted.post()
            less.await_seen(f'"{made[-1]} ', limit=3.0)
        shown = re.findall(r'"(n\d+) ', less.seen)
        less.type("\x03")
        less.type("q")
        assert less.end(limit=3.0) == 0
    assert shown == made


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_jq_takes_each_event_as_it_comes(mounted: Mounted, name: str) -> None:
    mounted.post(3)
    jq = mounted.program(
        "jq", "-c", "--unbuffered", "[.class, .pool]", mounted.path("events/stream")
    )
    expected = b'["sysevent.fs.zfs.history_event","tank"]\n'
    jq.await_blocked()
    for count in range(4, 7):
        mounted.post()
        jq.await_output(f"(.*\n){{{count}}}", limit=2.0)
    assert jq.out == expected * 6
    os.kill(jq.pid, signal.Signals[name])
    assert jq.end(limit=1.0) == -signal.Signals[name]


def test_a_reader_in_another_mount_namespace(mounted: Mounted) -> None:
    made = mounted.post(2)
    inside = mounted.base / "inside"
    inside.mkdir()
    code = 'mount --bind "$1" "$2" && exec cat "$2/stream"'
    arguments = ("reader", mounted.path("events"), inside)
    cat = mounted.program("unshare", "-m", "sh", "-c", code, *arguments)
    cat.await_output('"n1 ')
    cat.await_blocked()
    made += mounted.post()
    cat.await_output('"n2 ', limit=1.0)
    assert labels(events(cat.out)) == made
    os.kill(cat.pid, signal.SIGINT)
    assert cat.end(limit=1.0) == -signal.SIGINT
