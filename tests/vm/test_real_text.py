"""log.txt is what `zpool events -v` prints on the same machine for the same events."""

import os
import re
from pathlib import Path

from kernel_fixtures import MakePool, Mount
from kernel_queue import await_eid, coverage, newest_eid, text, tool
from lines import events
from mounted_tree import Mounted
from pools_on_files import FilePool

TEXT = "events/source/zfs/log.txt"
AWKWARD = (
    b'a "quoted" word, a\nnew line, \\ and bytes \xff\xfe\x80 that are no UTF-8, \xc3\xa9, \x01\x7f'
)


def test_every_byte_is_zpool_s(make_pool: MakePool, mount: Mount) -> None:
    pool = make_pool("mirror 0 1")
    pool.zpool("offline", pool.vdev(1))
    pool.zpool("online", pool.vdev(1))
    tool("zinject", "-d", pool.vdev(0), "-e", "io", "-T", "read", "-f", "50", pool.name)
    pool.zpool("scrub", "-w")
    tool("zinject", "-c", "all")
    pool.zpool("clear")
    pool.set("test:x", AWKWARD)
    mounted = mount(source="zfs")
    await_eid(mounted, newest_eid())
    printed = text()
    assert b"ereport." in printed
    assert mounted.read(TEXT) == printed


def test_a_value_that_is_no_text_passes_unharmed(pool: FilePool, mounted: Mounted) -> None:
    pool.set("test:x", AWKWARD)
    await_eid(mounted, newest_eid())
    assert b"test:x=" + AWKWARD + b'"\n' in mounted.read(TEXT)
    lines = [line for line in mounted.read("events/log").splitlines() if b"test:x=" in line]
    assert len(lines) == 1
    (event,) = events(lines[0] + b"\n")
    told = event["payload"]["history_internal_str"]
    assert 'a "quoted" word, a\nnew line' in told


def test_a_vdev_s_path_may_be_anything(make_pool: MakePool, mounted: Mounted) -> None:
    name = os.fsdecode(b'we"ird\nna\xffme {}')
    pool = make_pool("mirror 0 1", names=name)
    pool.zpool("offline", pool.vdev(1))
    await_eid(mounted, newest_eid())
    assert mounted.read(TEXT) == text()
    found = coverage(mounted.everything())
    assert found.lost == 0
    vdevs = mounted.read(f"pools/{pool.name}/vdevs")
    assert re.search(rb"OFFLINE", vdevs)
    assert all(line.isprintable() for line in vdevs.decode().splitlines())


def test_the_history_of_a_pool_is_told_as_it_is_recorded(pool: FilePool, mounted: Mounted) -> None:
    pool.set("test:x", AWKWARD)
    tool("zfs", "snapshot", f"{pool.name}@one")
    tool("zfs", "destroy", f"{pool.name}@one")
    await_eid(mounted, newest_eid())
    told = [
        event["payload"].get("history_internal_name")
        for event in mounted.everything()
        if str(event["class"]).endswith("history_event")
    ]
    recorded = re.findall(
        rb"^\S+ \[txg:\d+\] (\w+) ", pool.zpool("history", "-i"), re.MULTILINE
    ) or (re.findall(rb"\[txg:\d+\] (\w+) ", tool("zpool", "history", "-i", pool.name)))
    assert [name for name in told if name is not None] == [name.decode() for name in recorded]


def test_an_event_too_large_to_be_posted_is_counted_with_its_cause(
    pool: FilePool, mounted: Mounted
) -> None:
    await_eid(mounted, newest_eid())
    before = failed()
    pool.set("test:x", b"y" * 6500)  # with the rest more than ERPT_DATA_SZ
    assert failed() == before + 1
    pool.set("test:x", b"after")
    await_eid(mounted, newest_eid())
    found = coverage(mounted.everything())
    assert (found.last, found.causes) == (newest_eid(), {"failed": 1})


def failed() -> int:
    kstat = Path("/proc/spl/kstat/zfs/fm").read_text()
    return sum(
        int(count)
        for count in re.findall(r"^erpt-(?:dropped|set-failed) +\d+ +(\d+)$", kstat, re.MULTILINE)
    )
