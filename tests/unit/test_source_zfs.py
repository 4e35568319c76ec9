"""Draining a device: everything, once, in order, and every hole told."""

import errno
import logging

import pytest

from zeventfs.event import Event
from zeventfs.nvlist import NVList, Type, encode
from zeventfs.simulator.ring import Ring
from zeventfs.simulator.zfs import ZfsDevice
from zeventfs.sources.device import DeviceError, Losses, Taken
from zeventfs.sources.status import SourceState, SourceStatus, source_names
from zeventfs.sources.zfs import ZfsSource

NOW = 1_700_000_000 * 10**9


class Posted(list[Event]):
    @property
    def eids(self) -> list[int | tuple[int, int, int]]:
        """EIDs; of a gap, (dropped, first, last)."""
        found: list[int | tuple[int, int, int]] = []
        for event in self:
            if event.name == "zeventfs.gap":
                assert event.payload.get("cause") == "source"
                lost = [event.payload.get(key) for key in ("dropped", "first_eid", "last_eid")]
                found.append((lost[0], lost[1], lost[2]))
            else:
                found.append(-1 if event.eid is None else event.eid)
        return found


def packed(eid: int | None, size: int = 0, time: tuple[int, int] = (NOW // 10**9, 5)) -> bytes:
    pairs = [
        ("class", Type.STRING, "sysevent.test"),
        ("filler", Type.STRING, "." * size),
        ("time", Type.INT64_ARRAY, time),
    ]
    return encode(NVList.of(pairs if eid is None else [*pairs, ("eid", Type.UINT64, eid)]))


@pytest.fixture
def posted() -> Posted:
    return Posted()


@pytest.fixture
def ring() -> Ring:
    return Ring()


def test_what_was_queued_before_and_what_arrives_later_comes_in_order(
    posted: Posted, ring: Ring
) -> None:
    ring.put(packed(1))
    source = ZfsSource("zfs", ring, posted.append)
    ring.put(packed(2))
    assert posted.eids == [1, 2]
    assert source.events == 2
    assert {event.source for event in posted} == {"zfs"}


def test_what_arrives_while_an_event_is_taken_in_is_not_lost(ring: Ring) -> None:
    posted = Posted()

    def post(event: Event) -> None:
        posted.append(event)
        if event.eid == 1:
            ring.put(packed(2))

    ZfsSource("zfs", ring, post)
    ring.put(packed(1))
    assert posted.eids == [1, 2]


def test_an_event_larger_than_the_buffer_is_taken_with_a_larger_one(
    posted: Posted, ring: Ring
) -> None:
    ZfsSource("zfs", ring, posted.append)
    for eid, size in enumerate((10, 3000, 6000, 10), 1):
        ring.put(packed(eid, size))
    assert posted.eids == [1, 2, 3, 4]


def test_a_malformed_event_is_named_counted_and_missed(
    posted: Posted, ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    source = ZfsSource("zfs", ring, posted.append)
    ring.put(packed(1))
    ring.put(b"\0garbage")
    ring.put(packed(3))
    assert posted.eids == [1, (1, 2, 2), 3]
    assert (source.events, source.malformed) == (2, 1)
    [record] = caplog.records
    assert "8 bytes is malformed" in record.getMessage()


def test_a_bug_in_taking_an_event_in_ends_neither_the_source_nor_its_feeder(
    ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    posted = Posted()

    def post(event: Event) -> None:
        if event.eid == 1:
            raise ZeroDivisionError
        posted.append(event)

    source = ZfsSource("zfs", ring, post)
    ring.put(packed(1))
    ring.put(packed(2))
    assert posted.eids == [2]
    assert source.malformed == 1
    assert caplog.records[0].exc_info is not None


def test_a_bug_in_decoding_an_event_ends_neither(
    posted: Posted, ring: Ring, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ZfsSource("zfs", ring, posted.append)
    ring.put(packed(1))
    with monkeypatch.context() as broken:
        broken.setattr("zeventfs.sources.zfs.Event", None)
        ring.put(packed(2))
    ring.put(packed(3))
    assert posted.eids == [1, (1, 2, 2), 3]
    assert source.malformed == 1
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize("seconds", [-(2**63), 2**63 - 1])
@pytest.mark.parametrize("nanoseconds", [-(2**63), 0, 2**63 - 1])
def test_a_hole_before_an_event_of_an_impossible_time_is_told_too(
    posted: Posted, ring: Ring, seconds: int, nanoseconds: int
) -> None:
    ZfsSource("zfs", ring, posted.append)
    ring.put(packed(1))
    ring.put(packed(5, time=(seconds, nanoseconds)))
    assert posted.eids == [1, (3, 2, 4), 5]


def test_a_gap_stands_where_the_events_are_missed(posted: Posted) -> None:
    device = ZfsDevice(lambda: NOW, len_max=4)
    for _ in range(2):
        device.post("sysevent.test", [("class", Type.STRING, "sysevent.test")])
    source = ZfsSource("sim", device, posted.append)
    device.post("sysevent.test", [("class", Type.STRING, "x"), ("a", Type.STRING, "." * 7000)])
    device.post("sysevent.test", [("class", Type.STRING, "sysevent.test")])
    assert posted.eids == [1, 2, (1, 3, 3), 4]
    gap = posted[2]
    assert (gap.source, gap.time_ns, gap.eid) == ("zfs", NOW, None)
    assert source.events == 3


def test_events_without_an_eid_are_taken_and_count_for_nothing(posted: Posted, ring: Ring) -> None:
    ZfsSource("zfs", ring, posted.append)
    for eid in (1, None, 2):
        ring.put(packed(eid))
    assert posted.eids == [1, -1, 2]


def test_a_clear_takes_what_is_queued_first(posted: Posted, ring: Ring) -> None:
    source = ZfsSource("zfs", ring, posted.append)
    ring._subscribers.clear()  # nothing drains it by itself now
    ring.put(packed(1))
    source.clear()
    assert posted.eids == [1]
    assert len(ring) == 0
    ring.put(packed(2))
    source.drain()
    assert posted.eids == [1, 2]


def test_the_loss_of_the_device_is_said_once_and_a_clear_is_none_of_its_business(
    posted: Posted, ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    source = ZfsSource("zfs", ring, posted.append)
    ring.shutdown()
    source.drain()
    source.clear()
    assert source.reason is not None
    assert "shutdown" in source.reason.lower()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class Liar:
    """A device that asks for a buffer that is no larger."""

    life = ""

    def losses(self) -> Losses:
        return Losses(0, 0)

    def next(self, *, nonblock: bool, size: int) -> Taken:
        del nonblock
        raise DeviceError(errno.ENOMEM, "no memory", needed=size)

    def open(self) -> "Liar":
        return self

    def clear(self) -> int:
        raise DeviceError(errno.EIO, "broken")

    def subscribe(self, arrived: object) -> None: ...
    def seek(self, eid: int) -> None: ...
    def waiting(self) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


def test_a_device_that_never_has_enough_is_given_up(
    posted: Posted, caplog: pytest.LogCaptureFixture
) -> None:
    source = ZfsSource("zfs", Liar(), posted.append)
    assert source.reason == "no memory"
    source.clear()
    assert len(caplog.records) == 1


def test_the_loss_of_the_device_is_the_sources_last_event(
    posted: Posted, caplog: pytest.LogCaptureFixture
) -> None:
    device = ZfsDevice(lambda: NOW)
    source = ZfsSource("sim", device, posted.append, lambda: NOW + 5)
    device.post("sysevent.test", [("class", Type.STRING, "sysevent.test")])
    device.shutdown()  # nobody has to ask: a device that goes away says so
    source.drain()
    [_, lost] = posted
    assert (lost.source, lost.name, lost.time_ns, lost.eid) == (
        "zeventfs",
        "zeventfs.source.lost",
        NOW + 5,
        None,
    )
    assert lost.payload.get("source") == "sim"
    assert "shutdown" in lost.payload.get("reason").lower()
    assert source.status().state is SourceState.LOST
    assert source.status().reason == lost.payload.get("reason")
    assert len(caplog.records) == 1


def test_a_loss_that_cannot_be_posted_harms_nobody(
    ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    def post(_: Event) -> None:
        raise ZeroDivisionError

    source = ZfsSource("zfs", ring, post)
    ring.shutdown()
    assert source.status().state is SourceState.LOST
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]


def test_a_source_that_ended_is_not_lost_and_one_that_was_lost_does_not_end(
    posted: Posted, caplog: pytest.LogCaptureFixture
) -> None:
    ended, lost = Ring(), Ring()
    sources = [ZfsSource("a", ended, posted.append), ZfsSource("b", lost, posted.append)]
    sources[0].end("end of the recording")
    ended.shutdown()
    lost.shutdown()
    sources[1].end("end of the recording")
    assert [each.status().state for each in sources] == [SourceState.ENDED, SourceState.LOST]
    assert sources[0].status().reason == "end of the recording"
    assert [event.payload.get("source") for event in posted] == ["b"]
    assert len(caplog.records) == 1


def test_a_queue_that_is_not_emptied_is_no_loss(
    posted: Posted,
    ring: Ring,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = ZfsSource("zfs", ring, posted.append)

    def refuse() -> int:
        raise DeviceError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(ring, "clear", refuse)
    source.clear()
    assert source.status().state is SourceState.READY
    assert posted == []
    assert "was not emptied: Operation not permitted" in caplog.text


def test_before_the_first_event_nothing_is_known_of_it(posted: Posted, ring: Ring) -> None:
    now = ZfsSource("zfs", ring, posted.append).status()
    assert now == SourceStatus(SourceState.READY, "", 0, 0, 0, 0, 0, None, None, None, 0)


def test_the_status_counts_what_came_and_what_did_not(
    posted: Posted, caplog: pytest.LogCaptureFixture
) -> None:
    device = ZfsDevice(lambda: NOW, len_max=2)
    source = ZfsSource("zfs", device, posted.append, lambda: NOW + 7)
    subscribers, device._subscribers[:] = device._subscribers[:], []
    pairs = [("class", Type.STRING, "sysevent.test")]
    device.post("sysevent.test", pairs)
    assert source.status().waiting == 1
    source.drain()
    for _ in range(5):
        device.post("sysevent.test", pairs)
    device.rate_limited(3)
    device.put(b"\0garbage")
    assert source.status().waiting == 2
    device._subscribers[:] = subscribers
    source.drain()
    now = source.status()
    assert (now.events, now.gaps, now.dropped, now.malformed) == (2, 1, 4, 1)
    assert now.kernel_dropped == 4, "the device says 1 for what it evicted, and 3 for the limit"
    assert (now.last_eid, now.last_time_ns, now.last_arrival_ns) == (6, NOW, NOW + 7)
    assert now.waiting == 0
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ((), ()),
        (("sim",), ("sim",)),
        (("replay:/a/b",), ("replay",)),
        (
            ("replay:/a", "sim", "replay:/b:c", "replay:/d"),
            ("replay", "sim", "replay.2", "replay.3"),
        ),
    ],
)
def test_sources_are_named_by_their_kind_and_order(
    sources: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert source_names(sources) == names
