"""Which numbers of a count are missing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.dm.numbers import Missing, Numbers


def test_numbers_in_their_order_miss_none() -> None:
    numbers = Numbers()
    assert [numbers.take(number) for number in (7, 8, 9)] == [True] * 3
    assert not numbers
    assert numbers.settle() is None


def test_what_comes_late_is_not_missing() -> None:
    numbers = Numbers(0)
    for number in (1, 5, 3):
        assert numbers.take(number)
    assert numbers
    assert numbers.settle() == Missing(2, 2, 4)
    assert not numbers.take(4)
    for number in (9, 6, 8, 7):
        assert numbers.take(number)
    assert not numbers


def test_what_has_come_comes_no_more() -> None:
    numbers = Numbers(5)
    assert not numbers.take(5)
    numbers.skip(3)
    assert not numbers.take(8)
    assert numbers.take(9)


def test_what_is_skipped_before_the_first_is_known_comes_first() -> None:
    unknown = Numbers()
    unknown.skip(3)
    assert [unknown.take(number) for number in (7, 8, 9, 10)] == [False, False, False, True]
    lost = Numbers()
    lost.skip(3)
    lost.forget_skipped()
    assert lost.take(7)


def test_what_is_expected_is_missing_until_it_comes() -> None:
    numbers = Numbers(5)
    numbers.expect(5)
    assert not numbers
    numbers.expect(8)
    assert numbers.take(7)
    assert numbers.settle() == Missing(2, 6, 8)
    unknown = Numbers()
    unknown.expect(8)
    assert not unknown


def test_a_count_begins_anew() -> None:
    numbers = Numbers(10_000)
    assert numbers.take(1)
    assert numbers.take(2)
    assert not numbers


def test_more_holes_than_are_kept_open_are_counted_all_the_same() -> None:
    numbers = Numbers(0)
    for number in range(2, 2000, 2):
        numbers.take(number)
    assert numbers.settle() == Missing(999, 1, 1997)
    assert numbers.settle() is None


@settings(deadline=None)
@given(st.permutations(range(1, 30)), st.sets(st.integers(1, 29)))
def test_in_any_order_those_are_missing_that_have_not_come(
    order: list[int], lost: set[int]
) -> None:
    numbers = Numbers(0)
    come = [number for number in order if number not in lost]
    assert all(numbers.take(number) for number in come)
    missing = numbers.settle()
    expected = [number for number in lost if number < max(come, default=0)]
    if expected:
        assert missing == Missing(len(expected), min(expected), max(expected))
    else:
        assert missing is None
