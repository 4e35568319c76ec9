"""Mapped devices of the kernel in the tree, and a daemon that needs no disk to tell of them."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_fixtures import Figure, Mount
from lines import events
from mapped_devices import MODULES, MappedDevices, dmsetup
from memory_group import hog_of, memory_group
from programs import run
from waits import until

FLAPS = 10


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    for module in MODULES:
        assert run(["modprobe", module], limit=60).returncode == 0


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[MappedDevices]:
    made = MappedDevices(tmp_path)
    yield made
    made.close()


def test_the_tree_says_what_dmsetup_says(mount: Mount, devices: MappedDevices) -> None:
    mounted = mount(source="dm")
    first, second = devices.multipath("mp")
    until(mounted.path("dm/mp").exists, "the device")
    cat = mounted.program("cat", mounted.path("dm/mp/stream"))
    cat.await_blocked()
    dmsetup("message", "mp", "0", "fail_path", first)
    cat.await_output('"dm.path.failed"')
    until(lambda: b" F 1 " in mounted.read("dm/mp/status"), "the status as it is now")
    assert mounted.read("dm/mp/table").decode().strip() == dmsetup("table", "mp")
    assert mounted.read("dm/mp/status").decode().strip() == dmsetup("status", "mp")
    rows = [line.split() for line in mounted.read("dm/mp/paths").decode().splitlines()[1:]]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        (first, "FAILED", "1"),
        (second, "ACTIVE", "0"),
    ]
    inode = mounted.path("dm/mp/state").stat().st_ino
    dmsetup("rename", "mp", "mpatha")
    devices.renamed("mp", "mpatha")
    cat.await_output('"dm.renamed"')
    assert mounted.path("dm/mpatha/state").stat().st_ino == inode


def test_a_path_failure_reaches_its_reader_under_memory_pressure(
    mount: Mount, devices: MappedDevices, tmp_path: Path, figure: Figure
) -> None:
    path, _ = devices.multipath("mp")
    with memory_group(192 << 20) as group:
        mounted = mount("mlock", source="dm", start=False)
        with group.joined():
            mounted.start()
            (pid,) = mounted.processes()
            hog = mounted.program(*hog_of(tmp_path))
        cat = mounted.program("cat", mounted.path("dm/mp/stream"))
        cat.await_blocked()
        before = _major_faults(pid)
        took = []
        for _ in range(FLAPS):
            group.await_limit()
            took += [_told(cat.output, deed, path) for deed in ("fail_path", "reinstate_path")]
        assert _major_faults(pid) == before, "nothing was read from a disk"
        told = [each for each in events(cat.whole_lines) if "path" in each["payload"]]
        assert [each["class"] for each in told] == [
            "dm.path.failed",
            "dm.path.reinstated",
        ] * FLAPS
        hog.kill()
        assert mounted.umount().returncode == 0
        mounted.await_end()
    milliseconds = 1000 * statistics.median(took)
    figure(f"under memory pressure, dmsetup message to the reader's line: {milliseconds:.0f} ms")


def _told(output: Path, deed: str, path: str) -> float:
    """Do something to a path of mp, and wait until its reader has it; how many seconds it took."""
    least = output.stat().st_size
    begun = time.monotonic()
    dmsetup("message", "mp", "0", deed, path)
    until(lambda: output.stat().st_size > least, deed, limit=20.0)
    return time.monotonic() - begun


def _major_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[9])  # proc(5): 12
