"""What a VBD counts: errors by place, requests on their way and tried again, notifications."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.vbd.counters import Kicks, Queue
from zeventfs.vbd.dispersion import Dispersion
from zeventfs.vbd.retry import INTERVAL_NS, LASTING, TOTAL_NS, Answer, Requests

S = 10**9


def test_an_error_has_its_count_its_times_and_the_latest_reason() -> None:
    dispersion = Dispersion()
    dispersion.note(errno.EIO, "read", 5, "sector 1")
    dispersion.note(errno.ENOSPC, "write", 6)
    dispersion.note(errno.EIO, "read", 9, "sector 2")
    dispersion.note(errno.EIO, "write", 10)
    found = [
        (each.errno, each.place, each.count, each.first_ns, each.last_ns) for each in dispersion
    ]
    assert found == [
        (errno.EIO, "read", 2, 5, 9),
        (errno.ENOSPC, "write", 1, 6, 6),
        (errno.EIO, "write", 1, 10, 10),
    ]
    assert [each.reason for each in dispersion] == ["sector 2", "", ""]
    assert dispersion.unkept == 0


def test_errors_are_bounded_in_number_and_length_and_none_goes_uncounted() -> None:
    dispersion = Dispersion()
    for number in range(1000):
        dispersion.note(number, "x" * 5000, 1, "y" * 5000)
    kept = list(dispersion)
    assert len(kept) == 64
    assert dispersion.unkept == 1000 - 64
    assert {(len(each.place), len(each.reason)) for each in kept} == {(64, 256)}
    dispersion.note(0, "x" * 64, 2)
    assert kept[0].count == 2


def test_notifications_are_counted_apart() -> None:
    kicks = Kicks()
    kicks.incoming += 2
    kicks.outgoing += 1
    assert (kicks.incoming, kicks.outgoing) == (2, 1)


def test_requests_are_taken_in_order_and_answered() -> None:
    requests = Requests()
    for number in (1, 2, 3):
        requests.add(number)
    assert requests.counts == Queue(new=3, pending=0, failed=0, completed=0)
    assert requests.take(0) == [1, 2, 3]
    assert requests.tried(2, None, 1) == Answer(2, None)
    assert requests.counts == Queue(new=0, pending=2, failed=0, completed=1)


@pytest.mark.parametrize("error", sorted(LASTING))
def test_an_error_that_lasts_is_the_answer_at_once(error: int) -> None:
    requests = Requests()
    requests.add(1)
    requests.take(0)
    assert requests.tried(1, error, 0) == Answer(1, error)
    assert requests.empty


def test_other_errors_are_tried_again_each_second_for_two_minutes() -> None:
    requests = Requests()
    requests.add(1)
    for now in range(0, TOTAL_NS, INTERVAL_NS):
        assert requests.take(now) == [1]
        assert requests.take(now) == []
        assert requests.tried(1, errno.EIO, now) is None
        assert requests.due_ns == now + INTERVAL_NS
        assert requests.take(now + INTERVAL_NS - 1) == []
    assert requests.take(TOTAL_NS) == [1]
    answer = requests.tried(1, errno.EIO, TOTAL_NS)
    assert answer == Answer(1, errno.EIO)
    assert requests.due_ns is None


def test_a_request_that_waits_or_fails_holds_up_none_behind_it() -> None:
    requests = Requests()
    for number in (1, 2, 3):
        requests.add(number)
    requests.take(0)
    assert requests.tried(1, errno.EIO, 0) is None
    assert requests.tried(2, errno.ENOSPC, 0) == Answer(2, errno.ENOSPC)
    assert requests.tried(3, None, 0) == Answer(3, None)
    requests.add(4)
    assert requests.take(S // 2) == [4]
    requests.add(5)
    assert requests.take(S) == [1, 5]


def test_a_queue_is_quiet_when_none_is_tried_and_empty_when_all_are_done() -> None:
    requests = Requests()
    requests.add(1)
    assert (requests.quiet, requests.empty) == (True, False)
    requests.take(0)
    assert (requests.quiet, requests.empty) == (False, False)
    requests.tried(1, errno.EAGAIN, 0)
    assert (requests.quiet, requests.empty) == (True, False)
    requests.take(S)
    requests.tried(1, None, S)
    assert (requests.quiet, requests.empty) == (True, True)


def test_a_request_that_was_not_taken_was_not_tried() -> None:
    requests = Requests()
    requests.add(1)
    with pytest.raises(KeyError):
        requests.tried(1, None, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2 * S), st.sampled_from([None, errno.EIO, errno.EPERM]))))
def test_every_request_is_always_somewhere_and_answered_once(
    steps: list[tuple[int, int | None]],
) -> None:
    requests, now, answered = Requests(), 0, []
    pending: list[int] = []
    for number, (passed, outcome) in enumerate(steps):
        now += passed
        requests.add(number)
        pending += requests.take(now)
        answer = requests.tried(pending.pop(0), outcome, now)
        if answer is not None:
            answered.append(answer.request)
        new, trying, failed, completed = requests.counts
        assert (new, trying, completed) == (0, len(pending), len(answered))
        assert trying + failed + completed == number + 1  # type: ignore[operator] # a Queue of ours knows all
    assert len(set(answered)) == len(answered)
