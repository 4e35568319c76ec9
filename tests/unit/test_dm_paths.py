"""Paths and groups as uevents and status lines tell them, each step once, or counted."""

from typing import Any

import pytest
from dm_facts import TWO_GROUPS, two_groups
from dm_facts import multipath as target

from zeventfs.dm.changes import Change
from zeventfs.dm.paths import Paths
from zeventfs.dm.status import Multipath, multipath
from zeventfs.dm.uevent import PathAction

NOW = 1000


def status(first: str = "A 0", second: str = "A 0", states: str = "EE", to: int = 1) -> Multipath:
    read = multipath(target(two_groups(first, second, states, to)))
    assert read is not None
    return read


def failed(number: int, path: str = "7:1", valid: int = 1) -> PathAction:
    return PathAction(True, number, path, valid, "mp", "uuid-mp")  # noqa: FBT003 - failed


def back(number: int, path: str = "7:1", valid: int = 2) -> PathAction:
    return PathAction(False, number, path, valid, "mp", "uuid-mp")  # noqa: FBT003 - not failed


def watched(begin: Multipath | None = None) -> Paths:
    """Of a device that was created while watched, and read once."""
    paths = Paths(0, None, NOW)
    assert list(paths.compare(begin or status(), NOW)) == []
    return paths


def short(change: Change | None) -> str:
    """`failed 7:1 x1 (1)`: fail count and paths left."""
    assert change is not None
    says: dict[str, Any] = {key: value for key, _, value in change.pairs}
    verb = change.name.rpartition(".")[2]
    if verb == "gap":
        assert says["cause"] == "source"
        return f"gap {says['dropped']} {says['reason']}"
    if "path" not in says:
        return f"{verb} " + " ".join(str(value) for value in says.values())
    return f"{verb} {says['path']} x{says['fail_count']} ({says['valid_paths']})"


def hear(paths: Paths, *actions: PathAction, reloaded: bool = False) -> list[str]:
    heard = [paths.hear(action, NOW, reloaded=reloaded) for action in actions]
    return [short(change) for change in heard if change is not None]


def read(paths: Paths, line: Multipath) -> list[str]:
    return [short(change) for change in paths.compare(line, NOW)]


def test_a_uevent_is_told_at_once_and_the_status_only_confirms_it() -> None:
    paths = watched()
    assert hear(paths, failed(1)) == ["failed 7:1 x1 (1)"]
    assert read(paths, status("F 1")) == []
    assert hear(paths, back(2)) == ["reinstated 7:1 x1 (2)"]
    assert read(paths, status("A 1")) == []


def test_what_the_status_told_first_the_uevents_tell_no_more() -> None:
    paths = watched()
    assert read(paths, status("F 2", "F 1")) == [
        "failed 7:1 x1 (1)",
        "reinstated 7:1 x1 (2)",
        "failed 7:1 x2 (1)",
        "failed 7:2 x1 (0)",
    ]
    late = (failed(1), back(2), failed(3), failed(4, "7:2", 0))
    assert hear(paths, *late) == []
    assert hear(paths, back(5)) == ["reinstated 7:1 x2 (2)"]


def test_uevents_may_be_ahead_of_their_numbers() -> None:
    paths = watched()
    assert hear(paths, failed(2, "7:2"), failed(1)) == ["failed 7:2 x1 (1)", "failed 7:1 x1 (1)"]
    assert read(paths, status("F 1", "F 1")) == []


def test_lost_uevents_are_counted_and_where_it_ended_is_told() -> None:
    paths = watched()
    assert hear(paths, failed(4, "7:2", 0)) == ["failed 7:2 x1 (0)"]
    assert read(paths, status("F 2", "F 1")) == ["gap 3 DM_SEQNUM", "failed 7:1 x2 (0)"]
    assert hear(paths, back(5)) == ["reinstated 7:1 x2 (2)"]
    assert read(paths, status("A 2", "F 1")) == []


def test_a_path_that_fails_again_after_what_was_lost_is_told() -> None:
    paths = watched()
    assert hear(paths, failed(1), failed(3)) == ["failed 7:1 x1 (1)", "failed 7:1 x2 (1)"]
    assert read(paths, status("F 2")) == ["gap 1 DM_SEQNUM"]


def test_flaps_beyond_those_that_were_lost_are_counted_too() -> None:
    paths = watched()
    assert hear(paths, failed(2)) == ["failed 7:1 x1 (1)"]
    assert read(paths, status("F 6")) == ["gap 1 DM_SEQNUM", "gap 9 fail_count"]
    assert hear(paths, back(12)) == ["reinstated 7:1 x6 (2)"]


def test_of_very_many_flaps_the_last_are_told_and_the_others_counted() -> None:
    paths = watched()
    told = read(paths, status("F 5000", "A 200"))
    assert told[0] == f"gap {9999 - 255 + 400 - 256} fail_count"
    assert len(told) == 1 + 255 + 256
    assert told[255] == "failed 7:1 x5000 (1)"
    assert told[-1] == "reinstated 7:2 x200 (1)"
    assert hear(paths, failed(10399)) == []
    assert hear(paths, back(10400)) == ["reinstated 7:1 x5000 (2)"]


def test_a_new_table_s_paths_are_compared_by_their_states() -> None:
    paths = watched()
    assert hear(paths, failed(1), back(2), failed(3))[-1] == "failed 7:1 x2 (1)"
    assert read(paths, status("A 0", "F 1")) == ["reinstated 7:1 x0 (2)", "failed 7:2 x1 (1)"]
    assert read(paths, status("A 0", "F 1")) == []


def test_a_path_that_fails_in_a_new_table_is_told_before_that_is_read() -> None:
    paths = watched()
    assert hear(paths, failed(1)) == ["failed 7:1 x1 (1)"]
    assert hear(paths, failed(2), reloaded=True) == ["failed 7:1 x1 (1)"]
    assert read(paths, status("F 1")) == []


def test_of_a_device_that_was_there_the_numbers_are_learnt() -> None:
    paths = Paths(None, status("F 3"), NOW)
    assert hear(paths, failed(17)) == []  # it was read already
    assert read(paths, status("F 3")) == []
    assert hear(paths, back(18), failed(19)) == ["reinstated 7:1 x3 (2)", "failed 7:1 x4 (1)"]
    other = Paths(None, status(), NOW)
    assert hear(other, failed(9)) == ["failed 7:1 x1 (1)"]
    assert read(other, status("F 1", "F 1")) == ["failed 7:2 x1 (0)"]


def test_the_first_uevents_of_a_device_that_was_there_may_have_been_read_too() -> None:
    paths = Paths(None, status(), NOW)
    assert read(paths, status("A 1")) == ["failed 7:1 x1 (1)", "reinstated 7:1 x1 (2)"]
    assert hear(paths, failed(41), back(42), failed(43)) == ["failed 7:1 x2 (1)"]
    lossy = Paths(None, status(), NOW)
    assert len(read(lossy, status("A 1"))) == 2
    lossy.forget_skipped()
    assert hear(lossy, failed(43)) == ["failed 7:1 x2 (1)"]


def test_a_path_that_no_reading_has_shown_is_told_all_the_same() -> None:
    paths = Paths(None, None, NOW)
    assert hear(paths, failed(9, "8:0")) == ["failed 8:0 x1 (1)"]
    assert read(paths, status()) == []


def test_a_fail_count_is_no_greater_than_the_kernel_s() -> None:
    paths = Paths(None, status(f"A {2**32 - 1}"), NOW)
    assert hear(paths, failed(9)) == [f"failed 7:1 x{2**32 - 1} (1)"]


def test_a_device_in_two_groups_is_one_path() -> None:
    line = "2 0 0 0 2 1 E 0 1 0 7:1 F 1 E 0 1 0 7:1 F 1 "
    both = multipath(target(line, TWO_GROUPS))
    assert both is not None
    assert [short(change) for change in Paths(0, None, NOW).compare(both, NOW)] == [
        "failed 7:1 x1 (0)"
    ]


def test_what_is_missing_when_it_ends_is_counted() -> None:
    paths = watched()
    assert hear(paths, failed(3)) == ["failed 7:1 x1 (1)"]
    assert [short(change) for change in paths.end()] == ["gap 2 DM_SEQNUM"]


def test_since_is_when_it_was_told_as_soon_as_the_status_has_it() -> None:
    paths = Paths(None, status(), 1)
    assert {dev: since.since_ns for dev, since in paths.since.items()} == {"7:1": 1, "7:2": 1}
    paths.hear(failed(1), 2, reloaded=False)
    assert paths.since["7:1"].since_ns == 1
    list(paths.compare(status("F 1", "F 1"), 3))
    assert {dev: since.since_ns for dev, since in paths.since.items()} == {"7:1": 2, "7:2": 3}
    list(paths.compare(status("F 1", "F 1"), 4))
    assert paths.since["7:2"].since_ns == 3
    assert paths.since["7:2"].error == ""


# Groups


@pytest.mark.parametrize("states", ["DE", "DA"])
def test_a_group_is_bypassed_and_enabled_with_its_paths(states: str) -> None:
    paths = watched()
    assert read(paths, status(states=states)) == ["bypassed 1 ['7:1']"]
    assert read(paths, status(states=states)) == []
    assert read(paths, status()) == ["enabled 1 ['7:1']"]


def test_groups_are_switched_when_another_is_next() -> None:
    paths = watched(status(states="AE"))
    assert read(paths, status(states="AE", to=2)) == ["switched 1 2"]
    assert read(paths, status(states="EA", to=2)) == []
    assert read(paths, status(to=1)) == []  # none is in use: not decided
    assert read(paths, status(states="EA", to=2)) == []
    assert read(paths, status(states="AE", to=1)) == ["switched 2 1"]


def test_a_device_that_was_there_has_its_groups_as_they_are() -> None:
    paths = Paths(None, status(states="DA", to=2), NOW)
    assert read(paths, status(states="DA", to=2)) == []
    assert read(paths, status(states="EA", to=1)) == ["enabled 1 ['7:1']", "switched 2 1"]


def test_other_groups_are_another_table_s() -> None:
    paths = Paths(None, status(states="DA", to=2), NOW)
    line = "2 0 0 0 2 1 D 0 2 0 7:1 A 0 7:2 A 0 E 0 1 0 7:3 A 0 "
    other = multipath(target(line))
    assert other is not None
    assert read(paths, other) == ["bypassed 1 ['7:1', '7:2']"]
    none = multipath(target("2 0 0 0 0 0 "))
    assert none is not None
    assert read(paths, none) == []
