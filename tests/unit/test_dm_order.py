"""Path events are told in the order in which they happened, as far as they came together."""

from dm_facts import multipath as target
from dm_facts import path_uevent, two_groups, uevent

from zeventfs.dm.paths import Paths
from zeventfs.dm.status import multipath
from zeventfs.dm.uevent import PathAction
from zeventfs.sources.dm.order import ends_within_run, in_order

NOW = 1000


def test_path_events_that_came_the_last_first_are_put_in_order() -> None:
    other = uevent("change", 2, 11)
    third = path_uevent("FAILED", "7:1", 3, 1, 10)
    second = path_uevent("REINSTATED", "7:1", 2, 2, 12)
    first = path_uevent("FAILED", "7:1", 1, 1, 13)
    assert in_order([third, other, second, first]) == [first, other, second, third]
    assert in_order([]) == []


def test_a_run_that_counts_down_may_go_on() -> None:
    third, second, first = (path_uevent("FAILED", "7:1", number, 1, 9) for number in (3, 2, 1))
    assert ends_within_run([third])
    assert ends_within_run([third, second])
    assert not ends_within_run([first, second])
    assert not ends_within_run([third, uevent("change", 2, 11)])
    assert not ends_within_run([])


def test_path_events_of_other_devices_stay_in_their_places() -> None:
    ours = [path_uevent("FAILED", "7:1", number, 1, number) for number in (2, 1)]
    theirs = [each._replace(dev="253:99") for each in ours]
    given = [ours[0], theirs[1], ours[1], theirs[0]]
    assert in_order(given) == [ours[1], theirs[1], ours[0], theirs[0]]


def test_an_event_that_comes_after_a_later_one_of_its_path_only_counts() -> None:
    status = multipath(target(two_groups("A 2")))
    assert status is not None
    paths = Paths(0, None, NOW)
    for failed, number in ((True, 1), (False, 4), (True, 3), (False, 2)):
        action = PathAction(failed, number, "7:1", 1, "mp", "uuid-mp")
        assert paths.hear(action, NOW, reloaded=False) is not None
    assert list(paths.compare(status, NOW)) == []  # all of it was told
