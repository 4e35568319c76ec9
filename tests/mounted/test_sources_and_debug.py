"""sources/ and debug/requests on a real mount: who delivers, who asks, and who hangs."""

import re
import signal
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import Mount
from lines import Event
from mounted_tree import CORPUS, Mounted
from programs import Program, run
from waits import until

FILES = ["state", "reason", "counters", "lag"]
LINE = re.compile(
    r" *-?(?P<age>\d+\.\d{6}) (?P<what>[a-z]+ [!-~]+( offset=\d+ size=\d+)?) pid=(?P<pid>\d+) "
    r"(waiting|\d+us (ok|0x[0-9a-f]+|\d+|E[A-Z]+))"
)


def counters(mounted: Mounted, source: str, name: str = "counters") -> dict[str, str]:
    lines = mounted.read(f"sources/{source}/{name}").decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def requests(mounted: Mounted, pattern: str = "") -> list[str]:
    lines = mounted.read("debug/requests").decode().splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    return [line for line in lines if re.search(pattern, line)]


# sources/


def test_a_source_that_delivers_is_ready_and_counts(mounted: Mounted) -> None:
    assert names(mounted.path("sources")) == ["sim"]
    assert names(mounted.path("sources/sim")) == FILES
    assert mounted.read("sources/sim/state") == b"ready\n"
    assert mounted.read("sources/sim/reason") == b""
    assert counters(mounted, "sim")["events"] == "0"
    mounted.post(5)
    last: Event = mounted.everything()[-1]
    assert counters(mounted, "sim") == {
        "events": "5",
        "gaps": "0",
        "dropped": "0",
        "evicted": "0",
        "failed": "0",
        "cleared": "0",
        "unknown": "0",
        "late": "0",
        "rate_limited": "0",
        "malformed": "0",
        "kernel_dropped": "0",
        "last_eid": str(last["eid"]),
        "last_time": last["time"],
    }
    lag = counters(mounted, "sim", "lag")
    assert 0 <= float(lag["seconds"]) < 1
    assert lag["waiting"] == "0"


def test_holes_are_counted_where_they_come_from(mounted: Mounted) -> None:
    mounted.post()
    too_large = b'{"class":"sysevent.x","payload":{"x":"%s"}}\n' % (b"x" * 7000)
    mounted.write("simulator/inject", too_large * 3)
    mounted.post()
    now = counters(mounted, "sim")
    assert (now["events"], now["gaps"], now["dropped"], now["failed"]) == ("2", "1", "3", "3")


def test_sizes_are_true_and_times_those_of_arrivals(mounted: Mounted) -> None:
    mounted.post()
    for name in FILES:
        path = mounted.path(f"sources/sim/{name}")
        assert path.stat().st_size == len(path.read_bytes())
        assert path.stat().st_mtime == mounted.path("sources/sim").stat().st_mtime
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        with pytest.raises(PermissionError):
            path.write_bytes(b"x")
    log = mounted.path("events/log").stat().st_mtime
    assert mounted.path("sources/sim").stat().st_mtime == pytest.approx(log, abs=0.1)


def test_a_recording_that_was_played_has_ended(mount: Mount) -> None:
    copy = CORPUS.with_name("make_shapes.py")  # its first line is no JSON
    mounted = mount("sim.rate=0", source=f"sim+replay:{CORPUS}+replay:{copy}")
    mounted.expects("the recording ends early: Line 1 isn't JSON")
    assert names(mounted.path("sources")) == ["sim", "replay", "replay.2"]
    for name in ("replay", "replay.2"):
        until(lambda n=name: mounted.read(f"sources/{n}/state") == b"ended\n", "the end")  # type: ignore[misc] # mypy can't infer a lambda's default
    assert mounted.read("sources/replay/reason") == b"end of the recording\n"
    assert b"Line 1 isn't JSON" in mounted.read("sources/replay.2/reason")
    assert mounted.read("sources/sim/state") == b"ready\n"
    seen = [each for each in mounted.everything() if not each["class"].startswith("zeventfs.")]
    now = counters(mounted, "replay")
    assert int(now["events"]) == len(seen)
    assert (now["last_eid"], now["last_time"]) == (str(seen[-1]["eid"]), seen[-1]["time"])
    recorded = datetime.fromisoformat(seen[-1]["time"][:26]).replace(tzinfo=UTC)
    age = (datetime.now(UTC) - recorded).total_seconds()
    assert float(counters(mounted, "replay", "lag")["seconds"]) == pytest.approx(age, abs=60)
    assert counters(mounted, "replay.2")["events"] == "0"


# debug/requests


def test_every_request_has_a_line_the_oldest_first(mounted: Mounted) -> None:
    cat = mounted.program("cat", mounted.path("README"), mounted.path("nothing"))
    cat.process.wait(timeout=5)
    pid = cat.process.pid
    seen = requests(mounted, f"pid={pid} ")
    assert any(re.search(r" open README pid=\d+ \d+us ok$", line) for line in seen)
    assert any(re.search(r" lookup /nothing pid=\d+ \d+us ENOENT$", line) for line in seen)
    length = len(mounted.read("README"))
    assert any(re.search(rf" read README offset=0 .* {length}$", line) for line in seen)
    ages = [float(line.split()[0]) for line in requests(mounted)]
    assert ages == sorted(ages)
    assert -60 < ages[0] < ages[-1] <= 0


def hung(mounted: Mounted) -> tuple[Program, str]:
    """A cat that waits in a read, and what debug/requests says of it but when."""
    cat = mounted.program("cat", mounted.path("events/stream"))
    pid = cat.process.pid
    [line] = until(lambda: requests(mounted, f"pid={pid} waiting$"), "a blocked read")
    return cat, line.split(maxsplit=1)[1]


def test_a_hung_reader_is_found_however_long_it_hangs(mounted: Mounted) -> None:
    cat, read = hung(mounted)
    assert re.fullmatch(
        rf"read events/stream offset=0 size=\d+ pid={cat.process.pid} waiting", read
    )
    for _ in range(300):  # several requests each
        mounted.path("README").read_bytes()
    seen = requests(mounted)
    assert len(seen) == 1025
    assert seen[0].endswith(f" {read}")


def test_an_interrupted_read_says_so(mounted: Mounted) -> None:
    cat, read = hung(mounted)
    cat.process.send_signal(signal.SIGTERM)
    cat.process.wait(timeout=5)
    until(lambda: requests(mounted, rf"{read.removesuffix(' waiting')} \d+us EINTR$"), "EINTR")
    [waiting] = requests(mounted, "waiting$")
    assert " open debug/requests " in waiting, "that is who looks"


def test_the_requests_are_the_owners_to_read(mount: Mount) -> None:
    mounted = mount("allow_other", "mode=0444")
    path = mounted.path("debug/requests")
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    to_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    assert run([*to_nobody, "cat", mounted.path("README")]).returncode == 0
    refused = run([*to_nobody, "cat", path])
    assert refused.returncode != 0
    assert b"Permission denied" in refused.stderr
    assert run([*to_nobody, "ls", "-l", mounted.path("debug")]).returncode == 0
    with pytest.raises(PermissionError):
        path.write_bytes(b"x")


def test_a_name_from_outside_makes_no_line_of_its_own(mounted: Mounted) -> None:
    with pytest.raises(FileNotFoundError):
        mounted.path("a b\nfake pid=1 waiting").stat()
    [line] = requests(mounted, "fake")
    assert r" lookup /a\x20b\x0afake\x20pid=1\x20waiting pid=" in line


def test_the_readme_tells_of_them(mounted: Mounted) -> None:
    readme = mounted.read("README").decode()
    for name in ("sources/<source>/", "debug/requests", *FILES):
        assert name in readme
