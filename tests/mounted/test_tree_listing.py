"""The tree as a whole: what is in it, whose it is, and what can't be done to it."""

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Mount
from mounted_tree import Mounted
from programs import run

READABLE = [
    "README",
    "events/stream",
    "events/log",
    "events/stream.txt",
    "events/log.txt",
    "events/stream.nvl",
    "events/log.nvl",
    "events/latest",
    "events/summary",
    "events/status",
]
WRITABLE = ["events/clear", "simulator/inject"]
DIRECTORIES = ["", "events", "simulator"]
REFUSED = {errno.EACCES, errno.EPERM}


def test_find_and_ls_walk_the_whole_tree_without_waiting(mounted: Mounted) -> None:
    mounted.post(5)
    found = run(["find", mounted.point, "-printf", "%P %y\n"], limit=5.0)
    assert (found.returncode, found.stderr) == (0, b"")
    names = set(found.stdout.decode().splitlines())
    assert {f"{name} f" for name in [*READABLE, *WRITABLE]} <= names
    assert {f"{name} d" for name in DIRECTORIES} <= names
    listed = run(["ls", "-lR", mounted.point], limit=5.0)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert b"?" not in listed.stdout


def test_listings_are_quick_while_readers_block(mounted: Mounted) -> None:
    cats = [mounted.program("cat", mounted.path("events/stream")) for _ in range(5)]
    for cat in cats:
        cat.await_blocked()
    assert run(["ls", "-lR", mounted.point], limit=2.0).returncode == 0


def test_inode_numbers_stay_and_differ(mounted: Mounted) -> None:
    def inodes() -> dict[str, int]:
        names = [*READABLE, *WRITABLE, *DIRECTORIES]
        return {name: mounted.path(name).stat().st_ino for name in names}

    before = inodes()
    assert len(set(before.values())) == len(before)
    with os.scandir(mounted.path("events")) as entries:
        listed = {entry.name: entry.inode() for entry in entries}
    assert all(before[f"events/{name}"] == listed[name] for name in ("stream", "clear", "status"))
    mounted.post(3)
    assert inodes() == before


def test_stat_and_df_answer(mounted: Mounted) -> None:
    done = run(["stat", "-c", "%n %s %F", *(mounted.path(name) for name in READABLE)])
    assert done.returncode == 0
    assert done.stdout.count(b"regular") == len(READABLE)
    df = run(["df", "-T", mounted.point])
    assert df.returncode == 0
    assert b"fuse" in df.stdout
    assert run(["stat", "-f", mounted.point]).returncode == 0


def test_the_mount_says_what_it_is(mounted: Mounted) -> None:
    info = mounted.info
    assert info is not None
    assert info.kind.startswith("fuse")
    assert "zeventfs" in f"{info.kind} {info.source}"
    assert {"nosuid", "nodev", "default_permissions"} <= info.options


def test_only_who_mounted_may_use_the_tree(mounted: Mounted) -> None:
    for name in [*READABLE, *WRITABLE]:
        facts = mounted.path(name).stat()
        assert (facts.st_uid, facts.st_gid) == (os.getuid(), os.getgid())
        assert stat.S_ISREG(facts.st_mode)
        assert stat.S_IMODE(facts.st_mode) == (0o200 if name in WRITABLE else 0o440)
    for name in DIRECTORIES:
        mode = mounted.path(name).stat().st_mode
        assert stat.S_ISDIR(mode)
        assert stat.S_IMODE(mode) & 0o227 == 0, "nobody writes, others don't even look"


def test_uid_gid_and_mode_are_as_asked_for(mount: Mount) -> None:
    mounted = mount("uid=1234", "gid=4321", "mode=0444")
    for name in [*READABLE, *WRITABLE]:
        facts = mounted.path(name).stat()
        assert (facts.st_uid, facts.st_gid) == (1234, 4321)
        assert stat.S_IMODE(facts.st_mode) == (0o200 if name in WRITABLE else 0o444)


def as_nobody(*argv: str | Path) -> tuple[int, str]:
    to_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = run([*to_nobody, *argv], limit=5.0)
    return done.returncode, done.stderr.decode()


def test_another_user_is_refused_without_allow_other(mount: Mount) -> None:
    mounted = mount("mode=0444")
    status, error = as_nobody("cat", mounted.path("README"))
    assert status != 0
    assert "Permission denied" in error


def test_allow_other_leaves_the_modes_in_force(mount: Mount) -> None:
    mounted = mount("allow_other")
    assert as_nobody("cat", mounted.path("README"))[0] != 0
    assert as_nobody("cat", mounted.path("events/log"))[0] != 0


def test_who_may_read_may_not_steer(mount: Mount) -> None:
    mounted = mount("allow_other", "gid=65534")
    mounted.post(2)
    assert as_nobody("cat", mounted.path("events/log")) == (0, "")
    assert as_nobody("head", "-n", "2", mounted.path("events/stream")) == (0, "")
    for name in WRITABLE:
        status, error = as_nobody("sh", "-c", 'echo 1 > "$1"', "writer", mounted.path(name))
        assert status != 0
        assert "Permission denied" in error
    assert len(mounted.everything()) == 2


def test_everybody_may_read_when_mode_says_so(mount: Mount) -> None:
    mounted = mount("allow_other", "mode=0444")
    assert as_nobody("cat", mounted.path("README")) == (0, "")
    assert as_nobody("ls", "-lR", mounted.point) == (0, "")


def test_a_read_only_mount_takes_no_writes(mount: Mount) -> None:
    mounted = mount("ro")
    info = mounted.info
    assert info is not None
    assert "ro" in info.options
    for name in WRITABLE:
        with pytest.raises(OSError, match="Read-only") as refused:
            mounted.write(name, b"1\n")
        assert refused.value.errno == errno.EROFS
    assert mounted.read("README")


@pytest.mark.parametrize("name", READABLE)
def test_read_only_files_refuse_to_be_written_or_cut(mounted: Mounted, name: str) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC):
        with pytest.raises(PermissionError):
            mounted.open(name, flags)
    with pytest.raises(PermissionError):
        os.truncate(mounted.path(name), 0)


@pytest.mark.parametrize("name", WRITABLE)
def test_write_only_files_refuse_to_be_read(mounted: Mounted, name: str) -> None:
    for flags in (os.O_RDONLY, os.O_RDWR):
        with pytest.raises(PermissionError):
            mounted.open(name, flags)


CHANGES: dict[str, Callable[[Path], object]] = {
    "unlink": lambda root: (root / "events/log").unlink(),
    "rename": lambda root: (root / "events/log").rename(root / "events/log.old"),
    "chmod": lambda root: (root / "events/log").chmod(0o666),
    "chown": lambda root: os.chown(root / "events/log", 1, 1),
    "mkdir": lambda root: (root / "events/new").mkdir(),
    "rmdir": lambda root: (root / "events").rmdir(),
    "create": lambda root: (root / "events/new").write_bytes(b"x"),
    "symlink": lambda root: (root / "events/new").symlink_to("log"),
    "link": lambda root: (root / "events/new").hardlink_to(root / "events/log"),
    "mkfifo": lambda root: os.mkfifo(root / "new"),
    "utime": lambda root: os.utime(root / "events/log", (1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_tree_is_not_changed_from_outside(mounted: Mounted, change: str) -> None:
    with pytest.raises(OSError, match=r".") as refused:
        CHANGES[change](mounted.point)
    assert refused.value.errno in REFUSED
    assert mounted.read("README")


def test_unknown_names_are_enoent(mounted: Mounted) -> None:
    for name in ("nothing", "events/nothing", "events/log.99", "simulator/..x", "README "):
        with pytest.raises(FileNotFoundError):
            mounted.path(name).stat()
    for size in (255, 300, 2000):
        with pytest.raises(OSError, match=r"No such file|too long"):
            mounted.path("events/" + "x" * size).stat()
    with pytest.raises(NotADirectoryError):
        mounted.path("README/x").stat()


def test_readme_names_every_file(mounted: Mounted) -> None:
    content = mounted.read("README")
    assert mounted.path("README").stat().st_size == len(content)
    text = content.decode()
    for name in [*READABLE[1:], *WRITABLE]:
        assert Path(name).name in text
    assert len(text.splitlines()) < 100, "a page"


def test_status_counts(mounted: Mounted) -> None:
    mounted.post(5)
    idle = mounted.stream()
    seen = mounted.everything()
    text = mounted.read("events/status").decode()
    assert seen[0]["epoch"] in text
    numbers = set(re.findall(r"\d+", text))
    assert {str(len(seen)), str(seen[-1]["seq"]), str(len(mounted.drain(idle)))} <= numbers
    for word in ("queued", "bytes", "first", "last", "epoch", "gap", "reader", "lag"):
        assert word in text.lower()


def test_status_is_a_snapshot_with_a_true_size(mounted: Mounted) -> None:
    held = mounted.open("events/status")
    before = os.fstat(held).st_size
    mounted.post(1000)
    content = mounted.drain(held, 7)
    assert len(content) == before
    assert content != mounted.read("events/status")
    descriptor = mounted.open("events/status")
    assert os.fstat(descriptor).st_size == len(mounted.drain(descriptor))
