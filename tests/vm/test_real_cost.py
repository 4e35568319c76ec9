"""What reading costs, beside zpool(8)'s own reader in the same storm: printed, not asserted."""

import os
import re
from pathlib import Path

from kernel_fixtures import Figure
from kernel_queue import await_eid, coverage, newest_eid, records
from mounted_tree import Mounted
from pools_on_files import FilePool

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def test_the_daemon_s_cpu_time_for_an_event_beside_zpool_s(
    pool: FilePool, mounted: Mounted, figure: Figure
) -> None:
    first = records()[0].eid
    await_eid(mounted, newest_eid())
    reader = mounted.program("cat", mounted.path("events/stream"))
    zpool = mounted.program("zpool", "events", "-v", "-H", "-f")
    reader.await_blocked()
    assert mounted.process is not None
    begun = newest_eid()
    daemon, theirs = cpu_seconds(mounted.process.pid), cpu_seconds(zpool.pid)
    for index in range(10):
        pool.burst(f"b{index} ")
    pool.set("test:x", b"the end")
    last = newest_eid()
    reader.await_output("the end")
    zpool.await_output("the end")
    daemon = cpu_seconds(mounted.process.pid) - daemon
    theirs = cpu_seconds(zpool.pid) - theirs
    found = coverage(mounted.everything())
    assert (found.first, found.last) == (first, last)
    printed = [int(eid, 16) for eid in re.findall(rb"eid = 0x(\w+)", zpool.out)]
    lost_by_zpool = last - begun - len([eid for eid in printed if eid > begun])
    posted = last - begun
    figure(
        f"{posted} events: daemon {daemon / posted * 1e6:.0f} us of CPU each, lost {found.lost}; "
        f"zpool events -v -H -f {theirs / posted * 1e6:.0f} us, lost {lost_by_zpool}; "
        f"ratio {daemon / theirs if theirs else float('inf'):.2f}"
    )
