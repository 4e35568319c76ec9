"""A full runtime directory costs no event: the daemon goes on in memory, and says so."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import Mount
from lines import account, events, labels
from mounted_tree import MOUNT_FAILURE, Mounted
from programs import run

from zeventfs.config import runtime_directory

SMALL = ("retain=16M", "segment=256K")  # of which a segment takes 3 times as much at most
IN_MEMORY = "No space left on device; events are kept in memory"
UNRECORDED = "No space left on device; open files would not survive the daemon"


@contextmanager
def runtime_of(mounted: Mounted, size: str) -> Iterator[Path]:
    """Have a file system of *size* in the place of the runtime directory of *mounted*."""
    path = runtime_directory(mounted.point)
    path.mkdir(mode=0o700, parents=True)
    try:
        done = run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tiny", path])
        assert done.returncode == 0, done.stderr
        try:
            yield path
        finally:
            assert run(["umount", "--lazy", path]).returncode == 0
    finally:
        path.rmdir()
        with suppress(OSError):  # another mount's is there too
            path.parent.rmdir()


def fill(directory: Path) -> Path:
    """Fill the file system of *directory* to its last page with a file, and return that."""
    ballast = directory / "ballast"
    with ballast.open("ab", buffering=0) as file, suppress(OSError):  # ENOSPC
        while file.write(bytes(1 << 16)):  # of which a part is written, in the end
            pass
    with pytest.raises(OSError, match="No space left"):
        (directory / "more").write_bytes(b"x")
    (directory / "more").unlink()
    return ballast


def status(mounted: Mounted, key: str) -> int:
    found = re.search(rf"^{key}=(\d+)$", mounted.read("events/status").decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def end(mounted: Mounted) -> None:
    assert mounted.umount().returncode == 0
    assert mounted.await_end() == 0


def test_a_disk_that_gets_full_costs_no_event_and_is_used_again_when_there_is_room(
    mount: Mount,
) -> None:
    mounted = mount(*SMALL, start=False)
    mounted.expects(IN_MEMORY)
    with runtime_of(mounted, "4m") as runtime:
        mounted.start()
        blocked = mounted.program("cat", mounted.path("events/stream"))
        made = mounted.post(100, size=1000)
        assert status(mounted, "segments_in_memory") == 0
        assert IN_MEMORY not in mounted.log

        ballast = fill(runtime)
        made += mounted.post(1000, size=1000)
        in_memory = status(mounted, "segments_in_memory")
        assert in_memory > 1
        assert status(mounted, "segments") > in_memory, "what has its file keeps it"
        assert mounted.log.count(IN_MEMORY) == 1, "said once, until it is over"
        assert labels(mounted.everything()) == made

        ballast.unlink()
        files = set(runtime.glob("segment-*"))
        made += mounted.post(600, size=1000)
        assert set(runtime.glob("segment-*")) > files, "new ones are files again"
        assert status(mounted, "segments_in_memory") == in_memory
        assert mounted.log.count(IN_MEMORY) == 1

        ballast = fill(runtime)
        made += mounted.post(600, size=1000)
        assert status(mounted, "segments_in_memory") > in_memory
        assert mounted.log.count(IN_MEMORY) == 2, "it is another time"

        blocked.await_output(f'"{made[-1]} ')
        for seen in (mounted.everything(), events(blocked.whole_lines)):
            assert labels(seen) == made
            assert account(seen).dropped == 0
        end(mounted)
        assert list(runtime.iterdir()) == []


def test_a_disk_with_room_for_hardly_anything_is_served_from_memory_at_once(mount: Mount) -> None:
    mounted = mount(*SMALL, start=False)
    mounted.expects(IN_MEMORY)
    mounted.expects(UNRECORDED)
    with runtime_of(mounted, "64k") as runtime:
        mounted.start()
        made = mounted.post(1000, size=1000)
        held = [mounted.open("events/log") for _ in range(100)]
        assert labels(mounted.everything()) == made
        assert status(mounted, "segments_in_memory") == status(mounted, "segments") > 1
        assert [mounted.log.count(said) for said in (IN_MEMORY, UNRECORDED)] == [1, 1]
        assert list(runtime.glob("segment-*")) == []
        mounted.write("events/clear", b"1")
        made = mounted.post(3)
        assert labels(mounted.everything()) == made
        for descriptor in held:
            mounted.close(descriptor)
        end(mounted)
        assert list(runtime.iterdir()) == []


def test_where_not_even_a_pid_finds_room_nothing_is_mounted(mount: Mount) -> None:
    mounted = mount(*SMALL, start=False)
    with runtime_of(mounted, "64k") as runtime:
        ballast = fill(runtime)
        done = mounted.zeventfs("mount", *mounted.mount_arguments)
        assert done.returncode == MOUNT_FAILURE
        assert done.stderr.decode().endswith(f": {os.strerror(errno.ENOSPC)}\n")
        assert done.stderr.count(b"\n") == 1
        assert mounted.info is None
        assert set(runtime.iterdir()) <= {ballast, runtime / "pid"}
        ballast.unlink()
        mounted.expects(IN_MEMORY)
        mounted.expects(UNRECORDED)
        mounted.start()
        assert labels(mounted.everything()) == mounted.post(0)
        end(mounted)
