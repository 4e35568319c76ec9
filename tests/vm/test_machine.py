"""The machine is what the rest of the suite takes it for, and zeventfs mounts in it."""

from pathlib import Path

from kernel_fixtures import Figure, Mount
from kernel_queue import PARAMETERS, classes, newest_eid, records
from pools_on_files import FilePool


def test_events_of_a_pool_are_queued(pool: FilePool) -> None:
    first = records()
    assert {each.pool for each in first} <= {pool.name, "$import"}
    assert "sysevent.fs.zfs.pool_create" in {each.name for each in first}
    pool.burst()
    assert newest_eid() > first[-1].eid + 300


def test_the_ring_s_length_is_as_the_suite_expects(figure: Figure) -> None:
    assert (PARAMETERS / "zfs_zevent_len_max").read_text() == "512\n"
    figure(f"OpenZFS {Path('/sys/module/zfs/version').read_text().strip()}")


def test_a_write_error_makes_a_storm(pool: FilePool) -> None:
    begun = newest_eid()
    with pool.storm():
        pass
    stormed = [each for each in records() if each.name == "ereport.fs.zfs.io"]
    assert newest_eid() >= begun
    assert all(each.pool == pool.name for each in stormed)


def test_the_simulator_mounts_here_too(mount: Mount) -> None:
    mounted = mount()
    mounted.post(5)
    assert classes(mounted.everything(), "tank") == {"history_event"}
