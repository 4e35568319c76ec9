"""All VBDs of a backend: one machine each, whatever their paths do."""

import pytest

from zeventfs.errors import Busy
from zeventfs.vbd.backend import Backend
from zeventfs.vbd.facts import (
    Destroy,
    Effect,
    Exited,
    Launch,
    Launched,
    Probe,
    Replied,
    Send,
    StartTimer,
)
from zeventfs.vbd.machine import Machine
from zeventfs.vbd.states import Channel, Message, Reply, Request, Shutdown, States, Vbd

RUNNING = States(Channel.RUNNING, Vbd.UNPAUSED, Shutdown.UP)


def deeds(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, Send | Launch | Destroy | Probe)]


def backend_with(*vbds: int) -> Backend[int]:
    """Return one whose VBDs all run."""
    backend: Backend[int] = Backend()
    for vbd in vbds:
        assert backend.adopt(vbd, Machine(RUNNING, 1000 + vbd)) == []
    return backend


def test_a_path_that_appears_has_a_machine_at_rest() -> None:
    backend: Backend[str] = Backend({Channel.LAUNCHED: 3})
    assert backend.appear("5") == []
    assert (list(backend), len(backend)) == (["5"], 1)
    assert backend["5"].states == (Channel.DEAD, Vbd.UNPAUSED, Shutdown.DOWN)
    effects = backend.ask("5", Request.START)
    assert [each.seconds for each in effects if isinstance(each, StartTimer)] == [3]


def test_a_path_that_vanishes_is_forgotten_only_after_its_tapdisk_has_exited() -> None:
    backend = backend_with(5)
    assert deeds(backend.vanish(5)) == [Send(message=Message.CLOSE)]
    backend.hear(5, Replied(reply=Reply.CLOSE))
    assert 5 in backend
    assert deeds(backend.hear(5, Exited(code=0))) == [Destroy()]
    assert 5 not in backend


def test_a_path_that_comes_back_too_early_has_no_second_machine() -> None:
    backend = backend_with(5)
    machine = backend[5]
    backend.vanish(5)
    assert deeds(backend.appear(5)) == []
    assert backend[5] is machine
    assert machine.vbd is Vbd.RECYCLED
    assert deeds(backend.hear(5, Exited(code=0))) == [Destroy(), Probe()]
    backend.appear(5)  # the driver's answer to Probe
    assert backend[5] is not machine
    assert deeds(backend.ask(5, Request.START)) == [Launch()]


def test_a_broken_vbd_is_brought_back_by_a_new_path() -> None:
    backend = backend_with(5)
    backend.hear(5, Exited(signal=9))
    assert deeds(backend.vanish(5)) == [Destroy()]
    backend.appear(5)
    assert deeds(backend.ask(5, Request.START)) == [Launch()]


def test_when_all_paths_vanish_at_once_every_channel_gets_its_close() -> None:
    backend = backend_with(*range(50))
    told = dict(backend.vanish_all())
    assert list(told) == list(range(50))
    for effects in told.values():
        assert deeds(effects) == [Send(message=Message.CLOSE)]
    for vbd in range(50):
        backend.hear(vbd, Replied(reply=Reply.CLOSE))
    assert len(backend) == 50
    for vbd in range(50):
        backend.hear(vbd, Exited(code=0))
    assert len(backend) == 0


def test_those_without_a_tapdisk_are_gone_at_once_when_all_paths_vanish() -> None:
    backend = backend_with(1)
    backend.appear(2)
    assert [deeds(effects) for _, effects in backend.vanish_all()] == [
        [Send(message=Message.CLOSE)],
        [Destroy()],
    ]
    assert list(backend) == [1]


def test_what_is_heard_of_a_vbd_that_is_gone_changes_nothing() -> None:
    backend: Backend[int] = Backend()
    assert backend.hear(5, Launched(pid=1)) == []
    assert backend.vanish(5) == []
    with pytest.raises(KeyError):
        backend.ask(5, Request.START)


def test_a_refusal_reaches_whoever_asked() -> None:
    backend = backend_with(5)
    backend.ask(5, Request.SHUTDOWN)
    with pytest.raises(Busy):
        backend.ask(5, Request.START)


def test_no_vbd_is_adopted_beside_its_machine() -> None:
    backend = backend_with(5)
    with pytest.raises(ValueError, match="5"):
        backend.adopt(5, Machine())
