"""Work in turns: all of it is done, a turn's worth at once, and nothing is due idly."""

import pytest
from source_clock import Clock

from zeventfs.sources.turns import Turns


class Work:
    """Steps that are left, and when there will be more that nobody announces."""

    def __init__(self, clock: Clock, *, in_turns: bool = True) -> None:
        self.left = 0
        self.done = 0
        self.due_ns: int | None = None
        self.clock = clock
        later = clock.later if in_turns else None
        self.turns = Turns(self.step, lambda: self.due_ns, later, clock)

    def step(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.done += 1
        self.turns.go()  # what a step causes is not done within it
        return True


@pytest.fixture
def work() -> Work:
    return Work(Clock())


def test_little_work_is_done_at_once(work: Work) -> None:
    work.left = 100
    work.turns.go()
    assert (work.left, work.clock.due) == (0, [])


def test_much_work_is_done_in_turns_one_of_which_is_due(work: Work) -> None:
    work.left = 1000
    work.turns.go()
    worked = [work.done]
    while work.clock.due:
        assert len(work.clock.due) == 1
        work.turns.go()
        work.clock.turn()
        worked.append(work.done)
    assert worked == [128, 256, 384, 512, 640, 768, 896, 1000]


def test_without_later_all_is_done_at_once() -> None:
    work = Work(Clock(), in_turns=False)
    work.left, work.due_ns = 1000, 5
    work.turns.go()
    assert (work.left, work.clock.due) == (0, [])


def test_so_many_steps_may_be_asked_for_while_a_turn_is_due(work: Work) -> None:
    work.left = 1000
    work.turns.go()
    work.turns.do(500)
    assert work.done == 628
    assert len(work.clock.due) == 1


def test_an_alarm_comes_when_it_is_due_and_one_at_a_time(work: Work) -> None:
    work.due_ns = work.clock.now_ns + 7
    work.turns.go()
    work.turns.go()
    [(due_ns, _, _)] = work.clock.due
    assert due_ns == work.due_ns
    work.left, work.due_ns = 3, None
    work.clock.advance(7)
    assert (work.done, work.clock.due) == (3, [])


def test_an_alarm_is_set_again_for_an_earlier_time_alone(work: Work) -> None:
    begun = work.clock.now_ns
    for due_ns in (9, 20, 7, 8):
        work.due_ns = begun + due_ns
        work.turns.go()
    assert sorted(due_ns - begun for due_ns, _, _ in work.clock.due) == [7, 9]
    work.due_ns = begun + 20
    work.clock.advance(9)
    assert [due_ns - begun for due_ns, _, _ in work.clock.due] == [20]


def test_an_alarm_that_is_late_comes_next(work: Work) -> None:
    work.due_ns = work.clock.now_ns - 7
    work.turns.go()
    [(due_ns, _, _)] = work.clock.due
    assert due_ns == work.clock.now_ns


def test_while_a_turn_is_due_no_alarm_is(work: Work) -> None:
    work.left, work.due_ns = 200, work.clock.now_ns + 7
    work.turns.go()
    [(due_ns, _, _)] = work.clock.due
    assert due_ns == work.clock.now_ns
    work.clock.turn()
    [(due_ns, _, _)] = work.clock.due
    assert due_ns == work.due_ns


def test_a_step_that_fails_ends_its_turn_alone(work: Work) -> None:
    step, work.turns._step = work.turns._step, lambda: 1 // 0 > 0
    with pytest.raises(ZeroDivisionError):
        work.turns.go()
    work.turns._step = step
    work.left = 3
    work.turns.go()
    assert work.done == 3
