"""The tables of states: complete, and what is known of tapdisk-channel."""

import pytest

from zeventfs.vbd.machine import LIMITS
from zeventfs.vbd.states import (
    ARRIVED,
    CHANNEL_TRIGGERED,
    DRIVEN,
    FREED,
    IPC_OPEN,
    QUIESCED,
    SENT,
    SHUTDOWN_TRIGGERED,
    TARGET,
    VBD_TRIGGERED,
    Channel,
    Happening,
    Message,
    Reply,
    Request,
    Shutdown,
    Vbd,
)

WAITS = [channel for channel in Channel if channel.name.startswith("WAIT_")]


@pytest.mark.parametrize("now", ["DEAD", "CLOSED"])
def test_a_channel_without_tapdisk_launches_one_only_to_run(now: str) -> None:
    row = DRIVEN[Channel[now]]
    assert row[Channel.RUNNING] is Channel.LAUNCHED
    assert row[Channel.PAUSED] is row[Channel.CLOSED] is Channel[now]


@pytest.mark.parametrize("now", [Channel.LAUNCHED, *WAITS])
def test_where_a_tapdisk_is_waited_for_there_is_nothing_to_do(now: Channel) -> None:
    assert set(DRIVEN[now].values()) == {None}


@pytest.mark.parametrize(
    ("now", "to_run", "to_pause"),
    [
        ("PID", "WAIT_OPEN", "PID"),
        ("RUNNING", "RUNNING", "WAIT_PAUSE"),
        ("PAUSED", "WAIT_RESUME", "PAUSED"),
    ],
)
def test_where_a_tapdisk_rests_it_is_sent_what_leads_on(
    now: str, to_run: str, to_pause: str
) -> None:
    row = DRIVEN[Channel[now]]
    assert row[Channel.RUNNING] is Channel[to_run]
    assert row[Channel.PAUSED] is Channel[to_pause]
    assert row[Channel.CLOSED] is Channel.WAIT_CLOSE


def test_every_joint_state_has_a_target_and_every_channel_a_way_there() -> None:
    targets = {TARGET[shutdown][vbd] for shutdown in Shutdown for vbd in Vbd}
    assert targets == {Channel.RUNNING, Channel.PAUSED, Channel.CLOSED}
    for channel in Channel:
        assert set(DRIVEN[channel]) == targets


def test_down_is_driven_to_closed_and_up_where_the_vbd_says() -> None:
    assert set(TARGET[Shutdown.DOWN].values()) == {Channel.CLOSED}
    by_vbd = {vbd.name: target.name for vbd, target in TARGET[Shutdown.UP].items()}
    assert by_vbd == {
        "UNPAUSED": "RUNNING",
        "PAUSING": "PAUSED",
        "PAUSED": "PAUSED",
        "BROKEN": "CLOSED",
        "DEAD": "CLOSED",
        "RECYCLED": "CLOSED",
    }


def test_every_state_stands_in_its_tables() -> None:
    assert set(CHANNEL_TRIGGERED) == set(DRIVEN) == set(Channel)
    assert set(VBD_TRIGGERED) == set(Vbd)
    assert set(SHUTDOWN_TRIGGERED) == set(Shutdown)
    assert set(ARRIVED) | FREED | QUIESCED <= set(Vbd)


def test_every_wait_sends_its_message_and_leaves_by_the_reply_to_it() -> None:
    assert set(SENT) == set(WAITS)
    for channel, message in SENT.items():
        replies = [trigger for trigger in CHANNEL_TRIGGERED[channel] if isinstance(trigger, Reply)]
        assert replies == [Reply[message.name]]
        assert replies[0].value == message.value + 1


def test_replies_are_expected_nowhere_else() -> None:
    for channel in set(Channel) - set(WAITS):
        assert not [on for on in CHANNEL_TRIGGERED[channel] if isinstance(on, Reply)]


def test_whatever_waits_for_a_tapdisk_has_a_time_limit() -> None:
    assert set(LIMITS) == {Channel.LAUNCHED, *WAITS, Channel.CLOSED}


def test_a_tapdisk_may_exit_wherever_there_is_one() -> None:
    for channel, triggers in CHANNEL_TRIGGERED.items():
        expected = None if channel is Channel.DEAD else Channel.DEAD
        assert triggers.get(Happening.EXITED) is expected
    assert set(Channel) - IPC_OPEN == {Channel.DEAD, Channel.CLOSED}


def test_quiesced_vbds_take_no_request_but_the_removal_of_a_broken_one() -> None:
    taken = {
        (vbd, trigger)
        for vbd in QUIESCED
        for trigger in VBD_TRIGGERED[vbd]
        if isinstance(trigger, Request)
    }
    assert taken == {(Vbd.BROKEN, Request.REMOVE)}
    assert not [vbd for vbd in QUIESCED if Happening.FAULT in VBD_TRIGGERED[vbd]]


def test_every_request_moves_something_from_wherever_it_is_taken() -> None:
    for vbd in set(Vbd) - QUIESCED:
        for shutdown in Shutdown:
            asked = {*VBD_TRIGGERED[vbd], *SHUTDOWN_TRIGGERED[shutdown]}
            assert {each for each in asked if isinstance(each, Request)} == set(Request)


def test_messages_have_their_types_on_the_wire() -> None:
    assert [message.value for message in Message] == [3, 7, 9, 11, 13, 23]
    assert [channel.value for channel in Channel] == list(range(1, 12))
