"""Fixtures for tests on real mounts. Where mounting is impossible these tests fail: none skips."""

import signal
from collections.abc import Iterator, Mapping
from typing import Protocol

import pytest
from mounted_tree import Mounted

# What a script starts in its background ignores these, a whole suite in CI for one, and what the
# suite starts would ignore them too: no Ctrl-C would end a blocked reader.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class Mount(Protocol):
    """Mounts a source and gives the mount; `start=False` leaves the start to the test."""

    def __call__(
        self,
        *options: str,
        source: str = "sim",
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> Mounted: ...


@pytest.fixture
def mount() -> Iterator[Mount]:
    made: list[Mounted] = []

    def factory(
        *options: str,
        source: str = "sim",
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> Mounted:
        quiet = ("sim.rate=0",) if source == "sim" else ()
        mounted = Mounted(source, [*quiet, *options], env)
        made.append(mounted)
        if start:
            mounted.start()
        return mounted

    yield factory
    problems = []
    for mounted in made:
        try:
            mounted.finish()
        except AssertionError as problem:
            problems.append(str(problem))
    assert not problems, "\n".join(problems)


@pytest.fixture
def mounted(mount: Mount) -> Mounted:
    """Mount the simulator, silent but for what the test injects."""
    return mount()
