"""sources/: how each source stands, in small files."""

import pytest
from tree_client import NOW_NS, Client

from zeventfs.nodes.sources import sources_directory
from zeventfs.sources.status import SourceState, SourceStatus

UNKNOWN = SourceStatus(SourceState.READY, "", 0, 0, 0, 0, 0, None, None, None, None)
KNOWN = SourceStatus(
    SourceState.READY,
    "",
    events=7,
    gaps=2,
    dropped=15,
    malformed=1,
    kernel_dropped=3,
    last_eid=42,
    last_time_ns=NOW_NS + 5,
    last_arrival_ns=NOW_NS + 2 * 10**9 + 6,
    waiting=4,
    evicted=8,
    failed=4,
    cleared=2,
    unknown=1,
    late=6,
    rate_limited=9,
)


def client(**statuses: SourceStatus) -> Client:
    given = {name: lambda now=now: now for name, now in statuses.items()}
    return Client(sources_directory(given, lambda: NOW_NS))


async def test_each_source_has_a_directory_of_four_files() -> None:
    tree = client(sim=KNOWN, replay=UNKNOWN)
    assert tree.names("") == ["sim", "replay"]
    assert tree.names("sim") == ["state", "reason", "counters", "lag"]
    assert tree.node("sim/state").ino != tree.node("replay/state").ino
    assert tree.node("sim").key == "sources/sim"
    assert tree.node("sim/lag").key == "sources/sim/lag"


@pytest.mark.parametrize("state", SourceState)
async def test_state_is_one_word(state: SourceState) -> None:
    tree = client(sim=KNOWN._replace(state=state))
    assert await tree.content("sim/state") == state.value.encode() + b"\n"


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("", b""),
        ("end of the recording", b"end of the recording\n"),
        ("Line 3\nisn't \x1b[2J", rb"Line 3\nisn't \x1b[2J" + b"\n"),
        ("/r\u00e9sum\u00e9 \udcff", "/r\u00e9sum\u00e9 ".encode() + b"\\udcff\n"),
    ],
)
async def test_reason_is_one_line_or_nothing(reason: str, shown: bytes) -> None:
    tree = client(sim=KNOWN._replace(reason=reason))
    assert await tree.content("sim/reason") == shown
    assert (await tree.stat("sim/reason")).size == len(shown)


async def test_counters_are_a_key_and_a_value_a_line() -> None:
    tree = client(sim=KNOWN, idle=UNKNOWN)
    assert (await tree.content("sim/counters")).decode().splitlines() == [
        "events=7",
        "gaps=2",
        "dropped=15",
        "evicted=8",
        "failed=4",
        "cleared=2",
        "unknown=1",
        "late=6",
        "rate_limited=9",
        "malformed=1",
        "kernel_dropped=3",
        "last_eid=42",
        "last_time=2023-11-14T22:13:20.000000005Z",
    ]
    assert (await tree.content("idle/counters")).endswith(b"\nlast_eid=\nlast_time=\n")


@pytest.mark.parametrize(
    ("behind_ns", "seconds"),
    [
        (0, "0.000000000"),
        (2_000_000_001, "2.000000001"),
        (-1, "-0.000000001"),
        (-(10**9), "-1.000000000"),
    ],
)
async def test_lag_is_in_seconds_to_the_nanosecond(behind_ns: int, seconds: str) -> None:
    tree = client(sim=KNOWN._replace(last_time_ns=NOW_NS, last_arrival_ns=NOW_NS + behind_ns))
    assert await tree.content("sim/lag") == f"seconds={seconds}\nwaiting=4\n".encode()


async def test_what_is_not_known_of_lag_is_empty() -> None:
    assert await client(sim=UNKNOWN).content("sim/lag") == b"seconds=\nwaiting=\n"


async def test_times_are_those_of_arrivals() -> None:
    tree = client(sim=KNOWN, idle=UNKNOWN)
    for path in ("sim", "sim/state", "sim/counters"):
        assert (await tree.stat(path)).mtime_ns == KNOWN.last_arrival_ns
    for path in ("idle", "idle/lag"):
        assert (await tree.stat(path)).mtime_ns == NOW_NS


async def test_an_open_file_is_of_one_moment() -> None:
    now = [KNOWN]
    tree = Client(sources_directory({"sim": lambda: now[0]}, lambda: NOW_NS))
    opened = await tree.open("sim/state")
    now[0] = KNOWN._replace(state=SourceState.LOST)
    assert await opened.read() == b"ready\n"
    assert await tree.content("sim/state") == b"lost\n"
