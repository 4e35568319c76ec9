"""Every file of the tree, however it is opened and whatever is done to it: the right errno.

`attempts` walks the tree, and so a file that joins it is tried by itself; it must answer as its
class does, which follows from its mode. The table says what root gets, `OWNER` and `OTHER` where
users without privileges get something else. docs/tree.md has the table in words.
"""

import json
import os
import sys

import attempts
import pytest
from attempts import Answers
from conftest import Mount
from lines import events, labels
from mounted_tree import Mounted
from programs import run

NOBODY = "65534"
CLASSES = ("directory", "read", "write", "both")

ROOT = """
truncate to 0              EISDIR    EACCES    ok        ok
truncate to 9              EISDIR    EACCES    ok        ok
truncate to 2^62           EISDIR    EACCES    ok        ok
rename                     EPERM     EPERM     EPERM     EPERM
rename to itself           ok        ok        ok        ok
unlink                     EISDIR    EPERM     EPERM     EPERM
rmdir                      EPERM     ENOTDIR   ENOTDIR   ENOTDIR
link                       EPERM     EPERM     EPERM     EPERM
symlink beside             EPERM     EPERM     EPERM     EPERM
symlink in its place       EEXIST    EEXIST    EEXIST    EEXIST
mkdir beside               EPERM     EPERM     EPERM     EPERM
mkdir in its place         EEXIST    EEXIST    EEXIST    EEXIST
mknod beside               EPERM     EPERM     EPERM     EPERM
mkfifo beside              EPERM     EPERM     EPERM     EPERM
create beside              EPERM     EPERM     EPERM     EPERM
open what isn't there      ENOENT    ENOENT    ENOENT    ENOENT
stat below                 ENOENT    ENOTDIR   ENOTDIR   ENOTDIR
readlink                   EINVAL    EINVAL    EINVAL    EINVAL
execute                    EACCES    EACCES    EACCES    EACCES
chdir                      ok        ENOTDIR   ENOTDIR   ENOTDIR
chmod                      EPERM     EPERM     EPERM     EPERM
chown                      EPERM     EPERM     EPERM     EPERM
chown to nobody else       ok        ok        ok        ok
touch                      EPERM     EPERM     EPERM     EPERM
utime                      EPERM     EPERM     EPERM     EPERM
getxattr                   ENOTSUP   ENOTSUP   ENOTSUP   ENOTSUP
getxattr of an ACL         ENODATA   ENODATA   ENODATA   ENODATA
listxattr                  ENOTSUP   ENOTSUP   ENOTSUP   ENOTSUP
setxattr                   ENOTSUP   ENOTSUP   ENOTSUP   ENOTSUP
removexattr                ENOTSUP   ENOTSUP   ENOTSUP   ENOTSUP
read                       EISDIR    ok/EAGAIN EBADF     ok
read nothing               EISDIR    ok        EBADF     ok
read far behind the end    EISDIR    ok/EAGAIN EBADF     ok
pread at -1                EINVAL    EINVAL    EINVAL    EINVAL
pread at 5                 EISDIR    ok/EAGAIN EBADF     ok
seek to -1                 EINVAL    EINVAL    EINVAL    EINVAL
seek before the begin      EINVAL    EINVAL    EINVAL    EINVAL
seek to the end            ok        ok        ok        ok
write garbage              EBADF     EBADF     EINVAL    EINVAL
write garbage at 2^40      EBADF     EBADF     EINVAL    EINVAL
write nothing              EBADF     EBADF     ok        ok
write 3 MiB                EBADF     EBADF     EINVAL    EINVAL
ftruncate                  EINVAL    EINVAL    ok        ok
fallocate                  EBADF     EBADF     ENOTSUP   ENOTSUP
punch a hole               EBADF     EBADF     ENOTSUP   ENOTSUP
fsync                      ok        ok        ok        ok
fdatasync                  ok        ok        ok        ok
mmap, shared               ENODEV    ENODEV    EACCES    ENODEV
mmap, shared, to write     EACCES    EACCES    EACCES    ENODEV
mmap, private              ENODEV    ok        EACCES    ok
flock                      ok        ok        ok        ok
lock to read               ok        ok        EBADF     ok
lock to write              EBADF     EBADF     ok        ok
ioctl of a terminal        ENOTTY    ENOTTY    ENOTTY    ENOTTY
ioctl of flags             ENOTTY    ENOTTY    EACCES    ENOTTY
fchmod                     EPERM     EPERM     EPERM     EPERM
fchown                     EPERM     EPERM     EPERM     EPERM
futimens                   EPERM     EPERM     EPERM     EPERM
list                       ok        ENOTDIR   ENOTDIR   ENOTDIR
fchdir                     ok        ENOTDIR   ENOTDIR   ENOTDIR
"""

# The owner's directories aren't writable, and the kernel asks that first.
IN_DIRECTORY = """
rename                     EACCES    EACCES    EACCES    EACCES
unlink                     EACCES    EACCES    EACCES    EACCES
rmdir                      EACCES    EACCES    EACCES    EACCES
symlink beside             EACCES    EACCES    EACCES    EACCES
mkdir beside               EACCES    EACCES    EACCES    EACCES
mknod beside               EACCES    EACCES    EACCES    EACCES
mkfifo beside              EACCES    EACCES    EACCES    EACCES
create beside              EACCES    EACCES    EACCES    EACCES
"""
OWNER = f"""{IN_DIRECTORY}
link                       EACCES    EACCES    EACCES    EACCES
getxattr                   ENOTSUP   ENOTSUP   EACCES    ENOTSUP
setxattr                   EACCES    EACCES    ENOTSUP   ENOTSUP
removexattr                EACCES    EACCES    ENOTSUP   ENOTSUP
"""
# Whether links to other users' files are EPERM is fs.protected_hardlinks, proc_sys_fs(5).
OTHER = f"""{IN_DIRECTORY}
link                       EPERM/EACCES EPERM/EACCES EPERM/EACCES EPERM/EACCES
truncate to 0              EISDIR    EACCES    EACCES    EACCES
truncate to 9              EISDIR    EACCES    EACCES    EACCES
truncate to 2^62           EISDIR    EACCES    EACCES    EACCES
touch                      EACCES    EACCES    EACCES    EACCES
getxattr                   ENOTSUP   ENOTSUP   EACCES    EACCES
setxattr                   EACCES    EACCES    EACCES    EACCES
removexattr                EACCES    EACCES    EACCES    EACCES
"""

# vbd/ is the owner's to change by mkdir and rmdir, so that the kernel lets the owner ask for the
# rest, too; a name that begins as those of its files do is no VBD's.
STEERED = "vbd"
IN_STEERED = """
mkdir beside               EINVAL    EINVAL    EINVAL    EINVAL
"""

# What takes any write, whatever it says
TAKES_ALL = {"events/clear"}
GARBAGE = {"write garbage", "write garbage at 2^40", "write 3 MiB"}


def table(*texts: str) -> dict[tuple[str, str], set[str]]:
    """Read tables, a later one's rows in place of an earlier one's: (attempt, class) -> answers."""
    read = {}
    for line in "\n".join(texts).strip().splitlines():
        if line:
            *name, directory, readable, writable, both = line.split()
            answers = zip(CLASSES, (directory, readable, writable, both), strict=True)
            read.update({(" ".join(name), kind): set(said.split("/")) for kind, said in answers})
    return read


def of_open(flags: set[str], kind: str) -> set[str]:
    """Say what an open with *flags* answers to whom the mode allows it; open(2)."""
    directory = kind == "directory"
    if "O_PATH" in flags:  # which has the kernel ignore most of the others
        only_directories = not flags.isdisjoint({"O_DIRECTORY", "O_TMPFILE"})
        answers = {"ENOTDIR"} if only_directories and not directory else {"ok"}
    elif "O_TMPFILE" in flags:
        answers = {"ENOTSUP", "EACCES"} if directory else {"ENOTDIR"}  # EACCES: not root
        if not flags.isdisjoint({"O_CREAT", "O_RDONLY"}):
            answers = {"EINVAL"}
    elif {"O_CREAT", "O_DIRECTORY"} <= flags:  # EINVAL from Linux 6.4 on
        answers = {"EINVAL", "EEXIST", "EISDIR", "ENOTDIR"}
    elif {"O_CREAT", "O_EXCL"} <= flags:
        answers = {"EEXIST"}
    elif directory:
        answers = {"EINVAL"} if "O_DIRECT" in flags else {"ok"}
        if not flags.isdisjoint({"O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR"}):
            answers = {"EISDIR"}
    elif "O_DIRECTORY" in flags:
        answers = {"ENOTDIR"}
    else:
        reads = "O_WRONLY" not in flags
        writes = not flags.isdisjoint({"O_WRONLY", "O_RDWR", "O_TRUNC"})
        refused = (reads and kind == "write") or (writes and kind == "read")
        answers = {"EACCES"} if refused else {"ok"}
    return answers


def tried(mounted: Mounted, *user: str) -> dict[str, dict[str, Answers]]:
    mounted.expects(" zeventfs.fuse.answers: write: ")  # why garbage was refused
    mounted.expects(" zeventfs.nodes.filtered: events/where/")  # why a name was no expression
    mounted.expects(" mkdir: vbd/.* is the name of a file")
    done = run([sys.executable, attempts.__file__, mounted.point, *user], limit=40.0)
    assert (done.returncode, done.stderr) == (0, b"")
    found: dict[str, dict[str, Answers]] = json.loads(done.stdout)
    return found


def differing(
    found: dict[str, dict[str, Answers]],
    expected: dict[tuple[str, str], set[str]],
    steered: dict[tuple[str, str], set[str]] | None = None,
) -> list[str]:
    """Give every answer that is not as expected, in words; *steered* is for the owner of vbd/."""
    wrong = []
    for file, one in found.items():
        ((kind, answers),) = one.items()
        for attempt, answer in answers.items():
            if attempt.startswith("open O_"):
                right = of_open(set(attempt.split()[1:]), kind)
            elif file in TAKES_ALL and attempt in GARBAGE:
                right = {"ok"}
            elif steered and _for_who_steers(file, attempt):
                right = steered[attempt, kind]
            else:
                right = expected[attempt, kind]
            if answer not in right:
                wrong.append(f"{file} ({kind}): {attempt}: {answer}, not {right}")
    return wrong


def _for_who_steers(file: str, attempt: str) -> bool:
    """Whether it matters to *attempt* on *file* that vbd/ is its owner's to change."""
    if file == STEERED:
        return attempt in {"setxattr", "removexattr"}
    of_names = {name for name, _ in table(IN_DIRECTORY)} | {"link"}
    return file.rpartition("/")[0] == STEERED and attempt in of_names


def assert_unharmed(mounted: Mounted) -> None:
    """Look whether the daemon serves as before, and has never been surprised."""
    mounted.write("events/clear", b"1")
    made = mounted.post(3)
    assert labels(mounted.everything()) == labels(events(mounted.read("events/log"))) == made
    assert "Traceback" not in mounted.log
    assert " ERROR " not in mounted.log
    assert b"readers=0" in mounted.read("events/status")


def test_the_tables_know_every_attempt() -> None:
    known = {attempt for attempt, _ in table(ROOT)}
    assert known == {*attempts.BY_NAME, *attempts.BY_DESCRIPTOR}
    assert {attempt for attempt, _ in table(OWNER, OTHER)} <= known


def test_root_gets_the_right_errno_from_every_file(mount: Mount) -> None:
    mounted = mount()
    mounted.post(5)
    found = tried(mounted)
    assert {kind for one in found.values() for kind in one} == set(CLASSES)
    wrong = differing(found, table(ROOT), table(ROOT, IN_STEERED))
    assert not wrong, "\n".join(wrong)
    assert_unharmed(mounted)


def test_an_owner_without_privileges_gets_the_right_errno_from_every_file(mount: Mount) -> None:
    mounted = mount("allow_other", f"uid={NOBODY}", f"gid={NOBODY}")
    mounted.post(5)
    wrong = differing(tried(mounted, NOBODY), table(ROOT, OWNER), table(ROOT, IN_STEERED))
    assert not wrong, "\n".join(wrong)
    assert_unharmed(mounted)


def test_who_may_only_read_gets_the_right_errno_from_every_file(mount: Mount) -> None:
    mounted = mount("allow_other", "mode=0444")
    mounted.post(5)
    found = tried(mounted, NOBODY)
    closed = {
        name for name in found if name and not mounted.path(name).stat().st_mode & 0o004
    }  # those that only the owner may open at all
    assert closed >= {"events/clear", "simulator/inject", "simulator/seed", "debug/requests"}
    for name in closed:
        (answers,) = found[name].values()
        opened = {each for attempt, each in answers.items() if attempt in attempts.BY_DESCRIPTOR}
        assert opened == {"EACCES"}
        assert answers["open O_RDONLY"] == answers["open O_WRONLY"] == "EACCES"
        assert {"truncate to 0", "unlink", "chmod"} <= answers.keys()
        assert "ok" not in {answers[each] for each in ("truncate to 0", "unlink", "chmod")}
    assert found["README"]["read"]["open O_RDONLY O_NOATIME"] == "EPERM"
    rest = {name: _without_noatime(one) for name, one in found.items() if name not in closed}
    assert not (wrong := differing(rest, table(ROOT, OTHER))), "\n".join(wrong)
    assert_unharmed(mounted)


def _without_noatime(one: dict[str, Answers]) -> dict[str, Answers]:
    """Leave out opens with O_NOATIME, which is the owner's (EPERM); open(2)."""
    return {
        kind: {attempt: answer for attempt, answer in answers.items() if "NOATIME" not in attempt}
        for kind, answers in one.items()
    }


def test_a_read_only_mount_answers_erofs_to_every_change(mount: Mount) -> None:
    mounted = mount("ro")
    for name, one in tried(mounted).items():
        ((kind, answers),) = one.items()
        if name == ".":
            continue
        for attempt in ("unlink", "mkdir beside", "create beside", "chmod", "touch", "setxattr"):
            right = {"EROFS", "EISDIR"} if attempt == "unlink" else {"EROFS"}
            assert answers[attempt] in right, f"{name}: {attempt}"
        if kind in {"write", "both"}:
            assert answers["open O_WRONLY"] == answers["truncate to 0"] == "EROFS"
            assert answers["open O_RDONLY O_TRUNC"] == "EROFS"
        if kind == "read":
            assert answers["open O_WRONLY"] == "EROFS"
            assert answers["read"] in {"ok", "EAGAIN"}


@pytest.mark.parametrize("flags", [os.O_TRUNC, os.O_TRUNC | os.O_CREAT])
def test_what_is_only_read_is_not_cut_by_opening_it(mounted: Mounted, flags: int) -> None:
    mounted.post(3)
    before = mounted.read("events/log")
    with pytest.raises(PermissionError):
        mounted.open("events/log", flags)
    assert mounted.read("events/log") == before


def test_a_shells_redirection_onto_a_log_is_refused_and_harmless(mounted: Mounted) -> None:
    mounted.post(3)
    before = mounted.read("events/log")
    for script in ('echo x > "$1"', 'echo x >> "$1"', ': > "$1"', 'cp /etc/passwd "$1"'):
        done = run(["sh", "-c", script, "sh", mounted.path("events/log")])
        assert done.returncode
        assert b"denied" in done.stderr
    assert mounted.read("events/log") == before
