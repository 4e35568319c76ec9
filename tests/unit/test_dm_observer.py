"""All mapped devices: what is told, what is wanted, and what was lost."""

from typing import Any

import pytest
from dm_facts import classes, device, lines, mp, other, path_uevent, told, uevent

from zeventfs.dm.device import Device
from zeventfs.dm.facts import DeviceFacts
from zeventfs.dm.observer import Listed, Observer, Wanted
from zeventfs.event import Event

NOTHING = Wanted(everything=False, devs=())
EVERYTHING = Wanted(everything=True, devs=())
COOKIE: dict[str, object] = {"DM_COOKIE": 1}


def begun(*devices: DeviceFacts) -> Observer:
    """An observer that has read *devices* and SEQNUM 100 first."""
    observer = Observer()
    assert observer.take_all(devices, 1) == []
    assert observer.take_uevent(other(100), 1) == []
    return observer


def listed(*devices: DeviceFacts) -> list[Listed]:
    return [Listed(facts.name, facts.dev, facts.event_nr) for facts in devices]


def rung(observer: Observer, name: str) -> list[str]:
    """A list that "device" and "devices" will be put into, as their bells ring."""
    bells: list[str] = []

    def put(word: str) -> None:
        bells.append(word)

    shown = observer.devices.get(name)
    assert shown is not None
    shown.changed.call(rung, lambda: put("device"))
    observer.devices.changed.call(rung, lambda: put("devices"))
    return bells


def get(observer: Observer, name: str) -> Device:
    found = observer.devices.get(name)
    assert found is not None
    return found


# The beginning


def test_at_first_everything_is_wanted_and_what_there_is_tells_nothing() -> None:
    observer = Observer()
    assert observer.wanted == EVERYTHING
    assert observer.take_uevent(path_uevent("FAILED", "7:1", 9, 1, 5), 1) == []
    assert observer.take_uevent(uevent("add", 7, 9), 1) == []
    assert observer.take_list(listed(device()), 1) == []
    assert observer.take("253:2", device(), 1) == []
    assert observer.wanted
    assert observer.take_all([device(), mp("F 3", states="DE")], 1) == []
    assert observer.wanted == NOTHING
    assert not observer.wanted
    assert list(observer.devices) == ["lin", "mp"]
    assert observer.gaps == 0


def test_a_device_is_as_it_was_read() -> None:
    observer = begun(mp())
    shown = get(observer, "mp")
    assert (shown.name, shown.names, shown.facts) == ("mp", ("mp",), mp())
    assert (shown.changed_ns, shown.changes, shown.gone) == (1, 0, False)
    assert {dev: since.since_ns for dev, since in shown.paths().items()} == {"7:1": 1, "7:2": 1}
    assert observer.devices.get("other") is None


# Creation


def test_a_created_device_is_read_and_told_with_its_table() -> None:
    observer = begun()
    assert observer.take_uevent(uevent("add", 2, 101), 2) == []
    assert observer.take_uevent(uevent("change", 2, 102, **COOKIE), 2) == []
    assert observer.wanted == Wanted(everything=False, devs=("253:2",))
    events = observer.take("253:2", device(), 3)
    assert told(events) == [
        ("dm.created", {"name": "lin", "uuid": "uuid-lin", "dev": "253:2"}),
        (
            "dm.table.live",
            {
                "name": "lin",
                "uuid": "uuid-lin",
                "dev": "253:2",
                "targets": ["0 65536 linear"],
                "target_count": 1,
                "read_only": False,
                "sectors": 65536,
            },
        ),
    ]
    assert {(event.source, event.time_ns, event.eid) for event in events} == {("dm", 3, None)}
    assert not observer.wanted
    assert observer.take("253:2", device(), 4) == []


@pytest.mark.parametrize("uevents_first", [False, True])
def test_creation_is_told_once_whether_uevents_or_a_list_come_first(uevents_first: bool) -> None:  # noqa: FBT001 - a parameter
    observer = begun()
    events = [] if uevents_first else observer.take_list(listed(device()), 1)
    if not uevents_first:
        events += observer.take("253:2", device(), 1)
    for each in (uevent("add", 2, 101, DISKSEQ=5), uevent("change", 2, 102, DISKSEQ=5, **COOKIE)):
        events += observer.take_uevent(each, 1)
    events += observer.take("253:2", device(), 1)
    events += observer.take_all([device()], 1)
    assert classes(events) == ["dm.created", "dm.table.live"]


def test_a_device_that_has_no_table_yet_is_told_as_created_and_later_as_live() -> None:
    observer = begun()
    observer.take_uevent(uevent("add", 2, 101), 1)
    bare = device(live=False)._replace(targets=())
    assert classes(observer.take("253:2", bare, 1)) == ["dm.created"]
    observer.take_uevent(uevent("change", 2, 102, **COOKIE), 1)
    assert classes(observer.take("253:2", device(), 1)) == ["dm.table.live"]


def test_a_path_that_fails_before_the_first_reading_is_told_by_it() -> None:
    observer = begun()
    observer.take_uevent(uevent("add", 3, 101), 1)
    observer.take_uevent(uevent("change", 3, 102, **COOKIE), 1)
    assert observer.take_uevent(path_uevent("FAILED", "7:1", 1, 1, 103), 1) == []
    events = observer.take("253:3", mp("F 1"), 1)
    assert classes(events) == ["dm.created", "dm.table.live", "dm.path.failed"]
    assert observer.take_uevent(path_uevent("FAILED", "7:1", 1, 1, 104), 1) == []


def test_what_is_gone_before_it_was_read_is_not_told() -> None:
    observer = begun()
    observer.take_uevent(uevent("add", 2, 101, DISKSEQ=5), 1)
    assert observer.take_uevent(uevent("remove", 2, 102, DISKSEQ=5, **COOKIE), 1) == []
    assert observer.take_uevent(uevent("remove", 2, 103, DISKSEQ=5), 1) == []
    assert observer.take("253:2", None, 1) == []
    assert list(observer.devices) == []
    assert not observer.wanted


# Removal


def test_a_removal_is_told_by_its_first_uevent() -> None:
    observer = begun(device())
    bells, shown = rung(observer, "lin"), get(observer, "lin")
    (event,) = observer.take_uevent(uevent("remove", 2, 101, DISKSEQ=5, **COOKIE), 2)
    assert told([event]) == [("dm.removed", {"name": "lin", "uuid": "uuid-lin", "dev": "253:2"})]
    assert event.eid == 101
    assert observer.take_uevent(uevent("remove", 2, 102, DISKSEQ=5), 2) == []
    assert observer.take("253:2", None, 2) == []
    assert sorted(bells) == ["device", "devices"]
    assert shown.gone
    assert list(observer.devices) == []


@pytest.mark.parametrize("diskseq", [{}, {"DISKSEQ": 5}])
def test_a_removal_is_told_once_with_and_without_diskseq(diskseq: dict[str, object]) -> None:
    observer = begun(device())
    events: list[Event] = []
    for number, keys in enumerate((COOKIE, {})):
        events += observer.take_uevent(uevent("remove", 2, 101 + number, **diskseq, **keys), 2)
    events += observer.take_list([], 2) + observer.take("253:2", None, 2)
    events += observer.take_all([], 2)
    assert classes(events) == ["dm.removed"]


@pytest.mark.parametrize("reading", ["list", "all", "one"])
def test_a_device_that_is_not_there_any_more_was_removed(reading: str) -> None:
    observer = begun(device(), mp())
    if reading == "list":
        events = observer.take_list(listed(mp()), 1)
    elif reading == "all":
        events = observer.take_all([mp()], 1)
    else:
        events = observer.take("253:2", None, 1)
    assert classes(events) == ["dm.removed"]
    assert list(observer.devices) == ["mp"]


def test_a_device_that_is_there_after_all_is_found_again() -> None:
    observer = begun(device())
    assert classes(observer.take_uevent(uevent("remove", 2, 101), 1)) == ["dm.removed"]
    assert observer.wanted.devs == ("253:2",)
    assert classes(observer.take("253:2", device(), 1)) == ["dm.created", "dm.table.live"]


def test_one_of_the_same_name_and_number_is_another() -> None:
    observer = begun(device())
    first = get(observer, "lin")
    events = observer.take_uevent(uevent("remove", 2, 101, DISKSEQ=5, **COOKIE), 1)
    events += observer.take_uevent(uevent("remove", 2, 102, DISKSEQ=5), 1)
    events += observer.take_uevent(uevent("add", 2, 103, DISKSEQ=6), 1)
    events += observer.take("253:2", device(), 1)
    assert classes(events) == ["dm.removed", "dm.created", "dm.table.live"]
    second = get(observer, "lin")
    assert first.gone
    assert not second.gone
    assert second.serial > first.serial


def test_uevents_of_the_one_before_are_not_taken_for_the_one_that_is_there() -> None:
    observer = begun(device())
    observer.take_uevent(uevent("change", 2, 101, DISKSEQ=5, **COOKIE), 1)
    observer.take("253:2", device(), 1)
    events = observer.take_list([Listed("new", "253:2", 0)], 1)
    events += observer.take("253:2", device("new"), 1)
    assert classes(events) == ["dm.removed", "dm.created", "dm.table.live"]
    for seqnum in (102, 103):
        assert observer.take_uevent(uevent("remove", 2, seqnum, DISKSEQ=5), 1) == []
    assert observer.take_uevent(uevent("add", 2, 104, DISKSEQ=6), 1) == []
    assert classes(observer.take_uevent(uevent("remove", 2, 105, DISKSEQ=6), 1)) == ["dm.removed"]


def test_uevents_before_the_first_of_a_device_that_was_read_are_of_the_one_before() -> None:
    observer = begun()
    observer.take_list(listed(mp()), 1)
    observer.take("253:3", mp(), 1)
    assert observer.take_uevent(path_uevent("FAILED", "7:1", 5, 1, 101, DISKSEQ=5), 1) == []
    assert observer.take_uevent(uevent("remove", 3, 102, DISKSEQ=5), 1) == []
    assert observer.wanted.devs == ("253:3",)
    assert observer.take("253:3", mp(), 1) == []
    observer.take_uevent(uevent("add", 3, 103, DISKSEQ=6), 1)
    failed = path_uevent("FAILED", "7:1", 1, 1, 104, DISKSEQ=6)
    assert classes(observer.take_uevent(failed, 1)) == ["dm.path.failed"]


def test_a_path_s_uevent_with_another_uuid_is_of_another_device() -> None:
    observer = begun(mp())
    failed = path_uevent("FAILED", "7:1", 5, 1, 101, DM_UUID="other")
    assert observer.take_uevent(failed, 1) == []
    assert observer.wanted.devs == ("253:3",)


def test_a_diskseq_of_another_says_that_the_device_was_removed() -> None:
    observer = begun(device())
    observer.take_uevent(uevent("change", 2, 101, DISKSEQ=5), 1)
    assert classes(observer.take_uevent(uevent("add", 2, 102, DISKSEQ=6), 1)) == ["dm.removed"]
    assert classes(observer.take("253:2", device(), 1)) == ["dm.created", "dm.table.live"]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (device(), device(), True),
        (device(), device("other", uuid="uuid-lin"), True),
        (device(), device(uuid="other"), False),
        (device(event_nr=5), device(event_nr=4), False),
        (device(uuid=""), device(uuid="new"), True),
        (device(uuid=""), device("other", uuid=""), True),
        (device(uuid=""), device("other", uuid="new"), False),
    ],
)
def test_which_readings_of_a_number_are_of_the_same_device(
    before: DeviceFacts, after: DeviceFacts, *, same: bool
) -> None:
    observer = begun(before)
    names = classes(observer.take("253:2", after, 1))
    assert ("dm.created" not in names) is same
    assert (get(observer, after.name).serial == 1) is same


def test_disks_that_are_gone_are_remembered_in_bounds() -> None:
    observer = begun()
    for minor in range(1100):
        facts = device(f"d{minor}", minor=minor)
        observer.take_uevent(uevent("add", minor, 101 + 2 * minor, DISKSEQ=minor), 1)
        observer.take(facts.dev, facts, 1)
        observer.take_uevent(uevent("remove", minor, 102 + 2 * minor, DISKSEQ=minor), 1)
        observer.take(facts.dev, None, 1)
    assert len(observer._past) == 1024


# Resumes, renames


def test_a_resume_that_no_reading_shows_is_told() -> None:
    observer = begun(device())
    observer.take_uevent(uevent("change", 2, 101, **COOKIE), 1)
    assert observer.wanted.devs == ("253:2",)
    assert classes(observer.take("253:2", device(), 1)) == ["dm.resumed"]
    assert observer.take("253:2", device(), 1) == []


def test_a_resume_is_told_once_whether_it_is_read_or_heard_first() -> None:
    observer = begun(device())
    assert classes(observer.take("253:2", device(suspended=True), 1)) == ["dm.suspended"]
    assert classes(observer.take("253:2", device(), 1)) == ["dm.resumed"]
    observer.take_uevent(uevent("change", 2, 101, **COOKIE), 1)
    assert observer.take("253:2", device(), 1) == []
    observer.take_uevent(uevent("change", 2, 102, **COOKIE), 1)
    assert classes(observer.take("253:2", device(), 1)) == ["dm.resumed"]


@pytest.mark.parametrize("suspended", [False, True])
def test_a_resume_comes_before_the_suspension_that_is_read(suspended: bool) -> None:  # noqa: FBT001 - a parameter
    observer = begun(device(suspended=suspended))
    observer.take_uevent(uevent("change", 2, 101, **COOKIE), 1)
    events = observer.take("253:2", device(suspended=True), 1)
    assert classes(events) == ["dm.resumed", "dm.suspended"]


def test_uevents_that_tell_of_no_ioctl_make_no_resume() -> None:
    observer = begun(device())
    for number, keys in enumerate(({"DISK_RO": 1}, {"RESIZE": 1}, {})):
        observer.take_uevent(uevent("change", 2, 101 + number, **keys), 1)
        assert observer.wanted.devs == ("253:2",)
        assert observer.take("253:2", device(), 1) == []
    observer.take_uevent(uevent("bind", 2, 104), 1)
    observer.take_uevent(uevent("add", 2, 105), 1)
    assert not observer.wanted


def test_what_udev_asks_for_is_nothing_that_happened() -> None:
    observer = begun(device())
    for number, action in enumerate(("change", "add", "remove")):
        assert observer.take_uevent(uevent(action, 2, 101 + number, SYNTH_UUID=0), 1) == []
    assert not observer.wanted


def test_a_renamed_device_is_the_same_under_its_new_name() -> None:
    observer = begun(device("a"))
    bells, shown = rung(observer, "a"), get(observer, "a")
    observer.take_uevent(uevent("change", 2, 101, **COOKIE), 5)
    assert told(observer.take("253:2", device("b", uuid="uuid-a"), 5)) == [
        ("dm.renamed", {"name": "b", "uuid": "uuid-a", "dev": "253:2", "old_name": "a"})
    ]
    assert get(observer, "b") is shown
    assert observer.devices.get("a") is None
    assert (shown.name, shown.names, shown.changed_ns, shown.changes) == ("b", ("a", "b"), 5, 1)
    assert sorted(bells) == ["device", "devices"]


def test_names_are_exchanged() -> None:
    one, two = device("a", uuid="1"), device("b", uuid="2", minor=4)
    observer = begun(one, two)
    first, second = get(observer, "a"), get(observer, "b")
    observer.take_list([Listed("b", one.dev, 0), Listed("a", two.dev, 0)], 1)
    assert observer.wanted.devs == (one.dev, two.dev)
    observer.take(one.dev, one._replace(name="b"), 1)
    observer.take(two.dev, two._replace(name="a"), 1)
    assert (get(observer, "b"), get(observer, "a")) == (first, second)
    assert list(observer.devices) == ["a", "b"]
    assert classes(observer.take(two.dev, None, 1)) == ["dm.removed"]
    assert get(observer, "b") is first


def test_names_are_bounded_and_the_present_one_is_the_last() -> None:
    observer = begun(device("0"))
    for number in range(1, 200):
        observer.take("253:2", device(str(number), uuid="uuid-0"), 1)
    observer.take("253:2", device("150", uuid="uuid-0"), 1)
    shown = get(observer, "150")
    assert len(shown.names) == 64
    assert shown.names[-2:] == ("199", "150")
    assert shown.names.count("150") == 1
    assert list(observer.devices) == ["150"]


def test_a_path_s_uevent_tells_of_a_rename_before_it_is_read() -> None:
    observer = begun(mp())
    observer.take_uevent(uevent("change", 3, 101, **COOKIE), 1)
    failed = path_uevent("FAILED", "7:1", 1, 1, 102, DM_NAME="new")
    events = observer.take_uevent(failed, 1)
    assert [(name, says["name"]) for name, says in told(events)] == [
        ("dm.renamed", "new"),
        ("dm.path.failed", "new"),
    ]
    assert list(observer.devices) == ["new"]
    assert observer.take("253:3", mp("F 1")._replace(name="new"), 1) == []


# Paths


def test_a_path_s_uevent_is_told_at_once() -> None:
    observer = begun(mp("A 4"))
    (event,) = observer.take_uevent(path_uevent("FAILED", "7:1", 5, 1, 101), 2)
    assert told([event]) == [
        (
            "dm.path.failed",
            {
                "name": "mp",
                "uuid": "uuid-mp",
                "dev": "253:3",
                "path": "7:1",
                "group": 1,
                "valid_paths": 1,
                "fail_count": 5,
            },
        )
    ]
    assert (event.eid, event.time_ns) == (101, 2)
    assert observer.wanted.devs == ("253:3",)
    bells = rung(observer, "mp")
    assert observer.take("253:3", mp("F 5", event_nr=1), 3) == []
    assert bells == ["device"]
    assert get(observer, "mp").paths()["7:1"].since_ns == 2


def test_a_reading_without_a_difference_rings_no_bell() -> None:
    observer = begun(mp())
    bells = rung(observer, "mp")
    assert observer.take("253:3", mp(), 3) == []
    assert bells == []


def test_ten_thousand_flaps_are_all_told() -> None:
    observer = begun(mp())
    events = []
    for at in range(10_000):
        fails = at // 2 + 1
        verb, stands = ("REINSTATED", "A") if at % 2 else ("FAILED", "F")
        valid = 1 + at % 2
        events += observer.take_uevent(path_uevent(verb, "7:1", at + 7, valid, 101 + at), 2)
        if at % 97 == 0:
            events += observer.take("253:3", mp(f"{stands} {fails}"), 2)
    assert classes(events) == ["dm.path.failed", "dm.path.reinstated"] * 5000
    counts = [says["fail_count"] for _, says in told(events)]
    assert counts == [at // 2 + 1 for at in range(10_000)]
    assert observer.gaps == 0


def test_a_list_says_which_devices_are_to_be_read() -> None:
    observer = begun(device(), mp(event_nr=3))
    assert observer.take_list(listed(device(), mp(event_nr=3)), 1) == []
    assert not observer.wanted
    observer.take_list(listed(device(), mp(event_nr=4)), 1)
    assert observer.wanted.devs == ("253:3",)
    observer.take("253:3", mp(event_nr=4), 1)
    observer.take_list([Listed("lin", "253:2", None), *listed(mp(event_nr=4))], 1)
    assert observer.wanted.devs == ("253:2",)


# Loss


def gap(events: list[Event]) -> dict[str, Any]:
    (line,) = (line for line in lines(events) if line["class"] == "zeventfs.gap")
    assert line["source"] == "dm"
    return {key: value for key, value in line["payload"].items() if key not in ("class", "time")}


def test_missing_seqnums_are_counted_and_everything_is_read_anew() -> None:
    observer = begun(device(), mp())
    assert observer.take_uevent(other(105), 2) == []
    assert observer.wanted == EVERYTHING
    events = observer.take_all([mp("F 1")], 3)
    assert classes(events) == ["zeventfs.gap", "dm.removed", "dm.path.failed"]
    assert gap(events) == {
        "dropped": 4,
        "cause": "source",
        "reason": "SEQNUM",
        "first_seqnum": 101,
        "last_seqnum": 104,
    }
    assert (observer.gaps, observer.dropped) == (1, 4)
    assert not observer.wanted


def test_uevents_that_only_come_late_are_not_missing() -> None:
    observer = begun(device())
    observer.take_uevent(other(102), 2)
    assert observer.wanted == EVERYTHING
    observer.take_uevent(uevent("change", 2, 101, DISK_RO=1), 2)
    assert observer.take_all([device()], 2) == []
    assert observer.gaps == 0


def test_an_overflow_is_counted_by_the_kernel_s_own_seqnum() -> None:
    observer = begun(device())
    observer.overflowed()
    assert observer.wanted == EVERYTHING
    observer.take_uevent(other(101), 2)
    events = observer.take_all([device()], 2, seqnum=110)
    assert gap(events) == {
        "dropped": 9,
        "cause": "source",
        "reason": "ENOBUFS",
        "first_seqnum": 102,
        "last_seqnum": 110,
    }
    assert observer.take_uevent(other(111), 2) == []
    assert not observer.wanted


def test_an_overflow_of_unknown_size_is_told_and_counted_later() -> None:
    observer = begun(device())
    observer.overflowed()
    assert gap(observer.take_all([device()], 2)) == {
        "dropped": 0,
        "cause": "source",
        "reason": "ENOBUFS",
    }
    observer.take_uevent(other(103), 2)
    assert gap(observer.take_all([device()], 2))["dropped"] == 2
    assert (observer.gaps, observer.dropped) == (2, 2)


def test_what_is_missed_before_it_begins_is_missed_by_nobody() -> None:
    observer = Observer()
    observer.take_uevent(other(5), 1)
    observer.take_uevent(other(9), 1)
    observer.overflowed()
    assert observer.take_all([device()], 1, seqnum=20) == []
    observer.take_uevent(other(21), 1)
    assert not observer.wanted


def test_lost_path_events_are_counted_with_whose_they_were() -> None:
    observer = begun(mp())
    observer.take_uevent(path_uevent("FAILED", "7:1", 1, 1, 101), 1)
    observer.take("253:3", mp("F 1"), 1)
    events = observer.take_uevent(path_uevent("FAILED", "7:1", 3, 1, 102), 1)
    events += observer.take("253:3", mp("F 2"), 1)
    assert classes(events) == ["dm.path.failed", "zeventfs.gap"]
    assert gap(events) == {
        "name": "mp",
        "uuid": "uuid-mp",
        "dev": "253:3",
        "dropped": 1,
        "cause": "source",
        "reason": "DM_SEQNUM",
        "first_dm_seqnum": 2,
        "last_dm_seqnum": 2,
    }
    assert (observer.gaps, observer.dropped) == (1, 1)


def test_a_device_that_goes_with_path_events_missing_has_them_counted() -> None:
    observer = begun(mp())
    observer.take_uevent(path_uevent("FAILED", "7:1", 1, 1, 101), 1)
    observer.take_uevent(path_uevent("REINSTATED", "7:1", 4, 2, 102), 1)
    events = observer.take_uevent(uevent("remove", 3, 103), 1)
    assert classes(events) == ["zeventfs.gap", "dm.removed"]


def test_after_a_loss_no_resume_is_made_of_what_was_heard() -> None:
    observer = begun(device())
    observer.take_uevent(uevent("change", 2, 101, **COOKIE), 1)
    observer.overflowed()
    assert classes(observer.take_all([device()], 1)) == ["zeventfs.gap"]
    assert observer.take("253:2", device(), 1) == []


def test_an_unknown_device_of_a_uevent_is_read() -> None:
    observer = begun()
    observer.take_uevent(path_uevent("FAILED", "7:1", 9, 1, 101), 1)
    assert observer.wanted.devs == ("253:3",)
    assert classes(observer.take_all([mp()], 1)) == ["dm.created", "dm.table.live"]
    assert not observer.wanted
