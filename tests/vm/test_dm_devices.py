"""Whatever happens to real mapped devices is told, with what its reader needs to know."""

import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from mapped_devices import MODULES, MappedDevices, dmsetup

from zeventfs.sources.dm.kernel import answers, preflight
from zeventfs.sources.status import SourceState

MESSAGES = Path(__file__).parent / "dm_messages.py"


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    for module in (*MODULES, "dm_thin_pool"):
        subprocess.run(["modprobe", module], check=True, timeout=60)


@contextmanager
def without_udevd() -> Iterator[None]:
    """For each uevent of a path it would probe the device anew; dmsetup would wait for it."""
    subprocess.run(["udevadm", "control", "--exit"], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["/lib/systemd/systemd-udevd", "--daemon"], check=True, timeout=60)


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[MappedDevices]:
    made = MappedDevices(tmp_path)
    yield made
    made.close()


def test_the_kernels_device_mapper_answers() -> None:
    assert preflight() is None
    assert answers()


async def test_a_module_that_is_loaded_later_is_noticed_at_once(devices: MappedDevices) -> None:
    needed = "dm_persistent_data", "dm_bio_prison", "dm_bufio", "dm_region_hash", "dm_log"
    for module in ("dm_thin_pool", *reversed(MODULES[1:]), *needed, "dm_mod"):
        await devices.run("rmmod", module)
    if answers():
        pytest.skip("something else needs dm_mod")
    async with devices.watched():
        assert "modprobe dm_mod" in devices.source.status().reason
        await devices.run("modprobe", "-a", *MODULES, "dm_thin_pool")
        await devices.until("zeventfs.source.ready", source="dm")
        assert devices.source.status().state is SourceState.READY
        # it is kept from being unloaded while it is watched
        assert await devices.run("rmmod", "dm_mod") != 0
    assert [name for name, _ in devices.told()] == ["zeventfs.source.lost", "zeventfs.source.ready"]


async def test_a_device_is_told_from_its_creation_to_its_removal(devices: MappedDevices) -> None:
    loop = devices.loop()
    async with devices.watched():
        assert devices.source.status().state is SourceState.READY
        await trio.to_thread.run_sync(
            devices.create, "lin", f"0 32768 linear {loop} 0", "--uuid", "TEST-lin"
        )
        created = await devices.until("dm.created", name="lin")
        assert created["uuid"] == "TEST-lin"
        await devices.until("dm.table.live", name="lin", sectors=32768)
        await devices.do("suspend", "lin")
        await devices.until("dm.suspended", name="lin", dev=created["dev"])
        await devices.do("resume", "lin")
        await devices.until("dm.resumed", name="lin")
        await devices.do("load", "lin", "--table", f"0 65536 linear {loop} 0")
        await devices.do("resume", "lin")
        await devices.until("dm.table.live", name="lin", sectors=65536)
        shown = devices.source.devices.get("lin")
        assert shown is not None
        assert shown.facts.targets[0].table == dmsetup("table", "lin").split(" ", 3)[3]
        await devices.do("rename", "lin", "lin2")
        devices.renamed("lin", "lin2")
        await devices.until("dm.renamed", name="lin2", old_name="lin")
        await devices.do("remove", "lin2")
        await devices.until("dm.removed", name="lin2")
        assert list(devices.source.devices) == []
    names = iter([name for name, _ in devices.told()])
    # a device is suspended while it is made and while tables are exchanged, which may be seen
    for expected in (
        "dm.created",
        "dm.table.live",
        "dm.suspended",
        "dm.resumed",
        "dm.table.live",
        "dm.renamed",
        "dm.removed",
    ):
        assert expected in names  # and behind those before
    assert [*names] == []


async def test_paths_and_groups_of_a_multipath_device_are_told(devices: MappedDevices) -> None:
    first, second = devices.multipath("mp")
    async with devices.watched():
        await devices.do("message", "mp", "0", f"fail_path {first}")
        failed = await devices.until("dm.path.failed", name="mp", path=first)
        assert (failed["valid_paths"], failed["fail_count"]) == (1, 1)
        await devices.do("message", "mp", "0", f"fail_path {second}")
        await devices.until("dm.path.failed", path=second, valid_paths=0)
        await devices.do("message", "mp", "0", f"reinstate_path {first}")
        await devices.until("dm.path.reinstated", path=first, valid_paths=1)
        await devices.do("message", "mp", "0", f"reinstate_path {second}")
        await devices.until("dm.path.reinstated", path=second, valid_paths=2)
        await devices.do("message", "mp", "0", "disable_group 1")
        await devices.until("dm.group.bypassed", name="mp", group=1)
        await devices.do("message", "mp", "0", "enable_group 1")
        await devices.until("dm.group.enabled", name="mp", group=1)
        await devices.do("message", "mp", "0", "switch_group 2")
        await devices.run("dd", "if=/dev/mapper/mp", "of=/dev/null", "count=8", "iflag=direct")
        await devices.do("message", "mp", "0", "disable_group 1")
        await devices.until("dm.group.switched", name="mp", to=2)
    assert devices.source.status().gaps == 0
    assert devices.source.status().malformed == 0


async def test_a_mirrors_recovery_and_the_failure_of_a_leg_are_told(
    devices: MappedDevices,
) -> None:
    legs = [devices.create(f"leg{n}", f"0 32768 linear {devices.loop()} 0") for n in range(2)]
    async with devices.watched():
        table = f"0 32768 mirror core 1 1024 2 {legs[0]} 0 {legs[1]} 0 2 handle_errors keep_log"
        await trio.to_thread.run_sync(devices.create, "mir", table)
        recovered = await devices.until("dm.mirror.recovered", name="mir")
        assert recovered["regions"] == 32
        await devices.do("load", "leg1", "--table", "0 32768 error")
        await devices.do("resume", "leg1")
        await devices.run(
            "dd", "if=/dev/zero", "of=/dev/mapper/mir", "bs=4k", "count=4", "oflag=direct"
        )
        failed = await devices.until("dm.mirror.leg_failed", name="mir")
        assert failed["how"]


async def test_the_failure_of_a_mirrors_log_is_told(devices: MappedDevices) -> None:
    legs = [devices.loop(), devices.loop()]
    log = devices.create("mlog", f"0 8192 linear {devices.loop()} 0")
    devices.create(
        "mir",
        f"0 32768 mirror disk 2 {log} 1024 2 {legs[0]} 0 {legs[1]} 0 2 handle_errors keep_log",
    )
    async with devices.watched():
        await devices.do("load", "mlog", "--table", "0 8192 error")
        await devices.do("resume", "mlog")
        await devices.run("dd", "if=/dev/zero", "of=/dev/mapper/mir", "count=8", "oflag=direct")
        await devices.until("dm.mirror.log_failed", name="mir")


async def test_a_snapshot_that_overflows_is_told(devices: MappedDevices) -> None:
    origin = devices.create("org", f"0 16384 linear {devices.loop()} 0")
    store = devices.loop(1 << 18)
    devices.create("snap", f"0 16384 snapshot {origin} {store} P 8")
    async with devices.watched():
        await devices.run(
            "dd", "if=/dev/zero", "of=/dev/mapper/snap", "bs=4k", "count=128", "oflag=direct"
        )
        told = await devices.until("dm.snapshot.invalid", name="snap")
        assert told["reason"]


async def test_a_thin_pools_low_water_and_state_are_told(devices: MappedDevices) -> None:
    meta, data = devices.loop(4 << 20), devices.loop()
    devices.create("pool", f"0 16384 thin-pool {meta} {data} 128 64 1 error_if_no_space")
    dmsetup("message", "pool", "0", "create_thin 0")
    devices.create("thin", "0 65536 thin /dev/mapper/pool 0")
    async with devices.watched():
        await devices.run(
            "dd", "if=/dev/zero", "of=/dev/mapper/thin", "bs=64k", "count=80", "oflag=direct"
        )
        low = await devices.until("dm.thin.low_water", name="pool")
        assert low["data_used"] >= 64
        await devices.run(
            "dd", "if=/dev/zero", "of=/dev/mapper/thin", "bs=64k", "count=140", "oflag=direct"
        )
        await devices.until("dm.thin.state", name="pool")


@pytest.mark.timeout(900)  # an emulated machine takes milliseconds for each
async def test_of_ten_thousand_flaps_none_is_lost_or_it_is_counted(
    devices: MappedDevices, figure: Callable[[str], None]
) -> None:
    first, _ = devices.multipath("mp")
    flaps = 10_000
    with without_udevd():
        async with devices.watched():
            begun = trio.current_time()
            assert not await devices.run(sys.executable, str(MESSAGES), "mp", first, str(flaps))
            sent = trio.current_time()
            with trio.move_on_after(600):
                await devices.posted_or_dropped(2 * flaps)
            done = trio.current_time()
    status = devices.source.status()
    told = Counter(event.name for event in devices.posted)
    assert told["dm.path.failed"] + told["dm.path.reinstated"] + status.dropped == 2 * flaps
    figure(
        f"{flaps} flaps in {sent - begun:.1f} s, all told {done - sent:.2f} s later:"
        f" {told['dm.path.failed']} failed, {told['dm.path.reinstated']} reinstated,"
        f" {status.dropped} counted in {status.gaps} gaps"
    )


async def test_a_failed_path_is_told_about_as_soon_as_udevadm_monitor_does(
    devices: MappedDevices, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    times = 40
    first, _ = devices.multipath("mp")
    output = tmp_path / "udevadm"
    with without_udevd(), output.open("wb") as file:
        monitor = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            ["udevadm", "monitor", "--kernel", "--property", "--subsystem-match=block"],
            stdout=file,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL": "C"},
        )
        try:
            while not output.stat().st_size:  # noqa: ASYNC110 - udevadm rings no bell here
                await trio.sleep(0.05)
            async with devices.watched():
                done = await trio.run_process(
                    [sys.executable, str(MESSAGES), "mp", first, str(times), "0.3"],
                    capture_stdout=True,
                )
                await trio.sleep(1)
        finally:
            monitor.terminate()
            monitor.wait()
    begun = [float(line) for line in done.stdout.split()]
    ours = [
        at
        for event, at in zip(devices.posted, devices.at, strict=True)
        if event.name == "dm.path.failed"
    ]
    theirs = [
        float(block.split("[", 1)[1].split("]", 1)[0])
        for block in output.read_text().split("\n\n")
        if "DM_ACTION=PATH_FAILED" in block
    ]
    assert len(begun) == len(ours) == len(theirs) == times
    ours_ms, theirs_ms = (
        statistics.median(at - start for at, start in zip(each, begun, strict=True)) * 1000
        for each in (ours, theirs)
    )
    figure(
        f"from fail_path to its event {ours_ms:.2f} ms, to udevadm's line {theirs_ms:.2f} ms"
        f" (medians of {times}): {ours_ms / theirs_ms:.2f} times"
    )
