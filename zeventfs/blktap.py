"""What a mount has of VBDs, as its Config asks: the host's tapdisks, the simulator's, or none.

A VBD's name is its minor, so there is one control directory for a mount: with the host's tapdisks
there are no simulated ones.
"""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zeventfs.config import Config
from zeventfs.event import Event
from zeventfs.simulator.vbds import SimulatedVbds
from zeventfs.sources.tapdisk.vbds import Settings, TapdiskSource

__all__ = ["PLACE", "host_tapdisks", "simulated_vbds"]

PLACE: Final = "tapdisk"  # of the simulated ones, in the runtime directory

Post = Callable[[Event], object]
Clock = Callable[[], int]


def host_tapdisks(config: Config, post: Post, clock_ns: Clock) -> TapdiskSource | None:
    """The host's, watched or driven; None if *config* has no source `tapdisk`."""
    if "tapdisk" not in config.sources:
        return None
    _raise_limit()
    settings = Settings(
        directory=config.tapdisk_dir,
        poll_s=config.tapdisk_poll,
        command=(os.environ.get("TAPDISK") or "tapdisk", "-D") if config.tapdisk_control else None,
    )
    return TapdiskSource("tapdisk", settings, post, clock_ns)


def simulated_vbds(
    config: Config, runtime: Path, post: Post, clock_ns: Clock, rate: Callable[[], float]
) -> SimulatedVbds | None:
    """The simulator's, in *runtime*; None if it doesn't run, or the host's are shown. OSError."""
    if "sim" not in config.sources or "tapdisk" in config.sources:
        return None
    return SimulatedVbds(runtime / PLACE, post, clock_ns, config.sim_seed, rate)


def _raise_limit() -> None:
    """Have as many descriptors as are permitted: a tapdisk has one always, and one while asked."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
