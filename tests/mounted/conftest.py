"""Fixtures for tests on real mounts. Where mounting is impossible these tests fail: none skips."""

import signal

import pytest
from mounted_tree import Mounted
from mounts import Mount, expected, mount

__all__ = ["Mount", "expected", "mount", "mounted"]

# What a script starts in its background ignores these, a whole suite in CI for one, and what the
# suite starts would ignore them too: no Ctrl-C would end a blocked reader.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup(1) has it ignored


@pytest.fixture
def mounted(mount: Mount) -> Mounted:
    """Mount the simulator, silent but for what the test injects."""
    return mount()
