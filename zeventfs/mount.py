"""Begins a mount, in the foreground or behind it, and speaks to mount(8) as its helper.

A mount that can't be made is refused with one sentence and mount(8)'s status. The daemon's heavy
imports happen only in the process that becomes the daemon.
"""

import argparse
import logging
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Final, NoReturn

from zeventfs import __version__, logs
from zeventfs.config import Config, parse
from zeventfs.errors import Invalid, ZeventfsError
from zeventfs.umount import FSTYPE, daemon_pidfd, forget, mounted_at, umount

__all__ = [
    "CannotMount",
    "Status",
    "UsageParser",
    "check",
    "main",
    "serve",
    "start",
    "status_of",
    "umount",
]

FUSE_DEVICE: Final = Path("/dev/fuse")
READY: Final = b"ready"

log = logging.getLogger(__name__)


class Status(IntEnum):
    """The exit status that mount(8) expects of a helper."""

    DONE = 0
    USAGE = 1  # incorrect invocation or permissions
    SYSTEM = 2  # system error
    INTERNAL = 4  # a bug
    INTERRUPTED = 8
    MTAB = 16
    FAILED = 32  # mount failure


class CannotMount(ZeventfsError):
    """The mount was not made; the message is a sentence for the caller, `status` mount(8)'s."""

    def __init__(self, message: str, status: Status = Status.FAILED) -> None:
        super().__init__(message)
        self.status = status


def check(config: Config) -> None:
    """Raise CannotMount where it can be seen beforehand that the mount would fail."""
    _check_place(config)
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise CannotMount(
            f"there is no {FUSE_DEVICE}: load the kernel's fuse module, or give the container one",
            Status.SYSTEM,
        ) from None
    except PermissionError:
        raise CannotMount(f"opening {FUSE_DEVICE} is not permitted", Status.USAGE) from None
    except OSError as error:
        raise CannotMount(f"can't open {FUSE_DEVICE}: {error.strerror}", Status.SYSTEM) from None
    if shutil.which("fusermount3") is None and os.geteuid() != 0:
        raise CannotMount("there is no fusermount3: install fuse3", Status.SYSTEM)


def _check_place(config: Config) -> None:
    path = config.mountpoint
    with daemon_pidfd(config.runtime) as pidfd:
        if pidfd is not None:
            raise CannotMount(f"a zeventfs is already mounted at {path}")
    mounted = mounted_at(path)
    if mounted is not None and mounted.fstype == FSTYPE:
        raise CannotMount(
            f"a zeventfs that is not answering, or another user's, is mounted at {path}: "
            "`umount -l` detaches it and leaves its events for the next mount, "
            "`zeventfs umount` ends it and removes them"
        )
    try:
        found = path.stat()
    except FileNotFoundError:
        raise CannotMount(f"mountpoint {path} does not exist") from None
    except OSError as error:
        raise CannotMount(f"can't use mountpoint {path}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise CannotMount(f"mountpoint {path} is not a directory")
    if os.geteuid() != 0 and not os.access(path, os.W_OK | os.X_OK):  # as fusermount3 asks
        raise CannotMount(f"mounting over {path} is not permitted", Status.USAGE)


def _make_runtime(runtime: Path) -> None:
    """Make the mount's runtime directory, open to nobody else; raise CannotMount if it can't be."""
    base = runtime.parent
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise CannotMount(f"{base} belongs to somebody else", Status.USAGE)
        runtime.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotMount(f"can't make {runtime}: {error.strerror}", Status.SYSTEM) from None


def _begin_log(config: Config) -> None:
    try:
        logs.begin(config.log)
    except OSError as error:
        raise CannotMount(f"can't log to {config.log}: {error.strerror}", Status.SYSTEM) from None


def serve(config: Config, ready: Callable[[], None]) -> None:
    """Be the daemon of *config* until its mount ends; *ready* is called when the tree answers.

    Raises CannotMount where it never does.
    """
    _make_runtime(config.runtime)
    try:
        _begin_log(config)
        if "sim" in config.sources and Path("/dev/zfs").exists():
            log.info("these are simulated events; the host's own are source zfs")
        _run(config, ready)
    finally:
        logging.shutdown()
        with suppress(OSError):  # the daemon's own log, where it is in the runtime directory
            if Path(config.log).parent == config.runtime:
                Path(config.log).unlink()
        forget(config.runtime)


def _run(config: Config, ready: Callable[[], None]) -> None:
    try:
        from zeventfs import daemon  # noqa: PLC0415  # heavy: only the daemon's process pays for it

        daemon.run(config, ready)
    except ZeventfsError as error:
        if config.log != "stderr":  # there, the caller prints it
            log.error("%s", error)  # noqa: TRY400  # a sentence needs no traceback
        raise CannotMount(str(error)) from error
    except OSError as error:
        log.exception("the daemon failed")
        raise CannotMount(str(error), Status.SYSTEM) from error
    except Exception as error:
        log.exception("a bug ended the daemon")
        raise CannotMount(f"internal error: {error!r}", Status.INTERNAL) from error


def start(config: Config) -> int:
    """Start a daemon behind the caller and return its pid once the tree answers.

    The daemon is a child of the calling process, in a session of its own. Raises CannotMount with
    its reason if it ends before; a KeyboardInterrupt ends it and is passed on.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _become_daemon(config, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    if answer == READY:
        return pid
    _, ended = os.waitpid(pid, 0)
    raise _refusal(answer, os.waitstatus_to_exitcode(ended))


def _refusal(answer: bytes, ended: int) -> CannotMount:
    status, _, message = answer.decode(errors="replace").partition(" ")
    if message:
        return CannotMount(message, Status(int(status)))
    how = f"was ended by signal {-ended}" if ended < 0 else f"ended with status {ended}"
    return CannotMount(f"the daemon {how} before the tree answered", Status.INTERNAL)


def _become_daemon(config: Config, pipe: int) -> NoReturn:
    """In the child: leave the caller's terminal, be the daemon, and never return."""
    status = Status.INTERNAL
    answered = False

    def ready() -> None:
        nonlocal answered
        _point_at_null(1, 2)
        with suppress(BrokenPipeError):  # the caller was killed: the mount is there all the same
            os.write(pipe, READY)
        os.close(pipe)
        answered = True

    try:
        os.setsid()
        os.chdir("/")
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _point_at_null(0)
        serve(config, ready)
        status = Status.DONE
    except CannotMount as error:
        status = error.status
        if not answered:
            os.write(pipe, f"{int(status)} {error}".encode(errors="replace"))
    finally:
        # Not sys.exit: what the caller had on its stack and in its buffers is the caller's.
        os._exit(status)


def _point_at_null(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def status_of(program: str, work: Callable[[], None]) -> Status:
    """Do *work*, or say on stderr, in *program*'s name, why not; mount(8)'s status for it."""
    try:
        work()
    except Invalid as error:
        message, status = str(error), Status.USAGE
    except CannotMount as error:
        message, status = str(error), error.status
    except KeyboardInterrupt:
        message, status = "interrupted", Status.INTERRUPTED
    except OSError as error:
        message, status = str(error), Status.SYSTEM
    else:
        return Status.DONE
    print(f"{program}: {message}", file=sys.stderr)
    return status


class UsageParser(argparse.ArgumentParser):
    """An argument parser whose complaints end with mount(8)'s status for them."""

    def error(self, message: str) -> NoReturn:
        """Print how to call it and *message* on stderr, and exit."""
        self.print_usage(sys.stderr)
        self.exit(Status.USAGE, f"{self.prog}: {message}\n")


def _parser() -> UsageParser:
    parser = UsageParser(
        prog="mount.zeventfs",
        description="Mount zeventfs; called by mount -t zeventfs (see mount(8)).",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="auto, zfs, tapdisk, dm, sim or replay:FILE; joined with +"
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="pass over unknown options")
    parser.add_argument("-f", dest="fake", action="store_true", help="all but the mount itself")
    parser.add_argument("-n", action="store_true", help="no mtab (there is none: ignored)")
    parser.add_argument("-v", dest="verbose", action="store_true", help="say what was mounted")
    parser.add_argument("-o", dest="options", metavar="OPTIONS", action="append", default=[])
    parser.add_argument("-t", metavar="TYPE", help="ignored")
    parser.add_argument("-V", action="version", version=f"mount.zeventfs {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Be mount.zeventfs; the exit status."""
    asked = _parser().parse_args(arguments)

    def work() -> None:
        config = parse(asked.source, asked.mountpoint, asked.options, sloppy=asked.sloppy)
        check(config)
        if not asked.fake:
            start(config)
        if asked.verbose:
            print(f"{'+'.join(config.sources)} mounted on {config.mountpoint}")

    return status_of("mount.zeventfs", work)


if __name__ == "__main__":
    sys.exit(main())
