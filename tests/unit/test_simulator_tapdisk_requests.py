"""What becomes of a simulated guest's requests, by tapdisk's rules, on a clock that is given."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.simulator.tapdisk.requests import MOST, RETRIED, STUCK, Guest, Requests
from zeventfs.tapdisk import wire


def completed(requests: Requests) -> int:
    return sum(requests.completed)


def test_what_can_be_served_is_served_at_once() -> None:
    requests = Requests()
    requests.submit(0.0, reads=2, writes=1, sectors=8)
    assert requests.outstanding == len(requests.new) == 3
    requests.run(0.0)
    assert requests.outstanding == 0
    assert requests.completed == requests.submitted == [2, 1]
    assert requests.sectors == [16, 8]
    assert requests.us == [240, 120]
    assert (requests.errors, requests.failed_sectors) == ([0, 0], [0, 0])
    assert requests.due() is None


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EPERM, errno.ENOSYS, errno.ESTALE, errno.ENOSPC, errno.EROFS]
)
def test_a_request_that_fails_at_once_holds_up_nobody(number: int) -> None:
    requests = Requests()
    requests.answers = number
    requests.submit(0.0, 1, 0)
    requests.run(0.0)
    assert (requests.errors, requests.failed_sectors) == ([1, 0], [8, 0])
    requests.answers = 0
    requests.submit(0.0, 1, 0)
    requests.run(0.0)
    assert completed(requests) == 2
    assert requests.outstanding == 0


@pytest.mark.parametrize("number", sorted(RETRIED))
def test_what_may_succeed_later_is_tried_once_a_second_for_120_seconds(number: int) -> None:
    requests = Requests()
    requests.answers = number
    requests.submit(1000.0, 1, 0)
    requests.run(1000.0)
    tries = []
    while (due := requests.due()) is not None:
        assert not completed(requests)
        requests.run(due - 0.001)
        assert requests.due() == due  # nothing is tried before it is due
        requests.run(due)
        tries.append(due)
    assert tries == [1000.0 + number for number in range(1, 121)]
    assert requests.errors == [1, 0]


def test_a_retry_that_succeeds_is_no_error() -> None:
    requests = Requests()
    requests.answers = errno.EBUSY
    requests.submit(0.0, 0, 1)
    requests.run(0.0)
    requests.answers = 0
    requests.submit(0.5, 1, 0)
    requests.run(0.5)  # the one that waits does not hold up the one that came later
    assert requests.completed == [1, 0]
    requests.run(1.0)
    assert requests.completed == [1, 1]
    assert requests.errors == [0, 0]


def test_a_retry_that_fails_for_good_ends() -> None:
    requests = Requests()
    requests.answers = errno.EAGAIN
    requests.submit(0.0, 1, 0)
    requests.run(0.0)
    requests.answers = errno.EIO
    requests.run(1.0)
    assert requests.errors == [1, 0]
    assert requests.outstanding == 0


def test_a_vbd_may_have_a_time_of_its_own() -> None:
    requests = Requests(timeout_s=2.5)
    requests.answers = errno.EBUSY
    requests.submit(0.0, 1, 0)
    for now in (0.0, 1.0, 2.0):
        requests.run(now)
        assert requests.outstanding == 1
    assert requests.due() == 2.5
    requests.run(2.5)
    assert requests.errors == [1, 0]


def test_what_is_stuck_stays_pending_until_the_image_answers() -> None:
    requests = Requests()
    requests.answers = STUCK
    requests.submit(0.0, 1, 0)
    requests.run(0.0)
    requests.run(500.0)
    assert len(requests.pending) == 1
    assert requests.due() is None
    requests.answers = errno.EBUSY
    requests.run(600.0)  # its time is over
    assert requests.errors == [1, 0]


def test_a_quiesced_queue_issues_nothing_new_and_tries_nothing_again() -> None:
    requests = Requests()
    requests.answers = errno.EBUSY
    requests.submit(0.0, 1, 0)
    requests.run(0.0)
    requests.quiesced = True
    requests.answers = 0
    requests.submit(1.0, 1, 0)
    requests.run(50.0)
    assert (len(requests.new), len(requests.failed)) == (1, 1)
    assert requests.due() == 120.0
    requests.quiesced = False
    requests.run(50.0)
    assert requests.completed == [2, 0]


def test_abandoned_requests_fail() -> None:
    requests = Requests()
    requests.abandon()
    assert requests.kicks_out == 0
    requests.submit(0.0, 1, 1)
    requests.abandon()
    assert requests.errors == [1, 1]
    assert requests.kicks_out == 1


def test_kicks_are_counted_apart() -> None:
    requests = Requests()
    for now in (0.0, 1.0):
        requests.submit(now, 10, 10)
    requests.run(1.0)
    requests.run(2.0)
    assert (requests.kicks_in, requests.kicks_out) == (2, 1)


def test_the_counters_are_those_of_the_image() -> None:
    requests = Requests()
    requests.submit(0.0, 2, 1)
    requests.run(0.0)
    requests.answers = errno.EIO
    requests.submit(0.0, 1, 0)
    requests.run(0.0)
    requests.answers = STUCK
    requests.submit(0.0, 0, 1)
    requests.run(0.0)
    counters = requests.counters()
    assert counters == [1, 3, 3, 16, 360, 2, 1, 8, 120, 0, 0]
    assert wire.COUNTERS.unpack_from(wire.encode_counters(counters)) == (1, *counters)
    requests.reset()
    assert requests.counters() == [1] + [0] * 10


def test_a_guest_asks_at_its_rate() -> None:
    requests, guest = Requests(), Guest(30.0, 100.0)
    guest.ask(requests, 100.0)
    assert requests.kicks_in == 0
    for tick in range(1, 11):
        guest.ask(requests, 100.0 + tick / 10)
    assert requests.completed == [20, 10]


def test_a_guest_changes_its_rate_and_owes_nothing_twice() -> None:
    requests, guest = Requests(), Guest(10.0, 0.0)
    guest.change(0.0, 1.0)
    guest.ask(requests, 5.0)
    guest.ask(requests, 9.0)
    assert completed(requests) == 10


def test_a_guest_whose_ring_is_full_asks_for_no_more() -> None:
    requests, guest = Requests(), Guest(1000.0, 0.0)
    requests.answers = STUCK
    for now in (1.0, 2.0):
        guest.ask(requests, now)
    assert requests.outstanding == MOST
    requests.answers = 0
    requests.run(2.0)
    guest.ask(requests, 2.0)
    assert completed(requests) == MOST


def test_a_guest_does_more_than_its_ring_holds_but_not_without_bound() -> None:
    requests, guest = Requests(), Guest(1000.0, 0.0)
    guest.ask(requests, 1.0)
    assert completed(requests) == 1000
    assert requests.kicks_in == requests.kicks_out == 3
    guest.ask(requests, 1_000_001.0)
    assert completed(requests) == 11_000


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, STUCK, errno.EIO, errno.EBUSY, errno.EAGAIN]),
            st.integers(0, 3),
            st.booleans(),
            st.sampled_from([0.0, 0.3, 1.0, 70.0]),
        ),
        max_size=40,
    )
)
def test_no_request_is_lost_or_completed_twice(
    steps: list[tuple[int, int, bool, float]],
) -> None:
    requests, now, came = Requests(), 0.0, 0
    for answers, count, quiesced, later in steps:
        now += later
        requests.answers, requests.quiesced = answers, quiesced
        requests.submit(now, count, 1)
        came += count + 1
        requests.run(now)
        assert completed(requests) + requests.outstanding == came
        due = requests.due()
        assert due is None or due > now
        assert sum(requests.errors) <= completed(requests)
