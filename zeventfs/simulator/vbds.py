"""The simulator's VBDs: an agent's, as real ones are, on processes that stand in for tapdisk.

A few of them live through a story: guests do I/O, pauses that are quick or stick, an SR that goes
away, a tapdisk that is killed. None of the processes outlives the mount, nor its daemon.
"""

import errno
import logging
import os
import random
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from zeventfs.errors import Invalid, ZeventfsError
from zeventfs.event import Event
from zeventfs.simulator.tapdisk import command, tell
from zeventfs.sources.tapdisk.vbds import Settings, TapdiskSource
from zeventfs.vbd.counters import Kicks, Queue
from zeventfs.vbd.shown import ShownVbd
from zeventfs.vbd.states import Request, Vbd

__all__ = ["SimulatedVbds"]

log = logging.getLogger(__name__)

_FIRST: Final = ("0", "1", "2")
_GUEST_RATE: Final = 20  # requests a second
_IMAGE_BYTES: Final = 16 << 20
_BEATS: Final = 8  # events that the rest of the story has while one thing happens to a VBD
_RATE_MOST: Final = 40.0  # beyond that VBDs don't live any faster: each is a process or two
_STOPPED_S: Final = 0.5
_SOCKET_MOST: Final = 80  # bytes of a directory in which sockets can be, of the 108 of unix(7)
_TELL_S: Final = 1.0  # who doesn't answer in that time is stopped
_STANDING: Final = ("new", "pending", "failed", "completed")


class SimulatedVbds:
    """VBDs in *place*, a directory of their own, told from *seed* at *rate* events a second.

    A rate of 0 at the start tells no story, and begins with no VBD. *post* and *clock_ns* as in
    TapdiskSource. `vbds` is what the tree shows.
    """

    def __init__(
        self,
        place: Path,
        post: Callable[[Event], object],
        clock_ns: Callable[[], int],
        seed: int,
        rate: Callable[[], float],
    ) -> None:
        self._place = place
        self._random = random.Random(f"vbds {seed}")  # noqa: S311 - a story, no secret
        self._rate = rate
        shutil.rmtree(place, ignore_errors=True)  # of a daemon that was killed
        with suppress(OSError):
            place.unlink()
        place.mkdir(mode=0o700, parents=True)
        self._descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directory = _short(place, self._descriptor)
        places = ("--dir", self._directory, "--shm", self._directory)
        settings = Settings(
            directory=self._directory,
            shared_memory=self._directory,
            command=command("-D", *places, "--rate", str(_GUEST_RATE), parent=os.getpid()),
            mortal=True,
            figures=self._figures,
        )
        self.vbds = TapdiskSource("tapdisk", settings, post, clock_ns)

    async def run(
        self,
        answers: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Tell the story until cancelled; then every process is gone, and the directory too.

        VBDs can be made as soon as it has started; the story begins with *answers*, when the mount
        does, which half a dozen new processes would delay.
        """
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.vbds.run)
                task_status.started()
                await answers.wait()
                if self._rate():
                    nursery.start_soon(self._tell_story)
                await trio.sleep_forever()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the directory, and remove it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            shutil.rmtree(self._place, ignore_errors=True)

    # What can be told

    async def act(self, written: bytes) -> None:
        """Carry out lines that say what is to happen, each before the next.

            add ID [DRIVER:PATH]    a new VBD, started
            remove ID
            kill ID [SIGNAL]        its tapdisk, by KILL if nothing else is said
            stop ID                 the same by STOP; `kill ID CONT` lets it go on
            [REQUEST:]VERB ID ...   tell its tapdisk `[REQUEST:]VERB ...`, see misbehaviour

        Raises Invalid with a sentence at the first that can't be done.
        """
        for line in written.decode(errors="surrogateescape").splitlines():
            words = line.split()
            if words and not words[0].startswith("#"):
                await self._act(line, words)

    async def _act(self, line: str, words: list[str]) -> None:
        match words:
            case ["add", vbd]:
                self._add(vbd, self._image(vbd))
            case ["add", vbd, image]:
                self._add(vbd, image)
            case ["remove", vbd]:
                self.vbds.vanish(self._shown(vbd).id)
            case ["kill", vbd]:
                self._signal(vbd, signal.SIGKILL)
            case ["kill", vbd, name]:
                self._signal(vbd, _signal_named(name))
            case ["stop", vbd]:  # it could not say that it has understood
                self._signal(vbd, signal.SIGSTOP)
            case [verb, vbd, *rest] if verb not in {"add", "remove", "kill", "stop"}:
                await self._tell(self._pid(vbd), " ".join([verb, *rest]))
            case _:
                raise Invalid(f"can't understand {line.strip()[:60]!r}: VERB ID ...")

    async def _tell(self, pid: int, line: str) -> str:
        """Tell a tapdisk *line*; what it says. Raises Invalid; nobody there is no harm."""
        try:
            said = await trio.to_thread.run_sync(
                tell, self._directory, pid, line, _TELL_S, abandon_on_cancel=True
            )
        except OSError as error:
            raise Invalid(f"process {pid} can't be told: {error.strerror or error}") from None
        if said.startswith("error:"):
            raise Invalid(said.removeprefix("error:").strip())
        return said

    async def _figures(self, pid: int, minor: int) -> tuple[Queue, Kicks] | None:
        """What a simulated tapdisk tells of a VBD's requests, as real ones don't."""
        try:
            said = await self._tell(pid, "show")
        except Invalid:
            return None
        for line in said.splitlines():
            facts = {key: value for key, _, value in (word.partition("=") for word in line.split())}
            if facts.get("minor") == str(minor):
                queue = Queue(*(int(facts[key]) for key in _STANDING))
                return queue, Kicks(int(facts["kicks_in"]), int(facts["kicks_out"]))
        return None

    # The story

    async def _tell_story(self) -> None:
        try:
            await self._tell_all()
        except Exception:  # a bug in the story is not the end of the tree
            log.exception("the story of the simulator's VBDs broke off")

    async def _tell_all(self) -> None:
        for vbd in _FIRST:
            with suppress(ZeventfsError):  # somebody was quicker
                self._add(vbd, self._image(vbd))
        happenings: tuple[Callable[[str], Awaitable[None]], ...] = (
            self._guest,
            self._pause,
            self._sticking_pause,
            self._restart,
            self._sr_away,
            self._crash,
        )
        while True:
            await self._wait(_BEATS)
            vbd = self._random.choice(_FIRST)
            happening = self._random.choices(happenings, (6, 4, 2, 2, 1, 1))[0]
            with suppress(ZeventfsError):  # somebody else has other plans with it
                if self._shown(vbd).status().states.vbd is Vbd.BROKEN:
                    await self._renew(vbd)
                else:
                    await happening(vbd)

    async def _guest(self, vbd: str) -> None:
        """Its guest does more, or less."""
        await self._tell(self._pid(vbd), f"rate {self._random.choice((0, 5, 20, 100))}")

    async def _pause(self, vbd: str) -> None:
        self._shown(vbd).ask(Request.PAUSE)
        await self._wait(_BEATS)
        self._shown(vbd).ask(Request.UNPAUSE)

    async def _sticking_pause(self, vbd: str) -> None:
        """What its guest asked for isn't finished, and so the pause isn't."""
        pid = self._pid(vbd)
        await self._tell(pid, "io stick")
        self._shown(vbd).ask(Request.PAUSE)
        await self._wait(_BEATS)
        await self._tell(pid, "io ok")
        await self._wait(1)
        self._shown(vbd).ask(Request.UNPAUSE)

    async def _restart(self, vbd: str) -> None:
        self._shown(vbd).ask(Request.SHUTDOWN)
        await self._wait(_BEATS)
        self._shown(vbd).ask(Request.START)

    async def _sr_away(self, vbd: str) -> None:
        """Its storage fails, and isn't there any more when the image is to be opened again."""
        pid = self._pid(vbd)
        await self._tell(pid, "io fail EIO")
        await self._wait(_BEATS)
        await self._tell(pid, f"resume: refuse {errno.errorcode[errno.ENOENT]} the SR is away")
        self._shown(vbd).ask(Request.PAUSE)
        await self._wait(1)
        self._shown(vbd).ask(Request.UNPAUSE)
        await self._wait(_BEATS)
        await self._renew(vbd)

    async def _crash(self, vbd: str) -> None:
        self._signal(vbd, signal.SIGKILL)
        await self._wait(_BEATS)
        await self._renew(vbd)

    async def _renew(self, vbd: str) -> None:
        """As after a repair: its path goes and comes."""
        image = self._shown(vbd).status().image
        self.vbds.vanish(vbd)
        await self._wait(1)
        self._add(vbd, image)

    async def _wait(self, beats: float) -> None:
        """As long as *beats* events take; for ever while none happen."""
        left = beats
        while left > 0:
            rate = min(self._rate(), _RATE_MOST)
            seconds = min(left / rate, _STOPPED_S) if rate else _STOPPED_S
            await trio.sleep(seconds)
            left -= seconds * rate + (1e-9 if rate else 0)

    # VBDs

    def _shown(self, vbd: str) -> ShownVbd:
        shown = self.vbds.get(vbd)
        if shown is None:
            raise Invalid(f"there is no VBD {vbd[:20]!r}")
        return shown

    def _pid(self, vbd: str) -> int:
        pid = self._shown(vbd).status().pid
        if pid is None:
            raise Invalid(f"VBD {vbd} has no tapdisk")
        return pid

    def _signal(self, vbd: str, number: int) -> None:
        try:
            os.kill(self._pid(vbd), number)
        except ProcessLookupError:
            raise Invalid(f"VBD {vbd} has no tapdisk any more") from None

    def _image(self, vbd: str) -> str:
        """An image for *vbd*: a file that is as large as the simulated tapdisk says."""
        path = self._place / f"disk{vbd}"
        if vbd.isdecimal() and not path.exists():
            try:
                with path.open("wb") as file:
                    file.truncate(_IMAGE_BYTES)
            except OSError as error:
                raise Invalid(f"there can be no image at {path}: {error.strerror}") from None
        return f"aio:{self._directory}/{path.name}"

    def _add(self, vbd: str, image: str) -> None:
        self.vbds.appear(vbd)
        shown = self._shown(vbd)
        try:
            shown.set_image(image)
            shown.ask(Request.START)
        except ZeventfsError:
            self.vbds.vanish(vbd)
            raise


def _short(place: Path, descriptor: int) -> str:
    """A name of *place*, which is open as *descriptor*, that leaves room for a socket's."""
    if len(os.fsencode(place)) <= _SOCKET_MOST:
        return str(place)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _signal_named(name: str) -> int:
    try:
        return signal.Signals(int(name)) if name.isdecimal() else signal.Signals[f"SIG{name}"]
    except (ValueError, KeyError):
        raise Invalid(f"there is no signal {name[:20]!r}") from None
