"""The trace: the last requests, what waits longer than they last, and one line for each."""

import errno

import pytest

from zeventfs.fuse.trace import KEPT, SHOWN_WAITING, Trace


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trace(clock: Clock) -> Trace:
    return Trace(clock)


def lines(trace: Trace) -> list[str]:
    return trace.render(lambda inode: f"node{inode}").decode().splitlines()


def sizes(trace: Trace) -> list[int]:
    return [each.size for each in trace]


def test_before_the_first_request_there_is_nothing(trace: Trace) -> None:
    assert trace.render(str) == b""


def test_a_line_says_when_what_by_whom_how_long_and_the_answer(trace: Trace, clock: Clock) -> None:
    request = trace.begin("read", 42, 7, None, 100, 4096)
    clock.now_ns += 35_999
    trace.end(request, 811)
    clock.now_ns += 2 * 10**9 - 35_999
    assert lines(trace) == ["    -2.000000 read node7 offset=100 size=4096 pid=42 35us 811"]


def test_what_is_not_answered_waits(trace: Trace, clock: Clock) -> None:
    trace.begin("read", 42, 7, None, 0, 10)
    clock.now_ns += 3_723_000_001_000
    assert lines(trace) == [" -3723.000001 read node7 offset=0 size=10 pid=42 waiting"]


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOENT, "ENOENT"), (errno.EAGAIN, "EAGAIN"), (9999, "9999")]
)
def test_an_error_is_its_name(trace: Trace, number: int, word: str) -> None:
    trace.fail(trace.begin("lookup", 1, 7, b"x"), number)
    assert lines(trace) == [f"     0.000000 lookup node7/x pid=1 0us {word}"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"log.1", "log.1"),
        (b"class=a*,pool!=b%2F", "class=a*,pool!=b%2F"),
        (b"a b\n\x1b[2J", r"a\x20b\x0a\x1b[2J"),
        ("\u00e4".encode(), r"\xc3\xa4"),
        (b"\xff\x7f", r"\xff\x7f"),
        (rb"a\b", r"a\x5cb"),
    ],
)
def test_a_name_from_outside_is_one_printable_word(trace: Trace, name: bytes, shown: str) -> None:
    trace.end(trace.begin("lookup", 1, 7, name), "ok")
    [line] = lines(trace)
    assert line.split() == ["0.000000", "lookup", f"node7/{shown}", "pid=1", "0us", "ok"]


def test_a_name_in_the_root_has_one_slash(trace: Trace) -> None:
    trace.end(trace.begin("lookup", 1, 1, b"x"), "ok")
    assert b" /x " in trace.render(lambda _: "/")


def test_the_last_requests_are_kept_the_oldest_first(trace: Trace) -> None:
    for count in range(3):
        trace.end(trace.begin("read", 1, 1, None, 0, count), 0)
    assert sizes(trace) == [0, 1, 2]
    for count in range(3, KEPT + 5):
        trace.end(trace.begin("read", 1, 1, None, 0, count), 0)
    assert sizes(trace) == list(range(5, KEPT + 5))


def test_what_waits_is_kept_however_many_come_after_it(trace: Trace) -> None:
    first = trace.begin("read", 1, 1, None, 0, 10_000)
    second = trace.begin("read", 1, 1, None, 0, 20_000)
    for count in range(3 * KEPT):
        trace.end(trace.begin("read", 1, 1, None, 0, count), 0)
    assert sizes(trace) == [10_000, 20_000, *range(2 * KEPT, 3 * KEPT)]
    trace.end(first, 5)
    assert sizes(trace)[:2] == [20_000, 2 * KEPT]
    trace.fail(second, errno.EINTR)
    assert sizes(trace) == list(range(2 * KEPT, 3 * KEPT))


def test_many_that_wait_are_all_kept_and_let_go(trace: Trace) -> None:
    waiting = [trace.begin("read", 1, 1, None, 0, count) for count in range(3 * KEPT)]
    assert sizes(trace) == list(range(3 * KEPT))
    for request in waiting:
        trace.end(request, 0)
    assert sizes(trace) == list(range(2 * KEPT, 3 * KEPT))


def test_of_many_that_wait_the_eldest_are_shown_and_the_others_counted(trace: Trace) -> None:
    for count in range(SHOWN_WAITING + KEPT):
        trace.begin("read", 1, 1, None, 0, count)
    assert len(lines(trace)) == SHOWN_WAITING + KEPT
    trace.begin("read", 1, 1, None, 0, SHOWN_WAITING + KEPT)
    shown = lines(trace)
    assert " size=0 " in shown[0]
    assert f" size={SHOWN_WAITING - 1} " in shown[SHOWN_WAITING - 1]
    assert shown[SHOWN_WAITING] == "          ... 1 more waiting"
    assert f" size={SHOWN_WAITING + 1} " in shown[SHOWN_WAITING + 1]
    assert len(shown) == SHOWN_WAITING + 1 + KEPT


def test_a_request_is_made_only_where_one_waits(trace: Trace) -> None:
    slots = {id(trace.begin("read", 1, 1)) for _ in range(KEPT)}
    for request in list(trace):
        trace.end(request, 0)
    for _ in range(2 * KEPT):
        request = trace.begin("read", 1, 1)
        assert id(request) in slots
        trace.end(request, 0)
