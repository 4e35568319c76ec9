"""EIDs in their order: which are missing, when that is said, and what is known of why."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.sources.eids import (
    LAST_PATIENCE_NS,
    PATIENCE,
    PATIENCE_NS,
    Behind,
    EidRange,
    Eids,
    Missing,
    without,
)

FULL = 10


class Line:
    """Eids of a known life, and what has come out of them: EIDs, and ranges for what is missing.

    So many posts have *failed*: where a test is not about that, all that may be missing.
    """

    def __init__(self, *, restarts: bool = False, full: int = FULL, failed: int = 1000) -> None:
        self.failed = failed
        self.eids: Eids[int] = Eids(lambda: self.failed, restarts=restarts, full=full)
        self.told: list[Missing[int]] = []

    def take(
        self, *eids: int, at_ns: int = 0, reset: bool = False, after_end: bool = False
    ) -> "Line":
        for eid in eids:
            self.eids.took(reset=reset, after_end=after_end)
            self.eids.take(eid, eid, at_ns)
        return self

    @property
    def out(self) -> list[int | tuple[int, int]]:
        found: list[int | tuple[int, int]] = []
        while self.eids.ready:
            each = self.eids.ready.popleft()
            if isinstance(each, Missing):
                self.told.append(each)
                found.append((each.eids.first, each.eids.last))
            else:
                found.append(each)
        return found


def test_eids_in_order_pass_at_once() -> None:
    assert Line().take(1, 2, 3).out == [1, 2, 3]


def test_eids_that_begin_late_are_no_hole() -> None:
    assert Line().take(1000, 1001).out == [1000, 1001]


def test_what_comes_after_a_hole_waits_until_it_is_filled() -> None:
    line = Line().take(1, 3)
    assert line.out == [1]
    assert line.eids.deadline_ns == PATIENCE_NS
    assert line.take(2, 4).out == [3, 2, 4], "the queue's order, not that of the EIDs"
    assert line.eids.deadline_ns is None


def test_a_hole_is_given_up_when_patience_is_over() -> None:
    line = Line().take(1, 3, at_ns=100)
    line.eids.at_end(100 + PATIENCE_NS - 1)
    assert line.out == [1]
    line.eids.at_end(100 + PATIENCE_NS)
    assert line.out == [(2, 2), 3]
    assert line.eids.late == 0


def test_patience_is_over_also_while_events_come() -> None:
    line = Line().take(1, 3)
    assert line.take(4, at_ns=PATIENCE_NS).out == [1, (2, 2), 3, 4]


def test_a_hole_is_given_up_when_many_have_come_since() -> None:
    line = Line().take(1, *range(3, 3 + PATIENCE - 1))
    assert line.out == [1]
    last = 3 + PATIENCE - 1
    assert line.take(last).out == [(2, 2), *range(3, last + 1)]


def test_a_hole_that_is_filled_in_part_is_told_in_parts() -> None:
    line = Line().take(1, 7, 4)
    line.eids.end(0)
    assert line.out == [1, (2, 3), (5, 6), 7, 4]
    assert [each.before for each in line.told] == [7, 7]


def test_each_hole_has_its_own_patience() -> None:
    line = Line().take(1, 3).take(5, at_ns=30).take(2, at_ns=40)
    assert line.out == [1, 3]
    assert line.eids.deadline_ns == 30 + PATIENCE_NS
    line.eids.at_end(PATIENCE_NS)
    assert line.out == []
    line.eids.at_end(30 + PATIENCE_NS)
    assert line.out == [(4, 4), 5, 2]


def test_a_hole_behind_another_waits_for_it_and_may_be_filled_first() -> None:
    line = Line().take(1, 3, 5, 4)
    assert line.out == [1]
    assert line.take(2).out == [3, 5, 4, 2]


def test_what_has_no_eid_keeps_its_place() -> None:
    line = Line()
    line.eids.pass_by(-1)
    line.take(1, 3)
    line.eids.pass_by(-2)
    assert line.out == [-1, 1]
    assert line.take(2).out == [3, -2, 2]


def test_an_eid_that_comes_after_it_was_given_up_is_passed_on_and_counted_as_late() -> None:
    line = Line().take(1, 6)
    line.eids.end(0)
    assert line.out == [1, (2, 5), 6]
    assert line.take(4, 7).out == [4, 7]
    assert line.eids.late == 1


def test_in_a_known_life_an_eid_from_before_the_first_means_nothing() -> None:
    line = Line().take(9, 8, 10)
    assert line.out == [9, 8, 10]
    assert line.eids.late == 0


def test_to_begin_anew_is_to_give_up_and_to_count_from_there() -> None:
    line = Line().take(1, 5)
    line.eids.begin(0)
    assert line.out == [1, (2, 4), 5]
    line.take(2)
    line.eids.end(0)
    assert line.out == [(1, 1), 2]
    assert line.eids.late == 0, "3 of the life before is nothing to this one"


def test_to_go_on_is_to_know_what_is_missing_from_before() -> None:
    line = Line()
    line.eids.begin(9, [EidRange(5, 6), EidRange(8, 8)], 100)
    line.take(10, 8, 11, at_ns=100)
    assert line.out == []
    line.eids.at_end(100 + PATIENCE_NS)
    assert line.out == [(5, 6), 10, 8, 11]
    assert line.told[0].before is None


# What nothing explains


def test_the_line_moves_on_while_what_nothing_explains_is_awaited() -> None:
    line = Line(failed=0).take(1, 3)
    line.eids.at_end(PATIENCE_NS)
    assert line.out == [1, 3]
    assert line.take(5, 2, 6, at_ns=PATIENCE_NS).out == []
    line.eids.at_end(2 * PATIENCE_NS)
    assert line.out == [5, 2, 6]
    line.take(4, at_ns=LAST_PATIENCE_NS)
    line.eids.at_end(2 * LAST_PATIENCE_NS)
    assert line.out == [4]
    assert line.eids.deadline_ns is None
    assert line.eids.late == 0


def test_the_line_moves_on_when_many_have_come_since() -> None:
    many = range(3, 3 + PATIENCE)
    line = Line(failed=0).take(1, *many)
    assert line.out == [1, *many]
    assert line.take(2).out == [2]
    assert line.eids.late == 0


def test_what_nothing_explains_is_told_when_the_last_patience_is_over() -> None:
    line = Line(failed=0).take(1, 4, at_ns=100)
    looked_at = []
    while (due_ns := line.eids.deadline_ns) is not None:
        looked_at.append((due_ns - 100) // PATIENCE_NS)
        line.eids.at_end(due_ns)
    assert looked_at == [1, 2, 4, 8, 16, 32, 64, 100]
    assert due_ns is None
    assert line.out == [1, 4, (2, 3)]
    assert not line.told[0].reset
    assert line.take(3).out == [3]
    assert line.eids.late == 1


def test_the_last_patience_is_over_also_while_events_come() -> None:
    line = Line(failed=0).take(1, 3)
    line.take(4, at_ns=PATIENCE_NS)
    line.take(5, at_ns=LAST_PATIENCE_NS)
    assert line.out == [1, 3, 4, 5, (2, 2)]


def test_what_is_awaited_is_told_when_enough_have_failed() -> None:
    line = Line(failed=0).take(1, 3, 5)
    line.eids.at_end(PATIENCE_NS)
    line.failed = 1
    line.eids.at_end(2 * PATIENCE_NS)
    assert line.out == [1, 3, 5], "which of the two has failed can't be known"
    assert line.take(4, at_ns=3 * PATIENCE_NS).out == [4]
    line.eids.at_end(4 * PATIENCE_NS)
    assert line.out == [(2, 2)]


def test_to_move_on_is_to_await_what_may_still_come() -> None:
    line = Line(failed=0).take(1, 3).take(9, reset=True)
    line.eids.move_on(0)
    assert line.out == [1, 3, (4, 8), 9]
    assert line.take(2).out == [2]
    assert line.eids.deadline_ns is None


def test_what_is_awaited_is_given_up_with_all_else() -> None:
    line = Line(failed=0).take(1, 3)
    line.eids.move_on(0)
    line.take(6)
    line.eids.release(0, give_up=True)
    assert line.out == [1, 3, (2, 2), (4, 5), 6]


def test_however_many_holes_are_settled_at_once_it_is_asked_once_what_failed() -> None:
    asked = []

    def failed() -> int:
        asked.append(1)
        return 0

    eids: Eids[int] = Eids(failed, full=FULL)
    for eid in range(1, 100, 2):
        eids.took(reset=False, after_end=False)
        eids.take(eid, eid, 0)
    eids.move_on(0)
    assert len(asked) == 1


def test_of_very_many_holes_the_oldest_are_told() -> None:
    line = Line(failed=0).take(*range(1, 201, 2))
    line.eids.move_on(0)
    told = [each for each in line.out if isinstance(each, tuple)]
    assert told == [(eid, eid) for eid in range(2, 2 + 2 * (99 - 64), 2)]


# What stood behind a hole


def behind(line: Line) -> Behind:
    line.told.clear()
    assert line.out
    [told] = line.told
    return told.behind


def test_after_a_reset_a_hole_waits_until_the_queue_was_full_behind_it() -> None:
    line = Line(full=200).take(1, *range(3, 3 + 198), reset=True, at_ns=0)
    assert line.out == [1]
    assert line.take(201).out == []
    assert behind(line.take(202)) is Behind.FULL


def test_after_a_reset_a_hole_waits_until_the_queue_has_ended_before() -> None:
    line = Line(full=200).take(1).take(*range(3, 3 + PATIENCE), reset=True)
    assert line.out == [1]
    line.eids.at_end(PATIENCE_NS - 1)  # a device that reads ahead may only be slow
    assert line.out == []
    assert behind(line.take(3 + PATIENCE, after_end=True)) is Behind.LESS
    assert line.told[0].reset


def test_an_end_that_lasts_as_long_as_patience_is_the_queues() -> None:
    line = Line().take(1).take(5, reset=True)
    line.eids.at_end(PATIENCE_NS)
    assert behind(line) is Behind.LESS


def test_an_end_that_was_seen_before_the_hole_says_nothing_of_what_is_behind_it() -> None:
    line = Line().take(1).take(5, reset=True, after_end=True)
    assert behind(line.take(*range(6, 80))) is Behind.FULL


def test_what_came_after_the_end_was_not_behind_the_hole() -> None:
    line = Line().take(1).take(5, reset=True).take(6, after_end=True)
    assert behind(line.take(*range(7, 80))) is Behind.LESS


def test_it_is_the_first_end_behind_a_hole_that_counts() -> None:
    line = Line().take(1).take(5, reset=True)
    line.take(*range(6, 30), after_end=True)
    line.eids.at_end(PATIENCE_NS)
    assert behind(line) is Behind.LESS


@pytest.mark.parametrize("full", [0, 1 << 20])
def test_where_the_length_is_not_known_or_too_large_nothing_is_known(full: int) -> None:
    line = Line(full=full).take(1).take(3, reset=True)
    waits = 4096 if full else PATIENCE
    line.take(*range(4, 2 + waits))
    assert line.out == [1]
    assert behind(line.take(2 + waits)) is Behind.UNKNOWN


def test_a_hole_that_is_given_up_early_is_of_unknown_cause() -> None:
    line = Line().take(1).take(3, reset=True)
    line.eids.release(0, give_up=True)
    assert behind(line) is Behind.UNKNOWN


def test_a_hole_is_given_up_at_the_end_if_nothing_can_come_late() -> None:
    line = Line().take(1).take(3, reset=True)
    line.eids.end(0)
    assert behind(line) is Behind.LESS


def test_a_reset_is_kept_for_the_hole_though_a_late_one_comes_first() -> None:
    line = Line().take(1, 3).take(2, reset=True).take(50)
    line.eids.end(0)
    assert behind(line) is Behind.LESS
    assert line.told[0].reset


def test_a_reset_is_of_the_first_hole_after_it_alone() -> None:
    line = Line().take(1).take(3, reset=True).take(5)
    line.eids.end(0)
    assert line.out
    assert [each.reset for each in line.told] == [True, False]


def test_what_could_not_be_decoded_is_among_what_is_missing() -> None:
    line = Line().take(1)
    for _ in range(3):
        line.eids.took(reset=False, after_end=False)
        line.eids.not_decoded()
    line.take(8, 4)
    assert line.eids.failed_or_late() == 2
    line.eids.end(0)
    assert line.eids.failed_or_late() == 2
    assert line.out == [1, (2, 3), (5, 7), 8, 4]
    assert [each.undecoded for each in line.told] == [2, 1]


def test_what_failed_or_is_late_is_what_was_missed_without_a_reset() -> None:
    line = Line().take(1).take(10, reset=True).take(12, 15)
    assert line.eids.failed_or_late() == 3
    line.eids.end(0)
    assert line.eids.failed_or_late() == 3


# Recordings


def holes(*eids: int, restarts: bool = True) -> list[tuple[int, int]]:
    line = Line(restarts=restarts)
    for eid in eids:
        line.take(eid)
        line.eids.end(0)
    return [each for each in line.out if isinstance(each, tuple)]


@pytest.mark.parametrize(
    ("eids", "missed"),
    [
        ((1, 2, 3), []),
        ((1, 5), [(2, 4)]),
        ((1, 5, 3, 6), [(2, 4)]),  # a late one: no restart, and nothing is missed after 5
        ((1, 3, 2, 4), [(2, 2)]),
        ((1, 5, 1, 2), [(2, 4)]),  # a restart
        ((8, 9, 1, 2, 4), [(3, 3)]),
        ((9, 9, 10), []),  # the same again: a recording that begins again
        ((1, 5, 20, 3, 4), [(2, 4), (6, 19)]),  # out of an older hole
        ((1, 5, 1, 2, 10, 3, 4), [(2, 4), (3, 9)]),
        ((1, 9, 10, 1, 11, 5, 12), [(2, 8), (2, 10)]),
        ((20, 30, 1, 25, 25, 26), [(21, 29), (2, 24)]),  # a hole of the life before is forgotten
        ((1, 2**64 - 1), [(2, 2**64 - 2)]),
        ((1, 3, *range(4, 70), 2, 4), [(2, 2), (3, 3)]),  # far behind it: a restart
    ],
)
def test_which_eids_are_missing(eids: tuple[int, ...], missed: list[tuple[int, int]]) -> None:
    assert holes(*eids) == missed


def test_in_a_known_life_nothing_is_a_restart() -> None:
    assert holes(1, 5, 3, 1, 6, restarts=False) == [(2, 4)]


def test_a_recordings_events_may_be_out_of_order_while_they_are_queued() -> None:
    line = Line(restarts=True).take(1, 4, 2, 3, 5)
    line.eids.end(0)
    assert line.out == [1, 4, 2, 3, 5]


@settings(deadline=None)
@given(st.data())
def test_whatever_comes_out_of_order_comes_out_in_the_queues_order_once(data: Any) -> None:
    come = data.draw(st.lists(st.integers(1, 40), unique=True))
    line = Line(failed=data.draw(st.sampled_from((0, 3, 40))))
    clock = 0
    for eid in come:
        line.take(eid, at_ns=clock, after_end=data.draw(st.booleans()))
        clock += data.draw(st.sampled_from((0, 0, PATIENCE_NS // 2, LAST_PATIENCE_NS // 2)))
        line.eids.at_end(clock)
    line.eids.end(clock)
    out = line.out
    assert [each for each in out if isinstance(each, int)] == come
    told = [eid for each in line.told for eid in range(each.eids.first, each.eids.last + 1)]
    assert len(told) == len(set(told))
    if come:
        posted = set(range(come[0], max(come) + 1)) | set(come)
        assert set(come) | set(told) == posted
        assert len(come) + len(told) - line.eids.late == len(posted)


# Ranges


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ((1, 4), [(5, 7), (10, 10)]),
        ((5, 5), [(6, 7), (10, 10)]),
        ((6, 6), [(5, 5), (7, 7), (10, 10)]),
        ((6, 20), [(5, 5)]),
        ((1, 20), []),
        ((8, 9), [(5, 7), (10, 10)]),
    ],
)
def test_ranges_without_a_range(gone: tuple[int, int], left: list[tuple[int, int]]) -> None:
    assert without([EidRange(5, 7), EidRange(10, 10)], EidRange(*gone)) == left
