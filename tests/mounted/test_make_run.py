"""`make run`, as a person has it: events on the terminal until Ctrl-C, and nothing left then."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from conftest import Mount
from mounted_tree import CHECKOUT, Mounted
from programs import Argument, Terminal, run
from waits import until


@pytest.fixture
def to_run(mount: Mount) -> Mounted:
    """A mount that `make run` will make, on a directory that is not there yet."""
    mounted = mount(start=False)
    mounted.point = mounted.base / "made"
    return mounted


def make_run(mounted: Mounted, *more: Argument) -> list[Argument]:
    """Return the command, with this interpreter in the place of the one that is built in .venv."""
    make = shutil.which("make")
    assert make is not None
    venv = mounted.base / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (venv / "built").touch()  # newer than whatever it is made from: nothing is built here
    options = f"OPTIONS=sim.rate=50,log={mounted.log_file}"
    where = f"MOUNTPOINT={mounted.point}"
    return [
        make,
        "-C",
        CHECKOUT,
        "--no-print-directory",
        "run",
        f"VENV={venv}",
        where,
        options,
        *more,
    ]


def assert_nothing_left(mounted: Mounted) -> None:
    until(lambda: not mounted.processes(), "the end of everything")
    assert mounted.info is None
    assert mounted.runtime == []
    assert not mounted.point.exists(), "it made the directory and removes it"


def test_make_run_shows_events_until_ctrl_c(to_run: Mounted) -> None:
    with Terminal(make_run(to_run), to_run.env) as terminal:
        terminal.await_seen('"class":"[a-z]+[.]fs[.]zfs[.]')
        assert str(to_run.point) in terminal.seen.replace(str(CHECKOUT), "")
        assert run(["head", "-n", "5", to_run.path("events/stream")]).stdout.count(b"\n") == 5
        terminal.type("\x03")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.seen
    assert_nothing_left(to_run)


def test_make_run_shows_something_within_seconds_when_nothing_is_asked(to_run: Mounted) -> None:
    with Terminal(make_run(to_run, f"OPTIONS=log={to_run.log_file}"), to_run.env) as terminal:
        terminal.await_seen('"class":"[a-z]+[.]fs[.]zfs[.]', limit=6.0)
        terminal.type("\x03")
        assert terminal.end() == 0
    assert_nothing_left(to_run)


def test_make_run_ends_when_make_is_told_to(to_run: Mounted) -> None:
    program = to_run.program(*make_run(to_run))
    program.await_output('"class":"[a-z]+[.]fs[.]zfs[.]')
    os.kill(program.pid, signal.SIGTERM)
    program.end()
    assert_nothing_left(to_run)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_make_run_ends_at_a_signal_to_its_process_group(to_run: Mounted, name: str) -> None:
    program = to_run.program(*make_run(to_run))
    program.await_output('"class":"[a-z]+[.]fs[.]zfs[.]')
    os.killpg(program.pid, signal.Signals[name])
    program.end()
    assert_nothing_left(to_run)


def test_make_run_ends_when_its_terminal_is_closed(to_run: Mounted) -> None:
    with Terminal(make_run(to_run), to_run.env) as terminal:
        terminal.await_seen('"class":"[a-z]+[.]fs[.]zfs[.]')
        terminal.hang_up()
        until(lambda: not to_run.processes(), "the end of everything")
    assert_nothing_left(to_run)


def test_make_run_takes_a_directory_that_is_there_and_leaves_it(to_run: Mounted) -> None:
    to_run.point.mkdir()
    with Terminal(make_run(to_run), to_run.env) as terminal:
        terminal.await_seen('"class":"[a-z]+[.]fs[.]zfs[.]')
        terminal.type("\x03")
        assert terminal.end() == 0
    until(lambda: not to_run.processes(), "the end of everything")
    assert to_run.point.is_dir()
    assert list(Path(to_run.point).iterdir()) == []
