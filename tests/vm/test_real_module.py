"""Rights, and a module that comes and goes: each has its outcome, and none ends the mount."""

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
        timeout=60,
        check=False,
    )


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """A mountpoint that is nobody's, and a checkout that nobody can read, at /run/checkout."""
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
    assert tmp_path.exists()


def test_who_has_no_right_to_the_events_is_told_in_a_sentence(point: Path) -> None:
    refused = mount_as(NOBODY, point)
    assert refused.returncode in {1, MOUNT_FAILURE}, refused
    assert SENTENCE.fullmatch(refused.stderr), refused.stderr
    assert "Traceback" not in refused.stderr


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


def state(mounted: Mounted) -> str:
    return mounted.read("sources/zfs/state").decode().strip()


def load() -> None:
    assert run(["modprobe", "zfs"]).returncode == 0
    until(DEVICE.exists, "/dev/zfs")


def test_rmmod_while_mounted_is_refused_or_leaves_the_mount_without_its_source(
    mounted: Mounted,
) -> None:
    removed = run(["rmmod", "zfs"])
    if removed.returncode:
        assert b"in use" in removed.stderr
        assert state(mounted) == "ready"
    else:
        until(lambda: state(mounted) == "lost", "the loss known")
        load()
        until(lambda: state(mounted) == "ready", "the return known")
    assert mounted.info is not None


def test_unloaded_and_loaded_again_the_module_s_new_life_is_told_from_its_first_event(
    mounted: Mounted, make_pool: MakePool
) -> None:
    """Whoever has /dev/zfs open keeps the module: where the source does, there is no new life."""
    if run(["rmmod", "zfs"]).returncode:
        assert state(mounted) == "ready"
        return
    load()
    until(lambda: state(mounted) == "ready", "the return known")
    pool = make_pool()
    await_eid(mounted, newest_eid())
    seen = [each for each in mounted.everything() if each.get("pool") == pool.name]
    assert seen
    assert seen[0]["eid"] == 1


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
