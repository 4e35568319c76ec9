"""Rights, a module that comes and goes, a device that does: each has its outcome."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_fixtures import MakePool, Mount
from kernel_queue import await_eid, coverage, newest_eid
from mounted_tree import CHECKOUT, MOUNT_FAILURE, Mounted
from pools_on_files import FilePool
from programs import run
from waits import until

NOBODY = 65534
DEVICE = Path("/dev/zfs")
SENTENCE = re.compile(r"zeventfs[^:]*: [^\n]+\n")


def mount_as(user: int, point: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zeventfs", "mount", "zfs", str(point)],
        env={"PYTHONPATH": "/run/checkout", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        cwd="/",
        user=user,
        group=user,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def point() -> Iterator[Path]:
    """A mountpoint that is nobody's, and a checkout that anybody can read, at /run/checkout."""
    checkout = Path("/run/checkout")
    run(["cp", "-R", CHECKOUT, checkout])
    found = Path("/run/point-of-nobody")
    found.mkdir()
    found.chmod(0o777)
    run(["chown", str(NOBODY), found])
    yield found
    run(["umount", "-l", found])
    found.rmdir()
    run(["rm", "-rf", checkout])


def test_who_has_no_right_to_the_events_is_told_in_a_sentence(point: Path) -> None:
    refused = mount_as(NOBODY, point)
    assert refused.returncode in {1, MOUNT_FAILURE}, refused
    assert SENTENCE.fullmatch(refused.stderr), refused.stderr
    assert "CAP_SYS_ADMIN" in refused.stderr
    assert run(["mountpoint", "-q", point]).returncode != 0


@pytest.fixture
def unloaded() -> Iterator[None]:
    """The module is not there; afterwards it is again."""
    until(lambda: run(["rmmod", "zfs"]).returncode == 0, "zfs unloaded")
    yield
    run(["modprobe", "zfs"])


@pytest.mark.usefixtures("unloaded")
def test_without_the_module_a_mount_is_refused_in_a_sentence(point: Path) -> None:
    assert not DEVICE.exists()
    refused = mount_as(0, point)
    assert refused.returncode in {1, 2, MOUNT_FAILURE}, refused
    assert SENTENCE.fullmatch(refused.stderr), refused.stderr
    assert "modprobe zfs" in refused.stderr
    assert run(["mountpoint", "-q", point]).returncode != 0


def state(mounted: Mounted) -> str:
    return mounted.read("sources/zfs/state").decode().strip()


def load() -> None:
    assert run(["modprobe", "zfs"]).returncode == 0
    until(DEVICE.exists, "/dev/zfs")


def test_while_mounted_the_module_is_in_use_and_afterwards_it_is_not(mounted: Mounted) -> None:
    refused = run(["rmmod", "zfs"])
    assert refused.returncode != 0
    assert b"in use" in refused.stderr
    assert state(mounted) == "ready"
    assert mounted.umount().returncode == 0
    mounted.assert_over()
    until(lambda: run(["rmmod", "zfs"]).returncode == 0, "zfs unloaded")
    load()


def test_a_module_unloaded_between_two_mounts_begins_a_new_life(
    mount: Mount, make_pool: MakePool
) -> None:
    first = make_pool()
    mounted = mount(source="zfs")
    await_eid(mounted, newest_eid())
    assert mounted.process is not None
    mounted.process.kill()
    mounted.await_end()
    run(["umount", "-l", mounted.point])
    first.destroy()
    until(lambda: run(["rmmod", "zfs"]).returncode == 0, "zfs unloaded")
    load()
    second = make_pool()
    mounted.start()
    until(lambda: mounted.path(f"pools/{second.name}").exists(), "the new life")
    seen = mounted.everything()
    old = [event["eid"] for event in seen if event.get("pool") == first.name]
    new = [event["eid"] for event in seen if event.get("pool") == second.name]
    assert old
    assert new[0] == 1
    assert new == list(range(1, len(new) + 1))


def test_a_device_that_is_gone_for_a_while_never_ends_the_mount(
    pool: FilePool, mounted: Mounted
) -> None:
    """As where udev makes /dev/zfs late, or a container's /dev is made anew."""
    await_eid(mounted, newest_eid())
    aside = DEVICE.with_name("zfs.aside")
    DEVICE.rename(aside)
    try:
        assert mounted.read("events/status")
    finally:
        aside.rename(DEVICE)
    pool.set("test:x", b"after")
    await_eid(mounted, newest_eid())
    until(lambda: state(mounted) == "ready", "ready")
    assert coverage(mounted.everything()).lost == 0
