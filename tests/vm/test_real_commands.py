"""What administrators do comes as the events that ZFS's own tests expect of it (events_001_pos)."""

import os
import signal

import pytest
from kernel_fixtures import MakePool, Mount
from kernel_queue import await_eid, classes, coverage, newest_eid, records, tool
from lines import events
from mounted_tree import Mounted
from pools_on_files import FilePool
from waits import until

Expected = tuple[str, ...]


def create(pool: FilePool) -> Expected:
    pool.create()
    return "sysevent.fs.zfs.pool_create", "sysevent.fs.zfs.history_event"


def set_property(pool: FilePool) -> Expected:
    tool("zpool", "set", "comment=word", pool.name)
    return ("sysevent.fs.zfs.history_event",)


def add_spare(pool: FilePool) -> Expected:
    pool.zpool("add", "spare", pool.vdev(5))
    return "sysevent.fs.zfs.vdev_add", "sysevent.fs.zfs.config_sync"


def remove_spare(pool: FilePool) -> Expected:
    pool.zpool("remove", pool.vdev(5))
    return ("sysevent.fs.zfs.vdev_remove_aux",)


def add_log(pool: FilePool) -> Expected:
    pool.zpool("add", "log", pool.vdev(6))
    return "sysevent.fs.zfs.vdev_add", "sysevent.fs.zfs.config_sync"


def remove_log(pool: FilePool) -> Expected:
    pool.zpool("remove", pool.vdev(6))
    return "sysevent.fs.zfs.vdev_remove_dev", "sysevent.fs.zfs.config_sync"


def offline(pool: FilePool) -> Expected:
    pool.zpool("offline", pool.vdev(0))
    return "resource.fs.zfs.statechange", "sysevent.fs.zfs.config_sync"


def online(pool: FilePool) -> Expected:
    pool.zpool("online", pool.vdev(0))
    return (
        "resource.fs.zfs.statechange",
        "sysevent.fs.zfs.vdev_online",
        "sysevent.fs.zfs.config_sync",
    )


def attach(pool: FilePool) -> Expected:
    pool.zpool("attach", pool.vdev(0), pool.vdev(7))
    return (
        "sysevent.fs.zfs.vdev_attach",
        "sysevent.fs.zfs.resilver_start",
        "sysevent.fs.zfs.resilver_finish",
    )


def detach(pool: FilePool) -> Expected:
    pool.zpool("detach", pool.vdev(7))
    return "sysevent.fs.zfs.vdev_remove", "sysevent.fs.zfs.config_sync"


def replace(pool: FilePool) -> Expected:
    pool.zpool("replace", pool.vdev(0), pool.vdev(8))
    return (
        "sysevent.fs.zfs.vdev_attach",
        "sysevent.fs.zfs.resilver_start",
        "sysevent.fs.zfs.resilver_finish",
        "sysevent.fs.zfs.vdev_remove",
    )


def scrub(pool: FilePool) -> Expected:
    pool.zpool("scrub")
    return "sysevent.fs.zfs.scrub_start", "sysevent.fs.zfs.scrub_finish"


def export(pool: FilePool) -> Expected:
    pool.zpool("export")
    return ("sysevent.fs.zfs.pool_export",)


def import_(pool: FilePool) -> Expected:
    tool("zpool", "import", "-o", "cachefile=none", "-d", pool.base, pool.name)
    return "sysevent.fs.zfs.pool_import", "sysevent.fs.zfs.config_sync"


def destroy(pool: FilePool) -> Expected:
    pool.zpool("destroy")
    return ("sysevent.fs.zfs.pool_destroy",)


COMMANDS = (
    create,
    set_property,
    add_spare,
    remove_spare,
    add_log,
    remove_log,
    offline,
    online,
    attach,
    detach,
    replace,
    scrub,
    export,
    import_,
    destroy,
)


def test_each_command_s_events_are_in_the_log_with_their_pool(mounted: Mounted) -> None:
    pool = FilePool("mirror 0 1")
    try:
        for command in COMMANDS:
            begun = len(events(mounted.read("events/log")))
            expected = {name.partition(".fs.zfs.")[2] for name in command(pool)}

            def told(begun: int = begun, expected: set[str] = expected) -> bool:
                new = events(mounted.read("events/log"))[begun:]
                return expected <= classes(new, pool.name)

            until(told, f"{expected} of {command.__name__}")
    finally:
        pool.destroy()
    await_eid(mounted, newest_eid())
    found = coverage(mounted.everything())
    assert (found.lost, found.last) == (0, newest_eid())
    queued = [(each.eid, each.name, each.pool) for each in records()]
    ours = [
        (event["eid"], event["class"], event.get("pool", ""))
        for event in mounted.everything()
        if event["source"] == "zfs"
    ]
    assert ours[-len(queued) :] == queued


def test_a_mount_begins_with_what_the_kernel_has_queued(pool: FilePool, mount: Mount) -> None:
    queued = [each.eid for each in records()]
    mounted = mount(source="zfs")
    await_eid(mounted, queued[-1])
    seen = [event for event in mounted.everything() if event["source"] == "zfs"]
    assert [event["eid"] for event in seen] == queued
    assert "pool_create" in classes(seen, pool.name)


def test_an_ordinary_end_and_a_new_mount_tell_the_ring_s_events_anew(
    pool: FilePool, mount: Mount
) -> None:
    mounted = mount(source="zfs")
    await_eid(mounted, newest_eid())
    assert mounted.umount().returncode == 0
    mounted.assert_over()
    pool.set("test:x", b"after")
    mounted.start()
    await_eid(mounted, newest_eid())
    found = coverage(mounted.everything())
    assert (found.lost, found.last) == (0, newest_eid())


def test_a_daemon_that_was_killed_and_started_again_handles_only_the_new_ones(
    make_pool: MakePool, mounted: Mounted
) -> None:
    pool = make_pool()  # events_002_pos
    before = newest_eid()
    await_eid(mounted, before)
    kill(mounted)
    pool.set("test:x", b"while nobody reads")
    mounted.start()
    pool.set("test:x", b"after")
    await_eid(mounted, newest_eid())
    seen = mounted.everything()
    found = coverage(seen)
    assert (found.lost, found.last) == (0, newest_eid())
    created = [event for event in seen if str(event["class"]).endswith("pool_create")]
    assert len(created) == 1


def kill(mounted: Mounted) -> None:
    """End the daemon as a crash does, and detach what it left."""
    assert mounted.process is not None
    os.kill(mounted.process.pid, signal.SIGKILL)
    mounted.await_end()
    tool("umount", "-l", mounted.point)


@pytest.mark.parametrize("times", [1, 3])
def test_killed_again_and_again_it_skips_nothing_and_tells_nothing_twice(
    pool: FilePool, mounted: Mounted, times: int
) -> None:
    for time in range(times):
        pool.set("test:x", b"%d" % time)
        await_eid(mounted, newest_eid())
        kill(mounted)
        pool.set("test:y", b"%d" % time)
        mounted.start()
    await_eid(mounted, newest_eid())
    found = coverage(mounted.everything())
    assert (found.lost, found.last) == (0, newest_eid())


def test_an_event_that_was_evicted_before_the_restart_is_a_gap_and_all_others_are_there(
    pool: FilePool, mounted: Mounted
) -> None:
    first = records()[0].eid
    pool.set("test:x", b"last seen")
    seen_last = newest_eid()
    await_eid(mounted, seen_last)
    kill(mounted)
    for label in ("a", "b", "c"):  # more than the ring holds: SEEK to the last one seen is ENOENT
        pool.burst(label)
    held = [each.eid for each in records()]
    assert held[0] > seen_last + 1
    mounted.start()
    await_eid(mounted, held[-1])
    seen = mounted.everything()
    found = coverage(seen)
    assert (found.first, found.last) == (first, held[-1])
    assert found.lost == held[0] - seen_last - 1
    told = {event["eid"] for event in seen if event["source"] == "zfs" and event.get("eid")}
    assert set(held) <= told
