"""The kernel's device on a real /dev/zfs: what is read, moved, cleared, refused, and how it ends.

For a machine of one's own: modules are loaded and unloaded, and the kernel's queue is emptied.
"""

import ctypes
import errno
import os
import queue
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zeventfs.event import Event
from zeventfs.sources.device import SEEK_END, SEEK_START, DeviceError
from zeventfs.sources.kernel import module
from zeventfs.sources.kernel._zevents import Zevents
from zeventfs.sources.kernel.device import KernelDevice

PARAMETERS = Path("/sys/module/zfs/parameters")
PATIENCE = 60.0  # seconds; the machine may be emulated
CLONE_NEWUSER = 0x10000000
BLOCK = False
TRACING = Path("/sys/kernel/tracing")
BURST = """\
args = ...
for index = 1, tonumber(args["argv"][2]) do
    zfs.sync.set_prop(args["argv"][1], "test:burst", "n" .. index)
end
"""


def tool(*argv: str | Path, status: int = 0) -> str:
    """Run a program, and return what it says; another exit status fails the test."""
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == status, f"{argv}: {ended}"
    return ended.stdout + ended.stderr


def unload() -> None:
    tool("modprobe", "--remove", "zfs")


def load() -> None:
    tool("modprobe", "zfs")


class Pool:
    """A pool of one disk, which is a file."""

    def __init__(self, base: Path) -> None:
        self.name = f"k{secrets.token_hex(4)}"
        self.base = base
        self.disk = base / "disk"
        self.disk.touch()
        os.truncate(self.disk, 64 << 20)
        options = ("-o", "cachefile=none", "-O", f"mountpoint={base}/mnt")
        tool("zpool", "create", *options, self.name, self.disk)

    def post(self, value: str = "x") -> None:
        """Have an event posted."""
        tool("zfs", "set", f"test:kernel={value}", self.name)

    def burst(self, count: int = 400) -> None:
        """Have almost so many events posted within milliseconds."""
        (self.base / "burst.lua").write_text(BURST)
        tool("zfs", "program", self.name, self.base / "burst.lua", self.name, str(count))

    @contextmanager
    def storm(self) -> Iterator[None]:
        """Let each write fail, which ZFS tries for ever, and posts an event of each."""
        (PARAMETERS / "zfs_zevent_retain_max").write_text("0")  # none is a duplicate of another
        tool("zpool", "set", "failmode=continue", self.name)
        tool("zinject", "-d", self.disk, "-e", "io", "-T", "write", self.name)
        file = self.base / "mnt/file"
        writer = subprocess.Popen(
            ["dd", "if=/dev/zero", f"of={file}", "bs=256k", "count=4", "conv=fsync"],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            tool("zinject", "-c", "all")
            tool("zpool", "clear", self.name)
            writer.wait(PATIENCE)
            (PARAMETERS / "zfs_zevent_retain_max").write_text("2000")


class Reading:
    """A device, and a loop that takes its events."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.device = KernelDevice(self.calls.put)
        self.cursor = self.device.open()
        self.eids: list[int] = []
        self.lives: list[str] = []
        self.refusals: list[str] = []
        self.dropped = 0

    def drain(self) -> None:
        while True:
            try:
                taken = self.cursor.next(nonblock=True, size=1 << 16)
            except DeviceError as error:
                if error.errno != errno.ENOENT:
                    self.refusals.append(str(error.strerror))
                return
            self.dropped += taken.dropped
            eid = Event.from_packed("zfs", taken.packed).eid
            assert eid is not None
            self.eids.append(eid)
            self.lives.append(self.device.life)

    def begin(self) -> None:
        self.device.subscribe(self.drain)

    def run(self, true: Callable[[], object]) -> None:
        """Make the loop's calls until it is *true*."""
        end = time.monotonic() + PATIENCE
        while not true():
            self.calls.get(timeout=end - time.monotonic())()

    def run_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self.calls.get(timeout=left)()
            except queue.Empty:
                return


@pytest.fixture(autouse=True)
def queue_of_nothing() -> None:
    load()
    (PARAMETERS / "zfs_zevent_len_max").write_text("512")
    tool("zpool", "events", "-c")


@pytest.fixture
def disk_pool(queue_of_nothing: None) -> Iterator[Pool]:  # noqa: ARG001 - the module comes first
    base = Path("/vd" if Path("/vd").is_dir() else "/var/tmp") / f"kernel-{secrets.token_hex(4)}"
    base.mkdir()
    pool = Pool(base)
    yield pool
    tool("zpool", "destroy", "-f", pool.name)
    shutil.rmtree(base)


@pytest.fixture
def reading() -> Iterator[Reading]:
    before = threading.enumerate()
    reading = Reading()
    with reading.device:
        yield reading
    assert set(threading.enumerate()) <= set(before)


def newest_eid() -> int:
    """The newest event's, read on a descriptor of its own; 0: there is none."""
    zevents = Zevents("/dev/zfs")
    buffer = bytearray(1 << 20)
    newest = 0
    while (got := zevents.take(buffer, BLOCK))[1]:
        newest = int.from_bytes(buffer[got[0] - 12 : got[0] - 4], sys.byteorder)
    zevents.close()
    return newest


def refusal(call: Callable[[], object]) -> int:
    with pytest.raises(DeviceError) as caught:
        call()
    assert caught.value.errno is not None
    return caught.value.errno


def test_each_event_is_read_once(reading: Reading, disk_pool: Pool) -> None:
    reading.begin()
    for _ in range(5):
        disk_pool.burst()
    last = newest_eid()
    reading.run(lambda: last in reading.eids[-10:])
    assert sorted(reading.eids) == list(range(reading.eids[0], last + 1))
    assert len(reading.eids) > 1500


def test_a_cursor_stands_where_it_is_put(reading: Reading, disk_pool: Pool) -> None:
    disk_pool.post()
    newest = newest_eid()
    reading.cursor.seek(newest - 1)
    assert refusal(lambda: reading.cursor.seek(newest + 1000)) == errno.ENOENT
    reading.drain()
    assert reading.eids == [newest]
    reading.cursor.seek(SEEK_END)
    reading.drain()
    assert reading.eids == [newest]
    reading.cursor.seek(SEEK_START)
    reading.drain()
    assert reading.eids[1] < newest - 1
    assert reading.eids[-1] == newest


def test_a_cursor_is_moved_while_it_is_read(reading: Reading, disk_pool: Pool) -> None:
    reading.begin()
    newest = newest_eid()
    reading.run(lambda: reading.eids[-1:] == [newest])
    reading.cursor.seek(newest - 2)
    reading.run(lambda: reading.eids[-3:] == [newest, newest - 1, newest])
    disk_pool.post()
    newest = newest_eid()
    reading.run(lambda: reading.eids[-1] == newest)


def test_a_buffer_that_is_too_small_is_told_the_size(reading: Reading, disk_pool: Pool) -> None:
    del disk_pool  # it has posted events
    with pytest.raises(DeviceError) as caught:
        reading.cursor.next(nonblock=True, size=0)
    assert caught.value.errno == errno.ENOMEM
    packed = reading.cursor.next(nonblock=True, size=caught.value.needed).packed
    assert len(packed) == caught.value.needed


def test_what_the_queue_could_not_hold_is_a_hole_in_the_eids(
    reading: Reading, disk_pool: Pool
) -> None:
    reading.cursor.seek(SEEK_END)
    at = newest_eid()
    disk_pool.burst()
    disk_pool.burst()
    last = newest_eid()
    reading.begin()
    reading.run(lambda: last in reading.eids)
    assert reading.eids == list(range(last - 511, last + 1))
    assert reading.eids[0] > at + 1
    assert reading.dropped == 1  # the kernel's own idea of it
    assert reading.device.losses().len_max == 512


def test_clear_says_how_many_went_and_a_waiting_reader_goes_on(
    reading: Reading, disk_pool: Pool
) -> None:
    disk_pool.burst()
    reading.begin()
    last = newest_eid()
    reading.run(lambda: last in reading.eids)
    assert reading.device.clear() > 300
    assert reading.device.clear() == 0
    disk_pool.post()
    reading.run(lambda: reading.eids[-1] > last)


def test_clears_in_a_storm_are_holes_and_nothing_is_read_twice(
    reading: Reading, disk_pool: Pool
) -> None:
    reading.begin()
    with disk_pool.storm():
        for _ in range(20):
            reading.run_for(0.1)
            reading.device.clear()
    last = newest_eid()
    reading.run(lambda: not last or reading.eids[-1] >= last)
    assert len(set(reading.eids)) == len(reading.eids)


def append(path: Path, line: str) -> None:
    """Write behind what is there, without a seek, which tracefs doesn't know."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


@contextmanager
def widened_gap() -> Iterator[None]:
    """Have NEXT take long between its look at the queue and its sleep.

    It is traced there, and each of many probes writes down a whole stack.
    """
    probes = TRACING / "kprobe_events"
    if not probes.exists():
        tool("mount", "-t", "tracefs", "none", TRACING)
    made: list[Path] = []
    try:
        for number in range(40):
            append(probes, f"p:kprobes/widened{number} zfs_zevent_wait")
            made.append(TRACING / f"events/kprobes/widened{number}")
            (made[-1] / "trigger").write_text("stacktrace")
            (made[-1] / "enable").write_text("1")
        yield
    finally:
        for probe in made:
            (probe / "enable").write_text("0")
            (probe / "trigger").write_text("!stacktrace")
        probes.write_text("")


def test_nobody_sleeps_over_an_event_that_comes_before_the_sleep(
    reading: Reading, disk_pool: Pool
) -> None:
    reading.cursor.seek(SEEK_END)
    with widened_gap():
        reading.begin()
        for number in range(20):
            disk_pool.burst(2 + number % 5)
            last = newest_eid()
            reading.run(lambda last=last: last in reading.eids[-10:])  # type: ignore[misc]  # its type can't be told
        assert sorted(reading.eids) == list(range(min(reading.eids), max(reading.eids) + 1))


def test_a_reader_ends_at_any_moment(disk_pool: Pool) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(60):
        reading = Reading()
        with reading.device:
            reading.begin()
            if number % 3:
                time.sleep(0.003 * (number % 7))
            if number % 10 == 0:
                disk_pool.post()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert "zfs reader" not in {thread.name for thread in threading.enumerate()}


def test_the_module_is_in_use_while_it_is_read(reading: Reading) -> None:
    reading.begin()
    assert "in use" in tool("rmmod", "zfs", status=1)
    assert not reading.refusals


def test_a_module_that_is_loaded_later_is_read_from_its_first_event(tmp_path: Path) -> None:
    first_life = module.life()
    unload()
    assert module.preflight() == "the ZFS module is not loaded; load it with: modprobe zfs"
    reading = Reading()
    with reading.device:
        reading.drain()
        reading.begin()
        assert reading.device.life == ""
        assert not Path("/sys/module/zfs").exists()  # looking for it doesn't load it
        load()
        reading.run(lambda: reading.device.life)
        pool = Pool(tmp_path)
        last = newest_eid()
        reading.run(lambda: last in reading.eids)
        tool("zpool", "destroy", "-f", pool.name)
        # While it is being loaded, its device may not be there yet.
        first, *others = reading.refusals
        assert first == "the ZFS module is not loaded; load it with: modprobe zfs"
        assert all("/dev/zfs" in refusal for refusal in others), others
        assert min(reading.eids) == 1
        assert set(reading.lives) == {module.life()}
    assert module.life() != first_life


def test_the_life_is_the_same_for_each_who_reads_it(reading: Reading) -> None:
    assert reading.device.life == module.life()
    assert module.life().startswith(Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def said_after(change: Callable[[], None]) -> str:
    """What preflight says in a process that made *change* to itself."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            change()
            os.write(write, str(module.preflight()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def enter_user_namespace() -> None:
    assert ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0


@pytest.mark.parametrize("change", [become_nobody, enter_user_namespace])
def test_without_the_rights_it_is_said_what_is_missing(change: Callable[[], None]) -> None:
    assert said_after(lambda: None) == "None"
    assert "CAP_SYS_ADMIN in the initial user namespace" in said_after(change)


def test_a_storm_is_read_without_a_hole(reading: Reading, disk_pool: Pool) -> None:
    reading.cursor.seek(SEEK_END)
    with disk_pool.storm():
        reading.begin()
        reading.run_for(5)
    reading.run_for(2)
    # Two CPUs may queue their events in the opposite order of their EIDs.
    assert sorted(reading.eids) == list(range(min(reading.eids), max(reading.eids) + 1))
    assert len(reading.eids) > 100
    assert reading.device.losses().failed == 0
