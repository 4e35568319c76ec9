"""What a VBD's files say, for scripts and for a person."""

import errno

import pytest
from shown_vbds import AT_REST, BEGIN_NS, RUNNING

from zeventfs.nodes.vbd_text import (
    errors_text,
    image_text,
    info_text,
    kicks_text,
    queue_text,
    state_text,
    word_text,
)
from zeventfs.vbd.counters import Kicks, Queue
from zeventfs.vbd.dispersion import Dispersion
from zeventfs.vbd.shown import Status
from zeventfs.vbd.states import Channel


def test_the_state_is_a_key_and_a_value_a_line() -> None:
    status = Status(RUNNING, 4711, "OPEN was answered", BEGIN_NS, 5, "vhd:/x.vhd")
    assert state_text(status) == (
        b"CHANNEL=RUNNING\n"
        b"VBD=UNPAUSED\n"
        b"SHUTDOWN=UP\n"
        b"PID=4711\n"
        b"REASON=OPEN was answered\n"
        b"SINCE=2023-11-14T22:13:20.000000000Z\n"
        b"IMAGE=vhd:/x.vhd\n"
    )
    assert image_text(status) == b"vhd:/x.vhd\n"
    assert word_text(Channel.WAIT_PID) == b"WAIT_PID\n"


def test_without_a_tapdisk_or_an_image_nothing_is_behind_their_keys() -> None:
    status = Status(AT_REST, None, "path appeared", BEGIN_NS, 0, "")
    assert b"\nPID=\n" in state_text(status)
    assert state_text(status).endswith(b"\nIMAGE=\n")
    assert image_text(status) == b""


@pytest.mark.parametrize(
    ("outside", "shown"),
    [("a\nCHANNEL=DEAD", "a\\nCHANNEL=DEAD"), ("\udcff\x1b[1m", "\\udcff\\x1b[1m"), ("é €", "é €")],
)
def test_a_line_stays_a_line_whatever_a_tapdisk_says(outside: str, shown: str) -> None:
    status = Status(RUNNING, 1, outside, BEGIN_NS, 5, f"vhd:/{outside}")
    assert f"REASON={shown}\n" in state_text(status).decode()
    assert image_text(status).decode() == f"vhd:/{shown}\n"
    assert info_text({"bits": "0x0", "error": outside}).decode() == f"bits=0x0\nerror={shown}\n"


def test_counts_that_are_not_known_are_empty() -> None:
    queue = Queue(new=0, pending=3, failed=None, completed=17)
    assert queue_text(queue) == b"new=0\npending=3\nfailed=\ncompleted=17\n"
    assert kicks_text(Kicks(incoming=7, outgoing=0)) == b"in=7\nout=0\n"
    assert kicks_text(None) == b"in=\nout=\n"


def test_errors_are_a_table_by_errno_and_place() -> None:
    errors = Dispersion()
    assert errors_text(errors) == b"ERRNO  PLACE  COUNT  FIRST  LAST  REASON\n"
    errors.note(errno.EPIPE, "RUNNING", BEGIN_NS, "killed by SIGKILL")
    errors.note(4711, "a place", BEGIN_NS + 1, "two\nlines")
    errors.note(errno.EPIPE, "RUNNING", BEGIN_NS + 2)
    first, second = errors_text(errors).decode().splitlines()[1:]
    begin = "2023-11-14T22:13:20.00000000"
    assert first == f"EPIPE  RUNNING        2  {begin}0Z  {begin}2Z"
    assert second == f"4711   a%20place      1  {begin}1Z  {begin}1Z  two\\nlines"


def test_errors_without_a_line_of_their_own_are_counted_in_the_last() -> None:
    errors = Dispersion()
    for number in range(70):
        errors.note(number, "RUNNING", BEGIN_NS)
    lines = errors_text(errors).decode().splitlines()
    assert len(lines) == 1 + 64 + 1
    assert lines[-1].split() == ["(others)", "6"]
