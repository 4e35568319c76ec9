"""A story at its pace, and what changes it; trio's clock jumps."""

# ruff: noqa: ARG001 - the clock jumps because a test has it as an argument

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from zeventfs.errors import Invalid
from zeventfs.nvlist import decode
from zeventfs.simulator import teller as module
from zeventfs.simulator.teller import Teller
from zeventfs.simulator.zfs import ZfsDevice

NOW = 1_700_000_000_000_000_000
SHORT = b'{"pools": {"p": {"disks": ["/dev/a"]}}, "opening": [{"acts": [{"act": "snapshot"}]}]}'


class Telling:
    """A teller into a device; `posted` is when which event came, in seconds."""

    def __init__(self, scenario: str = "tank", seed: int = 0, rate: float = 2.0) -> None:
        self.device = ZfsDevice(lambda: NOW, len_max=100_000)
        self.teller = Teller(self.device, lambda: NOW, scenario, seed, rate)
        self.begun = trio.current_time()
        self.times: list[float] = []
        self.device.subscribe(lambda: self.times.append(round(trio.current_time() - self.begun, 6)))

    def pools(self) -> list[Any]:
        cursor = self.device.open()
        events = [
            decode(cursor.next(nonblock=True, size=6144).packed) for _ in range(len(self.device))
        ]
        return [event.get("pool") for event in events]


@asynccontextmanager
async def running(telling: Telling) -> AsyncIterator[Telling]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(telling.teller.run)
        yield telling
        nursery.cancel_scope.cancel()


async def test_events_come_at_the_rate_the_first_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Telling(rate=4)) as telling:
        await trio.sleep(1.01)
    assert telling.times == [0, 0.25, 0.5, 0.75, 1]


async def test_another_rate_holds_for_the_wait_that_has_begun(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Telling(rate=0.1)) as telling:
        await trio.sleep(5)
        telling.teller.change_rate(1)  # half an interval is left
        await trio.sleep(1.6)
        assert telling.times == [0, 5.5, 6.5]
        telling.teller.change_rate(0)
        await trio.sleep(1000)
        assert len(telling.times) == 3
        assert b"state=stopped" in telling.teller.show_scenario()
        telling.teller.change_rate(1)
        await trio.sleep(0.95)
        assert telling.times == [0, 5.5, 6.5, 1007.5]


async def test_without_a_rate_nothing_comes_until_there_is_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Telling(rate=0)) as telling:
        await trio.sleep(100)
        assert telling.times == []
        telling.teller.change_rate(10)
        await trio.sleep(0.11)
        assert len(telling.times) >= 1


async def test_a_seed_begins_the_story_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Telling(rate=1)) as telling:
        await trio.sleep(3.5)
        telling.teller.change_seed(7)
        await trio.sleep(0.1)
        assert telling.times == [0, 1, 2, 3, 3.5]
        assert telling.teller.seed == 7


async def test_another_scenario_begins_at_once_and_the_old_one_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Telling(rate=1)) as telling:
        await trio.sleep(1.5)
        telling.teller.change_scenario(SHORT)
        await trio.sleep(50)
        assert telling.pools() == ["tank", "tank", "p"]
        assert telling.teller.show_scenario() == (
            b"scenario=(written)\nstate=over\npools=p\n"
            b"available=checksums dying pools scrubs slow snapshots storm suspended tank\n"
        )
        telling.teller.change_scenario(b" dying\n")
        await trio.sleep(2.1)
        assert len(telling.times) == 3 + 3
        assert telling.teller.show_scenario().startswith(b"scenario=dying\nstate=telling\n")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (b"quux", "there is no scenario 'quux': checksums"),
        (b"\xff\n", "there is no scenario"),
        (b"/etc/passwd", "not the path of a file"),
        (b'{"pools": 3}', "Expected `object`"),
        (b"", "there is no scenario"),
    ],
)
async def test_a_wrong_one_is_refused_and_the_story_goes_on(
    autojump_clock: trio.testing.MockClock, written: bytes, reason: str
) -> None:
    async with running(Telling(rate=1)) as telling:
        await trio.sleep(1.5)
        shown = telling.teller.show_scenario()
        with pytest.raises(Invalid, match=reason):
            telling.teller.change_scenario(written)
        await trio.sleep(1)
        assert telling.times == [0, 1, 2]
        assert telling.teller.show_scenario() == shown


async def test_a_burst_can_be_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    telling = Telling("storm", rate=1)

    def leave() -> None:
        if len(telling.times) == 40:
            telling.teller.change_scenario(SHORT)

    telling.device.subscribe(leave)
    async with running(telling):
        await trio.sleep(20)
    assert telling.pools() == ["tank"] * 40 + ["p"]


async def test_what_is_late_by_more_than_a_second_is_not_made_up_for(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with running(Telling(rate=10)) as telling:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(100)
        await trio.testing.wait_all_tasks_blocked()
        assert 10 <= len(telling.times) <= 13


async def test_a_bug_in_the_story_is_logged_and_the_next_one_is_told(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def break_off(*_: object) -> Iterator[Any]:
        yield from ()
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(module, "tell", break_off)
        telling = Telling()
    async with running(telling):
        await trio.sleep(1)
        assert telling.times == []
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert b"state=broken" in telling.teller.show_scenario()
        telling.teller.change_rate(1)
        await trio.sleep(1)
        assert telling.times == []
        telling.teller.change_seed(1)
        await trio.sleep(0.1)
        assert telling.times == [2]
