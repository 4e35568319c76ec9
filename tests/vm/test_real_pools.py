"""pools/<pool>/ says what `zpool status` says."""

import re

from kernel_fixtures import MakePool, Mount
from kernel_queue import await_eid, newest_eid
from mounted_tree import Mounted
from pools_on_files import FilePool
from programs import run
from waits import until

ROW = re.compile(rb"^\s+(/vd/\S+)\s+([A-Z]+)", re.MULTILINE)


def by_zpool(pool: FilePool) -> dict[bytes, bytes]:
    """Return the leaf vdevs' states by their paths."""
    return dict(ROW.findall(pool.zpool("status")))


def by_tree(mounted: Mounted, pool: FilePool) -> dict[bytes, bytes]:
    return dict(ROW.findall(mounted.read(f"pools/{pool.name}/vdevs").partition(b"\n\n")[0]))


def agree(mounted: Mounted, pool: FilePool) -> None:
    await_eid(mounted, newest_eid())
    until(
        lambda: by_tree(mounted, pool) == by_zpool(pool),
        f"{by_zpool(pool)} in {mounted.read(f'pools/{pool.name}/vdevs')!r}",
        limit=20,
    )


def test_vdevs_stand_as_zpool_status_says_after_each_change(
    make_pool: MakePool, mounted: Mounted
) -> None:
    pool = make_pool("mirror 0 1 mirror 2 3")
    agree(mounted, pool)
    for change in (("offline", 0), ("online", 0), ("offline", 2)):
        pool.zpool(change[0], pool.vdev(change[1]))
        agree(mounted, pool)
    run(["zpool", "offline", "-f", pool.name, pool.vdev(3)])
    agree(mounted, pool)
    pool.zpool("online", pool.vdev(2))
    pool.zpool("clear", pool.vdev(3))
    agree(mounted, pool)


def test_a_pool_older_than_the_ring_is_known(make_pool: MakePool, mount: Mount) -> None:
    pool = make_pool("mirror 0 1")
    pool.zpool("offline", pool.vdev(1))
    for label in ("a", "b"):
        pool.burst(label)  # nothing of its creation is queued any more
    mounted = mount(source="zfs")
    agree(mounted, pool)
