"""The simulator's mapped devices live through a story, which a source can follow."""

from collections import Counter
from random import Random

import pytest
import trio
import trio.testing

from zeventfs.errors import Invalid
from zeventfs.event import Event
from zeventfs.simulator.dm.deeds import DEEDS
from zeventfs.simulator.dm.devices import Devices
from zeventfs.simulator.dm.mapped import SimulatedMapped
from zeventfs.simulator.dm.story import tell

ALL = {
    "dm.created",
    "dm.group.bypassed",
    "dm.group.enabled",
    "dm.group.switched",
    "dm.mirror.leg_failed",
    "dm.mirror.log_failed",
    "dm.mirror.recovered",
    "dm.path.failed",
    "dm.path.reinstated",
    "dm.removed",
    "dm.renamed",
    "dm.resumed",
    "dm.snapshot.invalid",
    "dm.suspended",
    "dm.table.live",
    "dm.thin.low_water",
    "dm.thin.state",
}


class Story:
    """A simulator, and the classes of what its source has posted."""

    def __init__(self, seed: int = 1, rate: float = 100.0) -> None:
        self.rate = rate
        self.posted: list[Event] = []
        self.mapped = SimulatedMapped(self.posted.append, lambda: 10**18, seed, lambda: self.rate)
        self.answers = trio.Event()

    def classes(self) -> list[str]:
        names = [event.name for event in self.posted]
        self.posted.clear()
        return names


@pytest.fixture
async def quiet(nursery: trio.Nursery) -> Story:
    """One without a story."""
    story = Story(rate=0.0)
    await nursery.start(story.mapped.run, story.answers)
    story.answers.set()
    return story


async def test_the_story_has_every_event_there_is(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    story = Story()
    await nursery.start(story.mapped.run, story.answers)
    await trio.sleep(10)
    assert story.classes() == []
    story.answers.set()
    await trio.sleep(400)
    told = Counter(story.classes())
    assert set(told) == ALL
    assert story.mapped.source.status().gaps == 0
    assert story.mapped.source.status().malformed == 0
    assert autojump_clock.current_time() > 100


def played(seed: int) -> list[tuple[float, int, int]]:
    devices = Devices(Random(seed))
    story = tell(devices, Random(seed))
    return [(next(story), devices.seqnum, devices.event_nr) for _ in range(500)]


def test_a_seed_tells_the_same_story_always() -> None:
    assert played(7) == played(7)
    assert played(7) != played(8)


async def test_the_story_stands_still_at_a_rate_of_0(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    story = Story()
    await nursery.start(story.mapped.run, story.answers)
    story.answers.set()
    await trio.sleep(5)
    assert story.classes()
    story.rate = 0.0
    await trio.sleep(1)
    story.classes()
    await trio.sleep(1000)
    assert story.classes() == []
    story.rate = 100.0
    await trio.sleep(50)
    assert story.classes()
    assert autojump_clock.current_time() > 1000


async def test_a_story_whose_devices_were_taken_away_goes_on(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    story = Story()
    await nursery.start(story.mapped.run, story.answers)
    story.answers.set()
    await trio.sleep(5)
    await story.mapped.act(b"remove mpatha\nremove vg0-pool\nrename vg0-home elsewhere\n")
    story.classes()
    await trio.sleep(200)
    told = set(story.classes())
    assert "dm.mirror.recovered" in told
    assert "dm.path.failed" not in told
    assert autojump_clock.current_time() > 200


async def test_what_is_written_happens(quiet: Story) -> None:
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert quiet.classes() == []
    for written, expected in (
        ("create mp multipath", ["dm.created", "dm.table.live"]),
        ("fail_path mp 8:16", ["dm.path.failed"]),
        ("reinstate_path mp 8:16", ["dm.path.reinstated"]),
        ("# a comment\n\nswitch_group mp 2", ["dm.group.switched"]),
        ("disable_group mp 1", ["dm.group.bypassed"]),
        ("enable_group mp 1", ["dm.group.enabled"]),
        ("suspend mp", ["dm.suspended"]),
        ("resume mp", ["dm.resumed"]),
        ("rename mp mq", ["dm.renamed"]),
        ("remove mq", ["dm.removed"]),
        ("create mir mirror", ["dm.created", "dm.table.live"]),
        ("fail_leg mir 1 R", ["dm.mirror.leg_failed"]),
        ("fail_log mir", ["dm.mirror.log_failed"]),
        ("create pool thin-pool", ["dm.created", "dm.table.live"]),
        ("fill pool 16000", ["dm.thin.low_water"]),
        ("mode pool ro", ["dm.thin.state"]),
        ("extend pool 99999", ["dm.thin.state"]),
        ("create snap snapshot", ["dm.created", "dm.table.live"]),
        ("fill snap 99999", ["dm.snapshot.invalid"]),
        ("lose 7\ncreate lin linear", ["dm.created", "dm.table.live", "zeventfs.gap"]),
    ):
        await quiet.mapped.act(written.encode())
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert sorted(quiet.classes()) == sorted(expected), written


@pytest.mark.parametrize(
    "written",
    [
        *(f"{verb} {rest}" for verb in DEEDS for rest in ("", "none", "none 1 2 3 4", "mp -1 -1")),
        "launch mp",
        "create mp multipath",
        "create other raid0",
        "rename lin mp",
        "fail_path mp 9:9",
        "fail_path lin 8:16",
        "switch_group mp 0",
        "switch_group mp 3",
        "disable_group mp x",
        "fail_leg mir 2",
        "fail_leg mir 0 Z",
        "fail_log mir Z",
        "mode pool good",
        "fill lin 3",
        "\xff\xfe",
    ],
)
async def test_what_cannot_be_done_is_said_and_changes_nothing(quiet: Story, written: str) -> None:
    await quiet.mapped.act(
        b"create mp multipath\ncreate lin linear\ncreate mir mirror\ncreate pool thin-pool\n"
    )
    before = quiet.mapped.devices.seqnum, quiet.mapped.devices.event_nr
    with pytest.raises(Invalid, match="can't be done"):
        await quiet.mapped.act(written.encode("latin-1") + b"\nremove mp\n")
    assert (quiet.mapped.devices.seqnum, quiet.mapped.devices.event_nr) == before
