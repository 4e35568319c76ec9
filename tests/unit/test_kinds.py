"""Kinds: each stored once, and a time for every event, however far off."""

from zeventfs.filter import Kind
from zeventfs.journal.kinds import Kinds


def test_a_kind_is_stored_once_and_each_event_has_its_number_and_time() -> None:
    kinds = Kinds()
    kinds.append(("zfs", "a", "tank"), 5)
    kinds.append(("zfs", "b", None), 7)
    kinds.append(("zfs", "a", "tank"), 6)
    assert len(kinds) == 3
    assert kinds.table == [Kind("zfs", "a", "tank"), Kind("zfs", "b", None)]
    assert list(kinds.numbers) == [0, 1, 0]
    assert list(kinds.times) == [5, 7, 6]
    assert kinds.newest == Kind("zfs", "a", "tank")


def test_a_time_beyond_64_bits_is_the_latest_or_the_earliest() -> None:
    kinds = Kinds()
    for time_ns in (1 << 70, -(1 << 70)):
        kinds.append(("zfs", "a", None), time_ns)
    assert list(kinds.times) == [2**63 - 1, -(2**63 - 1)]
