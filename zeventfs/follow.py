"""`make run`: mounts, follows events/stream on the terminal, and leaves nothing behind.

From before the mount until the end, the signals that end it are blocked and only waited for, so
none can arrive at a bad moment; the daemon, in a session of its own, never sees the terminal's.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from zeventfs.config import Config, parse
from zeventfs.mount import Status, UsageParser, check, start, status_of
from zeventfs.umount import FSTYPE, CannotUmount, daemon_pidfd, mounted_at, umount

__all__ = ["follow", "main"]

ENDING: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

WELCOME: Final = """\
zeventfs shows {sources} at {at}
Look around from another terminal:
    cat {at}/README
    tail -f {at}/events/log
    cat {at}/events/stream.txt
    cat {at}/events/status
Here follows {at}/events/stream, until Ctrl-C:
"""


def follow(source: str, mountpoint: Path, options: Sequence[str]) -> Status:
    """Mount *source* at *mountpoint* (made, and removed again, if missing) until a signal comes.

    DONE if it was ended by a signal or by nobody reading the output; FAILED if the daemon or the
    stream ended first. Raises what starting and ending a mount raise.
    """
    try:
        mountpoint.mkdir()  # unlike a look at it, this asks a dead mount there nothing
        made = True
    except FileExistsError:
        made = False
    try:
        config = parse(source, mountpoint, options)
        _clear_dead(config)
        check(config)
        daemon = start(config)
        try:
            return _follow_until_told(config, daemon, mountpoint)
        finally:
            with suppress(CannotUmount):  # it ended by itself
                umount(mountpoint)
            with suppress(ChildProcessError):
                os.waitpid(daemon, 0)
    finally:
        if made:
            with suppress(OSError):  # not empty: somebody else's files are in it
                mountpoint.rmdir()


def _clear_dead(config: Config) -> None:
    """Detach what a killed `make run` left, so that the next one just works."""
    mounted = mounted_at(config.mountpoint)
    with daemon_pidfd(config.runtime) as living:
        dead = living is None and mounted is not None and mounted.fstype == FSTYPE
    if dead:
        umount(config.mountpoint)


def _follow_until_told(config: Config, daemon: int, mountpoint: Path) -> Status:
    print(WELCOME.format(sources="+".join(config.sources), at=mountpoint), end="", flush=True)
    stream = os.fspath(config.mountpoint / "events" / "stream")
    cat = os.posix_spawnp(
        "cat", ["cat", stream], os.environ, setsigmask=[], setsigdef=[signal.SIGPIPE]
    )
    while True:
        came = signal.sigwait({*ENDING, signal.SIGCHLD})
        if came != signal.SIGCHLD:
            break
        if (ended := _ended(daemon)) is not None:
            print(f"make run: the daemon ended by itself ({ended})", file=sys.stderr)
            _stop(cat)
            return Status.FAILED
        if (ended := _ended(cat)) is not None:
            quiet = ended in {-signal.SIGINT, -signal.SIGPIPE}
            if not quiet:
                print(f"make run: the stream ended by itself ({ended})", file=sys.stderr)
            return Status.DONE if quiet else Status.FAILED
    _stop(cat)
    return Status.DONE


def _ended(pid: int) -> int | None:
    """How the child *pid* ended, without reaping it; None while it runs."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)


def _with_the_terminal(work: Callable[[], int]) -> int:
    """Do *work*; where make runs on a terminal, in a process group that Ctrl-C goes to alone.

    make would end by Ctrl-C's signal, whatever its recipe made of it. Signals that are sent to
    make's group are passed on. Ctrl-Z is left without effect: the shell knows nothing of the new
    group and couldn't see that it has stopped.
    """
    group = os.getpgrp()
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return work()
    if group == os.getpid() or os.tcgetpgrp(terminal) != group:  # no make, or in the background
        os.close(terminal)
        return work()
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else taking the terminal would stop us
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        status = work()
        sys.stdout.flush()
        os._exit(status)  # this process is a copy: what the caller would clean up is the caller's
    while (ended := _ended(child)) is None:
        came = signal.sigwait({*ENDING, signal.SIGCHLD})
        if came != signal.SIGCHLD:
            os.kill(child, came)
    with suppress(OSError):  # the terminal has hung up
        os.tcsetpgrp(terminal, group)
    return Status.FAILED if ended < 0 else ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow SOURCE at MOUNTPOINT; the exit status."""
    parser = UsageParser(prog="make run", description="Mount, follow events/stream, unmount.")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", type=Path)
    parser.add_argument("-o", dest="options", metavar="OPTIONS", action="append", default=[])
    asked = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDING, signal.SIGCHLD})
    return _with_the_terminal(lambda: _status(asked.source, asked.mountpoint, asked.options))


def _status(source: str, mountpoint: Path, options: Sequence[str]) -> int:
    followed = Status.FAILED

    def work() -> None:
        nonlocal followed
        followed = follow(source, mountpoint, options)

    return status_of("make run", work) or followed


if __name__ == "__main__":
    sys.exit(main())
