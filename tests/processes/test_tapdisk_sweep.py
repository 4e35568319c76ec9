"""Many tapdisks asked at once: each has its own answer, and the slowest delays only the end."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from simulated_tapdisk import Simulated, Tapdisks

from zeventfs.tapdisk.client import Gone, Hangs, Tapdisk
from zeventfs.tapdisk.protocol import Lied, Listed, Partial, ask_list, ask_pid
from zeventfs.tapdisk.sweep import sweep

LONG_S = 20


@pytest.fixture
def tapdisks(tmp_path: Path) -> Iterator[Tapdisks]:
    with Tapdisks(tmp_path) as started:
        yield started


async def answered(simulated: list[Simulated], limit_s: float = LONG_S) -> list[object]:
    asked = [Tapdisk(each.path) for each in simulated]
    answers = await sweep(asked, ask_pid(), limit_s)
    assert answers.keys() == set(asked)
    return [answers[each] for each in asked]


async def test_each_answers_for_itself(tapdisks: Tapdisks) -> None:
    started = [tapdisks.start() for _ in range(5)]
    assert await answered(started) == [each.pid for each in started]


async def test_more_are_asked_than_have_a_turn_at_once(tapdisks: Tapdisks) -> None:
    simulated = tapdisks.start()
    simulated.mark(3)
    asked = [Tapdisk(simulated.path) for _ in range(20)]  # a backlog is 32
    await asked[0].attach(3)
    answers = await sweep(asked, ask_list(), LONG_S)
    assert list(answers.values()) == [(Listed(3, 0, ""),)] * 20


async def test_what_one_does_is_no_harm_to_others(tapdisks: Tapdisks) -> None:
    started = [tapdisks.start() for _ in range(5)]
    good, silent, lies, half, dead = started
    silent.tell("silent")
    lies.tell("wrong type")
    half.tell("partial 200")
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    pid, *errors = await answered(started, limit_s=0.3)
    assert pid == good.pid
    assert [type(error) for error in errors] == [Hangs, Lied, Partial, Gone]


async def test_one_that_is_full_hangs(tapdisks: Tapdisks) -> None:
    simulated = tapdisks.start()
    simulated.process.send_signal(signal.SIGSTOP)
    answers = await sweep([Tapdisk(simulated.path) for _ in range(60)], ask_pid(), 0.2)
    assert {str(answer) for answer in answers.values()} == {
        "as many connections wait as can",
        "no answer to pid within 0.2 s",
    }


async def test_one_that_is_being_asked_is_left_out_and_turns_are_given_back(
    tapdisks: Tapdisks,
) -> None:
    busy, free = tapdisks.start(), tapdisks.start()
    busy.tell("list: slow 0.3")
    asked = [Tapdisk(each.path) for each in (busy, free)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked[0].list)
        await trio.testing.wait_all_tasks_blocked()
        assert await sweep(asked, ask_pid(), LONG_S) == {asked[1]: free.pid}
    assert await sweep(asked, ask_pid(), LONG_S) == {asked[0]: busy.pid, asked[1]: free.pid}


async def test_a_cancelled_sweep_gives_its_turns_back(tapdisks: Tapdisks) -> None:
    simulated = tapdisks.start()
    simulated.tell("list: silent")
    tapdisk = Tapdisk(simulated.path)
    with trio.move_on_after(0.1):
        await sweep([tapdisk], ask_list(), LONG_S)
    assert await tapdisk.pid() == simulated.pid
