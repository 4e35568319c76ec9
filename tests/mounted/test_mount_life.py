"""A mount's life: what it survives, what ends it, and that nothing of it is left."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from conftest import Mount
from lines import Event, account, events, labels
from mounted_tree import MOUNT_FAILURE, Mounted
from programs import run
from waits import in_thread, until

GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ESHUTDOWN}


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Let this process have as many descriptors open as its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def connections(tmp_path: Path) -> Iterator[Path]:
    """Where fusectl is mounted: as any distribution has it, or for this test."""
    usual = Path("/sys/fs/fuse/connections")
    if "fusectl" in Path("/proc/self/mounts").read_text():
        yield usual
        return
    assert run(["mount", "-t", "fusectl", "fusectl", tmp_path]).returncode == 0
    yield tmp_path
    assert run(["umount", tmp_path]).returncode == 0


def error_of(call: Future[bytes]) -> int | None:
    failure = call.exception(timeout=5.0)
    assert isinstance(failure, OSError)
    return failure.errno


def blocked_readers(mounted: Mounted, count: int) -> list[Future[bytes]]:
    """Begin *count* reads at the end of the stream, each in a thread, and see them wait."""
    readers = [mounted.open("events/stream") for _ in range(count)]
    for reader in readers:
        os.lseek(reader, 0, os.SEEK_END)
    calls = [mounted.blocked_read(reader) for reader in readers]
    assert mounted.read("events/status")
    time.sleep(0.1)  # nothing tells from outside that the last of the requests has arrived
    assert not [call for call in calls if call.done()]
    return calls


def test_umount_ends_blocked_readers_with_eshutdown(mounted: Mounted) -> None:
    calls = blocked_readers(mounted, 5)
    mounted.drain(held := mounted.stream())
    cat = mounted.program("cat", mounted.path("events/stream"))
    cat.await_blocked()
    done = mounted.umount()
    assert (done.returncode, done.stderr) == (0, b"")
    assert mounted.info is None
    assert {error_of(call) for call in calls} == {errno.ESHUTDOWN}
    assert cat.end() == 1
    assert "shutdown" in cat.err
    assert mounted.await_end() == 0
    mounted.assert_over()
    with pytest.raises(OSError, match=r".") as refused:
        os.read(held, 4096)
    assert refused.value.errno in GONE


def test_umount_reaches_a_reader_in_another_mount_namespace(mounted: Mounted) -> None:
    cat = mounted.program(
        "unshare", "-m", "--propagation", "private", "cat", mounted.path("events/stream")
    )
    cat.await_blocked()
    assert mounted.umount().returncode == 0
    assert cat.end() == 1
    mounted.assert_over()


def test_umount_of_what_is_not_mounted_says_so(mounted: Mounted) -> None:
    done = mounted.zeventfs("umount", mounted.base)
    assert done.returncode != 0
    assert str(mounted.base) in done.stderr.decode()
    assert mounted.read("README")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_daemon_in_order(mounted: Mounted, name: str) -> None:
    calls = blocked_readers(mounted, 3)
    assert mounted.process is not None
    os.kill(mounted.process.pid, signal.Signals[name])
    assert mounted.await_end() == 0
    assert {error_of(call) for call in calls} == {errno.ESHUTDOWN}
    mounted.assert_over()


def test_plain_umount_is_busy_while_a_file_is_open(mounted: Mounted) -> None:
    held = mounted.open("events/status")
    waiting = blocked_readers(mounted, 1)
    done = run(["umount", mounted.point])
    assert done.returncode == MOUNT_FAILURE
    assert b"busy" in done.stderr
    made = mounted.post()
    assert labels(events(waiting[0].result(timeout=1.0))) == made
    assert held


def test_plain_umount_ends_the_daemon_when_nothing_is_open(mounted: Mounted) -> None:
    mounted.post(3)
    assert mounted.read("events/log")
    # The kernel releases a closed file asynchronously; until then it may say busy.
    until(lambda: run(["umount", mounted.point]).returncode == 0, "umount", limit=2.0)
    assert mounted.await_end() == 0
    mounted.assert_over()


def test_after_a_lazy_umount_the_daemon_serves_until_the_last_holder_closes(
    mounted: Mounted,
) -> None:
    inject = mounted.open("simulator/inject", os.O_WRONLY)
    reader = mounted.open("events/stream")
    waiting = mounted.blocked_read(reader)
    assert run(["umount", "-l", mounted.point]).returncode == 0
    assert mounted.info is None
    for _ in range(2):
        made = mounted.post(into=inject)
        assert labels(events(waiting.result(timeout=1.0))) == made
        waiting = mounted.blocked_read(reader)
    made = mounted.post(into=inject)
    assert labels(events(waiting.result(timeout=1.0))) == made
    mounted.close(inject)
    assert mounted.process is not None
    assert mounted.process.poll() is None
    mounted.close(reader)
    assert mounted.await_end() == 0
    mounted.assert_over()


def test_an_aborted_connection_leaves_nobody_stuck(mounted: Mounted, connections: Path) -> None:
    mounted.expects(".")  # that is no ordinary end
    calls = blocked_readers(mounted, 5)
    cat = mounted.program("cat", mounted.path("events/stream"))
    cat.await_blocked()
    (connections / mounted.connection / "abort").write_text("1")
    assert {error_of(call) for call in calls} <= GONE
    assert cat.end(limit=5.0) == 1
    mounted.await_end()
    if mounted.info is not None:  # as after any file system's abort; umount must clear it away
        assert mounted.umount().returncode == 0
    mounted.assert_over()


def test_hundreds_of_blocked_readers_are_no_trouble(mounted: Mounted) -> None:
    with many_files():
        calls = blocked_readers(mounted, 300)
        assert run(["ls", "-lR", mounted.point], limit=2.0).returncode == 0
        made = mounted.post()
        assert all(labels(events(call.result(timeout=5.0))) == made for call in calls)
        calls = blocked_readers(mounted, 300)
        assert mounted.umount().returncode == 0
        assert {error_of(call) for call in calls} == {errno.ESHUTDOWN}
    mounted.assert_over()


def test_a_reader_that_stops_reading_holds_nobody_up(mount: Mount) -> None:
    mounted = mount("retain=256K", "segment=64K")
    mounted.post(5)
    slow = mounted.stream()
    seen = events(os.read(slow, 1000))
    cat = mounted.program("cat", mounted.path("events/stream"))
    stopped = mounted.program("cat", mounted.path("events/stream"))
    stopped.await_blocked()
    os.kill(stopped.pid, signal.SIGSTOP)
    last = [mounted.post(100)[-1] for _ in range(50)][-1]
    assert mounted.read("events/status")
    cat.await_output(f'"{last} ')
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.await_output(f'"{last} ')
    seen += events(mounted.drain(slow))
    newest = mounted.everything()[-1]["seq"]
    for found in (seen, events(cat.whole_lines), events(stopped.whole_lines)):
        assert account(found).last == newest
        assert account(found).first == seen[0]["seq"]


def test_garbage_in_every_writable_file_leaves_the_tree_alive(mounted: Mounted) -> None:
    mounted.expects(r"inject|[Ll]ine \d")
    for name in ("simulator/inject", "events/clear"):
        for content in (b"\0", b"\xff" * 100_000, b"{" * 5000, os.urandom(5000), b'{"class":"a"'):
            with contextlib.suppress(OSError):
                mounted.write(name, content)
    mounted.write("events/clear", b"1")
    made = mounted.post(2)
    assert labels(mounted.everything()) == made


def test_the_journal_is_read_back_after_the_daemon_was_killed(mount: Mount) -> None:
    mounted = mount("retain=1M", "segment=64K")
    made = mounted.post(60, size=2000)
    before = mounted.drain(mounted.stream())
    size = mounted.path("events/stream").stat().st_size
    cat = mounted.program("cat", mounted.path("events/stream"))
    cat.await_output(f'"{made[-1]} ')
    cat.await_blocked()
    assert mounted.process is not None
    os.kill(mounted.process.pid, signal.SIGKILL)
    mounted.process.wait(timeout=5.0)
    assert cat.end(limit=5.0) == 1, "whoever was blocked is told"
    assert run(["umount", "-l", mounted.point]).returncode == 0
    assert len(mounted.runtime) == 1

    mounted.start()
    after = mounted.drain(mounted.stream())
    assert after.startswith(before)
    assert mounted.path("events/stream").stat().st_size == size + len(after) - len(before)
    made += mounted.post(3)
    seen = mounted.everything()
    assert labels(seen) == made
    assert len({event["epoch"] for event in seen}) == 1
    account(seen)
    assert mounted.umount().returncode == 0
    mounted.assert_over()


def test_a_clear_and_rotations_are_read_back_too(mount: Mount) -> None:
    mounted = mount("retain=1M", "segment=64K")
    mounted.post(60, size=2000)
    mounted.write("events/clear", b"1")
    made = mounted.post(60, size=2000)
    before = mounted.drain(mounted.stream())
    log = mounted.path("events/log").stat().st_ino, mounted.read("events/log")
    assert mounted.process is not None
    os.kill(mounted.process.pid, signal.SIGKILL)
    mounted.process.wait(timeout=5.0)
    assert run(["umount", "-l", mounted.point]).returncode == 0
    mounted.start()
    assert mounted.drain(mounted.stream()).startswith(before)
    assert labels(mounted.everything()) == made
    assert mounted.path("events/log").stat().st_ino == log[0]
    assert mounted.read("events/log").startswith(log[1])


def test_a_daemon_killed_while_it_takes_events_loses_none_that_was_seen(mount: Mount) -> None:
    mounted = mount("retain=16M", "segment=64K")
    seen: list[Event] = []
    for turn in range(1, 4):
        reader = mounted.stream()
        found = b""
        posting = in_thread(lambda: mounted.post(3000))
        while found.count(b"\n") < turn * 300:
            with contextlib.suppress(BlockingIOError):
                found += os.read(reader, 1 << 17)
        assert mounted.process is not None
        mounted.process.kill()
        assert isinstance(posting.exception(timeout=5.0), OSError)
        with contextlib.suppress(OSError):
            os.read(reader, 1)
        assert run(["umount", "-l", mounted.point]).returncode == 0
        mounted.start()
        before, seen = events(found), mounted.everything()
        assert seen[: len(before)] == before
        assert account(seen).dropped == 0


@pytest.mark.parametrize("size", [0, 100, 1 << 20])
def test_a_damaged_runtime_directory_is_no_obstacle(mounted: Mounted, size: int) -> None:
    mounted.expects(".")
    mounted.post(10)
    assert mounted.process is not None
    mounted.process.kill()
    mounted.process.wait(timeout=5.0)
    assert run(["umount", "-l", mounted.point]).returncode == 0
    for file in list(mounted.runtime[0].iterdir()):
        if file.is_dir():
            shutil.rmtree(file)
        file.write_bytes(os.urandom(size))
    mounted.start()
    mounted.post(3)
    assert labels(mounted.everything())[-3:] == ["n10", "n11", "n12"]


def test_a_new_life_of_the_mount_is_a_new_epoch(mounted: Mounted) -> None:
    mounted.post()
    old = mounted.everything()[-1]
    assert mounted.umount().returncode == 0
    mounted.assert_over()
    mounted.start()
    assert mounted.everything() == []
    mounted.post()
    assert mounted.everything()[-1]["epoch"] != old["epoch"]
