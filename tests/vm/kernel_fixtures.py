"""Fixtures of the kernel suite: ZFS's module as it was before, pools, mounts of source `zfs`.

They are for a machine of one's own (see run_in_machine.py): they load modules and clear the
kernel's queue.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pytest
from kernel_queue import clear, set_parameter
from mounted_tree import Mounted
from mounts import Mount, mount
from pools_on_files import FilePool
from programs import run

__all__ = [
    "FIGURES",
    "Figure",
    "MakePool",
    "Mount",
    "expected",
    "figure",
    "kernel",
    "make_pool",
    "mount",
    "mounted",
    "pool",
]

FIGURES: list[tuple[str, str]] = []  # test, sentence

Figure = Callable[[str], None]

DEFAULTS = {"zfs_zevent_len_max": 512, "zfs_zevent_retain_max": 2000}


class MakePool(Protocol):
    """Creates a pool; see FilePool."""

    def __call__(self, layout: str = "0", *, names: str = "{}") -> FilePool: ...


@pytest.fixture
def expected() -> Sequence[str]:
    """What a machine that is emulated on a busy host says when it is too slow."""
    return "events come faster than they are taken in", "zpool .* gave no answer in"


@pytest.fixture(autouse=True)
def kernel() -> Iterator[None]:
    """The module, loaded, with its defaults, nothing injected and nothing queued."""
    assert run(["modprobe", "zfs"]).returncode == 0
    for name, value in DEFAULTS.items():
        set_parameter(name, value)
    clear()
    yield
    run(["zinject", "-c", "all"])


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Note a sentence with what was measured, to be shown after the suite."""
    return lambda sentence: FIGURES.append((request.node.name, sentence))


@pytest.fixture
def make_pool(kernel: None) -> Iterator[MakePool]:  # noqa: ARG001 - pools need the module
    made: list[FilePool] = []

    def factory(layout: str = "0", *, names: str = "{}") -> FilePool:
        pool = FilePool(layout, names=names)
        made.append(pool)
        pool.create()
        return pool

    yield factory
    for each in made:
        each.destroy()


@pytest.fixture
def pool(make_pool: MakePool) -> FilePool:
    """A pool of one disk."""
    return make_pool()


@pytest.fixture
def mounted(mount: Mount, kernel: None) -> Mounted:  # noqa: ARG001 - the module comes first
    """Mount the kernel's events."""
    return mount(source="zfs")
