"""Every wait at a bell is ended by a ring, by `end` or by cancellation, and by nothing else."""

import pytest
import trio
import trio.testing

from zeventfs.bell import Bell


class Cause(Exception):
    pass


async def test_a_ring_wakes_all_that_wait_and_only_them() -> None:
    bell = Bell()
    woken = []

    async def waiter(name: str) -> None:
        await bell.wait()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(waiter, name)
        await trio.testing.wait_all_tasks_blocked()
        assert len(bell) == 2
        bell.ring()
        assert len(bell) == 0
        nursery.start_soon(waiter, "late")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == ["a", "b"]
        bell.ring()
    assert woken[-1] == "late"


async def test_a_ring_with_nobody_there_is_not_remembered() -> None:
    bell = Bell()
    bell.ring()
    with trio.move_on_after(0) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_a_cancelled_wait_is_gone() -> None:
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(bell) == 0
    bell.ring()


async def test_a_wait_that_was_rung_and_then_cancelled_ends_once() -> None:
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
        nursery.cancel_scope.cancel()


async def test_end_raises_in_one_task_alone() -> None:
    bell = Bell()
    tasks: list[trio.lowlevel.Task] = []
    ended = []

    async def waiter() -> None:
        tasks.append(trio.lowlevel.current_task())
        try:
            await bell.wait()
        except Cause as cause:
            ended.append(cause)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(waiter)
        await trio.testing.wait_all_tasks_blocked()
        cause = Cause()
        bell.end(tasks[0], cause)
        bell.end(tasks[0], Cause())  # waits no more: nothing happens
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [cause]
        assert len(bell) == 1
        bell.ring()
        bell.end(tasks[1], Cause())
    assert ended == [cause]


async def test_calls_are_made_once_the_newest_for_each_key() -> None:
    bell = Bell()
    calls: list[str] = []
    bell.call("reader", lambda: calls.append("old"))
    bell.call("reader", lambda: calls.append("new"))
    bell.call("other", lambda: calls.append("other"))
    bell.forget("other")
    bell.forget("nobody")
    bell.ring()
    bell.ring()
    assert calls == ["new"]


async def test_a_call_may_ask_for_the_next_ring() -> None:
    bell = Bell()
    calls: list[int] = []

    def again() -> None:
        calls.append(len(calls))
        bell.call("reader", again)

    again()
    bell.ring()
    bell.ring()
    assert calls == [0, 1, 2]


async def test_tasks_are_woken_whatever_a_call_does() -> None:
    bell = Bell()

    def fail() -> None:
        raise Cause

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.wait)
        await trio.testing.wait_all_tasks_blocked()
        bell.call("reader", fail)
        with pytest.raises(Cause):
            bell.ring()
