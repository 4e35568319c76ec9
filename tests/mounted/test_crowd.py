"""As many blocked readers as there may be: everything else answers, and one more is refused."""

import re
import signal
import sys
from pathlib import Path

import pytest
from mounted_tree import Mounted
from programs import run
from waits import until

from zeventfs.fuse.session import MOST_WAITING

# Threads that read one descriptor, each by itself: pread(2) takes no lock on its position. The last
# to have its first answer says how many got how much; all read on.
CROWD = """
import _thread, collections, itertools, os, signal, sys
_thread.stack_size(65536)
sys.setswitchinterval(1000)  # else each that waits for the interpreter wakes up every 5 ms
number = int(sys.argv[2])
descriptor = os.open(sys.argv[1], os.O_RDONLY)
got, count = [], itertools.count(1)
def read():
    length = len(os.pread(descriptor, 65536, 0))
    got.append(length)
    if next(count) == number:
        print(dict(collections.Counter(got)), flush=True)
    os.pread(descriptor, 65536, length)
for _ in range(number):
    _thread.start_new_thread(read, ())
signal.pause()
"""


def waiting(mounted: Mounted) -> int:
    """How many requests wait, by debug/requests, but for the one that looks."""
    requests = mounted.read("debug/requests").decode()
    shown = len(re.findall(r"pid=\d+ waiting$", requests, re.MULTILINE)) - 1
    more = re.search(r"^ +\.\.\. (\d+) more waiting$", requests, re.MULTILINE)
    return shown + (int(more[1]) if more else 0)


@pytest.mark.timeout(240)  # 10,000 threads of Python's take their time on a busy machine
def test_past_the_limit_a_read_is_refused_and_all_else_answers(mounted: Mounted) -> None:
    stream = mounted.path("events/stream")
    crowd = mounted.program(sys.executable, "-c", CROWD, stream, str(MOST_WAITING))
    status = Path(f"/proc/{crowd.pid}/status")
    until(lambda: f"Threads:\t{MOST_WAITING + 1}\n" in status.read_text(), "all begun", limit=60.0)
    until(lambda: waiting(mounted) == MOST_WAITING, "all blocked", limit=60.0)
    refused = run(["cat", stream])
    assert refused.returncode == 1
    assert b"Resource temporarily unavailable" in refused.stderr
    listed = run(["ls", "-lR", mounted.point])
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert len(mounted.read("debug/requests").splitlines()) < 2000
    mounted.post()
    length = len(mounted.read("events/log"))
    crowd.await_output("\n", limit=60.0)
    assert crowd.out.decode() == f"{{{length}: {MOST_WAITING}}}\n"
    until(lambda: waiting(mounted) == MOST_WAITING, "all blocked again", limit=60.0)
    crowd.process.kill()
    assert crowd.end(limit=60.0) == -signal.SIGKILL
    assert waiting(mounted) == 0
