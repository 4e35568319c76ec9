"""The kernel asked about its pools, at the start and whenever events leave something open.

What events say is told at once; what they don't (whole trees, counts, what was lost) is asked for:
the pools' kstats, which never wait, and then zpool(8), if it is there. Nothing is asked while
nothing happens. A zpool that hangs, as it does behind a stuck import, holds up nobody: it is killed
after a time, and as long as the kernel doesn't let it end no other one is started.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

import trio

from zeventfs.errors import Malformed
from zeventfs.pools.pools import Pools
from zeventfs.pools.status import PoolStatus, Question, number_of
from zeventfs.pools.status_json import parse_json
from zeventfs.pools.status_text import parse_text

__all__ = ["KSTATS", "ZPOOL_PATH", "KernelPools"]

log = logging.getLogger(__name__)

KSTATS: Final = Path("/proc/spl/kstat/zfs")
ZPOOL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT: Final = {"PATH": ZPOOL_PATH, "LC_ALL": "C", "TZ": "UTC0"}
_LIST: Final = ("list", "-H", "-p", "-o", "name,guid,health")
_JSON: Final = ("status", "-j", "--json-int", "-p", "-P", "-s")
_GUIDS: Final = ("status", "-g", "-p", "-s")
_PATHS: Final = ("status", "-P", "-p", "-s")
_USAGE = 2  # zpool's exit status for an option it doesn't know
_LIMIT_S = 20  # for one zpool
_REAP_S = 1
_MOST_BYTES = 32 << 20
_LONGEST_WORD = 40
_TOGETHER_S = 1  # what belongs together happens within that
_PAUSE_S = 5  # at least, from one question to the next
_SHARE = 10  # a question takes one part in so many of the time
_TRIES = 3  # if things change while zpool is asked


class _Failed(Exception):
    """zpool gave no answer; the message says why."""


class KernelPools:
    """Has *pools* be as the kernel says.

    `ask` may be called at any time in the event loop's thread, and has the kernel asked soon. If
    *alone*, pools that the kernel doesn't know are gone; else others than the kernel tell events of
    pools too, and those are left as they are. Without a *path* to seek zpool in, none is started.
    """

    def __init__(
        self,
        pools: Pools,
        clock_ns: Callable[[], int],
        *,
        alone: bool,
        kstats: Path = KSTATS,
        path: str | None = ZPOOL_PATH,
    ) -> None:
        self._pools = pools
        self._clock_ns = clock_ns
        self._alone = alone
        self._kstats = kstats
        self._path = path
        self._asked = trio.Event()
        self._json = True  # whether zpool knows -j, as far as is known
        self._stuck: trio.Process | None = None
        self._said = ""
        pools.subscribe(self.ask)

    def ask(self) -> None:
        """Have the kernel asked again: there may be something new."""
        self._asked.set()

    async def run(self) -> None:
        """Ask at once, and then when there may be something new; ends by cancellation alone."""
        while True:
            self._asked = trio.Event()
            begun = trio.current_time()
            await self._look()
            ended = trio.current_time()
            pause = max(_PAUSE_S, _SHARE * (ended - begun))
            await self._something_new()
            await trio.sleep(_TOGETHER_S)
            await trio.sleep_until(ended + pause)

    async def _something_new(self) -> None:
        """Wait until the kernel is to be asked again, or can be again."""
        async with trio.open_nursery() as nursery:
            if self._stuck is not None:
                nursery.start_soon(self._wait_for, self._stuck)
            await self._asked.wait()
            nursery.cancel_scope.cancel()

    async def _wait_for(self, process: trio.Process) -> None:
        await process.wait()
        self.ask()

    async def _look(self) -> None:
        """Ask the kernel, whatever comes of it."""
        try:
            asked_ns = self._clock_ns()
            healths = await trio.to_thread.run_sync(_kstats, self._kstats, abandon_on_cancel=True)
            if healths is None:
                return  # the module isn't loaded, and zpool would load it
            self._take(healths, asked_ns)
            if self._path is not None:
                await self._ask_zpool(self._path)
        except (_Failed, Malformed, OSError) as reason:
            self._say(str(reason))
        except Exception:  # what is asked for the tree's sake must not end it
            log.exception("the kernel's pools could not be asked for")
        else:
            self._said = ""

    def _take(self, statuses: list[PoolStatus], asked_ns: int) -> None:
        question = Question(asked_ns, self._clock_ns())
        self._pools.seed(statuses, question)
        if self._alone:
            self._pools.miss([each.name for each in statuses], question)

    def _say(self, reason: str) -> None:
        """Log *reason*, once until it is over or another."""
        if reason != self._said:
            log.warning("what pools/ shows is from events and kstats alone: %s", reason)
            self._said = reason

    # zpool

    async def _ask_zpool(self, path: str) -> None:
        program = shutil.which("zpool", path=path)
        if program is None:
            raise _Failed("there is no zpool program")
        if self._stuck is not None and self._stuck.poll() is None:
            raise _Failed(f"zpool, process {self._stuck.pid}, hangs in the kernel")
        self._stuck = None
        left = _TRIES
        while True:
            asked_ns = self._clock_ns()
            try:
                statuses = await self._statuses(program)
            except Malformed:
                left -= 1
                if not left:
                    raise
            else:
                self._take(statuses, asked_ns)
                return

    async def _statuses(self, program: str) -> list[PoolStatus]:
        """What zpool prints of all pools."""
        if self._json:
            status, printed, said = await self._run(program, *_JSON)
            if status != _USAGE:
                return parse_json(_checked(status, printed, said))
            self._json = False
        listed = _checked(*await self._run(program, *_LIST))
        if not listed.strip():
            return []
        guids = _checked(*await self._run(program, *_GUIDS))
        paths = _checked(*await self._run(program, *_PATHS))
        return parse_text(listed, guids, paths)

    async def _run(self, program: str, *arguments: str) -> tuple[int, bytes, bytes]:
        """Run zpool; its exit status, output and errors."""
        process = await trio.lowlevel.open_process(
            [program, *arguments],
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,  # a terminal's ^C is for the daemon, which then ends it
            # With a user, be it the same, CPython forks. It would vfork, which stops this whole
            # process until zpool's file has been read: from a disk that may be the one that fails.
            user=os.geteuid(),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = bytearray(), bytearray()
        try:
            with trio.move_on_after(_LIMIT_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_collect, process.stdout, output)
                    nursery.start_soon(_collect, process.stderr, errors)
                return await process.wait(), bytes(output), bytes(errors)
        finally:
            await self._end(process)
        raise _Failed(f"zpool {arguments[0]} gave no answer in {_LIMIT_S} s")

    async def _end(self, process: trio.Process) -> None:
        """Have *process* ended, and reaped unless the kernel keeps it."""
        if process.returncode is None:
            process.kill()
            with trio.move_on_after(_REAP_S, shield=True):
                await process.wait()
            if process.returncode is None:
                self._stuck = process
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            with trio.CancelScope(shield=True):
                await stream.aclose()


async def _collect(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
    async for piece in stream:
        into += piece
        if len(into) > _MOST_BYTES:  # then it can't end, and has its time limit
            return


def _checked(status: int, printed: bytes, said: bytes) -> bytes:
    """What was *printed*; raises _Failed if the exit status isn't 0."""
    if status:
        line = said.decode(errors="backslashreplace").strip().partition("\n")[0]
        raise _Failed(f"zpool: {line[:200] or f'exit status {status}'}")
    return printed


def _kstats(place: Path) -> list[PoolStatus] | None:
    """The pools with their health, and guid if the release tells it; None without the module."""
    try:
        directories = [each for each in place.iterdir() if each.is_dir()]
    except FileNotFoundError:
        return None
    return [
        PoolStatus(each.name, number_of(_word(each / "guid")), _word(each / "state"))
        for each in directories
    ]


def _word(kstat: Path) -> str:
    """What *kstat* says, "" if this release doesn't have it or the pool has just gone."""
    try:
        return kstat.read_text(errors="replace").strip()[:_LONGEST_WORD]
    except OSError:
        return ""
