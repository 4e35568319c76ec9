"""With -o mlock nothing that the daemon needs leaves memory, and readers are told all the same."""

import ctypes
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Mount
from lines import account, events, labels
from memory_group import hog_of, memory_group
from mounted_tree import CHECKOUT, MOUNT_FAILURE, Mounted
from programs import Program, run
from test_crowd import CROWD, waiting
from test_full_disk import end, runtime_of
from waits import until

ON_DISK = r"mlock: .* is on a disk: no event would survive the daemon"  # where /run is no tmpfs

SYS_PROCESS_MADVISE = 440  # asm-generic/unistd.h: the same on all architectures
MADV_PAGEOUT = 21


def of(pid: int, file: str, key: str) -> int:
    """The kilobytes that *key* has in a file of /proc/PID."""
    text = Path(f"/proc/{pid}/{file}").read_text()
    found = re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def daemon(mounted: Mounted) -> int:
    (pid,) = mounted.processes()
    return pid


def major_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[9])  # proc(5): 12


@pytest.fixture
def locked(mount: Mount) -> Mounted:
    mounted = mount("mlock", start=False)
    mounted.expects(ON_DISK)
    mounted.start()
    return mounted


def test_all_that_is_resident_is_locked(locked: Mounted) -> None:
    pid = daemon(locked)
    assert of(pid, "status", "VmLck") >= of(pid, "status", "VmRSS") > 0
    share = of(pid, "smaps_rollup", "Pss")  # what "Locked" counts: shared pages in part
    assert of(pid, "smaps_rollup", "Locked") >= 0.98 * share


def test_without_the_option_nothing_is_locked(mounted: Mounted) -> None:
    assert of(daemon(mounted), "status", "VmLck") == 0


@pytest.mark.parametrize("background", [True, False])
def test_it_is_locked_however_it_is_mounted(mount: Mount, background: bool) -> None:  # noqa: FBT001 - a column
    mounted = mount("mlock", start=False)
    mounted.expects(ON_DISK)
    options = f"mlock,sim.rate=0,log={mounted.log_file}"
    if background:
        done = mounted.zeventfs("mount", "sim", mounted.point, "-o", options)
    else:
        helper = [sys.executable, "-m", "zeventfs.mount"]  # as mount(8) has it, by fstab's line
        done = run([*helper, "sim", mounted.point, "-o", f"rw,{options}"], env=mounted.env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert of(daemon(mounted), "status", "VmLck") > 0
    assert labels(mounted.everything()) == mounted.post(0)
    assert mounted.umount().returncode == 0
    mounted.assert_over()


def test_a_blocked_reader_costs_few_pages(locked: Mounted) -> None:
    pid = daemon(locked)
    before = of(pid, "status", "VmRSS")
    crowd = locked.program(sys.executable, "-c", CROWD, locked.path("events/stream"), "500")
    until(lambda: waiting(locked) == 500, "all blocked", limit=30.0)
    assert of(pid, "status", "VmRSS") - before < 500 * 16
    locked.post()
    crowd.await_output("500", limit=30.0)


def test_events_are_kept_for_the_next_daemon_where_the_runtime_directory_is_memory(
    mount: Mount,
) -> None:
    mounted = mount("mlock", "retain=1M", start=False)
    with runtime_of(mounted, "16m") as runtime:
        mounted.start()
        made = mounted.post(100, size=1000)
        files = sorted(runtime.glob("segment-*"))
        assert files
        assert (runtime / "handles").exists()
        pid = daemon(mounted)
        os.kill(pid, signal.SIGKILL)
        mounted.await_end()
        assert run(["umount", "-l", mounted.point]).returncode == 0
        mounted.start()
        assert labels(mounted.everything()) == made
        made += mounted.post(2000, size=1000)
        seen = mounted.everything()
        assert labels(seen) == made[-len(seen) :]
        assert account(seen).dropped == 0
        end(mounted)
        assert list(runtime.iterdir()) == []


def blocked(mounted: Mounted) -> Program:
    """A reader that has read all there is."""
    reader = mounted.program("cat", mounted.path("events/stream"))
    (label,) = mounted.post()
    reader.await_output(f'"{label} ')
    reader.await_blocked()
    return reader


def test_under_memory_pressure_a_blocked_reader_is_told(mount: Mount, tmp_path: Path) -> None:
    mounted = mount("mlock", "retain=8M", start=False)
    mounted.expects(ON_DISK)
    with memory_group(128 << 20) as group:
        with group.joined():
            mounted.start()
            hog = mounted.program(*hog_of(tmp_path))
        pid = daemon(mounted)
        reader = blocked(mounted)
        faults = major_faults(pid)
        made = []
        for _ in range(5):
            group.await_limit()
            made += mounted.post()
            reader.await_output(f'"{made[-1]} ')
        assert labels(events(reader.whole_lines))[-5:] == made
        assert major_faults(pid) == faults, "nothing was read from a disk"
        hog.kill()
        end(mounted)


@pytest.fixture
def copied() -> Iterator[Path]:
    """A copy of the package, on a disk: nobody else has its pages mapped."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        shutil.copytree(
            CHECKOUT / "zeventfs",
            Path(directory) / "zeventfs",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        os.sync()  # what isn't written yet can't be dropped
        yield Path(directory)


def page_out(pid: int, file: Path) -> int:
    """Have the kernel drop what *pid* has mapped of *file*; how many bytes it took up."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    found = re.findall(rf"^(\w+)-(\w+) r.-p .* {re.escape(str(file))}$", maps, re.MULTILINE)
    assert found
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.pidfd_open(pid)
    taken = 0
    for start, stop in found:
        piece = (ctypes.c_size_t * 2)(int(start, 16), int(stop, 16) - int(start, 16))
        one, none = ctypes.c_size_t(1), ctypes.c_size_t(0)
        done = libc.syscall(SYS_PROCESS_MADVISE, descriptor, piece, one, MADV_PAGEOUT, none)
        taken += max(done, 0)
    os.close(descriptor)
    with file.open("rb") as opened:  # no longer mapped, but maybe still in the cache
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return taken


@pytest.mark.parametrize("option", ["mlock", "rw"])
def test_what_the_kernel_would_drop_is_read_again_unless_it_is_locked(
    mount: Mount, copied: Path, option: str
) -> None:
    mounted = mount(option, start=False, env={"PYTHONPATH": str(copied)})
    mounted.expects(ON_DISK)
    mounted.start()
    pid = daemon(mounted)
    reader = blocked(mounted)
    faults = major_faults(pid)
    (extension,) = copied.glob("zeventfs/fuse/_requests.*.so")
    taken = page_out(pid, extension)
    (label,) = mounted.post()
    reader.await_output(f'"{label} ')
    if option == "mlock":
        assert (taken, major_faults(pid)) == (0, faults)
    else:
        assert taken > 0
        assert major_faults(pid) > faults


def test_where_locking_is_not_permitted_a_sentence_says_what_is_missing(mount: Mount) -> None:
    mounted = mount("mlock", start=False)
    limited = 'ulimit -l 64 && exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock "$@"'
    for where in ([], ["--foreground"]):
        command = mounted.command("mount", *where, *mounted.mount_arguments)
        done = run(["sh", "-c", limited, "sh", *command], env=mounted.env)
        assert done.returncode == MOUNT_FAILURE
        assert done.stderr.decode() == (
            "zeventfs mount: mlock is not permitted: it takes CAP_IPC_LOCK or an unlimited "
            "RLIMIT_MEMLOCK, which is 64 kB (ulimit -l unlimited, or LimitMEMLOCK=infinity)\n"
        )
        assert mounted.info is None
        assert mounted.runtime == []
