"""The ZFS events of a mount, as its Config asks: which sources there are, and what feeds them.

Whatever stands behind a source (the kernel's device, the simulator's, a recording), it is drained
by the same code into the same journal.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import trio

from zeventfs.config import Config, read_sim_rate, read_sim_seed
from zeventfs.errors import Invalid, MountFailed
from zeventfs.event import Event
from zeventfs.nodes.simulator import Setting
from zeventfs.nvlist import Type
from zeventfs.pools.pools import Pools
from zeventfs.simulator.inject import MAX_BYTES
from zeventfs.simulator.inject import events as injected
from zeventfs.simulator.teller import Teller
from zeventfs.simulator.zfs import ZfsDevice
from zeventfs.sources.device import Device
from zeventfs.sources.kernel import module
from zeventfs.sources.kernel.device import KernelDevice
from zeventfs.sources.kernel_pools import ZPOOL_PATH, KernelPools
from zeventfs.sources.player import play
from zeventfs.sources.position import Position
from zeventfs.sources.replay import ReplayDevice
from zeventfs.sources.status import SourceStatus, source_names
from zeventfs.sources.zfs import ZfsSource

__all__ = ["SimulatedZfs", "ZfsEvents", "kernel_pools", "module_version"]

log = logging.getLogger(__name__)

_RECORDED: Final = "2.1.11"  # whose events were recorded; the simulator's are like them
_AT_ONCE: Final = 32  # events posted before others get a turn

Post = Callable[[Event], int]
Clock = Callable[[], int]


def kernel_pools(config: Config, pools: Pools, clock_ns: Clock) -> KernelPools | None:
    """Who asks the kernel about *pools*; None if *config* has no source `zfs`."""
    if "zfs" not in config.sources:
        return None
    others = any(kind == "sim" or kind.startswith("replay:") for kind in config.sources)
    # Looking for a program may wait for the very disks that fail.
    path = None if config.mlock else ZPOOL_PATH
    return KernelPools(pools, clock_ns, alone=not others, path=path)


def module_version(config: Config) -> str:
    """The version of the module whose events are rendered, as the module says it."""
    return module.version() if "zfs" in config.sources else _RECORDED


class SimulatedZfs:
    """The simulator's device, and who tells its story; MountFailed for a scenario that is none."""

    def __init__(self, config: Config, clock_ns: Clock) -> None:
        self.device = ZfsDevice(clock_ns)
        try:
            self._teller = Teller(
                self.device, clock_ns, config.sim_scenario, config.sim_seed, config.sim_rate
            )
        except Invalid as reason:  # the file has changed since it was checked
            raise MountFailed(f"sim.scenario={config.sim_scenario}: {reason}") from None

    async def run(self) -> None:
        """Tell the story."""
        await self._teller.run()

    def rate(self) -> float:
        """Events a second."""
        return self._teller.rate

    def settings(self) -> Mapping[str, Setting]:
        """The files of simulator/ that steer the story, by name."""
        teller = self._teller

        async def change_scenario(written: bytes) -> None:
            teller.change_scenario(written)

        async def change_seed(written: bytes) -> None:
            teller.change_seed(read_sim_seed(_word(written)))

        async def change_rate(written: bytes) -> None:
            teller.change_rate(read_sim_rate(_word(written)))

        return {
            "scenario": Setting(teller.show_scenario, change_scenario),
            "seed": Setting(lambda: b"%d\n" % teller.seed, change_seed),
            "rate": Setting(lambda: b"%.15g\n" % teller.rate, change_rate),
        }

    async def inject(self, written: bytes) -> None:
        """Post what was written, all of it or nothing; it is in the journal when this returns."""
        parsed = []
        for piece in _pieces(written):
            for each in injected(piece):
                parsed.append(each)
                if len(parsed) % _AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
        for count, (name, pairs) in enumerate(parsed, 1):
            self.device.post(name, pairs)
            if count % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        # Who waited is answered before the writer is: after a turn in which both are due, in an
        # order that the scheduler draws, comes one in which all of the readers have been.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()


class _Loop:
    """The event loop, for what was made before it began: what is asked of it until then waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: trio.lowlevel.TrioToken | None = None
        self._early: list[Callable[[], None]] = []
        self._over = False

    def wake(self, call: Callable[[], None]) -> None:
        """Have *call* called in the loop's thread; from any thread."""
        with self._lock:
            if self._token is None:
                self._early.append(call)
                return
        self._token.run_sync_soon(call)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Have *call* called after so many *seconds*, and never at once; from the loop's thread."""

        def begin() -> None:
            if not self._over:  # else nothing may begin in the nursery any more
                self._nursery.start_soon(self._after, seconds, call)

        self.wake(begin)

    @staticmethod
    async def _after(seconds: float, call: Callable[[], None]) -> None:
        await trio.sleep(seconds)
        call()

    async def run(self) -> None:
        """Begin, and go on until cancelled."""
        async with trio.open_nursery() as self._nursery:
            with self._lock:
                self._token = trio.lowlevel.current_trio_token()
                early, self._early = self._early, []
            try:
                for call in early:
                    call()
                await trio.sleep_forever()
            finally:
                self._over = True


def _kernel(loop: _Loop) -> KernelDevice:
    """The kernel's device. Raises MountFailed, with a sentence, where it can't be read."""
    missing = module.preflight()
    if missing is not None:
        raise MountFailed(f"source zfs: {missing}")
    warning = module.warning()
    if warning is not None:
        log.warning("%s", warning)
    return KernelDevice(loop.wake)


class ZfsEvents:
    """The sources of *config* that are ZFS's, drained into *post*; `simulated` if one is `sim`.

    *position* is where the kernel's events are known to, if that is kept. *ending* ends what goes
    on by itself, from the moment that it begins.
    """

    def __init__(
        self,
        config: Config,
        post: Post,
        clock_ns: Clock,
        ending: ExitStack,
        position: Position | None = None,
    ) -> None:
        self._config = config
        self._post = post
        self._clock_ns = clock_ns
        self.simulated: SimulatedZfs | None = None
        self._loop = _Loop()
        self._sources: list[ZfsSource] = []
        self._replays: dict[ReplayDevice, ZfsSource] = {}
        for name, source in zip(source_names(config.sources), config.sources, strict=True):
            kind, _, place = source.partition(":")
            if kind == "sim":
                self.simulated = SimulatedZfs(config, clock_ns)
                self._drain(name, self.simulated.device)
            elif kind == "zfs":
                device = ending.enter_context(_kernel(self._loop))
                self._drain(name, device, later=self._loop.later, position=position)
            elif kind == "replay":
                replayed = ReplayDevice(Path(place), config.replay_rate)
                self._replays[replayed] = self._drain(name, replayed)

    def _drain(self, name: str, device: Device, **more: Any) -> ZfsSource:
        source = ZfsSource(name, device, self._post, self._clock_ns, **more)
        self._sources.append(source)
        return source

    def statuses(self) -> dict[str, Callable[[], SourceStatus]]:
        """How each source stands, by its name."""
        return {each.name: each.status for each in self._sources}

    def rate(self) -> float:
        """How many events a second the simulator tells by itself."""
        return 0.0 if self.simulated is None else self.simulated.rate()

    def clear(self) -> None:
        """Empty the queue of each source."""
        for source in self._sources:
            source.clear()

    async def run(self) -> None:
        """Feed the sources that don't feed themselves."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._loop.run)
            if self.simulated is not None:
                nursery.start_soon(self.simulated.run)
            for device, source in self._replays.items():
                nursery.start_soon(self._replay, device, source)

    async def _replay(self, device: ReplayDevice, source: ZfsSource) -> None:
        """Play a recording; its end is an event, and readers wait on."""
        try:
            reason = await play(device)
        except Exception as error:  # nor is one in a recording's reader
            log.exception("replay of %s broke off", device.path)
            reason = repr(error)
        source.end(reason)
        told = [("replay", Type.STRING, str(device.path)), ("reason", Type.STRING, reason)]
        self._post(Event.make("zeventfs", "zeventfs.source.end", self._clock_ns(), told))


def _word(written: bytes) -> str:
    return written.strip()[:100].decode(errors="backslashreplace")


def _pieces(written: bytes) -> tuple[bytes, ...]:
    """Whole lines, in pieces of at most MAX_BYTES, as the simulator takes them.

    A write is no longer than that, but a line that an earlier one began may stand before it. The
    empty line in front of the second piece keeps the numbers of its lines.
    """
    first, newline, rest = written.partition(b"\n")
    if len(written) <= MAX_BYTES or not newline:
        return (written,)
    return first + newline, newline + rest
