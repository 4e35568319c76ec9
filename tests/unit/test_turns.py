import os
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from zeventfs.fuse.turns import MOST_AT_ONCE, Readable, Turn, trio_with_turns


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
    assert trio_with_turns.lowlevel.checkpoint is trio.lowlevel.checkpoint
    assert trio_with_turns.lowlevel.wait_readable is not trio.lowlevel.wait_readable


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_what_is_there_is_taken_without_a_turn_of_the_loop_up_to_a_number(
    pipe: tuple[int, int],
) -> None:
    os.write(pipe[1], b"x")
    readable, taken = Readable(), 0
    with trio.CancelScope() as scope:
        scope.cancel()  # is noticed at the first checkpoint
        for _ in range(2 * MOST_AT_ONCE):
            await readable.wait(pipe[0])
            taken += 1
    assert taken == MOST_AT_ONCE


async def test_after_a_turn_of_the_loop_it_begins_anew(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    readable, taken = Readable(), 0
    for _ in range(MOST_AT_ONCE + 1):
        await readable.wait(pipe[0])
    with trio.CancelScope() as scope:
        scope.cancel()
        for _ in range(2 * MOST_AT_ONCE):
            await readable.wait(pipe[0])
            taken += 1
    assert taken == MOST_AT_ONCE


async def test_what_is_not_there_yet_is_waited_for(pipe: tuple[int, int]) -> None:
    readable = Readable()
    had: list[bytes] = []

    async def take() -> None:
        await readable.wait(pipe[0])
        had.append(os.read(pipe[0], 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        assert had == []
        os.write(pipe[1], b"x")
    assert had == [b"x"]


async def test_another_descriptor_is_looked_at_itself(pipe: tuple[int, int]) -> None:
    readable = Readable()
    os.write(pipe[1], b"x")
    await readable.wait(pipe[0])
    other = os.pipe()
    try:
        with trio.move_on_after(0) as scope:
            await readable.wait(other[0])
        assert scope.cancelled_caught
    finally:
        for end in other:
            os.close(end)
