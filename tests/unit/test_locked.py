"""What has to be permitted, what tracebacks read, what is kept free: all in processes apart."""

import ctypes
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from zeventfs import locked
from zeventfs.errors import MountFailed
from zeventfs.locked import is_memory

NOBODY = "Name:\tcat\nCapPrm:\t0000000000000000\nCapEff:\t{:016x}\nCapBnd:\t000001ffffffffff\n"


def python(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def limit(monkeypatch: pytest.MonkeyPatch, hard: int) -> list[tuple[int, int]]:
    changed: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: changed.append(limits))
    return changed


def test_with_an_unlimited_hard_limit_the_soft_one_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = limit(monkeypatch, resource.RLIM_INFINITY)
    locked._allow()
    assert changed == [(resource.RLIM_INFINITY, resource.RLIM_INFINITY)]


@pytest.mark.parametrize("status", [NOBODY.format(1 << 15), "Name:\tcat\n"])
def test_with_neither_limit_nor_capability_it_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    changed = limit(monkeypatch, 8 << 20)
    monkeypatch.setattr(Path, "read_text", lambda *_: status)
    with pytest.raises(MountFailed, match=r"^mlock is not permitted: .* which is 8192 kB \(.*\)$"):
        locked._allow()
    assert changed == []


def test_with_the_capability_no_limit_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 0)
    monkeypatch.setattr(Path, "read_text", lambda *_: NOBODY.format(1 << 14))
    locked._allow()


def test_a_kernel_that_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, *_: object, **__: object) -> None: ...

        def mlockall(self, _: int) -> int:
            return -1

    limit(monkeypatch, resource.RLIM_INFINITY)
    monkeypatch.setattr(ctypes, "CDLL", Refusing)
    monkeypatch.setattr(ctypes, "get_errno", lambda: 12)
    with (
        pytest.raises(MountFailed, match=r"^can't lock the daemon in memory: Cannot allocate"),
        locked.in_memory(),
    ):
        pytest.fail("locked")


def test_what_is_mapped_later_is_locked_as_it_is_touched() -> None:
    resident, locked_before, reserved, touched = python("""
import mmap, re
from zeventfs.locked import in_memory
def kilobytes(file, key):
    return int(re.search(rf"^{key}:\\s*(\\d+)", open(f"/proc/self/{file}").read(), re.M)[1])
with in_memory():
    print(kilobytes("smaps_rollup", "Pss"))
    print(kilobytes("smaps_rollup", "Locked"))
    memory = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    print(kilobytes("smaps_rollup", "Locked"))
    memory[: 32 << 20] = bytes(32 << 20)
    print(kilobytes("smaps_rollup", "Locked"))
""")
    assert int(locked_before) >= 0.95 * int(resident)
    assert int(reserved) < int(locked_before) + 4096
    assert int(touched) >= int(reserved) + (31 << 10)  # the counts come from different moments


def test_a_traceback_reads_no_source_and_what_nobody_can_raise_is_logged() -> None:
    lines = python("""
import logging, sys
from zeventfs.locked import in_memory
logging.basicConfig(stream=sys.stdout, format="%(message)s")
def opened(event, arguments):
    assert not (event == "open" and str(arguments[0]).endswith(".py")), arguments
class Bad:
    def __del__(self): raise ValueError("in vain")
with in_memory():
    sys.addaudithook(opened)
    try:
        import json.decoder as module
        module.JSONDecoder().decode("{")
    except ValueError:
        logging.exception("parsed")
    Bad()
""")
    told = "\n".join(lines)
    assert re.search(r'File ".*json/decoder.py", line \d+, in decode\n  File', told)
    assert "obj, end = self.raw_decode" not in told
    assert "ValueError: in vain" in told
    assert "Bad.__del__" in told


def test_the_room_stays_when_it_is_free() -> None:
    before, after, used, again = map(
        int,
        python("""
import resource
from zeventfs.locked import ROOM, keep_room
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = resident()
keep_room()
after = resident()
start = faults()
for _ in range(3):
    small = [bytes(200) for _ in range(ROOM // 2 // 240)]
    large = [bytearray(100_000) for _ in range(ROOM // 2 // 100_000)]
    del small, large
print(before, after, ROOM, faults() - start)
""")[0].split(),
    )
    assert after - before >= 1.5 * used
    assert again < 50, "it is used over and over"


def test_what_is_memory_is_told_from_a_disk() -> None:
    assert is_memory(Path("/dev/shm"))
    assert not is_memory(Path("/proc"))
    assert not is_memory(Path("/sys"))
