"""Ends a mount: finds its daemon, asks it to go, and sees to it that the mount is gone.

Nothing here asks the mounted file system anything, so a stuck or dead daemon can't hang it. A pid
is trusted only while its daemon holds the lock on RUNTIME/pid; signals go through a pidfd that was
opened before the lock was looked at, so they can't reach another process.
"""

import fcntl
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeventfs.config import escape_path, mountpoint_path, runtime_base
from zeventfs.errors import ZeventfsError

__all__ = [
    "FSTYPE",
    "CannotUmount",
    "Mounted",
    "daemon_pidfd",
    "detach_command",
    "forget",
    "mounted_at",
    "umount",
]

FSTYPE: Final = "fuse.zeventfs"  # what the daemon's subtype=zeventfs makes of it in mountinfo
PATIENCE: Final = 10.0  # seconds that a daemon may take to end
MOUNTINFO: Final = Path("/proc/self/mountinfo")
CONNECTIONS: Final = Path("/sys/fs/fuse/connections")

log = logging.getLogger(__name__)


class CannotUmount(ZeventfsError):
    """The mount could not be ended; the message is a sentence for the caller."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of mountinfo that matters: what is on top at a path."""

    fstype: str
    connection: int  # the minor of its device: the connection's name in fusectl
    owner: int  # uid that mounted it, of FUSE's user_id=; 0 where there is none


def mounted_at(mountpoint: Path) -> Mounted | None:
    """What is mounted at *mountpoint* (from `mountpoint_path`), the topmost; None if nothing is.

    The format is proc_pid_mountinfo(5)'s.
    """
    found = None
    for line in MOUNTINFO.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ")
        if _unescape(fields[4]) != os.fsencode(mountpoint):
            continue
        owner = re.search(rb"(?:^|,)user_id=([0-9]+)", kind[2])
        found = Mounted(
            fstype=os.fsdecode(kind[0]),
            connection=int(fields[2].partition(b":")[2]),
            owner=int(owner[1]) if owner else 0,
        )
    return found


def _unescape(field: bytes) -> bytes:
    """*field* with the octal escapes of spaces and the like undone."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)


@contextmanager
def daemon_pidfd(runtime: Path) -> Iterator[int | None]:
    """A pidfd of the daemon that lives on *runtime*, None where none does."""
    try:
        file = os.open(runtime / "pid", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        pidfd = _pidfd_of_holder(file)
    finally:
        os.close(file)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _pidfd_of_holder(file: int) -> int | None:
    text = os.pread(file, 32, 0).strip()
    if not text.isdigit() or int(text) == 0:
        return None
    try:
        pidfd = os.pidfd_open(int(text))
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pidfd  # still locked, so the process that wrote this pid still lives
    os.close(pidfd)
    return None


def umount(mountpoint: str | os.PathLike[str], *, patience: float = PATIENCE) -> None:
    """End the mount at *mountpoint*; when this returns, it and its daemon are gone.

    Waits up to *patience* seconds for the daemon to answer its readers and go; then aborts the
    connection. Raises CannotUmount where nothing of zeventfs is mounted, or it is not permitted.
    """
    path = mountpoint_path(mountpoint)
    mounted = mounted_at(path)
    ours = mounted is not None and mounted.fstype == FSTYPE
    for runtime in _runtimes(path, mounted if ours else None):
        with daemon_pidfd(runtime) as pidfd:
            if pidfd is not None:
                _end_daemon(path, runtime, pidfd, patience)
                return
    if mounted is None or not ours:
        raise CannotUmount(f"{path} is not a mounted zeventfs")
    log.warning("the daemon of %s is gone: detaching what it left", path)
    for runtime in _runtimes(path, mounted):
        _clear(runtime)
    _detach(path)


def _runtimes(path: Path, mounted: Mounted | None) -> list[Path]:
    """Where the daemon of *path* may have its runtime directory, the likeliest first.

    Root may end other users' mounts: their directories are looked at where a user's session has
    them.
    """
    uid = os.geteuid()
    bases = [runtime_base(uid)]
    if uid == 0 and mounted is not None and mounted.owner != 0:
        owner = mounted.owner
        bases.append(runtime_base(owner, {"XDG_RUNTIME_DIR": f"/run/user/{owner}"}))
        bases.append(runtime_base(owner, {}))
    return [base / escape_path(path) for base in bases]


def _end_daemon(path: Path, runtime: Path, pidfd: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except PermissionError:
        raise CannotUmount(f"ending the daemon of {path} is not permitted") from None
    except ProcessLookupError:
        pass  # it went by itself just now
    if not _ended(pidfd, patience):
        if not (runtime / "pid").exists() and not _is_ours(path):  # the last that it removes
            log.warning("a thread of the daemon of %s hangs in the kernel; the mount is gone", path)
            return
        log.warning("the daemon of %s did not end in %g s: aborting its connection", path, patience)
        _abort(path)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not _ended(pidfd, patience):
            raise CannotUmount(f"the daemon of {path} does not end, even killed")
    while _is_ours(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    if _is_ours(path):
        _detach(path)
    _clear(runtime)


def _ended(pidfd: int, patience: float) -> bool:
    """Whether the process ends within *patience* seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def _is_ours(path: Path) -> bool:
    mounted = mounted_at(path)
    return mounted is not None and mounted.fstype == FSTYPE


def _abort(path: Path) -> None:
    """Abort the connection through fusectl, where it is mounted and ours."""
    mounted = mounted_at(path)
    if mounted is not None and mounted.fstype == FSTYPE:
        with suppress(OSError):
            (CONNECTIONS / str(mounted.connection) / "abort").write_bytes(b"1")


def detach_command(path: Path) -> list[str]:
    """The program, with its arguments, that unmounts *path* lazily for whoever we are."""
    lazily = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    return [*lazily, "--", os.fspath(path)]


def _detach(path: Path) -> None:
    """Unmount lazily; the last holder of an open file lets go of the rest."""
    command = detach_command(path)
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0 and _is_ours(path):
        why = os.fsdecode(done.stderr).strip() or f"{command[0]} failed"
        raise CannotUmount(f"can't detach {path}: {why}")


def _clear(runtime: Path) -> None:
    """Remove what a daemon that was killed has left; one that ends in order leaves nothing."""
    if runtime.is_dir():
        shutil.rmtree(runtime, ignore_errors=True)
        forget(runtime)


def forget(runtime: Path) -> None:
    """Remove *runtime* and its base if nothing is left in them."""
    with suppress(OSError):
        runtime.rmdir()
    with suppress(OSError):
        runtime.parent.rmdir()
