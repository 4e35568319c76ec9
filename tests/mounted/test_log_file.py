"""events/log: an ordinary log, which ends, is appended to, and is rotated under its readers."""

import errno
import os
import re
import sys

import pytest
from conftest import Mount
from lines import events, labels
from mounted_tree import Mounted
from programs import run
from waits import until

SMALL = ("retain=1M", "segment=64K")
POLL_OFTEN = ("-s", "0.1", "--max-unchanged-stats=1")


def generations(mounted: Mounted) -> list[str]:
    """Return the names of the log and its older ones, the oldest first."""
    found = [
        path.name
        for path in mounted.path("events").iterdir()
        if re.fullmatch(r"log(\.\d+)?", path.name)
    ]
    return [
        f"events/{name}"
        for name in sorted(found, key=lambda name: int(name[4:] or 0), reverse=True)
    ]


def rotate(mounted: Mounted) -> list[str]:
    """Post until `log` is another inode; return the labels that were posted."""
    before = mounted.path("events/log").stat().st_ino
    made: list[str] = []
    while mounted.path("events/log").stat().st_ino == before:
        assert len(made) < 300, "no rotation"
        made += mounted.post(size=2000)
    return made


def first_error(descriptor: int) -> int:
    """Return the errno of a read at the beginning, 0 when it gives whole lines."""
    try:
        content = os.pread(descriptor, 1 << 17, 0)
    except OSError as error:
        return error.errno or 0
    return 0 if events(content) else errno.ENODATA


def test_the_log_ends_and_grows(mounted: Mounted) -> None:
    assert mounted.read("events/log") == b""
    made = mounted.post(3)
    descriptor = mounted.open("events/log")
    assert labels(events(mounted.drain(descriptor))) == made
    assert os.read(descriptor, 4096) == b""
    more = mounted.post(2)
    assert labels(events(os.read(descriptor, 1 << 17))) == more
    assert os.read(descriptor, 4096) == b""
    assert os.fstat(descriptor).st_size == len(mounted.read("events/log"))


def test_the_log_has_the_lines_of_the_stream(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(80, size=2000)
    joined = b"".join(mounted.read(name) for name in generations(mounted))
    assert len(generations(mounted)) > 1
    assert joined == mounted.drain(mounted.stream())


def test_a_byte_stays_at_its_offset(mounted: Mounted) -> None:
    mounted.post(10)
    descriptor = mounted.open("events/log")
    before = os.read(descriptor, 1 << 17)
    mounted.post(200)
    assert os.pread(descriptor, len(before), 0) == before
    for offset, size in ((0, 1), (5, 100), (len(before) - 3, 3)):
        assert os.pread(descriptor, size, offset) == before[offset : offset + size]
    assert os.pread(descriptor, 100, 1 << 40) == b""


def test_mtime_moves_with_each_event(mounted: Mounted) -> None:
    mounted.post()
    times = [mounted.path("events/log").stat().st_mtime_ns]
    for _ in range(3):
        mounted.post()
        times.append(mounted.path("events/log").stat().st_mtime_ns)
    assert times == sorted(set(times))


def test_rotation_renames_the_inode_and_its_holder_reads_on(mount: Mount) -> None:
    mounted = mount(*SMALL)
    made = mounted.post(2)
    held = mounted.open("events/log")
    begun = os.read(held, 1 << 17)
    made += rotate(mounted)
    old = mounted.path("events/log.1").stat()
    assert os.fstat(held).st_ino == old.st_ino
    assert os.fstat(held).st_size == old.st_size
    whole = begun + mounted.drain(held)
    assert whole == mounted.read("events/log.1")
    assert labels(events(whole + mounted.read("events/log"))) == made
    made += rotate(mounted)
    assert os.fstat(held).st_ino == mounted.path("events/log.2").stat().st_ino
    assert os.read(held, 4096) == b"", "an old log stays at its end"


def test_clear_rotates(mounted: Mounted) -> None:
    made = mounted.post(5)
    held = mounted.open("events/log")
    begun = os.read(held, 300)
    inode = os.fstat(held).st_ino
    mounted.write("events/clear", b"1")
    assert mounted.path("events/log").stat().st_ino != inode
    assert mounted.read("events/log") == b""
    assert mounted.path("events/log.1").stat().st_ino == inode
    assert labels(events(begun + mounted.drain(held))) == made
    more = mounted.post(2)
    assert labels(events(mounted.read("events/log"))) == more


def test_the_text_log_rotates_with_the_log(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(2)
    held = mounted.open("events/log.txt")
    assert mounted.drain(held).count(b"        eid = ") == 2
    made = rotate(mounted)
    assert mounted.drain(held).count(b"        eid = ") == len(made) - 1
    text = mounted.read("events/log.txt")
    assert text.count(b"        eid = ") == mounted.read("events/log").count(b"\n") == 1
    assert os.fstat(held).st_ino != mounted.path("events/log.txt").stat().st_ino


def test_old_logs_are_evicted_whole_and_kept_for_their_holders(mount: Mount) -> None:
    mounted = mount(*SMALL)
    mounted.post(2)
    held = mounted.open("events/log")
    inode = os.fstat(held).st_ino
    rotate(mounted)
    kept = mounted.read("events/log.1")
    while inode in {mounted.path(name).stat().st_ino for name in generations(mounted)}:
        mounted.post(10, size=2000)
    assert mounted.drain(held) == kept, "evicted, but still held"
    assert os.fstat(held).st_ino == inode
    mounted.post(200, size=2000)
    total = sum(mounted.path(name).stat().st_size for name in generations(mounted))
    assert total <= (1 << 20) + (64 << 10)


def test_what_is_held_beyond_retain_once_more_goes_stale_the_oldest_first(mount: Mount) -> None:
    mounted = mount("retain=256K", "segment=64K")
    held = []
    for _ in range(16):
        mounted.post(2)
        held.append(mounted.open("events/log"))
        rotate(mounted)
    found = [first_error(descriptor) for descriptor in held]
    stale = found.count(errno.ESTALE)
    assert 0 < stale < len(held)
    assert found == [errno.ESTALE] * stale + [0] * (len(held) - stale)


def test_tail_f_follows_the_log(mounted: Mounted) -> None:
    made = mounted.post(15)
    tail = mounted.program("tail", "-f", mounted.path("events/log"))
    tail.await_output('"n14 ')
    made += mounted.post(2)
    tail.await_output('"n16 ', limit=3.0)
    assert labels(events(tail.out)) == made[5:]


def test_tail_capital_f_has_every_line_once_across_rotations_and_a_clear(mount: Mount) -> None:
    mounted = mount(*SMALL)
    tail = mounted.program("tail", "-n", "+1", "-F", *POLL_OFTEN, mounted.path("events/log"))
    made: list[str] = []
    inodes = set()
    for turn in range(16):
        made += mounted.post(8, size=2000)
        inodes.add(mounted.path("events/log").stat().st_ino)
        tail.await_output(f'"{made[-1]} ', limit=5.0)
        if turn == 11:
            mounted.write("events/clear", b"1")
            until(lambda: tail.err.count("replaced") >= len(inodes), "the empty log is followed")
    assert len(inodes) >= 4
    assert labels(events(tail.out)) == made
    assert "truncated" not in tail.err


def test_busybox_tail_follows_the_log(mounted: Mounted) -> None:
    made = mounted.post(3)
    tail = mounted.program("busybox", "tail", "-f", mounted.path("events/log"))
    tail.await_output('"n2 ')
    for _ in range(2):
        made += mounted.post(2)
        tail.await_output(f'"{made[-1]} ', limit=3.0)
    assert labels(events(tail.out)) == made


@pytest.mark.parametrize(
    "argv",
    [
        ["cp", "{log}", "{copy}"],
        ["cp", "--sparse=always", "--preserve=timestamps", "{log}", "{copy}"],
        ["dd", "if={log}", "of={copy}", "bs=100", "status=none"],
        [sys.executable, "-c", "import shutil; shutil.copyfile('{log}', '{copy}')"],
        ["sh", "-c", "cat '{log}' | tee '{copy}'"],
    ],
)
def test_the_log_can_be_copied(mounted: Mounted, argv: list[str]) -> None:
    made = mounted.post(100)
    copy = mounted.base / "copy"
    done = run([word.format(log=mounted.path("events/log"), copy=copy) for word in argv])
    assert done.returncode == 0, done.stderr
    assert labels(events(copy.read_bytes())) == made


def test_what_reads_to_the_end_ends_on_the_log(mounted: Mounted) -> None:
    made = mounted.post(30)
    log = mounted.path("events/log")
    assert run(["wc", "-l", log]).stdout.split()[0] == b"30"
    assert labels(events(run(["tail", "-n", "+11", log]).stdout)) == made[10:]
    assert len(run(["mawk", "{print NR}", log]).stdout.split()) == 30
    assert run(["jq", "-c", ".seq", log]).stdout.count(b"\n") == 30


def test_whatever_is_in_the_log_ends_in_a_newline(mounted: Mounted) -> None:
    descriptor = mounted.open("events/log")
    content = b""
    for _ in range(100):
        mounted.post()
        assert os.fstat(descriptor).st_size == mounted.path("events/stream").stat().st_size
        content += mounted.drain(descriptor)
        assert content.endswith(b"\n")
    assert len(events(content)) == 100
