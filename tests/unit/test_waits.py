"""Every blocked request ends: by its answer, a signal, the mount's end, the limit, cancellation."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from zeventfs.bell import Bell
from zeventfs.errors import Closing, Interrupted, TooMany, WouldBlock
from zeventfs.fuse.waits import Waits

UNIQUE = 7


class Reader:
    """A request that waits, and how it ended."""

    def __init__(self, waits: Waits, bell: Bell, unique: int = UNIQUE) -> None:
        self.waits = waits
        self.bell = bell
        self.unique = unique
        self.queue: list[bytes] = []
        self.attempts = 0
        self.ended: bytes | Exception | None = None

    def attempt(self) -> bytes | None:
        self.attempts += 1
        return self.queue.pop(0) if len(self.queue) else None

    async def run(self) -> None:
        try:
            self.ended = await self.waits.until(self.unique, self.bell, self.attempt)
        except Exception as error:  # noqa: BLE001 - the tests look which
            self.ended = error


async def blocked(nursery: trio.Nursery, reader: Reader) -> Reader:
    nursery.start_soon(reader.run)
    await trio.testing.wait_all_tasks_blocked()
    return reader


async def test_a_ring_ends_the_wait_when_there_is_an_answer() -> None:
    waits, bell = Waits(10), Bell()
    async with trio.open_nursery() as nursery:
        reader = await blocked(nursery, Reader(waits, bell))
        assert reader.attempts == 0, "who calls has tried already"
        bell.ring()
        await trio.testing.wait_all_tasks_blocked()
        assert reader.attempts == 1
        assert len(waits) == len(bell) == 1
        reader.queue.append(b"event")
        bell.ring()
    assert reader.ended == b"event"
    assert len(waits) == len(bell) == 0


async def test_an_interrupt_ends_that_wait_alone() -> None:
    waits, bell = Waits(10), Bell()
    async with trio.open_nursery() as nursery:
        killed = await blocked(nursery, Reader(waits, bell))
        other = await blocked(nursery, Reader(waits, bell, UNIQUE + 1))
        waits.interrupt(UNIQUE)
        waits.interrupt(UNIQUE)  # the kernel says it again while the answer is on its way
        waits.interrupt(999)  # nobody's
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(killed.ended, Interrupted)
        assert other.ended is None
        assert len(waits) == len(bell) == 1
        other.queue.append(b"event")
        bell.ring()
    assert other.ended == b"event"


async def test_an_interrupt_between_two_waits_is_not_lost() -> None:
    waits, bell = Waits(10), Bell()
    async with trio.open_nursery() as nursery:
        reader = await blocked(nursery, Reader(waits, bell))
        bell.ring()  # for nothing; the reader is on its way to look, and waits nowhere
        waits.interrupt(UNIQUE)
    assert isinstance(reader.ended, Interrupted)
    assert reader.attempts == 1


async def test_an_answer_found_before_the_interrupt_was_noticed_is_given() -> None:
    waits, bell = Waits(10), Bell()
    async with trio.open_nursery() as nursery:
        reader = await blocked(nursery, Reader(waits, bell))
        reader.queue.append(b"event")
        bell.ring()
        waits.interrupt(UNIQUE)
    assert reader.ended == b"event", "taken off the queue, it must not be thrown away"


async def test_an_interrupt_just_before_a_ring_is_not_lost() -> None:
    waits, bell = Waits(10), Bell()
    async with trio.open_nursery() as nursery:
        reader = await blocked(nursery, Reader(waits, bell))
        waits.interrupt(UNIQUE)
        reader.queue.append(b"event")
        bell.ring()
    assert isinstance(reader.ended, Interrupted)
    assert reader.queue == [b"event"], "the event stays for the next read"


async def test_an_interrupt_after_the_end_of_a_wait_is_nothing() -> None:
    waits, bell = Waits(10), Bell()
    async with trio.open_nursery() as nursery:
        reader = await blocked(nursery, Reader(waits, bell))
        reader.queue.append(b"event")
        bell.ring()
    waits.interrupt(UNIQUE)
    async with trio.open_nursery() as nursery:
        again = await blocked(nursery, Reader(waits, bell))
        again.queue.append(b"next")
        bell.ring()
    assert again.ended == b"next"


@pytest.mark.parametrize("rung", [False, True])
async def test_the_end_ends_all_waits_those_between_two_rings_too(*, rung: bool) -> None:
    waits, bell, other_bell = Waits(10), Bell(), Bell()
    async with trio.open_nursery() as nursery:
        readers = [
            await blocked(nursery, Reader(waits, each, number))
            for number, each in enumerate((bell, bell, other_bell))
        ]
        if rung:
            bell.ring()
        waits.end()
    assert all(isinstance(reader.ended, Closing) for reader in readers)
    assert len(waits) == len(bell) == len(other_bell) == 0


async def test_no_wait_begins_after_the_end() -> None:
    waits, bell = Waits(10), Bell()
    waits.end()
    reader = Reader(waits, bell)
    await reader.run()
    assert isinstance(reader.ended, Closing)


async def test_cancellation_leaves_nothing() -> None:
    waits, bell = Waits(10), Bell()
    async with trio.open_nursery() as nursery:
        reader = await blocked(nursery, Reader(waits, bell))
        nursery.cancel_scope.cancel()
    assert len(waits) == len(bell) == 0
    assert reader.ended is None


async def test_past_the_limit_a_wait_is_refused_at_once_and_later_taken_again() -> None:
    waits, bell = Waits(2), Bell()
    async with trio.open_nursery() as nursery:
        readers = [await blocked(nursery, Reader(waits, bell, unique)) for unique in range(2)]
        third = Reader(waits, bell, 3)
        with trio.fail_after(0):
            await third.run()
        assert isinstance(third.ended, TooMany)
        assert isinstance(third.ended, WouldBlock), "EAGAIN"
        waits.interrupt(0)
        await trio.testing.wait_all_tasks_blocked()
        third = await blocked(nursery, Reader(waits, bell, 3))
        assert third.ended is None
        for reader in (*readers, third):
            reader.queue.append(b"event")
        bell.ring()
    assert third.ended == b"event"


async def test_the_kernels_limit_ends_a_wait_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    del autojump_clock
    waits, bell = Waits(10, longest_s=50.0), Bell()
    reader = Reader(waits, bell)
    began = trio.current_time()
    await reader.run()
    assert isinstance(reader.ended, WouldBlock)
    assert trio.current_time() - began == pytest.approx(50.0)
    assert len(waits) == len(bell) == 0


@pytest.mark.parametrize("end", [lambda waits: waits.interrupt(UNIQUE), lambda waits: waits.end()])
async def test_with_the_kernels_limit_the_other_ends_work_too(
    end: Callable[[Waits], Any],
) -> None:
    waits, bell = Waits(10, longest_s=50.0), Bell()
    async with trio.open_nursery() as nursery:
        reader = await blocked(nursery, Reader(waits, bell))
        end(waits)
    assert isinstance(reader.ended, Interrupted | Closing)
    again = Reader(Waits(10, longest_s=50.0), bell)
    async with trio.open_nursery() as nursery:
        await blocked(nursery, again)
        again.queue.append(b"event")
        bell.ring()
    assert again.ended == b"event"


async def test_what_attempt_raises_ends_the_wait() -> None:
    waits, bell = Waits(10), Bell()
    reader = Reader(waits, bell)
    reader.queue = None  # type: ignore[assignment]  # a bug
    async with trio.open_nursery() as nursery:
        await blocked(nursery, reader)
        bell.ring()
    assert isinstance(reader.ended, TypeError)
    assert len(waits) == 0
