"""The processes behind vbd/: the simulator's end with the mount, the host's go on."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Mount
from mounted_tree import CHECKOUT, Mounted
from programs import run
from waits import until

VBDS = ("0", "1", "2")


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in {b"Z", b"X"}


def state(mounted: Mounted, vbd: str) -> dict[str, str]:
    lines = mounted.read(f"vbd/{vbd}/state").decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def is_in(mounted: Mounted, vbd: str, channel: str) -> bool:
    return mounted.path(f"vbd/{vbd}").exists() and state(mounted, vbd)["CHANNEL"] == channel


def running(mounted: Mounted) -> list[int]:
    """The pids of the simulator's first VBDs, whose story then stands still."""
    until(lambda: all(is_in(mounted, vbd, "RUNNING") for vbd in VBDS), "three VBDs")
    mounted.write("simulator/rate", b"0\n")
    return [int(state(mounted, vbd)["PID"]) for vbd in VBDS]


def test_the_simulator_has_vbds_that_end_with_the_mount(mount: Mount) -> None:
    mounted = mount("sim.rate=1")
    pids = running(mounted)
    mounted.write("simulator/vbd", b"stop 1\n")
    assert mounted.umount().returncode == 0
    until(lambda: not any(lives(pid) for pid in pids), "their end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_simulators_vbds_end_with_the_daemon(mount: Mount, number: int) -> None:
    mounted = mount("sim.rate=1")
    pids = running(mounted)
    mounted.write("simulator/vbd", b"stop 2\n")
    assert mounted.process is not None
    mounted.process.send_signal(number)
    until(lambda: not any(lives(pid) for pid in pids), "their end")
    if number == signal.SIGKILL:
        mounted.process.wait(timeout=5.0)
        assert run(["umount", "-l", mounted.point]).returncode == 0
        mounted.start()  # and the next one is not in its way
        running(mounted)


class Host:
    """A host with tapdisks, as far as they are files and a program's name."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "ctl"
        self.program = place / "a-tapdisk"
        self.program.write_text(
            f'#!/bin/sh\nexec {sys.executable} -m zeventfs.simulator.tapdisk "$@"\n'
        )
        self.program.chmod(0o755)
        self.env = {
            "TAPDISK": str(self.program),
            "ZEVENTFS_TAPDISK_DIR": str(self.directory),
            "ZEVENTFS_TAPDISK_SHM": str(place / "shm"),
            "PYTHONPATH": str(CHECKOUT),
        }

    def end(self) -> None:
        for socket in self.directory.glob("ctl*"):
            with suppress(ProcessLookupError):
                os.kill(int(socket.name.removeprefix("ctl")), signal.SIGKILL)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.end()


def test_the_hosts_tapdisks_outlive_the_daemon_and_are_adopted(mount: Mount, host: Host) -> None:
    where = f"tapdisk.dir={host.directory}"
    mounted = mount(where, "tapdisk.control", source="tapdisk", env=host.env)
    assert mounted.read("sources/tapdisk/state") == b"lost\n"
    mounted.path("vbd/4").mkdir()
    mounted.write("vbd/4/image", b"ram:/x\n")
    mounted.write("vbd/4/control", b"start\n")
    until(lambda: is_in(mounted, "4", "RUNNING"), "a VBD that runs")
    pid = int(state(mounted, "4")["PID"])
    until(lambda: mounted.read("sources/tapdisk/state") == b"ready\n", "its directory")
    assert mounted.umount().returncode == 0
    mounted.assert_over()
    assert lives(pid)

    mounted.options = [where]
    mounted.start()
    until(lambda: is_in(mounted, "4", "RUNNING"), "it is found")
    assert not mounted.path("vbd/4/control").exists()
    assert run(["mkdir", mounted.path("vbd/5")]).returncode == 1
    assert mounted.umount().returncode == 0
    mounted.assert_over()

    mounted.options = [where, "tapdisk.control"]
    mounted.start()
    until(lambda: is_in(mounted, "4", "RUNNING"), "it is found again")
    assert int(state(mounted, "4")["PID"]) == pid
    until(lambda: b"steered=yes\n" in mounted.read("vbd/4/info"), "it is adopted")
    mounted.path("vbd/4").rmdir()
    until(lambda: not lives(pid), "its end")
    classes = {event["class"] for event in mounted.everything()}
    assert {"tapdisk.channel", "tapdisk.vbd", "tapdisk.shutdown"} <= classes
