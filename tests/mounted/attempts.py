"""Tries everything on every file of a tree and prints what came of it: `attempts.py POINT [UID]`.

It is a program, so that it can become user UID, and so that whoever started it stays free if a call
on the tree never returns. It prints JSON: file -> its class -> attempt -> "ok" or the errno's name.
A file's class follows from its mode: `directory`, `read` (only), `write` (only), `both`.
"""

import ctypes
import errno
import fcntl
import functools
import itertools
import json
import mmap
import operator
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["BY_DESCRIPTOR", "BY_NAME", "Answers"]

Answers = dict[str, str]  # attempt -> answer

ACCESS = {"O_RDONLY": os.O_RDONLY, "O_WRONLY": os.O_WRONLY, "O_RDWR": os.O_RDWR}
FLAGS = {
    "O_APPEND": os.O_APPEND,
    "O_ASYNC": os.O_ASYNC,
    "O_CLOEXEC": os.O_CLOEXEC,
    "O_CREAT": os.O_CREAT,
    "O_DIRECT": os.O_DIRECT,
    "O_DIRECTORY": os.O_DIRECTORY,
    "O_DSYNC": os.O_DSYNC,
    "O_EXCL": os.O_EXCL,
    "O_NOATIME": os.O_NOATIME,
    "O_NOCTTY": os.O_NOCTTY,
    "O_NOFOLLOW": os.O_NOFOLLOW,
    "O_PATH": os.O_PATH,
    "O_SYNC": os.O_SYNC,
    "O_TMPFILE": os.O_TMPFILE,
    "O_TRUNC": os.O_TRUNC,
}
GARBAGE = b"\xff\0\x01 garbage\n{\n"
HUGE = b"\xfe" * (3 << 20)
FAR = 1 << 62
FS_IOC_GETFLAGS, TCGETS = 0x80086601, 0x5401
FALLOC_FL_PUNCH_HOLE = 0x03  # with KEEP_SIZE, as it must be

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
MAP_FAILED = ctypes.c_void_p(-1).value


def _class_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    return {0o400: "read", 0o200: "write", 0o600: "both"}[mode & 0o600]


def _flag_names(length: int) -> Iterator[tuple[str, ...]]:
    """Give every set of at most *length* flags."""
    for count in range(length + 1):
        yield from itertools.combinations(FLAGS, count)


def _answer(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def _checked(result: int | None, failed: int | None = -1) -> int | None:
    if result == failed:
        raise OSError(ctypes.get_errno(), "")
    return result


def _map(descriptor: int, flags: int, protection: int = mmap.PROT_READ) -> None:
    length = ctypes.c_size_t(mmap.PAGESIZE)
    address = libc.mmap(None, length, protection, flags, descriptor, ctypes.c_long(0))
    _checked(address, MAP_FAILED)
    libc.munmap(ctypes.c_void_p(address), length)


def _fallocate(descriptor: int, mode: int) -> None:
    _checked(libc.fallocate(descriptor, mode, ctypes.c_long(0), ctypes.c_long(4096)))


def _seek_and_read(descriptor: int) -> None:
    assert os.lseek(descriptor, FAR, os.SEEK_SET) == FAR
    assert os.read(descriptor, 100) == b""


# By name, as a user would

BY_NAME: dict[str, Callable[[Path], object]] = {
    "truncate to 0": lambda path: os.truncate(path, 0),
    "truncate to 9": lambda path: os.truncate(path, 9),
    "truncate to 2^62": lambda path: os.truncate(path, FAR),
    "rename": lambda path: path.rename(f"{path}.new"),
    "rename to itself": lambda path: path.rename(path),
    "unlink": lambda path: path.unlink(),
    "rmdir": lambda path: path.rmdir(),
    "link": lambda path: Path(f"{path}.new").hardlink_to(path),
    "symlink beside": lambda path: Path(f"{path}.new").symlink_to(path),
    "symlink in its place": lambda path: path.symlink_to("README"),
    "mkdir beside": lambda path: Path(f"{path}.new").mkdir(),
    "mkdir in its place": lambda path: path.mkdir(),
    "mknod beside": lambda path: os.mknod(f"{path}.new"),
    "mkfifo beside": lambda path: os.mkfifo(f"{path}.new"),
    "create beside": lambda path: Path(f"{path}.new").write_bytes(b"x"),
    "open what isn't there": lambda path: Path(f"{path}.new").read_bytes(),
    "stat below": lambda path: (path / "nothing").stat(),
    "readlink": lambda path: path.readlink(),
    "execute": lambda path: os.posix_spawn(path, ["x"], {}),
    "chdir": os.chdir,
    "chmod": lambda path: path.chmod(0o666),
    "chown": lambda path: os.chown(path, 1, 1),
    "chown to nobody else": lambda path: os.chown(path, -1, -1),
    "touch": os.utime,
    "utime": lambda path: os.utime(path, (1, 1)),
    "getxattr": lambda path: os.getxattr(path, "user.a"),
    "getxattr of an ACL": lambda path: os.getxattr(path, "system.posix_acl_access"),
    "listxattr": os.listxattr,
    "setxattr": lambda path: os.setxattr(path, "user.a", b"1"),
    "removexattr": lambda path: os.removexattr(path, "user.a"),
}

# By a descriptor, open as the file may be opened

BY_DESCRIPTOR: dict[str, Callable[[int], object]] = {
    "read": lambda fd: os.read(fd, 100),
    "read nothing": lambda fd: os.read(fd, 0),
    "read far behind the end": _seek_and_read,
    "pread at -1": lambda fd: os.pread(fd, 100, -1),
    "pread at 5": lambda fd: os.pread(fd, 100, 5),
    "seek to -1": lambda fd: os.lseek(fd, -1, os.SEEK_SET),
    "seek before the begin": lambda fd: os.lseek(fd, -FAR, os.SEEK_END),
    "seek to the end": lambda fd: os.lseek(fd, 0, os.SEEK_END),
    "write garbage": lambda fd: os.write(fd, GARBAGE),
    "write garbage at 2^40": lambda fd: os.pwrite(fd, GARBAGE, 1 << 40),
    "write nothing": lambda fd: os.write(fd, b""),
    "write 3 MiB": lambda fd: os.write(fd, HUGE),
    "ftruncate": lambda fd: os.ftruncate(fd, 0),
    "fallocate": lambda fd: _fallocate(fd, 0),
    "punch a hole": lambda fd: _fallocate(fd, FALLOC_FL_PUNCH_HOLE),
    "fsync": os.fsync,
    "fdatasync": os.fdatasync,
    "mmap, shared": lambda fd: _map(fd, mmap.MAP_SHARED),
    "mmap, shared, to write": lambda fd: _map(fd, mmap.MAP_SHARED, mmap.PROT_WRITE),
    "mmap, private": lambda fd: _map(fd, mmap.MAP_PRIVATE),
    "flock": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "lock to read": lambda fd: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
    "lock to write": lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "ioctl of a terminal": lambda fd: fcntl.ioctl(fd, TCGETS, bytes(64)),
    "ioctl of flags": lambda fd: fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)),
    "fchmod": lambda fd: os.fchmod(fd, 0o600),
    "fchown": lambda fd: os.fchown(fd, 1, 1),
    "futimens": lambda fd: os.utime(fd, (1, 1)),
    "list": os.listdir,
    "fchdir": os.fchdir,
}
TO_OPEN = {"directory": os.O_RDONLY, "read": os.O_RDONLY, "write": os.O_WRONLY, "both": os.O_RDWR}


def _open(path: Path, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK, 0o600))


def _opened(path: Path, kind: str, call: Callable[[int], object]) -> object:
    descriptor = os.open(path, TO_OPEN[kind] | os.O_NONBLOCK)
    try:
        return call(descriptor)
    finally:
        os.close(descriptor)


def _attempts(path: Path, kind: str, most_flags: int) -> Answers:
    answers = {}
    for name, access in ACCESS.items():
        for names in _flag_names(most_flags):
            flags = functools.reduce(operator.or_, (FLAGS[flag] for flag in names), access)
            attempt = f"open {' '.join([name, *names])}"
            answers[attempt] = _answer(lambda flags=flags: _open(path, flags))  # type: ignore[misc]  # mypy can't infer a lambda's default
    if not path.is_mount():  # whose own name is another file system's
        for name, by_name in BY_NAME.items():
            answers[name] = _answer(lambda call=by_name: call(path))  # type: ignore[misc]  # as above
    for name, call in BY_DESCRIPTOR.items():
        answers[name] = _answer(lambda call=call: _opened(path, kind, call))  # type: ignore[misc]  # as above
    return answers


def _files(point: Path) -> list[Path]:
    """Give all that is in the tree, the tree itself first."""
    found = [point]
    for directory, directories, names in os.walk(point):
        found += [Path(directory, name) for name in (*directories, *names)]
    return found


def main() -> None:
    point = Path(sys.argv[1])
    if len(sys.argv) > 2:
        user = int(sys.argv[2])
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    tried: dict[str, dict[str, Answers]] = {}
    classes = set()
    for path in _files(point):
        kind = _class_of(path.lstat().st_mode)
        most_flags = 1 if kind in classes else 2  # pairs once, which are a hundred
        classes.add(kind)
        tried[str(path.relative_to(point))] = {kind: _attempts(path, kind, most_flags)}
    json.dump(tried, sys.stdout)


if __name__ == "__main__":
    main()
