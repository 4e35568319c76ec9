"""vbd/ on a real mount, over processes that stand in for tapdisk."""

import errno
import os
import re
import select
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from lines import events
from mounted_tree import Mounted
from programs import run
from waits import in_thread, until

CHANGED = select.POLLPRI | select.POLLERR
MISTAKES = r"(mkdir|write): vbd/"


class Disk:
    """VBD 7 of a mount, and an image for it."""

    def __init__(self, mounted: Mounted) -> None:
        self.mounted = mounted
        self.path = mounted.path("vbd/7")
        self.image = mounted.base / "disk.img"
        self.image.write_bytes(bytes(1 << 20))

    def appear(self) -> None:
        self.path.mkdir()
        self.write("image", f"aio:{self.image}")

    def start(self) -> None:
        self.appear()
        self.write("control", "start")
        self.until_it_is("RUNNING")

    def write(self, name: str, words: str) -> None:
        self.mounted.write(f"vbd/7/{name}", f"{words}\n".encode())

    def read(self, name: str) -> str:
        return self.mounted.read(f"vbd/7/{name}").decode()

    @property
    def state(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.read("state").splitlines())

    def until_it_is(self, channel: str) -> None:
        until(lambda: self.read("channel") == f"{channel}\n", channel)

    def remove(self) -> None:
        """Remove it, and wait for its tapdisk's end."""
        pid = self.state["PID"]
        self.path.rmdir()
        if pid:
            until(lambda: not Path("/proc", pid).exists(), f"the end of tapdisk {pid}")


@pytest.fixture
def disk(mounted: Mounted) -> Disk:
    return Disk(mounted)


def error_of(call: Callable[[], object]) -> int | None:
    try:
        call()
    except OSError as error:
        return error.errno
    return None


# Steering


def test_a_vbd_appears_starts_pauses_and_goes(disk: Disk) -> None:
    disk.appear()
    assert disk.state["CHANNEL"] == "DEAD"
    assert disk.read("image") == f"aio:{disk.image}\n"
    disk.write("control", "start")
    disk.until_it_is("RUNNING")
    assert error_of(lambda: disk.write("image", "aio:/other")) == errno.EBUSY
    disk.write("control", "pause")
    disk.until_it_is("PAUSED")
    state = disk.state
    assert (state["VBD"], state["SHUTDOWN"]) == ("PAUSED", "UP")
    assert Path("/proc", state["PID"]).exists()
    disk.write("control", "unpause")
    disk.until_it_is("RUNNING")
    disk.write("control", "remove")
    until(lambda: disk.path not in disk.path.parent.iterdir(), "it is gone")
    steps = [
        (event["payload"]["from"], event["payload"]["to"])
        for event in events(disk.mounted.read("vbd/log"))
        if event["class"] == "tapdisk.vbd"
    ]
    assert steps[:3] == [("UNPAUSED", "PAUSING"), ("PAUSING", "PAUSED"), ("PAUSED", "UNPAUSED")]


def test_what_it_does_is_told_by_its_files(disk: Disk) -> None:
    disk.start()
    info = dict(line.split("=", 1) for line in disk.read("info").splitlines())
    assert info["tapdisk"] == disk.state["PID"]
    assert [line.split("=")[0] for line in disk.read("queue").splitlines()] == [
        "new",
        "pending",
        "failed",
        "completed",
    ]
    assert re.fullmatch(r"in=\d*\nout=\d*\n", disk.read("kicks"))
    assert disk.read("chain").split() == ["0", "raw", str(1 << 20), "-", "ok", str(disk.image)]
    assert disk.read("errors").count("\n") == 1
    disk.remove()


def test_names_and_requests_that_are_none_are_refused(disk: Disk) -> None:
    mounted = disk.mounted
    mounted.expects(MISTAKES)
    disk.appear()
    assert error_of(disk.path.mkdir) == errno.EEXIST
    for name, number in {
        "vbd/seven": errno.EINVAL,
        "vbd/log.9": errno.EINVAL,
        "vbd/stream": errno.EEXIST,
        "vbd/7/new": errno.EPERM,
        "new": errno.EPERM,
    }.items():
        assert error_of(mounted.path(name).mkdir) == number, name
    for name, number in {
        "vbd/8": errno.ENOENT,
        "vbd": errno.EPERM,
        "vbd/log": errno.ENOTDIR,
    }.items():
        assert error_of(mounted.path(name).rmdir) == number, name
    for file, words, number in (
        ("control", "explode", errno.EINVAL),
        ("image", "nonsense", errno.EINVAL),
    ):
        assert error_of(lambda f=file, w=words: disk.write(f, w)) == number, words  # type: ignore[misc]
    assert disk.state["CHANNEL"] == "DEAD"
    assert disk.read("image") == f"aio:{disk.image}\n"
    disk.remove()


def test_whoever_may_read_may_not_steer(mount: Callable[..., Mounted]) -> None:
    mounted = mount("allow_other", "mode=0444")
    disk = Disk(mounted)
    disk.appear()
    script = (
        f"cd {mounted.point}; cat vbd/7/channel; mkdir vbd/8; rmdir vbd/7;"
        "echo start > vbd/7/control; echo x > vbd/7/image; cat vbd/7/control"
    )
    done = run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script],
    )
    assert done.stdout == b"DEAD\n"
    assert done.stderr.count(b"ermission denied") == 5, done.stderr
    disk.remove()


def test_what_is_only_watched_is_not_steered(mount: Callable[..., Mounted], tmp_path: Path) -> None:
    mounted = mount(f"tapdisk.dir={tmp_path}", source="tapdisk")
    vbd = mounted.path("vbd")
    assert stat.S_IMODE(vbd.stat().st_mode) == 0o550
    assert error_of((vbd / "7").mkdir) == errno.EPERM
    assert sorted(path.name for path in vbd.iterdir()) == ["log", "stream"]


def test_the_simulators_vbds_are_told_what_to_do_by_a_file(disk: Disk) -> None:
    disk.mounted.write("simulator/vbd", b"add 7\n")
    disk.until_it_is("RUNNING")
    disk.mounted.write("simulator/vbd", b"kill 7 SEGV\n")
    until(lambda: disk.read("vbd") == "BROKEN\n", "BROKEN")
    assert "SIGSEGV" in disk.state["REASON"]
    disk.remove()


# Changes


def test_poll_on_state_tells_of_a_change_until_it_is_read_again(disk: Disk) -> None:
    disk.start()
    state = disk.mounted.open("vbd/7/state")
    poll, epoll = select.poll(), select.epoll()
    poll.register(state, select.POLLPRI)
    epoll.register(state, select.EPOLLPRI)
    with epoll:
        assert os.pread(state, 4096, 0).startswith(b"CHANNEL=RUNNING\n")
        assert (poll.poll(0), epoll.poll(0)) == ([], [])
        assert select.select([state], [], [], 0)[0] == [state], "it can be read at any time"
        disk.write("control", "pause")
        assert poll.poll(10_000) == [(state, CHANGED)]
        assert epoll.poll(10) == [(state, select.EPOLLPRI | select.EPOLLERR)]
        assert select.select([], [], [state], 10)[2] == [state]
        disk.until_it_is("PAUSED")
        assert os.pread(state, 4096, 0).startswith(b"CHANNEL=PAUSED\nVBD=PAUSED\n")
        assert (poll.poll(0), epoll.poll(0)) == ([], [])
    disk.remove()


def test_cat_of_wait_prints_the_next_state_and_ends(disk: Disk) -> None:
    disk.appear()
    waiting = disk.mounted.program("cat", disk.path / "wait")
    waiting.await_blocked()
    disk.write("control", "start")
    assert waiting.end() == 0
    assert waiting.out.startswith(b"CHANNEL=")
    disk.until_it_is("RUNNING")
    disk.remove()


def test_poll_on_wait_tells_of_a_change_to_be_read(disk: Disk) -> None:
    disk.appear()
    wait = disk.mounted.open("vbd/7/wait")
    poll = select.poll()
    poll.register(wait, select.POLLIN)
    assert poll.poll(0) == []
    disk.write("control", "start")
    assert poll.poll(10_000) == [(wait, select.POLLIN)]
    disk.until_it_is("RUNNING")
    assert os.read(wait, 4096).startswith(b"CHANNEL=RUNNING\n")
    assert os.read(wait, 4096) == b""
    assert poll.poll(0) == []
    disk.remove()


def test_a_loop_that_holds_wait_open_misses_no_change(disk: Disk) -> None:
    disk.appear()
    script = """
        exec 3< "$0/wait"
        echo waiting
        while state=$(cat <&3); do
            printf '%s\\n' "$state"
            case $state in *CHANNEL=RUNNING*) exit 0 ;; esac
        done
    """
    waiting = disk.mounted.program("sh", "-c", script, disk.path)
    waiting.await_output("waiting")
    disk.write("control", "start")
    assert waiting.end() == 0
    assert waiting.out.count(b"IMAGE=") == waiting.out.count(b"CHANNEL=")
    disk.remove()


def test_a_signal_ends_who_waits(disk: Disk) -> None:
    disk.appear()
    waiting = disk.mounted.program("cat", disk.path / "wait")
    waiting.await_blocked()
    os.kill(waiting.pid, signal.SIGINT)
    assert waiting.end() == -signal.SIGINT
    wait = disk.mounted.open("vbd/7/wait", os.O_NONBLOCK)
    assert error_of(lambda: os.read(wait, 100)) == errno.EAGAIN
    disk.remove()


def test_a_stopped_tapdisk_holds_up_nobody_but_who_asks_it(disk: Disk) -> None:
    disk.start()
    pid = int(disk.state["PID"])
    os.kill(pid, signal.SIGSTOP)
    asking = disk.mounted.program("cat", disk.path / "queue")
    asking.await_blocked()
    assert disk.mounted.program("ls", "-l", disk.path).end() == 0
    assert disk.state["CHANNEL"] == "RUNNING"
    os.kill(asking.pid, signal.SIGINT)
    assert asking.end() == -signal.SIGINT
    os.kill(pid, signal.SIGCONT)
    disk.remove()


def test_a_killed_tapdisk_breaks_its_vbd_until_it_appears_anew(disk: Disk) -> None:
    disk.start()
    state = disk.mounted.open("vbd/7/state")
    os.pread(state, 4096, 0)
    poll = select.poll()
    poll.register(state, select.POLLPRI)
    os.kill(int(disk.state["PID"]), signal.SIGKILL)
    assert poll.poll(10_000)
    until(lambda: disk.read("vbd") == "BROKEN\n", "BROKEN")
    assert disk.state["CHANNEL"] == "DEAD"
    assert "SIGKILL" in disk.state["REASON"]
    assert "SIGKILL" in disk.read("errors").splitlines()[1]
    assert error_of(lambda: disk.write("control", "start")) == errno.ESHUTDOWN
    disk.remove()
    disk.start()
    disk.remove()


def test_the_end_of_the_mount_ends_all_that_wait(disk: Disk) -> None:
    disk.appear()
    mounted = disk.mounted
    poll = select.poll()
    poll.register(mounted.open("vbd/7/state"), select.POLLPRI)
    waits = mounted.blocked_read(mounted.open("vbd/7/wait"))
    polls = in_thread(lambda: poll.poll(10_000))
    assert mounted.umount().returncode == 0
    assert error_of(lambda: waits.result(timeout=10)) == errno.ESHUTDOWN
    assert polls.result(timeout=10)[0][1] & select.POLLERR


# Removal under those who have it open


def test_removal_ends_all_that_wait_and_reads_of_what_is_open(disk: Disk) -> None:
    disk.start()
    mounted = disk.mounted
    wait, stream, state = (mounted.open(f"vbd/7/{name}") for name in ("wait", "stream", "state"))
    os.read(stream, 1 << 17)
    cat = mounted.program("cat", disk.path / "wait")
    cat.await_blocked()
    waits, reads = mounted.blocked_read(wait), mounted.blocked_read(stream)
    poll = select.poll()
    poll.register(state, select.POLLPRI)
    disk.path.rmdir()
    assert error_of(lambda: waits.result(timeout=10)) == errno.ESTALE
    assert error_of(lambda: read_out(reads.result(timeout=10), stream)) == errno.ESTALE
    assert poll.poll(10_000) == [(state, CHANGED)]
    assert error_of(lambda: os.pread(state, 100, 0)) == errno.ESTALE
    assert cat.end() == 1
    until(lambda: not mounted.path("vbd/7").exists(), "it is gone for everybody")


def read_out(begin: bytes, stream: int) -> None:
    """Read on after *begin* until the stream ends, which it does with an error."""
    while begin:
        assert b'"vbd":"7"' in begin
        begin = os.read(stream, 1 << 17)


def test_the_next_life_is_another_directory_also_for_who_holds_the_old_one(disk: Disk) -> None:
    disk.appear()
    old = disk.mounted.open("vbd/7", os.O_DIRECTORY)
    number = os.fstat(old).st_ino
    for _ in range(3):
        disk.path.rmdir()
        assert not disk.path.exists()
        disk.appear()
        assert disk.path.stat().st_ino != number
        assert disk.path / "state" in disk.path.iterdir()
        assert disk.state["CHANNEL"] == "DEAD"
        assert error_of(lambda: os.stat("state", dir_fd=old)) in {errno.ENOENT, errno.ESTALE}
    disk.remove()
