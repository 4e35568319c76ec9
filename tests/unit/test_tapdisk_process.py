"""A process that was spawned, or found: its first line, its end, and what may be sent to it."""

import os
import signal
import subprocess

import pytest
import trio

from zeventfs.sources.tapdisk.process import Process, read_line, spawn
from zeventfs.vbd.facts import Exited


async def test_a_spawned_one_says_a_line_and_ends() -> None:
    process, reading = spawn(["sh", "-c", "echo ready; echo more; exit 3"])
    assert await read_line(reading) == "ready"
    assert await process.wait() == Exited(code=3)
    assert process.over.is_set()
    assert process.look() == Exited(code=3)
    process.send_signal(signal.SIGKILL)  # nobody any more
    process.close()
    process.close()


async def test_one_that_says_less_than_a_line_has_said_that() -> None:
    process, reading = spawn(["sh", "-c", "printf half; exit 0"])
    assert await read_line(reading) == "half"
    assert await process.wait() == Exited(code=0)
    process.close()


async def test_what_it_prints_later_breaks_nothing_and_its_session_is_its_own() -> None:
    process, reading = spawn(["sh", "-c", "echo ready; sleep 0.1; echo later || exit 9; exit 5"])
    assert await read_line(reading) == "ready"
    assert os.getsid(process.pid) == process.pid
    assert await process.wait() == Exited(code=5)
    process.close()


async def test_a_signal_that_ends_it_is_known() -> None:
    process, reading = spawn(["sleep", "100"])
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == Exited(signal=signal.SIGTERM)
    os.close(reading)
    process.close()


def test_one_is_ended_at_once() -> None:
    async def main() -> None:
        process, reading = spawn(["sleep", "100"])
        process.send_signal(signal.SIGSTOP)
        process.end()
        assert process.exited == Exited(signal=signal.SIGKILL)
        process.end()
        os.close(reading)
        process.close()

    trio.run(main)


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["no-such-program-at-all"])


def test_one_that_cannot_be_watched_is_not_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def refuse(pid: int) -> int:
        started.append(pid)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        spawn(["sleep", "100"])
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


async def test_of_one_that_was_found_only_the_end_is_known() -> None:
    with subprocess.Popen(["sleep", "100"]) as child:  # noqa: ASYNC220 - ended here
        process = Process(child.pid)
        assert process.look() is None
        child.kill()
        assert await process.wait() == Exited()
        process.close()
    with pytest.raises(ProcessLookupError):
        Process(child.pid)
