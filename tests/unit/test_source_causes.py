"""What is missing, split by cause: evicted, cleared, failed, unknown."""

import pytest

from zeventfs.sources.causes import Causes, Split
from zeventfs.sources.eids import Behind, EidRange, Missing


def missing(
    size: int = 1,
    *,
    reset: bool = False,
    behind: Behind = Behind.UNKNOWN,
    undecoded: int = 0,
) -> Missing[str]:
    return Missing(EidRange(1, size), None, reset, behind, undecoded)


def test_without_a_reset_all_that_is_missing_has_failed_if_so_many_did() -> None:
    causes = Causes(0)
    assert causes.split(missing(3), 2, 0) == Split(failed=2, unknown=1)
    assert causes.split(missing(3), 2, 0) == Split(unknown=3)
    assert causes.split(missing(3), 9, 0) == Split(failed=3)


def test_what_failed_before_we_began_may_be_missing_in_what_was_queued_then() -> None:
    assert Causes(5).split(missing(2), 5, 0) == Split(failed=2)
    assert Causes(5).split(missing(2, reset=True), 5, 0) == Split(unknown=2)


@pytest.mark.parametrize(
    ("behind", "cause"),
    [(Behind.FULL, "evicted"), (Behind.LESS, "cleared"), (Behind.UNKNOWN, "unknown")],
)
def test_after_a_reset_it_depends_on_what_was_behind(behind: Behind, cause: str) -> None:
    causes = Causes(1)
    rest = {cause: 7}
    lost = missing(10, reset=True, behind=behind)
    assert causes.split(lost, 4, 0) == Split(failed=3)._replace(**rest)
    assert causes.split(lost, 4, 0) == Split()._replace(**{cause: 10})
    assert causes.split(lost, 9, 4) == Split(failed=1)._replace(**{cause: 9}), "4 are needed"


def test_what_failed_before_explains_nothing_once_all_from_then_is_taken() -> None:
    causes = Causes(5)
    causes.caught_up()
    assert causes.split(missing(2), 6, 0) == Split(failed=1, unknown=1)
    causes.caught_up()
    assert causes.split(missing(2), 9, 0) == Split(failed=2)


def test_no_more_have_failed_than_are_missing() -> None:
    causes = Causes(0)
    assert causes.split(missing(2, reset=True, behind=Behind.FULL), 100, 0) == Split(failed=2)


def test_what_could_not_be_decoded_is_of_unknown_cause() -> None:
    causes = Causes(0)
    assert causes.split(missing(5, undecoded=2), 9, 0) == Split(failed=3, unknown=2)
    lost = missing(5, reset=True, behind=Behind.LESS, undecoded=5)
    assert causes.split(lost, 9, 0) == Split(unknown=5)


def test_a_count_that_begins_anew_does_not_harm() -> None:
    causes = Causes(9)
    assert causes.split(missing(2), 1, 0) == Split(failed=1, unknown=1)
    assert causes.split(missing(2, reset=True), 0, 0) == Split(unknown=2)


@pytest.mark.parametrize(
    ("split", "cause"),
    [
        (Split(cleared=4), "cleared"),
        (Split(cleared=4, failed=1), "source"),
        (Split(evicted=4), "source"),
        (Split(unknown=4), "source"),
    ],
)
def test_the_cause_is_cleared_if_it_is_nothing_else(split: Split, cause: str) -> None:
    assert split.cause == cause
