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
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from secrets import token_hex

import trio

from zeventfs.bell import Bell
from zeventfs.blktap import PLACE, host_tapdisks, simulated_vbds
from zeventfs.config import Config, read_sim_rate, read_sim_seed
from zeventfs.errors import Invalid, MountFailed
from zeventfs.event import Event
from zeventfs.fuse.ending import EndSignals
from zeventfs.fuse.handles import HandleTable
from zeventfs.fuse.operations import Operations, Ownership
from zeventfs.fuse.session import MOST_WAITING, longest_wait_s, mount, serve, unmount
from zeventfs.fuse.waits import Waits
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.store import Store
from zeventfs.locked import in_memory, is_memory, keep_room
from zeventfs.nodes.base import Directory
from zeventfs.nodes.debug import debug_directory
from zeventfs.nodes.events import EventsDirectory
from zeventfs.nodes.filtered import pool_view
from zeventfs.nodes.pools import pools_directory
from zeventfs.nodes.simulator import Setting, simulator_directory
from zeventfs.nodes.sources import sources_directory
from zeventfs.nodes.tree import tree
from zeventfs.nodes.vbd import VbdsDirectory, vbd_directory
from zeventfs.nvlist import Type, decode
from zeventfs.pools.pools import Pools
from zeventfs.render import Renderer
from zeventfs.simulator.inject import MAX_BYTES
from zeventfs.simulator.inject import events as injected
from zeventfs.simulator.teller import Teller
from zeventfs.simulator.zfs import ZfsDevice
from zeventfs.sources.player import play
from zeventfs.sources.replay import ReplayDevice
from zeventfs.sources.status import SourceStatus, source_names
from zeventfs.sources.zfs import ZfsSource

__all__ = ["run"]

log = logging.getLogger(__name__)

_VERSION = "2.1.11"  # of the module whose events were recorded; the simulator's are like them
_COLLECT = 700, 10, 100  # as Python's own, but for a full collection ten times as rare
_AT_ONCE = 32  # events posted before others get a turn
_PID, _HANDLES, _SEGMENTS = "pid", "handles", "segment-*"  # in the runtime directory


def run(config: Config, ready: Callable[[], None]) -> None:
    """Mount as *config* says and serve until the mount is over; call *ready* once it answers.

    Raises MountFailed, with a sentence, when there was nothing to serve.
    """
    locked = in_memory() if config.mlock else nullcontext()
    with EndSignals() as asked, _runtime(config.runtime) as runtime, locked:
        try:
            daemon = _Daemon(config, runtime)
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
    for each in (*path.glob(_SEGMENTS), path / _HANDLES, path / _PID):
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
    """The parts of one mount, and how they are joined."""

    def __init__(self, config: Config, runtime: Path) -> None:
        self._config = config
        self._arrival = Bell()
        kept = _place(config, runtime)
        store = Store(kept)
        epoch = store.recovered[-1].identity.epoch if store.recovered else token_hex(8)
        renderer = Renderer(epoch, _VERSION)
        self._renderer = renderer
        limits = Limits(config.retain, config.segment)
        self._pools = Pools()
        self._journal = Journal(epoch, renderer, limits, time.time_ns, store, self._pools.take)
        self._journal.subscribe(self._arrival.ring)
        if store.recovered:
            log.info("epoch %s goes on at seq %d", epoch, self._journal.current.lines.next_seq)
        self._simulated: ZfsDevice | None = None
        self._teller: Teller | None = None
        self._sources: list[ZfsSource] = []
        self._replays: dict[ReplayDevice, ZfsSource] = {}
        for name, source in zip(source_names(config.sources), config.sources, strict=True):
            if source != "tapdisk":
                self._add_source(name, source)
        append = self._journal.append
        self._tapdisks = host_tapdisks(config, append, time.time_ns)
        self._simulated_vbds = simulated_vbds(config, runtime, append, time.time_ns, self._rate)
        self._answers = trio.Event()
        self._waits = Waits(MOST_WAITING, longest_wait_s())
        self._operations = Operations(
            self._tree(),
            Ownership(config.uid, config.gid, config.mode),
            HandleTable(None if kept is None else kept / _HANDLES),
            self._waits,
            lambda: (config.retain, self._journal.kept),
        )

    def _add_source(self, name: str, source: str) -> None:
        kind, _, place = source.partition(":")
        device: ZfsDevice | ReplayDevice
        if kind == "replay":
            device = replay = ReplayDevice(Path(place), self._config.replay_rate)
        else:
            device = self._simulated = ZfsDevice(time.time_ns)
            replay = None
            config = self._config
            try:
                self._teller = Teller(
                    device, time.time_ns, config.sim_scenario, config.sim_seed, config.sim_rate
                )
            except Invalid as reason:  # the file has changed since it was checked
                raise MountFailed(f"sim.scenario={config.sim_scenario}: {reason}") from None
        drained = ZfsSource(name, device, self._journal.append, time.time_ns)
        self._sources.append(drained)
        if replay is not None:
            self._replays[replay] = drained

    def _rate(self) -> float:
        return 0.0 if self._teller is None else self._teller.rate

    def _statuses(self) -> dict[str, Callable[[], SourceStatus]]:
        statuses: dict[str, Callable[[], SourceStatus]] = {
            each.name: each.status for each in self._sources
        }
        if self._tapdisks is not None:
            statuses[self._tapdisks.name] = self._tapdisks.status
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
        if self._teller is not None:
            simulated = self._simulated_vbds
            others["simulator"] = simulator_directory(
                self._inject,
                time.time_ns,
                _settings(self._teller),
                None if simulated is None else simulated.act,
            )
        shown = self._tapdisks if self._simulated_vbds is None else self._simulated_vbds.vbds
        self._vbds: VbdsDirectory | None = None
        if shown is not None:
            self._vbds = others["vbd"] = vbd_directory(shown, events.views, events.around)
        return tree(events, others, time.time_ns)

    def _bells(self) -> Iterable[Bell]:
        """What anybody may wait for."""
        vbds = () if self._vbds is None else self._vbds.bells()
        return (self._arrival, *self._views.bells(), *vbds)

    def _requests(self) -> bytes:
        return self._operations.requests()

    def _clear(self) -> None:
        for source in self._sources:
            source.clear()
        self._journal.clear()

    async def _inject(self, written: bytes) -> None:
        """Post what was written, all of it or nothing; it is in the journal when this returns."""
        assert self._simulated is not None
        parsed = []
        for piece in _pieces(written):
            for each in injected(piece):
                parsed.append(each)
                if len(parsed) % _AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
        for count, (name, pairs) in enumerate(parsed, 1):
            self._simulated.post(name, pairs)
            if count % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        # Who waited is answered before the writer is: after a turn in which both are due, in an
        # order that the scheduler draws, comes one in which all of the readers have been.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    async def serve(self, ready: Callable[[], None], asked: EndSignals) -> None:
        """Mount, and live until the mount is over."""
        if asked.came is not None:
            raise MountFailed(f"{asked.came.name} came before the mount was made")
        config = self._config
        options = {name for name in ("allow_other", "ro") if getattr(config, name)}
        mountpoint = mount(self._operations, config.mountpoint, options)
        try:
            async with trio.open_nursery() as nursery:
                if self._teller is not None:
                    nursery.start_soon(self._teller.run)
                for replay in self._replays:
                    nursery.start_soon(self._replay, replay)
                if self._tapdisks is not None:
                    await nursery.start(self._tapdisks.run)
                if self._simulated_vbds is not None:
                    await nursery.start(self._simulated_vbds.run, self._answers)
                await serve(self._operations, self._bells, mountpoint, self._ready(ready), asked)
                nursery.cancel_scope.cancel()
        finally:
            await unmount(mountpoint)

    def _ready(self, ready: Callable[[], None]) -> Callable[[], None]:
        def answers() -> None:
            ready()
            self._answers.set()

        return answers

    async def _replay(self, device: ReplayDevice) -> None:
        """Play a recording; its end is an event, and readers wait on."""
        try:
            reason = await play(device)
        except Exception as error:  # nor is one in a recording's reader
            log.exception("replay of %s broke off", device.path)
            reason = repr(error)
        self._replays[device].end(reason)
        self._journal.append(
            Event.make(
                "zeventfs",
                "zeventfs.source.end",
                time.time_ns(),
                [("replay", Type.STRING, str(device.path)), ("reason", Type.STRING, reason)],
            )
        )


def _settings(teller: Teller) -> dict[str, Setting]:
    """The files of simulator/ that steer *teller*."""

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
