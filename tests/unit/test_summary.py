"""The summary: every event counted once, in bounded memory, and again after a recovery."""

from pathlib import Path

from zeventfs.event import Event
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.store import Store
from zeventfs.journal.summary import Summary
from zeventfs.render import Renderer

EPOCH = "0123456789abcdef"


def facts(summary: Summary) -> dict[str, tuple[int, int, int]]:
    return {name: (each.count, each.first_ns, each.last_ns) for name, each in summary}


def journal_in(directory: Path) -> Journal:
    limits = Limits(retain=4000, segment=1000)
    return Journal(EPOCH, Renderer(EPOCH, None), limits, lambda: 7, Store(directory))


def test_a_class_has_its_count_and_the_times_of_its_first_and_last() -> None:
    summary = Summary()
    for name, time_ns in (("b", 5), ("a", 6), ("b", 9), ("b", 8)):
        summary.count(name, time_ns)
    assert list(facts(summary).items()) == [("a", (1, 6, 6)), ("b", (3, 5, 8))]
    assert summary.others is None


def test_what_finds_no_room_is_counted_together() -> None:
    summary = Summary()
    for number in range(1500):
        summary.count(f"class.{number}", number)
    summary.count("x" * 257, 2000)
    summary.count("class.0", 2001)
    assert len(list(summary)) == 1000
    assert facts(summary)["class.0"] == (2, 0, 2001)
    assert summary.others is not None
    assert summary.others.count == 501
    assert (summary.others.first_ns, summary.others.last_ns) == (1000, 2000)


def test_cleared_and_evicted_events_stay_counted(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for number in range(50):
        journal.append(Event.make("zfs", "a.class", number))
    journal.clear()
    assert journal.statistics().queued == 0
    assert facts(journal.summary) == {"a.class": (50, 0, 49)}
    assert journal.counted_from == 1


def test_after_a_recovery_what_is_kept_is_counted(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for number in range(50):
        journal.append(Event.make("zfs", "a.class", number))
    journal.append(Event.make("zfs", "b.class", 60))
    recovered = journal_in(tmp_path)
    first = recovered.segments[0].lines.first_seq
    assert first > 1
    assert recovered.counted_from == first
    assert facts(recovered.summary) == {
        "a.class": (51 - first, first - 1, 49),
        "b.class": (1, 60, 60),
    }


def test_what_a_recovery_cant_read_is_counted_all_the_same(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for number in range(2):
        journal.append(Event.make("zfs", "a.class", number))
    journal.current.nvlists.buffer[4] = 77  # the first one's encoding
    summary = journal_in(tmp_path).summary
    assert facts(summary) == {"a.class": (1, 1, 1)}
    assert summary.others is not None
    assert (summary.others.count, summary.others.first_ns) == (1, 7)
