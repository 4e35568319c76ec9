"""The fixture `mount`: as many mounts as a test wants, each ended and looked through after it.

`expected` are patterns of complaints that no mount's log is searched for; a suite may have its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import pytest
from mounted_tree import Mounted

__all__ = ["Mount", "expected", "mount"]


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
def expected() -> Sequence[str]:
    return ()


@pytest.fixture
def mount(expected: Sequence[str]) -> Iterator[Mount]:
    made: list[Mounted] = []

    def factory(
        *options: str,
        source: str = "sim",
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> Mounted:
        quiet = ("sim.rate=0",) if source == "sim" else ()
        mounted = Mounted(source, [*quiet, *options], env)
        for pattern in expected:
            mounted.expects(pattern)
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
