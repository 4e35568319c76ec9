"""A signal ends, or stops, a reader that is blocked in the tree, and at once."""

import os
import signal
import sys
import time

import pytest
from lines import events, labels
from mounted_tree import Mounted
from programs import Terminal, state_of
from waits import until


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL", "SIGHUP", "SIGQUIT"])
def test_a_signal_ends_a_blocked_cat_within_a_second(mounted: Mounted, name: str) -> None:
    mounted.post()
    cat = mounted.program("cat", mounted.path("events/stream"))
    other = mounted.program("cat", mounted.path("events/stream"))
    for reader in (cat, other):
        reader.await_output('"n0 ')
        reader.await_blocked()
    begun = time.monotonic()
    os.kill(cat.pid, signal.Signals[name])
    assert cat.end(limit=5.0) == -signal.Signals[name]
    assert time.monotonic() - begun < 1.0
    mounted.post()
    other.await_output('"n1 ', limit=1.0)
    assert labels(events(cat.out)) == ["n0"]


def test_a_hundred_readers_can_be_killed_at_once(mounted: Mounted) -> None:
    readers = [mounted.program("cat", mounted.path("events/stream")) for _ in range(100)]
    for reader in readers:
        reader.await_blocked()
    begun = time.monotonic()
    for reader in readers:
        os.kill(reader.pid, signal.SIGKILL)
    for reader in readers:
        assert reader.end(limit=5.0) == -signal.SIGKILL
    assert time.monotonic() - begun < 3.0
    mounted.post()
    assert labels(mounted.everything()) == ["n0"]


def test_a_stopped_reader_stops_at_once_and_goes_on_when_continued(mounted: Mounted) -> None:
    cat = mounted.program("cat", mounted.path("events/stream"))
    for turn in range(3):
        cat.await_blocked()
        os.kill(cat.pid, signal.SIGSTOP)
        until(lambda: state_of(cat.pid) == "T", "stopped", limit=1.0)
        os.kill(cat.pid, signal.SIGCONT)
        cat.await_blocked()
        mounted.post()
        cat.await_output(f'"n{turn} ', limit=1.0)


def test_events_posted_while_a_reader_is_stopped_are_there_when_it_continues(
    mounted: Mounted,
) -> None:
    cat = mounted.program("cat", mounted.path("events/stream"))
    cat.await_blocked()
    os.kill(cat.pid, signal.SIGSTOP)
    until(lambda: state_of(cat.pid) == "T", "stopped", limit=1.0)
    made = mounted.post(5)
    assert labels(mounted.everything()) == made
    os.kill(cat.pid, signal.SIGCONT)
    cat.await_output('"n4 ', limit=1.0)
    assert labels(events(cat.out)) == made


def test_ctrl_z_and_fg_on_a_terminal(mounted: Mounted) -> None:
    mounted.post()
    with Terminal(["bash", "--norc", "--noprofile", "-i"], mounted.env) as shell:
        shell.type("PS1='ready> '\n")
        shell.await_seen(r"[\nh]ready> ")  # where bracketed paste is on, after its escape
        shell.type(f"cat {mounted.path('events/stream')}\n")
        shell.await_seen('"n0 ')
        shell.type("\x1a")
        shell.await_seen(r"\[1\]\+\s+Stopped", limit=2.0)
        mounted.post()
        shell.type("fg\n")
        shell.await_seen('"n1 ', limit=2.0)
        mounted.post()
        shell.await_seen('"n2 ', limit=2.0)
        shell.type("\x03")
        shell.type("echo status=$?\n")
        shell.await_seen("status=130", limit=2.0)
        assert all(shell.seen.count(f'"n{index} ') == 1 for index in range(3))
        shell.type("exit\n")
        shell.end()


def test_an_alarm_ends_a_read_of_python_with_its_own_error(mounted: Mounted) -> None:
    code = (
        "import signal, sys\n"
        "class Rang(Exception): pass\n"
        "def ring(*_): raise Rang\n"
        "signal.signal(signal.SIGALRM, ring)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
        "try: open(sys.argv[1], 'rb', buffering=0).read(4096)\n"
        "except Rang: print('rang')\n"
    )
    reader = mounted.program(sys.executable, "-c", code, mounted.path("events/stream"))
    reader.await_output("rang", limit=5.0)
    assert reader.end() == 0
