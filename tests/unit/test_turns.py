import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from zeventfs.fuse.turns import Turn, trio_with_turns


async def test_one_task_at_a_time_has_the_turn_and_the_last_to_come_is_next() -> None:
    turn = Turn()
    order: list[int] = []

    async def take(number: int) -> None:
        async with turn:
            order.append(number)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery, turn:
        for number in range(3):
            nursery.start_soon(take, number)
            await wait_all_tasks_blocked()
        assert order == []
    assert order == [2, 1, 0]
    async with turn:
        order.append(3)


async def test_who_comes_back_within_its_step_keeps_the_turn() -> None:
    turn = Turn()
    order: list[str] = []

    async def other() -> None:
        async with turn:
            order.append("other")

    async with trio.open_nursery() as nursery:
        async with turn:
            nursery.start_soon(other)
            await wait_all_tasks_blocked()
        async with turn:
            order.append("same")
    assert order == ["same", "other"]


async def test_a_cancelled_wait_leaves_the_turn_to_the_others() -> None:
    turn = Turn()
    had: list[str] = []

    async def take() -> None:
        async with turn:
            had.append("turn")

    async with trio.open_nursery() as nursery, turn:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            async with turn:
                had.append("cancelled")
    assert had == ["turn"]


async def test_an_error_of_the_holder_passes_the_turn_on() -> None:
    turn = Turn()
    with pytest.raises(ZeroDivisionError):
        async with turn:
            _ = 1 / 0
    async with turn:
        pass


def test_everything_else_is_trios() -> None:
    assert trio_with_turns.Lock is Turn
    assert trio_with_turns.open_nursery is trio.open_nursery
    assert trio_with_turns.lowlevel is trio.lowlevel
