"""How a mount begins: in the background, by mount(8)'s helper, from several sources, or not."""

import os
import re
import signal
from pathlib import Path

import pytest
from conftest import Mount
from lines import account, events, labels
from mounted_tree import CHECKOUT, CORPUS, MOUNT_FAILURE, Mounted
from programs import Argument, run
from waits import until


def test_mounting_in_the_background_returns_when_the_tree_answers(mount: Mount) -> None:
    mounted = mount(start=False)
    mounted.options.append(f"log={mounted.log_file}")
    done = mounted.zeventfs("mount", *mounted.mount_arguments)  # its pipes end: the daemon let go
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert mounted.read("README")
    made = mounted.post(2)
    assert labels(mounted.everything()) == made
    (daemon,) = mounted.processes()
    assert os.getsid(daemon) not in {os.getsid(0), 0}
    assert Path(f"/proc/{daemon}/cwd").readlink() == Path("/")
    for descriptor in (0, 1, 2):
        assert not re.match(
            "pipe:|/dev/pts", str(Path(f"/proc/{daemon}/fd/{descriptor}").readlink())
        )
    assert mounted.umount().returncode == 0
    mounted.assert_over()


def test_a_daemon_in_the_background_ends_at_sigterm(mount: Mount) -> None:
    mounted = mount(start=False)
    mounted.options.append(f"log={mounted.log_file}")
    assert mounted.zeventfs("mount", *mounted.mount_arguments).returncode == 0
    for pid in mounted.processes():
        os.kill(pid, signal.SIGTERM)
    mounted.assert_over()


@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize(
    ("source", "below", "option", "status", "reason"),
    [
        ("sim", "nowhere", "ro", {MOUNT_FAILURE}, "nowhere"),
        ("sim", "file", "ro", {MOUNT_FAILURE}, "file"),
        ("sim", "mnt", "quux", {1, MOUNT_FAILURE}, "quux"),
        ("sim", "mnt", "retain=much", {1, MOUNT_FAILURE}, "retain"),
        ("sim", "mnt", "mode=999", {1, MOUNT_FAILURE}, "mode"),
        ("quux", "mnt", "ro", {1, MOUNT_FAILURE}, "quux"),
        ("replay:/nowhere", "mnt", "ro", {1, MOUNT_FAILURE}, "/nowhere"),
    ],
)
def test_what_cannot_be_mounted_is_refused_with_a_reason(  # noqa: PLR0917 - a table's columns
    mount: Mount,
    source: str,
    below: str,
    option: str,
    status: set[int],
    reason: str,
    foreground: bool,  # noqa: FBT001 - a column too
) -> None:
    mounted = mount(start=False)
    (mounted.base / "file").touch()
    where = ["--foreground"] if foreground else []
    arguments: list[Argument] = [*where, source, mounted.base / below, "-o", option]
    done = mounted.zeventfs("mount", *arguments)
    error = done.stderr.decode()
    assert done.returncode in status, error
    assert reason in error
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 3, "a reason, no story"
    assert mounted.info is None


def test_a_file_that_cannot_be_replayed_is_refused_or_told(mount: Mount) -> None:
    mounted = mount(start=False)
    garbage = mounted.base / "garbage"
    garbage.write_bytes(os.urandom(4096))
    mounted.expects("recording|replay")
    options = f"log={mounted.log_file}"
    done = mounted.zeventfs("mount", f"replay:{garbage}", mounted.point, "-o", options)
    assert "Traceback" not in done.stderr.decode()
    if done.returncode == 0:
        (event,) = until(mounted.everything, "an event that says so")
        assert event["class"].startswith("zeventfs.")
        assert "garbage" in str(event), "which file"
        assert "ine 1" in mounted.log, "and why"
    else:
        assert "garbage" in done.stderr.decode()
        assert mounted.info is None


def test_a_second_mount_on_the_same_mountpoint_leaves_the_first_alone(mounted: Mounted) -> None:
    made = mounted.post(3)
    done = mounted.zeventfs("mount", *mounted.mount_arguments)
    assert done.returncode == MOUNT_FAILURE
    assert done.stderr
    assert labels(mounted.everything()) == made
    assert len(mounted.processes()) == 1


def test_the_mount_helper_works_from_the_checkout(mount: Mount) -> None:
    mounted = mount(start=False)
    helper = CHECKOUT / "mount.zeventfs"
    options = f"rw,sim.rate=0,log={mounted.log_file}"
    assert run([helper, "sim", mounted.point, "-f", "-o", options], env=mounted.env).returncode == 0
    assert mounted.info is None, "-f only pretends"
    bad = run([helper, "sim", mounted.point, "-o", f"{options},quux"], env=mounted.env)
    assert bad.returncode in {1, MOUNT_FAILURE}
    assert b"quux" in bad.stderr
    sloppy: list[Argument] = [
        helper,
        "sim",
        mounted.point,
        "-s",
        "-n",
        "-v",
        "-o",
        f"{options},quux",
    ]
    done = run(sloppy, env=mounted.env)
    assert done.returncode == 0, done.stderr
    made = mounted.post()
    assert labels(mounted.everything()) == made


def test_several_sources_share_one_journal(mount: Mount) -> None:
    mounted = mount("sim.rate=0", source=f"sim+replay:{CORPUS}")
    recorded = len(CORPUS.read_bytes().splitlines()) - 1
    made = mounted.post(3)
    until(lambda: len(mounted.everything()) > recorded + 3, "both sources' events")
    seen = mounted.everything()
    account(seen)
    assert set(made) <= set(labels(seen))


def test_the_simulator_shows_something_of_itself(mount: Mount) -> None:
    mounted = mount("sim.rate=50", source="auto")
    cat = mounted.program("cat", mounted.path("events/stream"))
    cat.await_output(r"(.*\n){10}", limit=3.0)
    account(events(cat.whole_lines))
