"""What a killed daemon leaves of where its source stood, and what of that can be believed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeventfs.event import Event
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.segment import Identity, Segment
from zeventfs.journal.store import Store
from zeventfs.render import Renderer
from zeventfs.sources import told
from zeventfs.sources.causes import Causes, Split
from zeventfs.sources.eids import EidRange
from zeventfs.sources.position import Place, Position, newest_first

EPOCH = "0123456789abcdef"
LIFE = "boot 1"


def event(eid: int | None, source: str = "zfs") -> Event:
    return Event.make(source, "sysevent.x", 5, eid=eid)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "position"


def begun(path: Path) -> Position:
    position = Position(path, EPOCH)
    position.begin(Place(LIFE))
    return position


def again(path: Path) -> Place | None:
    return Position(path, EPOCH).place


def post(position: Position, *eids: int, seq: int = 0) -> None:
    for eid in eids:
        posted = EidRange(eid, eid)
        position.posting(posted)
        position.posted(posted, eid, seq or eid, Causes(0))


def test_at_first_there_is_none(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Position(path, EPOCH).place is None
    assert caplog.records == []


def test_what_was_posted_is_known_again(path: Path) -> None:
    post(begun(path), 7, 8, seq=100)
    assert again(path) == Place(LIFE, at=8, highest=8, seq=100)


def test_a_life_that_began_is_known_before_its_first_event(path: Path) -> None:
    begun(path)
    assert again(path) == Place(LIFE)
    Position(path, EPOCH).begin(Place("boot 2", highest=0))
    assert again(path) == Place("boot 2", highest=0)


def test_what_is_missing_is_known_again_until_it_was_told(path: Path) -> None:
    position = begun(path)
    post(position, 5, 9, 12)
    assert again(path) == Place(LIFE, 12, 12, (EidRange(6, 8), EidRange(10, 11)), seq=12)
    post(position, 7, seq=13)
    position.posted(EidRange(10, 11), None, 14, Causes(3, 2))
    assert again(path) == Place(LIFE, 7, 12, (EidRange(6, 6), EidRange(8, 8)), 3, 2, 14)


def test_an_eid_from_before_all_is_where_we_stand_and_no_more(path: Path) -> None:
    post(begun(path), 5, 3, seq=2)
    assert again(path) == Place(LIFE, at=3, highest=5, seq=2)


def test_of_much_that_is_missing_the_latest_is_known(path: Path) -> None:
    post(begun(path), *range(2, 202, 2))
    place = again(path)
    assert place is not None
    assert place.missing == tuple(EidRange(eid, eid) for eid in range(73, 200, 2))


def test_the_largest_eid_does_no_harm(path: Path) -> None:
    post(begun(path), 2**64 - 1, seq=1)
    assert again(path) is not None


def test_a_place_in_another_epoch_is_none(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    post(begun(path), 1)
    assert Position(path, "another").place is None
    assert caplog.records == []
    assert again(path) is None


def overwrite(path: Path, at: int, written: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(written)


def test_of_a_record_that_was_being_written_the_one_before_holds(path: Path) -> None:
    post(begun(path), 1, 2, 3)
    whole = path.read_bytes()
    older, newer = sorted((512, 2048), key=lambda at: whole[at + 12])
    overwrite(path, newer + 20, b"torn")
    assert again(path) == Place(LIFE, 2, 2, seq=2)
    overwrite(path, older, b"torn")
    assert again(path) is None


@pytest.mark.parametrize(
    "garbage",
    [b"x" * 4096, b"", b"short", b"ZEVPOS1\0" + bytes(4088), b"ZEVPOS1\0" + b"\xff" * 4088],
)
def test_garbage_is_as_none_and_said_in_one_line(
    path: Path, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    path.write_bytes(garbage)
    position = Position(path, EPOCH)
    assert position.place is None
    [record] = caplog.records
    assert "where the source stood isn't known" in record.getMessage()
    position.begin(Place(LIFE))
    assert again(path) == Place(LIFE)


def test_without_room_it_is_kept_in_memory(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    position = begun(path)
    post(position, 1)
    assert position.place == Place(LIFE, 1, 1, seq=1)
    assert not path.exists()
    assert "No space left on device" in caplog.text


def test_without_a_directory_it_is_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    post(begun(tmp_path / "none" / "position"), 1)
    assert "No such file" in caplog.text


# What the journal has beyond it


class Killed:
    """A position whose daemon was killed while it posted *eids*; 7 was posted as seq 70."""

    def __init__(self, path: Path, eids: EidRange) -> None:
        position = begun(path)
        post(position, 7, seq=70)
        position.posting(eids)
        self._path = path

    def corrected(self, seq: int, newest: Event) -> Place | None:
        """The place as it is corrected by the journal's *newest* event, and read once more."""

        def events() -> Iterator[tuple[int, Event]]:
            yield seq, newest
            raise AssertionError("older events aren't asked for")

        Position(self._path, EPOCH).correct(events())
        after = Position(self._path, EPOCH)
        after.correct(events())  # nothing is under way any more
        return after.place


def test_an_event_that_the_journal_has_was_posted(path: Path) -> None:
    killed = Killed(path, EidRange(8, 8))
    assert killed.corrected(73, event(8)) == Place(LIFE, 8, 8, seq=73)


@pytest.mark.parametrize(
    ("seq", "newest"),
    [(70, event(7)), (73, event(8, "dm")), (73, event(None)), (73, event(9)), (70, event(8))],
)
def test_an_event_that_the_journal_does_not_have_was_not_posted(
    path: Path, seq: int, newest: Event
) -> None:
    killed = Killed(path, EidRange(8, 8))
    assert killed.corrected(seq, newest) == Place(LIFE, 7, 7, seq=70)


def test_a_gap_that_the_journal_has_was_posted(path: Path) -> None:
    gap = told.missing(EidRange(8, 20), Split(evicted=9, failed=4), 5)
    killed = Killed(path, EidRange(8, 20))
    assert killed.corrected(71, gap) == Place(LIFE, 7, 20, told=4, seq=71)


def test_an_older_event_of_that_eid_is_of_another_life(path: Path) -> None:
    position = begun(path)
    position.posting(EidRange(1, 1))
    position.correct(iter([(9, event(None)), (8, event(1))]))
    assert position.place == Place(LIFE)


def test_where_nothing_was_under_way_the_journal_is_not_asked(path: Path) -> None:
    position = begun(path)
    post(position, 7, seq=70)
    position.correct(iter([(71, event(8))]))
    assert position.place == Place(LIFE, 7, 7, seq=70)


def test_where_nothing_is_known_the_journal_is_not_asked(path: Path) -> None:
    position = Position(path, EPOCH)
    position.correct(iter([(71, event(8))]))
    assert position.place is None


def test_a_journal_that_has_less_than_the_place_corrects_nothing(path: Path) -> None:
    position = begun(path)
    post(position, 7, seq=70)
    position.posting(EidRange(8, 8))
    position.correct(iter([]))
    assert position.place == Place(LIFE, 7, 7, seq=70)


def test_the_journals_events_the_newest_first(tmp_path: Path) -> None:
    renderer = Renderer(EPOCH, "2.1.11")
    journal = Journal(EPOCH, renderer, Limits(1 << 20, 2000), lambda: 0, Store(tmp_path))
    for eid in range(1, 41):
        journal.append(event(eid, "zfs" if eid % 2 else "dm"))
    assert len(journal.segments) > 2
    segments = Store(tmp_path).recovered
    found = list(newest_first(segments))
    assert [seq for seq, _ in found] == list(range(40, 0, -1))
    assert [(each.eid, each.source) for _, each in found[:2]] == [(40, "dm"), (39, "zfs")]


def test_what_somebody_wrote_into_the_journal_is_passed_over() -> None:
    segment = Segment.create(None, Identity(EPOCH, 1, 1, 0), 4096)
    good = event(3)
    for line, packed in (
        (b'{"source":"zfs"}\n', good.packed),
        (b"{no json}\n", good.packed),
        (b"[]\n", good.packed),
        (b'{"source":"zfs"}\n', b"no nvlist"),
    ):
        segment.append(line, packed, 0)
    assert [(seq, each.eid) for seq, each in newest_first([segment])] == [(1, 3)]
