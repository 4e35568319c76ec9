"""The daemon's log: one line a record, and no more than a line lost where there is no room."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from zeventfs.logs import OneLine

TO_FULL = """
import logging, sys
from zeventfs import logs
logs.begin(sys.argv[1])
logging.warning("lost")
logging.warning("%d", "a bug")
print("on it goes")
"""

TO_HANGING = """
import logging, os, sys
from zeventfs import logs
os.mkfifo(sys.argv[1])
reading = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
logs.begin(sys.argv[1])
with logs.apart():
    for number in range(3 * logs.WAITING):  # more than pipe and queue hold
        logging.warning("%d %s", number, "x" * 1000)
    print("on it goes")
    os.set_blocking(reading, True)
    with os.fdopen(reading, "rb") as pipe:
        taken = [int(pipe.readline().split(b" ")[4]) for _ in range(logs.WAITING)]
        assert taken == list(range(logs.WAITING)), "in order, from the first"
"""

TO_WHAT_IS_GONE = """
import logging, pathlib, shutil, sys
from zeventfs import logs
place = pathlib.Path(sys.argv[1])
place.mkdir()
logs.begin(str(place / "log"))
shutil.rmtree(place)
logging.warning("lost")
place.mkdir()
logging.warning("found")
assert "found" in (place / "log").read_text()
print("on it goes")
"""

HANGING_AT_THE_END = """
import logging, os, sys
from zeventfs import logs
logs.LAST_WORDS_S = 0.1
os.mkfifo(sys.argv[1])
reading = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
logs.begin(sys.argv[1])
with logs.apart():
    for number in range(2 * logs.WAITING):
        logging.warning("%d %s", number, "x" * 1000)
logging.warning("and after")
logging.shutdown()
print("on it goes")
"""

LAST_WORDS = """
import logging, sys
from zeventfs import logs
logs.begin(sys.argv[1])
with logs.apart():
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("a bug with %s", "arguments")
logging.warning("and after")
"""


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("a", logging.ERROR, "", 0, "first\nsecond\r\nthird", None, None)
    assert OneLine("%(message)s").format(record) == "first | second | third"


@pytest.mark.parametrize("place", ["/dev/full", "stderr"])
def test_a_full_disk_costs_lines_and_says_nothing_elsewhere(tmp_path: Path, place: str) -> None:
    errors = tmp_path / "errors"
    with errors.open("w") as there, Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", TO_FULL, place],
            stdout=subprocess.PIPE,
            stderr=full if place == "stderr" else there,
            check=False,
        )
    assert done.stdout == b"on it goes\n"
    said = errors.read_text()
    assert "No space left" not in said
    assert ("a bug" in said) == (place != "stderr"), "a bug in a call is told all the same"


def test_who_logs_apart_does_not_wait_for_a_place_that_hangs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TO_HANGING, tmp_path / "hanging"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"on it goes\n", b"")


@pytest.mark.parametrize("program", [TO_WHAT_IS_GONE, HANGING_AT_THE_END])
def test_a_place_that_is_gone_or_hangs_ends_nothing(tmp_path: Path, program: str) -> None:
    place = tmp_path / "place"
    done = subprocess.run(
        [sys.executable, "-c", program, place], capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"on it goes\n"), done.stderr


def test_what_was_logged_apart_last_is_written_each_record_one_line(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LAST_WORDS, tmp_path / "log"], check=True)
    first, second = (tmp_path / "log").read_text().splitlines()
    assert " ERROR root: a bug with arguments | Traceback (most recent call last): | " in first
    assert first.endswith("ZeroDivisionError: division by zero")
    assert second.endswith("WARNING root: and after")
