"""One VBD: the life of its tapdisk, what is refused, what breaks it, and how it ends."""

import errno
from collections.abc import Callable, Iterator

import pytest

from zeventfs.errors import Busy, Down, Invalid
from zeventfs.vbd.facts import (
    Announce,
    Announcement,
    Changed,
    Destroy,
    Effect,
    ErrorReplied,
    Exited,
    Fact,
    Fault,
    Image,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    PathRecreated,
    PathRemoved,
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
from zeventfs.vbd.machine import LIMITS, Machine, request_named
from zeventfs.vbd.states import Channel, Message, Reply, Request, Shutdown, States, Vbd

PID = 27734
IMAGE = Image(sectors=2048, sector_size=512, info=0)
CLEAN = Exited(code=0)


def told(machine: Machine, *facts: Fact) -> list[Effect]:
    """Tell all of them, and give back what came of the last."""
    effects: list[Effect] = []
    for fact in facts:
        effects = machine.hear(fact)
    return effects


def deeds(effects: list[Effect]) -> list[Effect]:
    """Without what is only to be known, and without timers."""
    return [
        each for each in effects if not isinstance(each, Changed | Fault | StartTimer | StopTimer)
    ]


def sent(effects: list[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def changes(effects: list[Effect]) -> list[str]:
    moved = (effect for effect in effects if isinstance(effect, Changed))
    return [f"{each.old.name} -> {each.new.name}" for each in moved]


def faults(effects: list[Effect]) -> list[tuple[int, str, str]]:
    found = (effect for effect in effects if isinstance(effect, Fault))
    return [(fault.errno, fault.place, fault.reason) for fault in found]


def timer_of(effects: list[Effect]) -> int:
    return next(effect.timer for effect in effects if isinstance(effect, StartTimer))


def snapshot(machine: Machine) -> dict[str, object]:
    return {name: getattr(machine, name) for name in Machine.__slots__}


def started() -> Machine:
    machine = Machine()
    machine.ask(Request.START)
    return machine


def attached() -> Machine:
    """Return one whose channel is in WAIT_OPEN, its tapdisk having answered PID."""
    machine = started()
    told(machine, Launched(pid=PID), Replied(reply=Reply.PID, pid=PID))
    return machine


def running() -> Machine:
    machine = attached()
    told(machine, Replied(reply=Reply.OPEN, image=IMAGE))
    return machine


def paused() -> Machine:
    machine = running()
    machine.ask(Request.PAUSE)
    told(machine, Replied(reply=Reply.PAUSE))
    return machine


def closing(request: Request = Request.SHUTDOWN) -> Machine:
    machine = running()
    machine.ask(request)
    return machine


def closed() -> Machine:
    machine = closing()
    told(machine, Replied(reply=Reply.CLOSE))
    return machine


def broken() -> Machine:
    machine = running()
    told(machine, Exited(signal=9))
    return machine


def resting() -> Iterator[tuple[str, Machine]]:
    for make in (Machine, started, attached, running, paused, closing, closed, broken):
        yield make.__name__, make()


# A tapdisk's life


def test_nothing_is_launched_until_start_is_asked_for() -> None:
    machine = Machine()
    assert machine.states == (Channel.DEAD, Vbd.UNPAUSED, Shutdown.DOWN)
    effects = machine.ask(Request.START)
    assert changes(effects) == ["DOWN -> UP", "DEAD -> LAUNCHED"]
    assert deeds(effects) == [Launch()]


def test_a_tapdisk_is_asked_for_its_pid_and_then_to_open_the_image() -> None:
    machine = started()
    assert sent(told(machine, Launched(pid=PID))) == [Message.PID]
    assert sent(told(machine, Replied(reply=Reply.PID, pid=PID))) == [Message.OPEN]
    assert deeds(told(machine, Replied(reply=Reply.OPEN, image=IMAGE))) == []
    assert machine.states == (Channel.RUNNING, Vbd.UNPAUSED, Shutdown.UP)
    assert machine.image == IMAGE


def test_the_pid_is_the_tapdisks_own_and_not_that_of_a_wrapper() -> None:
    machine = started()
    told(machine, Launched(pid=PID))
    assert machine.pid == PID
    told(machine, Replied(reply=Reply.PID, pid=PID + 1))
    assert machine.pid == PID + 1


def test_a_pid_reply_without_a_pid_leaves_the_one_that_was_launched() -> None:
    machine = started()
    told(machine, Launched(pid=PID), Replied(reply=Reply.PID))
    assert machine.pid == PID


def test_a_change_says_from_what_to_what_of_which_process_and_why() -> None:
    effects = told(running(), Exited(signal=9))
    assert (
        Changed(old=Channel.RUNNING, new=Channel.DEAD, pid=PID, reason="killed by SIGKILL")
        in effects
    )


def test_a_pause_is_announced_when_the_tapdisk_has_paused() -> None:
    machine = running()
    effects = machine.ask(Request.PAUSE)
    assert changes(effects) == ["UNPAUSED -> PAUSING", "RUNNING -> WAIT_PAUSE"]
    assert deeds(effects) == [Send(message=Message.PAUSE)]
    effects = told(machine, Replied(reply=Reply.PAUSE))
    assert changes(effects) == ["WAIT_PAUSE -> PAUSED", "PAUSING -> PAUSED"]
    assert deeds(effects) == [Announce(what=Announcement.PAUSE_DONE)]


def test_an_unpause_resumes() -> None:
    machine = paused()
    effects = machine.ask(Request.UNPAUSE)
    assert deeds(effects) == [
        Announce(what=Announcement.PAUSE_OVER),
        Send(message=Message.RESUME),
    ]
    told(machine, Replied(reply=Reply.RESUME))
    assert machine.states == (Channel.RUNNING, Vbd.UNPAUSED, Shutdown.UP)


def test_an_unpause_while_pausing_resumes_once_the_tapdisk_has_paused() -> None:
    machine = running()
    machine.ask(Request.PAUSE)
    assert deeds(machine.ask(Request.UNPAUSE)) == [Announce(what=Announcement.PAUSE_OVER)]
    assert sent(told(machine, Replied(reply=Reply.PAUSE))) == [Message.RESUME]


def test_a_pause_without_a_tapdisk_is_done_at_once() -> None:
    machine = Machine()
    assert changes(machine.ask(Request.PAUSE)) == ["UNPAUSED -> PAUSING", "PAUSING -> PAUSED"]


def test_a_paused_vbd_starts_without_a_tapdisk_until_it_is_unpaused() -> None:
    machine = Machine()
    machine.ask(Request.PAUSE)
    assert deeds(machine.ask(Request.START)) == []
    assert Launch() in machine.ask(Request.UNPAUSE)


def test_a_pause_while_launching_waits_and_the_image_is_not_opened() -> None:
    machine = started()
    assert deeds(machine.ask(Request.PAUSE)) == []
    assert machine.states == (Channel.LAUNCHED, Vbd.PAUSING, Shutdown.UP)
    told(machine, Launched(pid=PID))
    effects = told(machine, Replied(reply=Reply.PID, pid=PID))
    assert deeds(effects) == [Announce(what=Announcement.PAUSE_DONE)]
    assert machine.states == (Channel.PID, Vbd.PAUSED, Shutdown.UP)
    assert sent(machine.ask(Request.UNPAUSE)) == [Message.OPEN]


@pytest.mark.parametrize("make", [running, paused])
def test_a_shutdown_closes_and_the_tapdisk_exits(make: Callable[[], Machine]) -> None:
    machine = make()
    vbd = machine.vbd
    assert sent(machine.ask(Request.SHUTDOWN)) == [Message.CLOSE]
    assert deeds(told(machine, Replied(reply=Reply.CLOSE))) == []
    assert deeds(told(machine, CLEAN)) == []
    assert machine.states == (Channel.DEAD, vbd, Shutdown.DOWN)
    assert (machine.pid, machine.image) == (None, None)


def test_a_forced_shutdown_sends_force_shutdown_which_close_answers() -> None:
    machine = running()
    assert sent(machine.ask(Request.SHUTDOWN_FORCE)) == [Message.FORCE_SHUTDOWN]
    told(machine, Replied(reply=Reply.CLOSE))
    assert machine.channel is Channel.CLOSED


def test_a_forced_shutdown_during_a_wait_is_forced_when_the_wait_is_over() -> None:
    machine = attached()
    assert sent(machine.ask(Request.SHUTDOWN)) == []
    assert sent(machine.ask(Request.SHUTDOWN_FORCE)) == []
    assert sent(machine.ask(Request.SHUTDOWN)) == []  # doesn't take back the force
    assert sent(told(machine, Replied(reply=Reply.OPEN))) == [Message.FORCE_SHUTDOWN]


def test_a_start_is_not_forced_down_later_by_an_earlier_force() -> None:
    machine = running()
    machine.ask(Request.SHUTDOWN_FORCE)
    told(machine, Replied(reply=Reply.CLOSE), CLEAN)
    machine.ask(Request.START)
    told(machine, Launched(pid=PID), Replied(reply=Reply.PID), Replied(reply=Reply.OPEN))
    assert sent(machine.ask(Request.SHUTDOWN)) == [Message.CLOSE]


# A tapdisk's end, and its next life


@pytest.mark.parametrize("make", [started, attached, running])
def test_a_clean_exit_while_up_and_unpaused_launches_anew(make: Callable[[], Machine]) -> None:
    machine = make()
    effects = told(machine, CLEAN)
    assert changes(effects)[-1] == "DEAD -> LAUNCHED"
    assert deeds(effects) == [Launch()]
    assert machine.vbd is Vbd.UNPAUSED


def test_a_clean_exit_after_a_shutdown_lets_start_launch_anew() -> None:
    machine = closed()
    told(machine, CLEAN)
    assert Launch() in machine.ask(Request.START)


def test_the_paused_state_outlives_a_clean_exit() -> None:
    machine = paused()
    assert deeds(told(machine, CLEAN)) == []
    assert machine.states == (Channel.DEAD, Vbd.PAUSED, Shutdown.UP)
    assert changes(machine.ask(Request.UNPAUSE)) == ["PAUSED -> UNPAUSED", "DEAD -> LAUNCHED"]


def test_no_tapdisk_is_launched_beside_one_that_has_not_exited() -> None:
    machine = closed()
    assert deeds(machine.ask(Request.START)) == []
    assert deeds(told(machine, CLEAN)) == [Launch()]


def test_a_tapdisk_that_lives_on_for_others_is_not_waited_for() -> None:
    machine = closed()
    told(machine, Released())
    assert not machine.has_tapdisk
    assert changes(machine.ask(Request.START)) == ["DOWN -> UP", "CLOSED -> LAUNCHED"]


def test_a_start_that_waits_for_an_exit_goes_on_when_the_tapdisk_is_released() -> None:
    machine = closed()
    machine.ask(Request.START)
    assert deeds(told(machine, Released())) == [Launch()]


def test_a_release_is_heard_only_of_a_closed_channel() -> None:
    machine = running()
    told(machine, Released())
    assert machine.pid == PID


def test_the_exit_of_a_released_tapdisk_is_nothing_to_its_vbd() -> None:
    machine = closed()
    told(machine, Released())
    assert told(machine, Exited(signal=9)) == []


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        (Exited(signal=9), "killed by SIGKILL"),
        (Exited(signal=40), "killed by signal 40"),
        (Exited(code=3), "exited with status 3"),
        (Exited(), "exited"),
    ],
)
def test_an_unclean_exit_breaks_the_vbd_and_says_how(fact: Exited, reason: str) -> None:
    machine = running()
    effects = told(machine, fact)
    assert changes(effects) == ["UNPAUSED -> BROKEN", "RUNNING -> DEAD"]
    assert faults(effects) == [(errno.EPIPE, "RUNNING", reason)]
    assert deeds(effects) == []


def test_a_tapdisk_that_dies_paused_breaks_its_vbd() -> None:
    machine = paused()
    told(machine, Exited(signal=11))
    assert machine.vbd is Vbd.BROKEN


def test_an_exit_of_unknown_status_is_clean_where_it_was_to_close() -> None:
    machine = closing()
    told(machine, Exited())
    assert machine.states == (Channel.DEAD, Vbd.UNPAUSED, Shutdown.DOWN)


def test_tapdisks_that_exit_before_they_run_are_not_launched_for_ever() -> None:
    machine = started()
    assert Launch() in told(machine, CLEAN)
    assert Launch() in told(machine, CLEAN)
    effects = told(machine, CLEAN)
    assert machine.states == (Channel.DEAD, Vbd.BROKEN, Shutdown.UP)
    assert "3 in a row" in faults(effects)[0][2]


def test_a_tapdisk_that_has_run_may_exit_as_often_as_it_likes() -> None:
    machine = running()
    for _ in range(5):
        assert Launch() in told(machine, CLEAN)
        told(machine, Launched(pid=PID), Replied(reply=Reply.PID), Replied(reply=Reply.OPEN))
    assert machine.vbd is Vbd.UNPAUSED


# What breaks


def test_a_launch_that_fails_breaks() -> None:
    machine = started()
    effects = told(machine, LaunchFailed(errno=errno.ENOENT, reason="no program tapdisk"))
    assert machine.states == (Channel.DEAD, Vbd.BROKEN, Shutdown.UP)
    assert faults(effects) == [(errno.ENOENT, "LAUNCHED", "no program tapdisk")]


@pytest.mark.parametrize(
    "fact",
    [
        Replied(reply=Reply.PAUSE),
        ErrorReplied(errno=errno.EIO, reason="can't open"),
        SendFailed(errno=errno.ECONNREFUSED, reason="nobody listens"),
    ],
)
def test_a_request_that_fails_breaks_and_its_tapdisk_is_closed(fact: Fact) -> None:
    machine = attached()
    effects = told(machine, fact)
    assert changes(effects) == ["UNPAUSED -> BROKEN", "WAIT_OPEN -> PID", "PID -> WAIT_CLOSE"]
    assert sent(effects) == [Message.CLOSE]
    assert faults(effects)[0][1] == "WAIT_OPEN"


def test_a_wrong_reply_names_what_was_answered_and_where() -> None:
    effects = told(attached(), Replied(reply=Reply.PAUSE))
    assert faults(effects) == [(errno.EPROTO, "WAIT_OPEN", "answered PAUSE in WAIT_OPEN")]


def test_a_reply_that_nobody_asked_for_breaks_and_closes() -> None:
    machine = running()
    assert sent(told(machine, Replied(reply=Reply.PAUSE))) == [Message.CLOSE]
    assert machine.vbd is Vbd.BROKEN


def test_a_close_that_fails_is_not_sent_again() -> None:
    machine = closing()
    effects = told(machine, ErrorReplied(errno=errno.EBUSY, reason="busy"))
    assert sent(effects) == []
    assert machine.states == (Channel.WAIT_CLOSE, Vbd.BROKEN, Shutdown.DOWN)


def test_an_error_of_the_tapdisks_own_is_noted_and_breaks_nothing() -> None:
    machine = running()
    states = machine.states
    effects = told(machine, RuntimeFailed(errno=errno.EIO, reason="disk full"))
    assert machine.states == states
    assert faults(effects) == [(errno.EIO, "RUNNING", "disk full")]
    assert len(effects) == 1


def test_every_wait_ends_in_broken_when_its_time_is_over() -> None:
    machine = running()
    timer = timer_of(machine.ask(Request.PAUSE))
    effects = told(machine, TimedOut(timer=timer))
    assert machine.states == (Channel.WAIT_PAUSE, Vbd.BROKEN, Shutdown.UP)
    assert faults(effects) == [(errno.ETIMEDOUT, "WAIT_PAUSE", "did not answer within 150 s")]
    assert deeds(effects) == []


def test_a_tapdisk_that_answers_after_its_time_is_closed() -> None:
    machine = running()
    told(machine, TimedOut(timer=timer_of(machine.ask(Request.PAUSE))))
    assert sent(told(machine, Replied(reply=Reply.PAUSE))) == [Message.CLOSE]
    assert machine.vbd is Vbd.BROKEN


def test_a_closed_tapdisk_that_does_not_exit_breaks() -> None:
    machine = closing()
    effects = told(machine, Replied(reply=Reply.CLOSE))
    effects = told(machine, TimedOut(timer=timer_of(effects)))
    assert machine.states == (Channel.CLOSED, Vbd.BROKEN, Shutdown.DOWN)
    assert faults(effects) == [(errno.ETIMEDOUT, "CLOSED", "did not exit within 30 s")]


def test_the_time_of_a_timer_that_was_stopped_means_nothing() -> None:
    machine = running()
    timer = timer_of(machine.ask(Request.PAUSE))
    effects = told(machine, Replied(reply=Reply.PAUSE))
    assert StopTimer(timer=timer) in effects
    assert told(machine, TimedOut(timer=timer)) == []


def test_limits_are_the_drivers_to_choose() -> None:
    machine = Machine(limits={**LIMITS, Channel.LAUNCHED: 0.5})
    assert StartTimer(timer=1, seconds=0.5) in machine.ask(Request.START)


@pytest.mark.parametrize(
    "fact",
    [
        Launched(pid=1),
        LaunchFailed(errno=errno.ENOENT, reason=""),
        Replied(reply=Reply.PID),
        ErrorReplied(errno=errno.EIO, reason=""),
        SendFailed(errno=errno.EPIPE, reason=""),
        Exited(signal=9),
        Released(),
        TimedOut(timer=1),
        PathRecreated(),
    ],
)
def test_what_comes_too_late_changes_nothing(fact: Fact) -> None:
    machine = Machine()
    before = snapshot(machine)
    assert told(machine, fact) == []
    assert snapshot(machine) == before


# Refusals


def test_every_request_has_its_words_and_others_are_invalid() -> None:
    assert [request_named(request.value) for request in Request] == list(Request)
    with pytest.raises(Invalid, match="shutdown force"):
        request_named("halt")


def test_a_broken_vbd_takes_only_its_removal() -> None:
    machine = broken()
    before = snapshot(machine)
    for request in set(Request) - {Request.REMOVE}:
        with pytest.raises(Down, match="BROKEN: killed by SIGKILL") as refused:
            machine.ask(request)
        assert refused.value.errno == errno.ESHUTDOWN
    assert snapshot(machine) == before
    assert deeds(machine.ask(Request.REMOVE)) == [Destroy()]


@pytest.mark.parametrize("facts", [[PathRemoved()], [PathRemoved(), PathRecreated()]])
def test_a_removed_vbd_takes_no_request_at_all(facts: list[Fact]) -> None:
    machine = running()
    told(machine, *facts)
    before = snapshot(machine)
    for request in Request:
        with pytest.raises(Down):
            machine.ask(request)
    assert snapshot(machine) == before


def test_a_start_waits_until_a_shutdown_is_finished() -> None:
    machine = closing()
    before = snapshot(machine)
    with pytest.raises(Busy):
        machine.ask(Request.START)
    assert snapshot(machine) == before
    told(machine, Replied(reply=Reply.CLOSE))
    machine.ask(Request.START)


def test_a_shutdown_is_not_forced_any_more_once_close_was_sent() -> None:
    machine = closing()
    before = snapshot(machine)
    with pytest.raises(Busy):
        machine.ask(Request.SHUTDOWN_FORCE)
    assert snapshot(machine) == before
    machine = closing(Request.SHUTDOWN_FORCE)
    assert machine.ask(Request.SHUTDOWN_FORCE) == []


def test_what_is_the_case_already_may_be_asked_for_and_changes_nothing() -> None:
    for make, request in (
        (running, Request.START),
        (running, Request.UNPAUSE),
        (paused, Request.PAUSE),
        (closing, Request.SHUTDOWN),
    ):
        machine = make()
        before = snapshot(machine)
        assert machine.ask(request) == []
        assert snapshot(machine) == before


# Removal


@pytest.mark.parametrize("make", [running, paused])
def test_a_removed_vbd_is_closed_and_freed_after_its_tapdisk_has_exited(
    make: Callable[[], Machine],
) -> None:
    machine = make()
    assert sent(told(machine, PathRemoved())) == [Message.CLOSE]
    assert deeds(told(machine, Replied(reply=Reply.CLOSE))) == []
    assert deeds(told(machine, CLEAN)) == [Destroy()]
    assert machine.destroyed
    assert told(machine, CLEAN, PathRecreated()) == []


def test_remove_is_a_removal() -> None:
    machine = running()
    assert sent(machine.ask(Request.REMOVE)) == [Message.CLOSE]
    assert machine.vbd is Vbd.DEAD


def test_a_vbd_without_a_tapdisk_is_freed_at_once() -> None:
    assert deeds(told(Machine(), PathRemoved())) == [Destroy()]


def test_a_removed_vbds_tapdisk_that_dies_breaks_nothing() -> None:
    machine = running()
    effects = told(machine, PathRemoved(), Exited(signal=9))
    assert faults(effects)[0][2] == "killed by SIGKILL"
    assert deeds(effects) == [Destroy()]
    assert machine.vbd is Vbd.DEAD


def test_a_recreated_path_is_probed_after_the_old_channel_is_freed() -> None:
    machine = running()
    effects = told(machine, PathRemoved(), PathRecreated())
    assert changes(effects) == ["DEAD -> RECYCLED"]
    assert deeds(told(machine, Replied(reply=Reply.CLOSE))) == []
    assert deeds(told(machine, Exited(code=1))) == [Destroy(), Probe()]


def test_a_recreated_path_that_is_removed_again_is_not_probed() -> None:
    machine = running()
    effects = told(machine, PathRemoved(), PathRecreated(), PathRemoved(), CLEAN)
    assert deeds(effects) == [Destroy()]


def test_a_removed_vbds_tapdisk_that_never_closes_is_to_be_killed() -> None:
    machine = running()
    timer = timer_of(told(machine, PathRemoved()))
    effects = told(machine, TimedOut(timer=timer))
    assert deeds(effects) == [Kill()]
    assert machine.vbd is Vbd.DEAD
    assert deeds(told(machine, Exited(signal=9))) == [Destroy()]


def test_a_tapdisk_that_broke_its_vbd_by_silence_has_its_time_again_when_it_is_removed() -> None:
    machine = running()
    told(machine, TimedOut(timer=timer_of(machine.ask(Request.PAUSE))))
    effects = told(machine, PathRemoved())
    assert deeds(effects) == []
    assert deeds(told(machine, TimedOut(timer=timer_of(effects)))) == [Kill()]


# Tapdisks that were found


@pytest.mark.parametrize(
    ("channel", "vbd", "message"),
    [
        (Channel.RUNNING, Vbd.UNPAUSED, None),
        (Channel.PAUSED, Vbd.PAUSED, None),
        (Channel.WAIT_PAUSE, Vbd.PAUSING, Message.PAUSE),
        (Channel.PID, Vbd.UNPAUSED, Message.OPEN),
    ],
)
def test_a_found_tapdisk_is_driven_from_where_it_was(
    channel: Channel, vbd: Vbd, message: Message | None
) -> None:
    machine = Machine(States(channel, vbd, Shutdown.UP), PID)
    assert sent(machine.resume()) == [message] * (message is not None)


def test_a_found_tapdisk_that_was_to_close_is_told_again() -> None:
    machine = Machine(States(Channel.WAIT_CLOSE, Vbd.UNPAUSED, Shutdown.DOWN), PID)
    assert sent(machine.resume()) == [Message.CLOSE]


def test_a_found_tapdisk_that_has_closed_has_its_time_to_exit() -> None:
    machine = Machine(States(Channel.CLOSED, Vbd.UNPAUSED, Shutdown.DOWN), PID)
    assert machine.resume() == [StartTimer(timer=1, seconds=LIMITS[Channel.CLOSED])]


def test_no_machine_is_left_where_it_could_do_something() -> None:
    for name, machine in resting():
        before = snapshot(machine)
        assert machine.hear(TimedOut(timer=-1)) == [], name
        assert snapshot(machine) == before, name
