"""Random walks over requests, replies, exits, timeouts and removals, and what always holds."""

import copy
import errno
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zeventfs.errors import Busy, Down
from zeventfs.vbd.backend import Backend
from zeventfs.vbd.facts import (
    Changed,
    Destroy,
    Effect,
    ErrorReplied,
    Exited,
    Fact,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    Probe,
    Released,
    Replied,
    RuntimeFailed,
    Send,
    SendFailed,
    StartTimer,
    StopTimer,
    TimedOut,
)
from zeventfs.vbd.machine import LIMITS, Machine
from zeventfs.vbd.states import (
    DRIVEN,
    FREED,
    QUIESCED,
    TARGET,
    Channel,
    Message,
    Reply,
    Request,
    Shutdown,
    State,
    Vbd,
)

pytestmark = pytest.mark.timeout(300)  # seconds when it passes; what fails is made small first

IDS = st.sampled_from([0, 1])
ANSWERS = {message: Reply[message.name] for message in Message if message.name in Reply.__members__}
ANSWERS[Message.FORCE_SHUTDOWN] = Reply.CLOSE
MISDEEDS: list[Fact] = [
    *(Replied(reply=reply) for reply in Reply),
    ErrorReplied(errno=errno.EIO, reason="it failed"),
    SendFailed(errno=errno.EPIPE, reason="nobody listens"),
    RuntimeFailed(errno=errno.EIO, reason="it says so"),
    LaunchFailed(errno=errno.ENOENT, reason="no such program"),
    Released(),
    *(Exited(code=0), Exited(code=0), Exited(code=0)),
    *(Exited(code=1), Exited(signal=9), Exited()),
]
MOVES: dict[State, set[State]] = {  # of a VBD that takes no requests
    Vbd.BROKEN: {Vbd.DEAD},
    Vbd.DEAD: {Vbd.RECYCLED},
    Vbd.RECYCLED: {Vbd.DEAD},
}
REQUESTS = [*Request, Request.START, Request.START, Request.UNPAUSE]
PID = 4711


class World:
    """What a driver knows of one VBD: all of it learnt from effects."""

    def __init__(self) -> None:
        self.states = (Channel.DEAD, Vbd.UNPAUSED, Shutdown.DOWN)
        self.spawned = False  # a process may be there
        self.ready = False
        self.sent: Message | None = None  # and not answered
        self.timer: int | None = None
        self.killed = False
        self.freed = False
        self.probe = False

    def learn(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert not self.freed or isinstance(effect, Probe)
            match effect:
                case Changed():
                    kinds = [type(state) for state in self.states]
                    place = kinds.index(type(effect.old))
                    assert self.states[place] is effect.old
                    assert effect.new is not effect.old
                    assert effect.new in MOVES.get(effect.old, {effect.new})
                    assert effect.reason
                    states: list[Any] = list(self.states)
                    states[place] = effect.new
                    self.states = (states[0], states[1], states[2])
                case Launch():
                    assert not self.spawned, "two tapdisks for one VBD"
                    self.spawned = True
                case Send(message=message):
                    assert self.spawned
                    assert self.ready
                    assert self.sent is None, "two messages at once"
                    self.sent = message
                case Kill():
                    self.killed = True
                    assert self.spawned
                    assert self.states[1] in {Vbd.DEAD, Vbd.RECYCLED}
                case StartTimer(timer=timer, seconds=seconds):
                    assert self.timer is None
                    assert seconds == LIMITS[self.states[0]]
                    self.timer = timer
                case StopTimer(timer=timer):
                    assert self.timer == timer
                    self.timer = None
                case Destroy():
                    assert not self.spawned, "freed before its tapdisk has exited"
                    self.freed = True
                case Probe():
                    self.probe = True

    def over(self, fact: Fact) -> None:
        """Take note of what a fact means to the process, before it is told."""
        match fact:
            case Launched():
                self.ready = True
            case Replied() | ErrorReplied() | SendFailed():
                self.sent = None
            case Exited() | LaunchFailed() | Released():
                self.spawned = self.ready = False
                self.sent = None
            case TimedOut():
                self.timer = None

    def may(self, fact: Fact) -> bool:
        """Whether a driver could tell that fact now."""
        match fact:
            case LaunchFailed():
                return self.spawned and not self.ready
            case Exited():
                return self.spawned
            case Released():
                return self.states[0] is Channel.CLOSED
            case _:
                return self.ready

    def next_fact(self) -> Fact | None:
        """What a tapdisk that does what it should does next."""
        if self.spawned and not self.ready:
            return Launched(pid=PID)
        if self.sent is not None:
            return Replied(reply=ANSWERS[self.sent])
        if self.spawned and self.states[0] in {Channel.CLOSED, Channel.WAIT_CLOSE}:
            return Exited(code=0)
        return None


def snapshot(machine: Machine) -> dict[str, object]:
    return {name: copy.copy(getattr(machine, name)) for name in Machine.__slots__}


class Walk(RuleBasedStateMachine):
    """Two VBDs, whose paths come and go, and tapdisks that do and don't do what they should."""

    def __init__(self) -> None:
        super().__init__()
        self.backend: Backend[int] = Backend()
        self.worlds: dict[int, World] = {}
        self.paths: set[int] = set()

    def told(self, vbd: int, effects: list[Effect]) -> None:
        world = self.worlds[vbd]
        world.learn(effects)
        if world.freed:
            assert vbd not in self.backend
            assert world.probe == (vbd in self.paths)
            del self.worlds[vbd]
            if vbd in self.paths:
                self.appear(vbd)

    def tell(self, vbd: int, fact: Fact) -> None:
        self.worlds[vbd].over(fact)
        self.told(vbd, self.backend.hear(vbd, fact))

    def appear(self, vbd: int) -> None:
        self.worlds.setdefault(vbd, World())
        self.told(vbd, self.backend.appear(vbd))

    @initialize()
    def both_run(self) -> None:
        for vbd in (0, 1):
            self.path_comes_or_goes(vbd)
            self.is_asked(vbd, Request.START)
            self.does_what_it_should(vbd, 3)

    @rule(vbd=IDS)
    def path_comes_or_goes(self, vbd: int) -> None:
        if vbd in self.paths:
            self.paths.remove(vbd)
            self.told(vbd, self.backend.vanish(vbd))
        else:
            self.paths.add(vbd)
            self.appear(vbd)

    @rule(seldom=st.integers(0, 5))
    def all_paths_vanish(self, seldom: int) -> None:
        if seldom == 5:
            self.paths.clear()
            for vbd, effects in self.backend.vanish_all():
                self.told(vbd, effects)

    @rule(
        vbd=IDS,
        request=st.sampled_from(REQUESTS),
    )
    def is_asked(self, vbd: int, request: Request) -> None:
        if vbd not in self.paths:  # its `control` is gone, or not there yet
            return
        machine = self.backend[vbd]
        before = snapshot(machine)
        try:
            effects = self.backend.ask(vbd, request)
        except Down:
            assert machine.vbd in QUIESCED
            assert snapshot(machine) == before
        except Busy:
            assert machine.shutdown is Shutdown.DOWN
            assert snapshot(machine) == before
        else:
            if request is Request.REMOVE:
                self.paths.discard(vbd)
            else:
                assert before["vbd"] not in QUIESCED
            self.told(vbd, effects)

    @rule(vbd=IDS, steps=st.integers(1, 4))
    def does_what_it_should(self, vbd: int, steps: int) -> None:
        for _ in range(steps):
            world = self.worlds.get(vbd)
            if world is not None and (fact := world.next_fact()):
                self.tell(vbd, fact)

    @rule(vbd=IDS, fact=st.sampled_from(MISDEEDS))
    def does_what_it_should_not(self, vbd: int, fact: Fact) -> None:
        world = self.worlds.get(vbd)
        if world is not None and world.may(fact):
            self.tell(vbd, fact)

    @rule(vbd=IDS)
    def is_out_of_time(self, vbd: int) -> None:
        world = self.worlds.get(vbd)
        if world is not None and world.timer is not None:
            live = world.states[1] not in QUIESCED
            self.tell(vbd, TimedOut(timer=world.timer))
            assert not live or self.backend[vbd].vbd is Vbd.BROKEN

    @rule(vbd=IDS, timer=st.integers(0, 9))
    def an_earlier_timer_comes_late(self, vbd: int, timer: int) -> None:
        if vbd in self.worlds and timer != self.worlds[vbd].timer:
            before = snapshot(self.backend[vbd])
            assert self.backend.hear(vbd, TimedOut(timer=timer)) == []
            assert snapshot(self.backend[vbd]) == before

    @invariant()
    def each_path_has_one_machine_and_the_changes_tell_its_states(self) -> None:
        assert set(self.backend) == set(self.worlds)
        assert self.paths <= set(self.backend)
        for vbd, world in self.worlds.items():
            machine = self.backend[vbd]
            assert machine.states == world.states
            assert machine.has_tapdisk == world.spawned
            assert (machine.vbd is Vbd.DEAD) == (vbd not in self.paths)

    @invariant()
    def nothing_rests_where_it_could_go_on(self) -> None:
        for machine in self.backend.values():
            following = DRIVEN[machine.channel][TARGET[machine.shutdown][machine.vbd]]
            waits_for_exit = machine.channel is Channel.CLOSED and machine.has_tapdisk
            assert following in {None, machine.channel} or waits_for_exit

    @invariant()
    def whatever_waits_has_a_time_limit(self) -> None:
        for vbd, world in self.worlds.items():
            channel, state, _ = world.states
            if state not in QUIESCED and world.spawned:
                assert (world.timer is not None) == (channel in LIMITS)
            if state in FREED and world.spawned:
                assert world.timer is not None or world.killed
            if state is Vbd.PAUSING:
                assert world.timer is not None
            if not world.spawned:
                assert world.timer is None
            assert vbd in self.backend

    @invariant()
    def broken_dead_and_recycled_accept_nothing(self) -> None:
        for machine in self.backend.values():
            if machine.vbd in QUIESCED:
                before = snapshot(machine)
                refused = set(Request) - ({Request.REMOVE} if machine.vbd is Vbd.BROKEN else set())
                for request in refused:
                    with pytest.raises(Down):
                        machine.ask(request)
                assert snapshot(machine) == before

    @invariant()
    def all_can_be_driven_to_their_targets(self) -> None:
        for vbd in self.worlds:
            machine, world = copy.copy(self.backend[vbd]), copy.copy(self.worlds[vbd])
            machine._effects = []
            for _ in range(12):
                fact = world.next_fact()
                if fact is None or machine.destroyed:
                    break
                world.over(fact)
                world.learn(machine.hear(fact))
            channel, state, shutdown = machine.states
            if machine.vbd in {Vbd.DEAD, Vbd.RECYCLED}:
                assert machine.destroyed
            else:
                assert state is not Vbd.PAUSING
                assert DRIVEN[channel][TARGET[shutdown][state]] is channel


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def step(walk: Walk, random: Random) -> None:
    """Take one step as the rules would, of which the likely are more often taken."""
    vbd = random.randrange(2)
    draw = random.random()
    stuck = vbd not in walk.paths or walk.backend[vbd].vbd is Vbd.BROKEN
    if draw < (0.3 if stuck else 0.02):
        walk.path_comes_or_goes(vbd)
    elif draw < 0.4:
        walk.is_asked(vbd, random.choice(REQUESTS))
    elif draw < 0.9:
        walk.does_what_it_should(vbd, random.randint(1, 2))
    elif draw < 0.95:
        walk.does_what_it_should_not(vbd, random.choice(MISDEEDS))
    elif draw < 0.97:
        walk.is_out_of_time(vbd)
    elif draw < 0.99:
        walk.an_earlier_timer_comes_late(vbd, random.randrange(10))
    else:
        walk.all_paths_vanish(5)


@pytest.mark.parametrize("seed", range(4))
def test_long_walks_keep_to_it_too_and_come_everywhere(seed: int) -> None:
    random, walk = Random(seed), Walk()
    walk.both_run()
    seen: set[object] = set()
    for _ in range(5000):
        step(walk, random)
        walk.each_path_has_one_machine_and_the_changes_tell_its_states()
        walk.nothing_rests_where_it_could_go_on()
        walk.whatever_waits_has_a_time_limit()
        walk.broken_dead_and_recycled_accept_nothing()
        walk.all_can_be_driven_to_their_targets()
        seen.update(*(machine.states for machine in walk.backend.values()))
    assert seen == {*Channel, *Vbd, *Shutdown}
