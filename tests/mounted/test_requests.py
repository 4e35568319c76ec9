"""zeventfs.fuse.requests on the real kernel, under a file system of a few lines."""

import errno
import fcntl
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from waits import in_thread, until

pytestmark = pytest.mark.timeout(30)


class Server:
    """The file system of requests_server.py, mounted."""

    def __init__(self, place: Path) -> None:
        self.root = place / "mnt"
        self.root.mkdir()
        self._facts = place / "facts"
        script = Path(__file__).with_name("requests_server.py")
        self._process = subprocess.Popen(
            [sys.executable, script, self.root, self._facts],
            env=os.environ | {"PYTHONPATH": str(script.parents[2])},
        )
        self._readers: list[subprocess.Popen[bytes]] = []
        until(lambda: os.path.ismount(self.root) or self._process.poll() is not None, "a mount")
        self.device = self.root.stat().st_dev

    def facts(self, kind: str) -> list[Any]:
        """What the server noted of *kind*, oldest first."""
        lines = self._facts.read_text().split("\n")[:-1]
        return [fact[kind] for fact in map(json.loads, lines) if kind in fact]

    def reader(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command (cat by default) on the file ``wait``; it is gone after the test."""
        reader = subprocess.Popen(
            [*(command or ("cat",)), self.root / "wait"], stdout=subprocess.DEVNULL
        )
        self._readers.append(reader)
        return reader

    def blocked(self, pid: int) -> int:
        """Wait until the process is blocked in a read here; return its request's unique."""
        unique, *_ = until(
            lambda: [unique for unique, reader, _ in self.facts("read") if reader == pid],
            "a read is blocked",
        )
        assert isinstance(unique, int)
        return unique

    def resident(self) -> int:
        """Return the server's resident memory in bytes."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def device_flags(self) -> int:
        """Return the open file flags of the server's /dev/fuse."""
        fds = Path(f"/proc/{self._process.pid}/fd")
        (fd,) = (fd.name for fd in fds.iterdir() if fd.readlink() == Path("/dev/fuse"))
        info = (fds.parent / "fdinfo" / fd).read_text()
        return int(info.partition("flags:")[2].split()[0], 8)

    def unmount(self, *options: str) -> None:
        subprocess.run(["umount", *options, self.root], check=True)

    def abort(self, place: Path) -> None:
        """Abort the connection, through a fusectl of our own where the host has none."""
        place.mkdir()
        subprocess.run(["mount", "-t", "fusectl", "none", place], check=True)
        try:
            (place / str(os.minor(self.device)) / "abort").write_text("1")
        finally:
            subprocess.run(["umount", place], check=True)

    def over(self) -> int:
        """Wait for the server's end; return its status."""
        return self._process.wait(timeout=5)

    def clean(self, control: Path) -> None:
        """Leave neither mount nor process."""
        with suppress(subprocess.CalledProcessError):
            subprocess.run(
                ["umount", "-l", self.root], check=True, stderr=subprocess.DEVNULL
            )  # fails where the test unmounted
        for reader in self._readers:
            reader.kill()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.abort(control)
            self._process.kill()
            raise
        finally:
            for reader in self._readers:
                reader.wait(timeout=5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    # A test that a frozen daemon holds in the kernel is deaf to pytest's own time limit.
    watchdog = threading.Timer(25, server.abort, [tmp_path / "watchdog"])
    watchdog.start()
    yield server
    watchdog.cancel()
    server.clean(tmp_path / "last_resort")
    assert not os.path.ismount(server.root)


def test_the_session_starts_through_us(server: Server) -> None:
    assert server.facts("init") == [[True, 26]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_blocked_read(server: Server, number: signal.Signals) -> None:
    reader = server.reader()
    unique = server.blocked(reader.pid)
    reader.send_signal(number)
    assert reader.wait(timeout=1) == -number
    assert server.facts("interrupted") == [unique]


def test_a_wake_ends_a_blocked_read_without_interrupt(server: Server) -> None:
    reader = server.reader("head", "-n1")
    server.blocked(reader.pid)
    (server.root / "wait").write_text("go")
    assert reader.wait(timeout=1) == 0
    assert server.facts("interrupted") == []


def test_late_nonblocking_shows_in_the_flags(server: Server) -> None:
    fd = os.open(server.root / "wait", os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
        with pytest.raises(BlockingIOError) as refused:
            os.read(fd, 100)
    finally:
        os.close(fd)
    assert refused.value.errno == errno.EAGAIN
    ((_, pid, flags),) = server.facts("read")
    assert pid == os.getpid()
    assert flags & os.O_NONBLOCK


def test_only_a_seek_to_the_end_asks_with_the_handle(server: Server) -> None:
    fd = os.open(server.root / "wait", os.O_RDONLY)
    try:
        before = len(server.facts("getattr"))
        os.fstat(fd)
        os.lseek(fd, 0, os.SEEK_END)
        os.lseek(fd, 0, os.SEEK_SET)
    finally:
        os.close(fd)
    assert server.facts("getattr")[before:] == [None, 3]


def test_poll_tells_its_kernel_handle_and_whether_to_notify(server: Server) -> None:
    handles = []
    for _ in range(2):
        fd = os.open(server.root / "wait", os.O_RDONLY)
        try:
            before = len(server.facts("poll"))
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.poll(0)
            poller.poll(20)
            polls = server.facts("poll")[before:]
        finally:
            os.close(fd)
        assert [schedule for _, _, schedule, _ in polls][:2] == [False, True]
        assert all(schedule == has_handle for _, _, schedule, has_handle in polls)
        assert len({kh for _, kh, _, _ in polls}) == 1
        handles.append(polls[0][1])
    assert handles[0] != handles[1]


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_write_keeps_its_bytes_while_others_are_received(server: Server, size: int) -> None:
    wait = server.root / "wait"
    writes = [in_thread(lambda c=c: wait.write_text(c * size)) for c in "abcdef"]  # type: ignore[misc] # mypy can't infer a lambda's default
    assert [write.result(5) for write in writes] == [size] * 6
    noted = sorted(server.facts("write"))
    assert [fact[1:] for fact in noted] == [[True, letter, size] for letter in "abcdef"]
    # With CAP_SYS_RESOURCE libfuse splices: then a large write is in a pipe, unseen by us.
    assert {opcode for opcode, *_ in noted} <= ({0, 16} if size > 4096 else {16})


def test_a_request_that_vanishes_before_it_is_read_does_not_stop_the_daemon(
    server: Server,
) -> None:
    (server.root / "late").read_bytes()
    until(lambda: server.device_flags() & os.O_NONBLOCK, "a device that doesn't block")
    for _ in range(3):
        reader = server.reader()  # its first request waits 0.3 s for the daemon to read it
        time.sleep(0.1)
        reader.kill()
        reader.wait(timeout=1)
    beats = len(server.facts("beat"))
    until(lambda: len(server.facts("beat")) > beats + 3, "the loop goes round", limit=3)


def test_readers_killed_at_random_leave_a_daemon_that_answers(server: Server) -> None:
    chance = random.Random(2)
    end = time.monotonic() + 3
    slowest = 0.0
    while time.monotonic() < end:
        readers = [server.reader() for _ in range(8)]
        for reader in readers:
            time.sleep(chance.random() * 0.002)
            reader.kill()
        start = time.monotonic()
        assert (server.root / "ready").read_bytes().startswith(b"ready")
        slowest = max(slowest, time.monotonic() - start)
        for reader in readers:
            reader.wait(timeout=1)
    assert slowest < 1
    beats = len(server.facts("beat"))
    until(lambda: len(server.facts("beat")) > beats + 3, "the loop goes round", limit=3)


def test_an_abort_ends_the_session_once(server: Server, tmp_path: Path) -> None:
    readers = [server.reader() for _ in range(3)]
    for reader in readers:
        server.blocked(reader.pid)
    server.abort(tmp_path / "connections")
    assert [reader.wait(timeout=1) for reader in readers] == [1, 1, 1]
    assert server.over() == 0
    assert server.facts("ended") == [True]
    assert server.facts("exit") == [True]


def test_an_unmount_ends_the_session_once(server: Server) -> None:
    server.unmount()
    assert server.over() == 0
    assert server.facts("ended") == [True]


def test_a_lazy_unmount_ends_the_session_with_its_last_reader(server: Server) -> None:
    reader = server.reader()
    server.blocked(reader.pid)
    server.unmount("-l")
    assert server.facts("ended") == []
    reader.kill()
    assert server.over() == 0
    assert server.facts("ended") == [True]


READERS = """
import os, sys, threading
threading.stack_size(65536)
def read():
    os.read(os.open(sys.argv[2], os.O_RDONLY), 100)
for _ in range(int(sys.argv[1])):
    threading.Thread(target=read).start()
"""


def test_a_blocked_reader_costs_the_daemon_little_memory(
    server: Server,
) -> None:
    count = 500
    warm = server.reader(sys.executable, "-c", READERS, "20")
    until(lambda: len(server.facts("read")) == 20, "20 blocked readers")
    before = server.resident()
    readers = server.reader(sys.executable, "-c", READERS, str(count))
    until(lambda: len(server.facts("read")) == 20 + count, "500 blocked readers")
    each = (server.resident() - before) / count
    print(f"{each:.0f} bytes resident for each blocked reader")
    assert each < 16_000
    for process in (warm, readers):
        process.kill()
        assert process.wait(timeout=3) == -signal.SIGKILL
    until(lambda: len(server.facts("interrupted")) == 20 + count, "all reads were interrupted")


@pytest.mark.parametrize("first", ["pyfuse3", "zeventfs.fuse._requests"])
def test_a_wrong_order_of_imports_is_refused(first: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", f"import {first}; import zeventfs.fuse.requests"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "ImportError: " in result.stderr
    assert "libfuse" in result.stderr
