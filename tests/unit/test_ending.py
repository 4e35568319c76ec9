"""The signals that end the daemon, from before its loop runs until after it has ended."""

import os
import signal

import pytest
import trio
import trio.testing

from zeventfs.fuse.ending import EndSignals


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_that_came_early_is_not_lost() -> None:
    with EndSignals() as asked:
        send(signal.SIGINT)
        assert trio.run(asked.wait) == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_wait(number: signal.Signals) -> None:
    with EndSignals() as asked, trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                assert await asked.wait() == number

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            send(signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
            assert asked.came is None
            send(number)


def test_asking_again_and_late_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with EndSignals() as asked:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert trio.run(asked.wait) == signal.SIGTERM
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            send(number)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
