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
