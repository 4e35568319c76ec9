"""What a mapped device's files say, for scripts and for a person."""

import pytest
from shown_devices import BEGIN_NS, FACTS, LINEAR, MULTIPATH

from zeventfs.dm.facts import TargetFacts
from zeventfs.dm.shown import PathSince
from zeventfs.nodes.dm_text import paths_text, state_text, status_text, table_text

SINCE = "2023-11-14T22:13:20.000000000Z"


def test_the_state_is_a_key_and_a_value_a_line() -> None:
    assert state_text(FACTS, BEGIN_NS).decode() == (
        "NAME=lin\n"
        "UUID=LVM-abc\n"
        "DEV=253:3\n"
        "STATE=ACTIVE\n"
        "LIVE=yes\n"
        "INACTIVE=no\n"
        "READONLY=no\n"
        "EVENT_NR=0\n"
        "OPEN=0\n"
        "SECTORS=65536\n"
        "TARGETS=1\n"
        f"SINCE={SINCE}\n"
    )


def test_a_suspended_device_without_a_live_table_says_so() -> None:
    facts = FACTS._replace(
        name="two\nlines",
        uuid="",
        suspended=True,
        live=False,
        inactive=True,
        read_only=True,
        targets=(),
    )
    lines = state_text(facts, BEGIN_NS).decode().splitlines()
    assert lines[:2] == ["NAME=two\\nlines", "UUID="]
    assert {"STATE=SUSPENDED", "LIVE=no", "INACTIVE=yes", "READONLY=yes"} < set(lines)
    assert {"SECTORS=0", "TARGETS=0"} < set(lines)
    assert table_text(facts) == status_text(facts) == b""


def test_table_and_status_are_as_dmsetup_prints_them() -> None:
    # Of dmsetup 1.02.185: what has no parameters or no status still has the blank before them
    zero = TargetFacts(1000, 1000, "zero", "", "")
    facts = FACTS._replace(targets=(LINEAR._replace(length=1000), zero))
    assert table_text(facts) == b"0 1000 linear 7:0 0\n1000 1000 zero \n"
    assert status_text(facts) == b"0 1000 linear \n1000 1000 zero \n"
    facts = FACTS._replace(targets=(MULTIPATH,))
    assert table_text(facts) == (
        b"0 65536 multipath 0 0 2 1 round-robin 0 1 1 7:1 1 round-robin 0 1 1 7:2 1 \n"
    )
    assert status_text(facts) == (
        b"0 65536 multipath 2 1 0 0 2 1 E 0 1 0 7:1 F 12 A 0 1 0 7:2 A 0 \n"
    )


def test_paths_are_a_table_below_its_heads() -> None:
    facts = FACTS._replace(targets=(LINEAR, MULTIPATH))
    since = {"7:1": PathSince(BEGIN_NS, "I/O error\n"), "7:9": PathSince(0, "")}
    assert paths_text(facts, since).decode() == (
        "DEV  GROUP  GROUP_STATE  STATE   FAILS  SINCE                           ERROR\n"
        f"7:1      1  ENABLED      FAILED     12  {SINCE}  I/O error\\n\n"
        "7:2      2  ACTIVE       ACTIVE      0\n"
    )


def test_what_has_no_paths_has_the_heads_alone() -> None:
    assert paths_text(FACTS, {}) == b"DEV  GROUP  GROUP_STATE  STATE  FAILS  SINCE  ERROR\n"


@pytest.mark.parametrize("status", ["", "2 1", "2 1 0 0 1 1 E 0 2 0 7:1 A 0", "x", "0 0 1 1 E 0"])
def test_a_status_that_cannot_be_understood_has_no_paths(status: str) -> None:
    facts = FACTS._replace(targets=(MULTIPATH._replace(status=status),))
    assert paths_text(facts, {}).count(b"\n") == 1
