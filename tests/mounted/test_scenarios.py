"""simulator/scenario, seed and rate: the story that is told, and how to change it meanwhile."""

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from conftest import Mount
from lines import account
from mounted_tree import Mounted
from programs import run
from waits import until

SETTINGS = ["scenario", "seed", "rate"]
MINE = {
    "pools": {"vault": {"disks": ["/dev/sda1"], "layout": "stripe", "state": "absent"}},
    "opening": [{"acts": [{"act": "pool_create"}, {"act": "scrub", "errors": 2}]}],
}
BUILTIN = ["checksums", "dying", "pools", "scrubs", "slow", "snapshots", "storm", "suspended"]


def told(mounted: Mounted) -> list[dict[str, Any]]:
    """The story's events, of which VBDs have no part."""
    return [event for event in mounted.everything() if event["source"] == "zfs"]


def classes(mounted: Mounted) -> list[str]:
    return [event["class"].rpartition(".fs.zfs.")[2] for event in told(mounted)]


def payloads(mounted: Mounted, count: int) -> list[dict[str, Any]]:
    until(lambda: len(told(mounted)) >= count, f"{count} events")
    events = told(mounted)[:count]
    return [{**event["payload"], "history_time": 0, "time": 0, "eid": 0} for event in events]


@pytest.mark.parametrize("name", BUILTIN)
def test_a_story_is_chosen_at_the_mount_and_told(mount: Mount, name: str) -> None:
    mounted = mount(f"sim.scenario={name}", "sim.rate=300")
    shown = mounted.read("simulator/scenario").decode()
    assert shown.startswith(f"scenario={name}\nstate=telling\n")
    until(lambda: len(mounted.everything()) > 60, "60 events")
    account(mounted.everything())


def test_the_same_seed_is_the_same_story_again_and_in_another_mount(mount: Mount) -> None:
    first = payloads(mount("sim.scenario=dying", "sim.seed=5", "sim.rate=500"), 60)
    other = mount("sim.scenario=dying", "sim.seed=5", "sim.rate=500")
    assert payloads(other, 60) == first
    other.write("simulator/rate", b"0\n")
    other.write("events/clear", b"1\n")
    other.write("simulator/seed", b"5\n")
    other.write("simulator/rate", b"500\n")
    assert payloads(other, 60) == first


def test_a_story_of_ones_own_is_written_and_ends(mounted: Mounted) -> None:
    mounted.write("simulator/rate", b"1000\n")
    mounted.write("simulator/scenario", json.dumps(MINE, indent=2).encode())
    until(lambda: b"state=over" in mounted.read("simulator/scenario"), "the story's end")
    mine = [event for event in mounted.everything() if event.get("pool") == "vault"]
    names = [event["class"].rpartition(".")[2] for event in mine]
    assert names[0] == "pool_create"
    assert names[-1] == "scrub_finish"
    assert names.count("checksum") == 2
    assert b"scenario=(written)\n" in mounted.read("simulator/scenario")


def test_a_story_of_ones_own_is_a_file_at_the_mount(mount: Mount, tmp_path: Path) -> None:
    story = tmp_path / "mine.json"
    story.write_text(json.dumps(MINE))
    mounted = mount(f"sim.scenario={story}", "sim.rate=1000")
    until(lambda: classes(mounted)[-1:] == ["scrub_finish"], "the story's end")
    assert f"scenario={story}\n".encode() in mounted.read("simulator/scenario")


def test_a_shell_writes_a_long_story_in_blocks(mounted: Mounted, tmp_path: Path) -> None:
    story = tmp_path / "long.json"
    story.write_text(json.dumps(MINE | {"about": "x" * 1000}, indent=700))
    assert story.stat().st_size > 3 * 4096
    script = 'echo "$(cat "$1")" > "$2"'
    done = run(["bash", "-c", script, "bash", story, mounted.path("simulator/scenario")])
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"scenario=(written)\n" in mounted.read("simulator/scenario")


def test_what_is_wrong_is_einval_its_reason_logged_and_the_story_goes_on(mount: Mount) -> None:
    mounted = mount("sim.rate=50")
    mounted.expects("write: ")
    before = mounted.read("simulator/scenario")
    wrong = {
        "scenario": [b"quux\n", b"/etc/passwd\n", b'{"pools": {}}', b"\xff\xfe"],
        "seed": [b"-1\n", b"x", b"18446744073709551616"],
        "rate": [b"-1\n", b"fast\n", b"nan\n", b"1e9\n"],
    }
    for name, contents in wrong.items():
        for content in contents:
            with pytest.raises(OSError, match="Invalid argument") as refused:
                mounted.write(f"simulator/{name}", content)
            assert refused.value.errno == errno.EINVAL
    for reason in ("no scenario 'quux': checksums", r"at `\$.pools`", "no seed", "no rate"):
        assert re.search(reason, mounted.log)
    assert mounted.read("simulator/scenario") == before
    count = len(told(mounted))
    until(lambda: len(told(mounted)) > count, "the story goes on")


def test_rate_holds_at_once_and_0_stops(mount: Mount) -> None:
    mounted = mount("sim.rate=0.001")
    assert mounted.read("simulator/rate") == b"0.001\n"
    mounted.write("simulator/rate", b"2000\n")
    until(lambda: len(told(mounted)) > 20, "20 events, at the new rate")
    mounted.write("simulator/rate", b"0\n")
    count = len(told(mounted))
    assert b"state=stopped" in mounted.read("simulator/scenario")
    assert mounted.post(1)
    assert len(told(mounted)) == count + 1
    mounted.write("simulator/rate", b"2000\n")
    until(lambda: len(told(mounted)) > count + 1, "the story goes on")


def test_another_story_begins_in_the_middle_of_a_storm(mount: Mount) -> None:
    mounted = mount("sim.scenario=storm", "sim.rate=1000", "retain=4M")
    until(lambda: len(classes(mounted)) > 600, "a storm")
    mounted.write("simulator/scenario", b"suspended\n")
    until(lambda: "io_failure" in classes(mounted), "a suspended pool")
    account(mounted.everything())


def test_settings_are_the_owners_alone(mount: Mount) -> None:
    mounted = mount("allow_other", "mode=0444", "gid=65534")
    for name in SETTINGS:
        path = mounted.path(f"simulator/{name}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = mounted.read(f"simulator/{name}")
        assert path.stat().st_size == len(content)
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        for script in ('cat "$1"', 'echo 1 > "$1"'):
            done = run([*as_nobody, "sh", "-c", script, "sh", path])
            assert done.returncode
            assert b"Permission denied" in done.stderr


def test_settings_can_be_read_and_written_through_one_descriptor(mounted: Mounted) -> None:
    descriptor = mounted.open("simulator/seed", os.O_RDWR)
    assert os.read(descriptor, 100) == b"0\n"
    assert os.write(descriptor, b"17\n") == 3
    assert mounted.read("simulator/seed") == b"17\n"


def test_a_read_only_mount_shows_settings_and_takes_none(mount: Mount) -> None:
    mounted = mount("ro")
    for name in SETTINGS:
        assert mounted.read(f"simulator/{name}")
        with pytest.raises(OSError, match="Read-only"):
            mounted.write(f"simulator/{name}", b"1\n")


def test_a_wrong_story_at_the_mount_is_one_sentence(mount: Mount, tmp_path: Path) -> None:
    story = tmp_path / "wrong.json"
    story.write_text('{"pools": {"t": {"disks": ["/a"]}}, "opening": [{"acts": [{"act": "x"}]}]}')
    mounted = mount(start=False)
    done = mounted.zeventfs("mount", "sim", mounted.point, "-o", f"sim.scenario={story}")
    assert done.returncode == 1
    assert b"$.opening[0].acts[0].act`; the acts are checksum, " in done.stderr
    assert done.stderr.count(b"\n") == 1
