"""dm/ on a real mount, over the simulator's mapped devices."""

import errno
import os
import select
import signal
import stat

import pytest
from lines import events
from mounted_tree import Mounted
from waits import until

CHANGED = select.POLLPRI | select.POLLERR
PATH = "8:16"  # of the simulator's multipath devices


class Mapped:
    """Devices of a mount, steered through simulator/dm."""

    def __init__(self, mounted: Mounted) -> None:
        self.mounted = mounted

    def act(self, *lines: str) -> None:
        self.mounted.write("simulator/dm", "".join(f"{line}\n" for line in lines).encode())

    def create(self, name: str, kind: str = "multipath") -> None:
        self.act(f"create {name} {kind}")
        until(self.mounted.path(f"dm/{name}").exists, name)

    def state(self, name: str) -> dict[str, str]:
        text = self.mounted.read(f"dm/{name}/state").decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def path(self, name: str) -> list[str]:
        text = self.mounted.read(f"dm/{name}/paths").decode()
        return next(line.split() for line in text.splitlines() if line.startswith(PATH))


@pytest.fixture
def mapped(mounted: Mounted) -> Mapped:
    return Mapped(mounted)


def test_a_device_is_a_directory_of_what_dmsetup_says(mapped: Mapped) -> None:
    mapped.create("mp")
    files = sorted(path.name for path in mapped.mounted.path("dm/mp").iterdir())
    assert files == ["log", "paths", "state", "status", "stream", "table"]
    state = mapped.state("mp")
    assert (state["NAME"], state["STATE"], state["LIVE"]) == ("mp", "ACTIVE", "yes")
    table = mapped.mounted.read("dm/mp/table").decode()
    assert table.split()[2] == "multipath"
    assert mapped.mounted.read("dm/mp/status").decode().split()[2] == "multipath"
    assert mapped.mounted.path("dm/mp/table").stat().st_size == len(table)


def test_a_path_that_fails_reaches_who_waits_for_it(mapped: Mapped) -> None:
    mapped.create("mp")
    cat = mapped.mounted.program("cat", mapped.mounted.path("dm/mp/stream"))
    cat.await_output('"dm.created"', '"dm.table.live"')
    cat.await_blocked()
    mapped.act(f"fail_path mp {PATH}", f"reinstate_path mp {PATH}")
    cat.await_output('"dm.path.failed"', '"dm.path.reinstated"')
    told = [event for event in events(cat.whole_lines) if "path" in event["payload"]]
    assert [event["payload"]["path"] for event in told] == [PATH, PATH]
    assert told[0]["payload"]["valid_paths"] == told[1]["payload"]["valid_paths"] - 1
    until(lambda: mapped.path("mp")[3:5] == ["ACTIVE", "1"], "the path as it is now")


def test_poll_on_state_answers_after_a_change(mapped: Mapped) -> None:
    mapped.create("mp")
    state = mapped.mounted.open("dm/mp/state")
    poller = select.poll()
    poller.register(state, CHANGED)
    os.pread(state, 4096, 0)
    assert poller.poll(0) == []
    mapped.act("suspend mp")
    assert poller.poll(5000) == [(state, CHANGED)]
    assert b"STATE=SUSPENDED\n" in os.pread(state, 4096, 0)


def test_a_renamed_device_keeps_its_inodes_and_its_readers(mapped: Mapped) -> None:
    mapped.create("mp")
    before = mapped.mounted.path("dm/mp/state").stat().st_ino
    directory = mapped.mounted.path("dm/mp").stat().st_ino
    cat = mapped.mounted.program("cat", mapped.mounted.path("dm/mp/stream"))
    cat.await_blocked()
    mapped.act("rename mp mpatha")
    until(mapped.mounted.path("dm/mpatha").exists, "the new name")
    assert not mapped.mounted.path("dm/mp").exists()
    mapped.create("mp")
    assert mapped.mounted.path("dm/mpatha/state").stat().st_ino == before
    assert mapped.mounted.path("dm/mpatha").stat().st_ino == directory
    assert mapped.mounted.path("dm/mp/state").stat().st_ino != before
    mapped.act(f"fail_path mpatha {PATH}", f"fail_path mp {PATH}")
    cat.await_output('"dm.renamed"', '"dm.path.failed"')
    names = {event["payload"]["name"] for event in events(cat.whole_lines)[-2:]}
    assert names == {"mpatha"}


def test_what_is_open_of_a_removed_device_is_stale(mapped: Mapped) -> None:
    mapped.create("mp")
    stream = mapped.mounted.open("dm/mp/stream")
    mapped.act("remove mp")
    until(lambda: not mapped.mounted.path("dm/mp").exists(), "its end")
    assert events(os.read(stream, 1 << 17))[-1]["class"] == "dm.removed"
    with pytest.raises(OSError, match="Stale") as refused:
        os.read(stream, 1 << 17)
    assert refused.value.errno == errno.ESTALE


def test_a_signal_and_the_end_of_the_mount_end_who_waits(mapped: Mapped) -> None:
    mapped.create("mp")
    interrupted, ended = (
        mapped.mounted.program("cat", mapped.mounted.path("dm/mp/stream")) for _ in range(2)
    )
    interrupted.await_blocked()
    ended.await_blocked()
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.end(limit=2.0) == -signal.SIGINT
    assert mapped.mounted.umount().returncode == 0
    assert ended.end(limit=5.0) == 1


def test_lost_uevents_are_counted_and_the_devices_read_anew(mapped: Mapped) -> None:
    mapped.create("mp")
    mapped.act("lose 2", f"fail_path mp {PATH}", f"reinstate_path mp {PATH}")
    mapped.act("fail_path mp 8:32")
    until(lambda: b'"zeventfs.gap"' in mapped.mounted.read("events/log"), "the gap")
    log = events(mapped.mounted.read("events/log"))
    gap = next(event for event in log if event["class"] == "zeventfs.gap")
    assert (gap["source"], gap["payload"]["cause"]) == ("dm", "source")
    assert gap["payload"]["dropped"] > 0


def test_what_the_simulator_cannot_do_is_refused(mapped: Mapped) -> None:
    mapped.mounted.expects(r"write: can't be done")
    with pytest.raises(OSError, match="Invalid argument"):
        mapped.act("fail_path nosuch 8:16")
    mode = mapped.mounted.path("simulator/dm").stat().st_mode
    assert stat.S_IMODE(mode) == 0o200
