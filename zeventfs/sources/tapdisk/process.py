"""A tapdisk's process: spawned or found, and its end noticed at once, by its pidfd.

A spawned one is a guest's disk: it has a session of its own, and nothing of it breaks when who
spawned it ends. Only who spawned it learns how it ended.
"""

import os
import select
import signal
from collections.abc import Sequence
from typing import Final

import trio

from zeventfs.vbd.facts import Exited

__all__ = ["Process", "read_line", "spawn"]

_LONGEST_LINE: Final = 4096


class Process:
    """Process *pid*, alive or a zombie when this is made. Raises ProcessLookupError, OSError.

    `exited` is how it ended, None while it lives.
    """

    def __init__(self, pid: int, *, ours: bool = False) -> None:
        self.pid = pid
        self.ours = ours
        self.exited: Exited | None = None
        self.over = trio.Event()
        """Set once `wait` has returned."""
        self._fd = os.pidfd_open(pid)

    async def wait(self) -> Exited:
        """Wait for its end, and reap it if it is ours; for one task alone."""
        while self.exited is None:
            await trio.lowlevel.wait_readable(self._fd)
            self.look()
        self.over.set()
        return self.exited

    def look(self) -> Exited | None:
        """How it ended, as far as that can be said without waiting."""
        if self.exited is None and self._ended():
            self.exited = self._reap() if self.ours else Exited()
        return self.exited

    def _ended(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def _reap(self) -> Exited:
        found = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
        if found is None:  # pragma: no cover - it has ended
            return Exited()
        if found.si_code in {os.CLD_KILLED, os.CLD_DUMPED}:
            return Exited(signal=found.si_status)
        return Exited(code=found.si_status)

    def send_signal(self, number: int) -> None:
        """Send it signal *number*, and nobody else; nothing if it has ended. Raises OSError."""
        if self.exited is None:
            try:
                signal.pidfd_send_signal(self._fd, number)
            except ProcessLookupError:
                self.look()

    def end(self) -> None:
        """Kill it, which is not waited for longer than that takes, and reap it if it is ours."""
        if self.exited is None and not self._ended():
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
            ended = select.poll()  # select(2) knows no descriptor above 1,023
            ended.register(self._fd, select.POLLIN)
            ended.poll()
        self.look()

    def close(self) -> None:
        """Let go of it; it goes on, if it lives."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def spawn(command: Sequence[str]) -> tuple[Process, int]:
    """Start *command*, found on PATH; its process, and where to read what it prints, nonblocking.

    Raises OSError where it can't be started. It holds what it prints into itself, so that this
    never breaks. It starts from this thread, whose end some programs may want to know of.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        kept = max(reading, writing, null, 2) + 1
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, writing, 1),
            (os.POSIX_SPAWN_DUP2, null, 2),
            (os.POSIX_SPAWN_DUP2, reading, kept),
        ]
        pid = os.posix_spawnp(
            command[0],
            list(command),
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
        os.set_blocking(reading, False)
        return _owned(pid), reading
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
        os.close(null)


def _owned(pid: int) -> Process:
    """Our child *pid*, which is not left alone where it can't be watched. Raises OSError."""
    try:
        return Process(pid, ours=True)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


async def read_line(reading: int) -> str:
    """Read the first line printed into *reading*, without its end, then let go of that.

    Less than a line, if no more comes.
    """
    line = b""
    try:
        while b"\n" not in line and len(line) < _LONGEST_LINE:
            await trio.lowlevel.wait_readable(reading)
            piece = os.read(reading, _LONGEST_LINE)
            if not piece:
                break
            line += piece
    finally:
        os.close(reading)
    return os.fsdecode(line.partition(b"\n")[0])
