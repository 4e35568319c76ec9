"""Finds tapdisks by their control sockets, asks them how their VBDs stand, and notices their end.

What comes and goes is noticed by inotify and pidfd; only LIST is asked again and again, of all
tapdisks at once. One that doesn't answer as it should is asked apart from the others, so that they
are not late.
"""

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import trio

from zeventfs.bell import Bell
from zeventfs.sources.tapdisk.inotify import Change, Inotify, directory_at
from zeventfs.sources.tapdisk.process import Process
from zeventfs.sources.tapdisk.vbd import Found
from zeventfs.tapdisk import wire
from zeventfs.tapdisk.client import Gone
from zeventfs.tapdisk.protocol import (
    Lied,
    Listed,
    Partial,
    TapdiskError,
    ask_list,
    control_pid,
    marked_minor,
)
from zeventfs.tapdisk.sweep import sweep
from zeventfs.vbd.facts import Exited

__all__ = ["Heard", "Watch"]

log = logging.getLogger(__name__)

_ANSWER_S: Final = 2.0
_EXITING_S: Final = 1.0  # from the end of its socket to that of the process, at most
_MEETING_S: Final = 1.0  # from the socket's name to its being listened on
_MEETING_AGAIN_S: Final = 0.02
_ORPHANED: Final = 2  # times in a row that a marked minor was in nobody's list
_MARKERS: Final = "tapdisk"  # the markers' directory, in the control directory


class Heard(Protocol):
    """Who is told."""

    def listed(self, found: Found, rows: tuple[Listed, ...]) -> None:
        """Its list is another one than before, or the first."""

    def troubled(self, found: Found, error: TapdiskError | None) -> None:
        """It doesn't answer as it should, for this reason; or does again."""

    def exited(self, found: Found, exited: Exited) -> None:
        """It has ended."""

    def orphaned(self, minor: int) -> None:
        """The minor is marked as taken, and no tapdisk has it."""

    def unmarked(self, minor: int) -> None:
        """The minor's marker is gone."""

    def lost(self, reason: str) -> None:
        """The control directory is not there."""

    def ready(self) -> None:
        """The control directory is there, and watched."""


class Watch:
    """The tapdisks whose sockets are in *directory*, by their pids, asked every *poll_s* seconds.

    `markers` has the minors that are marked as taken, and how often each was missed.
    """

    def __init__(
        self, directory: str, poll_s: float, heard: Heard, *, mortal: bool = False
    ) -> None:
        self.directory = directory
        self.found: dict[int, Found] = {}
        self.markers: dict[int, int] = {}
        self._poll_s = poll_s
        self._heard = heard
        self._mortal = mortal
        self._came = Bell()
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; then the tapdisks go on, but for *mortal* ones that are ours."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._poll, False)  # noqa: FBT003 - start_soon takes no names
                nursery.start_soon(self._poll, True)  # noqa: FBT003 - as above
                task_status.started()
                await self._follow_directory()
        finally:
            self._nursery = None
            for found in self.found.values():
                if self._mortal and found.process.ours:
                    found.process.end()
                found.process.close()

    def add(self, process: Process, path: str) -> Found:
        """Take in a tapdisk that was spawned; its end is told. It is asked once it is met."""
        assert self._nursery is not None
        found = self.found[process.pid] = Found(process, path)
        self._nursery.start_soon(self._await_end, found)
        return found

    def meet(self, found: Found) -> None:
        """It answers from now on."""
        found.met = True
        self._came.ring()

    # The directory

    async def _follow_directory(self) -> None:
        retry_s = self._poll_s
        if not os.path.isdir(self.directory):  # noqa: ASYNC240, PTH112 - Path's would raise
            self._heard.lost(f"there is no directory {self.directory}")
        while True:
            await directory_at(self.directory, retry_s)
            try:
                with Inotify() as inotify:
                    place = inotify.add(self.directory)
                    # A socket that is listened on keeps its directory, which tells its end after
                    # that only; the directory above tells it at once.
                    above = inotify.add(str(Path(self.directory).parent))
                    self._heard.ready()
                    await self._follow(inotify, place, above)
                reason = f"the directory {self.directory} is gone"
            except OSError as error:
                reason = f"can't watch {self.directory}: {error.strerror}"
            self._heard.lost(reason)
            await trio.sleep(retry_s)

    async def _follow(self, inotify: Inotify, place: int, above: int) -> None:
        """Take note of all that is there and that comes, until the directory is gone."""
        own_name = Path(self.directory).name
        markers = self._watch_markers(inotify)
        self._look_around()
        while True:
            for change in await inotify.changes():
                if change.overflowed:
                    markers = self._watch_markers(inotify)
                    self._look_around()
                elif change.watch == place:
                    if change.ended:
                        return
                    if change.appeared and change.name == _MARKERS:
                        markers = self._watch_markers(inotify)
                        self._look_around()
                    elif change.appeared:
                        self._see(change.name)
                elif change.watch == markers:
                    self._marker(change)
                elif change.watch == above and change.vanished and change.name == own_name:
                    return

    def _watch_markers(self, inotify: Inotify) -> int | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return inotify.add(f"{self.directory}/{_MARKERS}")
        return None

    def _look_around(self) -> None:
        marked = {
            minor
            for name in _names(f"{self.directory}/{_MARKERS}")
            if (minor := marked_minor(name)) is not None
        }
        for minor in self.markers.keys() - marked:
            self._unmark(minor)
        for minor in marked - self.markers.keys():
            self.markers[minor] = 0
        for name in _names(self.directory):
            self._see(name)
        self._came.ring()

    def _marker(self, change: Change) -> None:
        minor = marked_minor(change.name)
        if minor is None:
            return
        if change.appeared:
            self.markers[minor] = 0
            self._came.ring()
        elif change.vanished and minor in self.markers:
            self._unmark(minor)

    def _unmark(self, minor: int) -> None:
        del self.markers[minor]
        self._heard.unmarked(minor)

    # The tapdisks

    def _see(self, name: str) -> None:
        pid = control_pid(name)
        if pid is None or pid in self.found or self._nursery is None:
            return
        try:
            process = Process(pid)
        except (ProcessLookupError, OverflowError):  # the socket of one that was killed
            return
        except OSError as error:
            log.warning("process %d can't be watched: %s", pid, error.strerror)
            return
        found = self.found[pid] = Found(process, f"{self.directory}/{wire.socket_name(pid)}")
        self._nursery.start_soon(self._begin, found)

    async def _begin(self, found: Found) -> None:
        """Ask who it is, and watch it from then on; nobody may be there after all."""
        answer: tuple[Listed, ...] | TapdiskError
        try:
            pid = await self._greet(found)
            if pid != found.pid:
                raise Lied(f"process {found.pid} says that it is {pid}")
            answer = await found.client.list()
        except Gone:
            del self.found[found.pid]
            found.process.close()
            return
        except TapdiskError as error:
            answer = error
        assert self._nursery is not None
        self._nursery.start_soon(self._await_end, found)
        self._hear(found, answer)
        self.meet(found)

    async def _greet(self, found: Found) -> int:
        """Its own pid. It is not listening yet when its socket has just appeared."""
        deadline = trio.current_time() + _MEETING_S
        while True:
            try:
                return await found.client.pid()
            except Gone:
                if trio.current_time() > deadline or found.process.look():
                    raise
            await trio.sleep(_MEETING_AGAIN_S)

    async def _await_end(self, found: Found) -> None:
        exited = await found.process.wait()
        del self.found[found.pid]
        found.process.close()
        self._heard.exited(found, exited)

    async def _poll(self, troubled: bool) -> None:  # noqa: FBT001 - see run
        """Ask those without trouble, or those with it, again and again."""
        while True:
            while not self.found and all(missed > _ORPHANED for missed in self.markers.values()):
                await self._came.wait()
            await trio.sleep(self._poll_s)
            asked = {
                found.client: found
                for found in self.found.values()
                if found.met and bool(found.trouble) is troubled
            }
            if asked:
                answers = await sweep(asked, ask_list(), _ANSWER_S)
                for client, answer in answers.items():
                    self._hear(asked[client], answer)
            if not troubled:
                self._miss()

    def _hear(self, found: Found, answer: tuple[Listed, ...] | TapdiskError) -> None:
        if found.process.look() is not None:
            return  # which is told elsewhere
        if not isinstance(answer, Gone | Partial):
            found.cut = None
        elif not found.trouble:  # one that is about to exit cuts its answers too
            found.cut = found.cut or trio.current_time()
            if trio.current_time() < found.cut + _EXITING_S:
                return
        if isinstance(answer, TapdiskError):
            if found.trouble != str(answer):
                found.trouble = str(answer)
                self._heard.troubled(found, answer)
            return
        if found.trouble:
            found.trouble = ""
            self._heard.troubled(found, None)
        if found.listed is not answer:
            found.listed = answer
            self._heard.listed(found, answer)

    def _miss(self) -> None:
        """Count which of the marked minors nobody has; not while somebody has yet to say."""
        if any(found.listed is None for found in self.found.values()):
            return
        taken = {row.minor for found in self.found.values() for row in found.listed or ()}
        for minor, missed in self.markers.items():
            self.markers[minor] = 0 if minor in taken else min(missed + 1, _ORPHANED + 1)
            if missed + 1 == _ORPHANED and minor not in taken:
                self._heard.orphaned(minor)


def _names(directory: str) -> Iterable[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names are all that is asked for
    except (FileNotFoundError, NotADirectoryError):
        return ()
