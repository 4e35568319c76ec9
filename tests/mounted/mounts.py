"""The fixture `mount`: as many mounts as a test wants, each ended and looked through after it."""

from collections.abc import Iterator, Mapping
from typing import Protocol

import pytest
from mounted_tree import Mounted

__all__ = ["Mount", "mount"]


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
