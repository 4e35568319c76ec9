"""What a mount has of mapped devices, as its Config asks: the host's, the simulator's, or none.

There is one dm/ for a mount: with the host's devices there are no simulated ones.
"""

from collections.abc import Callable

from zeventfs.config import Config
from zeventfs.errors import MountFailed
from zeventfs.event import Event
from zeventfs.simulator.dm.mapped import SimulatedMapped
from zeventfs.sources.dm.kernel import KernelDeviceMapper, preflight
from zeventfs.sources.dm.source import DmSource

__all__ = ["host_devices", "simulated_devices"]

Post = Callable[[Event], object]
Clock = Callable[[], int]


def host_devices(config: Config, post: Post, clock_ns: Clock) -> DmSource | None:
    """The host's; None if *config* has no source `dm`. MountFailed where they can't be watched."""
    if "dm" not in config.sources:
        return None
    missing = preflight()
    if missing is not None:
        raise MountFailed(f"source dm: {missing}")
    return DmSource("dm", KernelDeviceMapper(), post, clock_ns)


def simulated_devices(
    config: Config, post: Post, clock_ns: Clock, rate: Callable[[], float]
) -> SimulatedMapped | None:
    """The simulator's; None if it doesn't run, or the host's are shown."""
    if "sim" not in config.sources or "dm" in config.sources:
        return None
    return SimulatedMapped(post, clock_ns, config.sim_seed, rate)
