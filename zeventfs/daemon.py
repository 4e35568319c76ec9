"""The daemon: puts a mount together from its parts, serves it, and clears up after it.

The runtime directory holds what the next daemon would need if this one were killed: the journal's
segments and the table of open files. It is locked through its `pid` file while a daemon lives.
"""

import fcntl
import gc
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from secrets import token_hex

import trio

from zeventfs.bell import Bell
from zeventfs.blktap import PLACE, host_tapdisks, simulated_vbds
from zeventfs.config import Config
from zeventfs.errors import MountFailed
from zeventfs.fuse.ending import EndSignals
from zeventfs.fuse.handles import HandleTable
from zeventfs.fuse.operations import Operations, Ownership
from zeventfs.fuse.session import MOST_WAITING, longest_wait_s, mount, serve, unmount
from zeventfs.fuse.waits import Waits
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.store import Store
from zeventfs.locked import in_memory, is_memory, keep_room
from zeventfs.mapper import host_devices, simulated_devices
from zeventfs.nodes.base import Directory
from zeventfs.nodes.debug import debug_directory
from zeventfs.nodes.dm import DmDirectory, dm_directory
from zeventfs.nodes.events import EventsDirectory
from zeventfs.nodes.filtered import pool_view
from zeventfs.nodes.pools import pools_directory
from zeventfs.nodes.simulator import simulator_directory
from zeventfs.nodes.sources import sources_directory
from zeventfs.nodes.tree import tree
from zeventfs.nodes.vbd import VbdsDirectory, vbd_directory
from zeventfs.nvlist import decode
from zeventfs.pools.pools import Pools
from zeventfs.render import Renderer
from zeventfs.sources.position import Position, newest_first
from zeventfs.sources.status import SourceStatus
from zeventfs.zfs_events import ZfsEvents, kernel_pools, module_version

__all__ = ["run"]

log = logging.getLogger(__name__)

_COLLECT = 700, 10, 100  # as Python's own, but for a full collection ten times as rare
# In the runtime directory:
_PID, _HANDLES, _POSITION, _SEGMENTS = "pid", "handles", "zfs-position", "segment-*"


def run(config: Config, ready: Callable[[], None]) -> None:
    """Mount as *config* says and serve until the mount is over; call *ready* once it answers.

    Raises MountFailed, with a sentence, when there was nothing to serve.
    """
    locked = in_memory() if config.mlock else nullcontext()
    with EndSignals() as asked, _runtime(config.runtime) as runtime, locked, ExitStack() as ending:
        try:
            daemon = _Daemon(config, runtime, ending)
        except OSError as error:
            raise MountFailed(f"can't use {runtime}: {error.strerror}") from error
        # What stands now stands for good: a full collection would look at all of it, for
        # milliseconds in which nobody is answered.
        gc.collect()
        gc.freeze()
        if config.mlock:
            keep_room()
        # Readers by the thousand are many objects, and hardly any are garbage only this could find.
        gc.set_threshold(*_COLLECT)
        trio.run(daemon.serve, ready, asked)


@contextmanager
def _runtime(path: Path) -> Iterator[Path]:
    """The mount's runtime directory, this daemon's alone.

    What the daemon has put there is gone after an orderly end, and after a mount that never was;
    it stays for the next daemon after anything else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / _PID, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MountFailed(f"can't use {path}: {error.strerror}") from error
    try:
        _lock(lock, path)
        left = any(path.glob(_SEGMENTS))
        try:
            yield path
        except MountFailed:
            if not left:
                _clear_up(path)
            raise
        _clear_up(path)
    finally:
        os.close(lock)


def _lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
    except BlockingIOError as error:
        raise MountFailed(f"a zeventfs lives in {path} already") from error
    except OSError as error:
        raise MountFailed(f"can't use {path}: {error.strerror}") from error


def _clear_up(path: Path) -> None:
    """Remove what a daemon keeps in *path*, the lock last; a log there is its owner's."""
    shutil.rmtree(path / PLACE, ignore_errors=True)
    for each in (*path.glob(_SEGMENTS), path / _HANDLES, path / _POSITION, path / _PID):
        with suppress(OSError):
            each.unlink()


def _place(config: Config, runtime: Path) -> Path | None:
    """Where events and open files are kept for the next daemon; None: nowhere but in memory."""
    if not config.mlock or is_memory(runtime):
        return runtime
    # A store into a page that is just being written to a disk waits for that disk.
    log.warning("mlock: %s is on a disk: no event would survive the daemon", runtime)
    return None


class _Daemon:
    """The parts of one mount, and how they are joined; *ending* ends what goes on by itself."""

    def __init__(self, config: Config, runtime: Path, ending: ExitStack) -> None:
        self._config = config
        self._arrival = Bell()
        kept = _place(config, runtime)
        store = Store(kept)
        epoch = store.recovered[-1].identity.epoch if store.recovered else token_hex(8)
        renderer = Renderer(epoch, module_version(config))
        self._renderer = renderer
        limits = Limits(config.retain, config.segment)
        self._pools = Pools()
        self._journal = Journal(epoch, renderer, limits, time.time_ns, store, self._pools.take)
        self._journal.subscribe(self._arrival.ring)
        if store.recovered:
            log.info("epoch %s goes on at seq %d", epoch, self._journal.current.lines.next_seq)
        append = self._journal.append
        position = None
        if kept is not None and "zfs" in config.sources:
            position = Position(kept / _POSITION, epoch)
            position.correct(newest_first(self._journal.segments))
        self._zfs = ZfsEvents(config, append, time.time_ns, ending, position)
        self._kernel_pools = kernel_pools(config, self._pools, time.time_ns)
        self._tapdisks = host_tapdisks(config, append, time.time_ns)
        self._simulated_vbds = simulated_vbds(config, runtime, append, time.time_ns, self._zfs.rate)
        self._mapped = host_devices(config, append, time.time_ns)
        self._simulated_devices = simulated_devices(config, append, time.time_ns, self._zfs.rate)
        self._answers = trio.Event()
        self._waits = Waits(MOST_WAITING, longest_wait_s())
        self._operations = Operations(
            self._tree(),
            Ownership(config.uid, config.gid, config.mode),
            HandleTable(None if kept is None else kept / _HANDLES),
            self._waits,
            lambda: (config.retain, self._journal.kept),
        )

    def _statuses(self) -> dict[str, Callable[[], SourceStatus]]:
        statuses = self._zfs.statuses()
        for source in (self._tapdisks, self._mapped):
            if source is not None:
                statuses[source.name] = source.status
        return statuses

    def _tree(self) -> Directory:
        events = EventsDirectory(
            self._journal,
            self._arrival,
            time.time_ns,
            lambda packed: self._renderer.text(decode(packed)),
            self._clear,
            ("zfs",),
        )
        self._journal.subscribe(events.views.arrived)
        self._views = events.views
        others: dict[str, Directory] = {
            "pools": pools_directory(
                self._pools,
                lambda name: pool_view(name, events.around, events.views),
                lambda: self._journal.segments[0].lines.first_seq,
                time.time_ns,
            ),
            "sources": sources_directory(self._statuses(), time.time_ns),
            "debug": debug_directory(self._requests, time.time_ns),
        }
        if self._zfs.simulated is not None:
            acts = {"vbd": self._simulated_vbds, "dm": self._simulated_devices}
            others["simulator"] = simulator_directory(
                self._zfs.simulated.inject,
                time.time_ns,
                self._zfs.simulated.settings(),
                {name: of.act for name, of in acts.items() if of is not None},
            )
        shown = self._tapdisks if self._simulated_vbds is None else self._simulated_vbds.vbds
        self._vbds: VbdsDirectory | None = None
        if shown is not None:
            self._vbds = others["vbd"] = vbd_directory(shown, events.views, events.around)
        mapped = self._mapped if self._simulated_devices is None else self._simulated_devices.source
        self._dm: DmDirectory | None = None
        if mapped is not None:
            self._dm = others["dm"] = dm_directory(mapped.devices, events.views, events.around)
        return tree(events, others, time.time_ns)

    def _bells(self) -> Iterable[Bell]:
        """What anybody may wait for."""
        vbds = () if self._vbds is None else self._vbds.bells()
        devices = () if self._dm is None else self._dm.bells()
        return (self._arrival, *self._views.bells(), *vbds, *devices)

    def _requests(self) -> bytes:
        return self._operations.requests()

    def _clear(self) -> None:
        self._zfs.clear()
        self._journal.clear()

    async def serve(self, ready: Callable[[], None], asked: EndSignals) -> None:
        """Mount, and live until the mount is over."""
        if asked.came is not None:
            raise MountFailed(f"{asked.came.name} came before the mount was made")
        config = self._config
        options = {name for name in ("allow_other", "ro") if getattr(config, name)}
        mountpoint = mount(self._operations, config.mountpoint, options)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._zfs.run)
                if self._kernel_pools is not None:
                    nursery.start_soon(self._kernel_pools.run)
                for source in (self._tapdisks, self._mapped):
                    if source is not None:
                        await nursery.start(source.run)
                for simulated in (self._simulated_vbds, self._simulated_devices):
                    if simulated is not None:
                        await nursery.start(simulated.run, self._answers)
                await serve(self._operations, self._bells, mountpoint, self._ready(ready), asked)
                nursery.cancel_scope.cancel()
        finally:
            await unmount(mountpoint)

    def _ready(self, ready: Callable[[], None]) -> Callable[[], None]:
        def answers() -> None:
            ready()
            self._answers.set()

        return answers
