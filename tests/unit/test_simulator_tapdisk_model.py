"""A simulated tapdisk's answers: the states it goes through, what it refuses, what waits."""

import errno
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.simulator.tapdisk.model import Tapdisk
from zeventfs.simulator.tapdisk.requests import STUCK
from zeventfs.tapdisk import protocol, wire
from zeventfs.tapdisk.protocol import Image, Refused, Request, T
from zeventfs.tapdisk.stats import decode_stats

IMAGE = "aio:/srv/xen/disk0.img"


class Asked:
    """A simulated tapdisk, its clock, and what it is asked."""

    def __init__(self, rate: float = 0.0) -> None:
        self.now = 100.0
        self.marked = {0, 1}
        self.model = Tapdisk(77, lambda minor: minor in self.marked, rate)

    def ask(self, request: Request[T]) -> T:
        reply = self.model.answer(request.message, self.now)
        assert reply is not None
        return request.answer(reply)

    def waits(self, request: Request[None]) -> bool:
        return self.model.answer(request.message, self.now) is None

    def refusal(self, request: Request[T]) -> int:
        with pytest.raises(Refused) as refused:
            self.ask(request)
        return refused.value.errno

    def state(self, minor: int = 0) -> tuple[int, str]:
        listed = self.ask(protocol.ask_list())
        return next((vbd.state, vbd.path) for vbd in listed if vbd.minor == minor)

    def stats(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.ask(protocol.ask_stats(0)))
        return found


@pytest.fixture
def attached() -> Asked:
    asked = Asked()
    asked.ask(protocol.ask_attach(0))
    return asked


@pytest.fixture
def running(attached: Asked) -> Asked:
    assert attached.ask(protocol.ask_open(0, IMAGE)) == Image(32768, 512, 0)
    return attached


def test_it_says_who_it_is() -> None:
    assert Asked().ask(protocol.ask_pid()) == 77
    assert Asked().ask(protocol.ask_list()) == ()


def test_a_minor_is_attached_once_and_only_with_its_marker() -> None:
    asked = Asked()
    assert asked.refusal(protocol.ask_attach(2)) == errno.ENOENT
    asked.ask(protocol.ask_attach(0))
    assert asked.refusal(protocol.ask_attach(0)) == errno.EEXIST
    assert asked.state() == (0, "")


def test_a_vbd_lives_as_recorded(running: Asked) -> None:
    assert running.state() == (0, IMAGE)
    running.ask(protocol.ask_pause(0))
    assert running.state() == (0x2A, IMAGE)
    running.ask(protocol.ask_pause(0))
    assert running.state() == (0x2A, IMAGE)
    running.ask(protocol.ask_resume(0))
    assert running.state() == (0, IMAGE)
    running.ask(protocol.ask_resume(0))
    assert running.state() == (0, IMAGE)
    running.ask(protocol.ask_close(0))
    assert running.state() == (2, "")
    assert not running.model.ended
    running.ask(protocol.ask_detach(0))
    assert running.model.ended


def test_it_ends_only_with_its_last_vbd(running: Asked) -> None:
    running.ask(protocol.ask_attach(1))
    running.ask(protocol.ask_detach(1))
    assert not running.model.ended


def test_what_is_open_is_neither_opened_nor_detached(running: Asked) -> None:
    assert running.refusal(protocol.ask_open(0, "vhd:/x")) == errno.EALREADY
    assert running.refusal(protocol.ask_detach(0)) == errno.EBUSY
    assert running.state() == (0, IMAGE)


def test_an_image_without_driver_is_refused(attached: Asked) -> None:
    assert attached.refusal(protocol.ask_open(0, "tape:/x")) == errno.EINVAL
    message = wire.encode_params(wire.OPEN, 0, b"aio:")
    assert attached.model.answer(message, 0.0) == wire.encode_error(0, errno.EINVAL)
    assert attached.state() == (0, "")


def test_another_image_may_be_resumed(running: Asked) -> None:
    running.ask(protocol.ask_pause(0))
    assert running.refusal(protocol.ask_resume(0, "tape:/x")) == errno.EINVAL
    running.ask(protocol.ask_resume(0, "vhd:/y"))
    assert running.state() == (0, "vhd:/y")


def test_a_vbd_without_image_is_paused_but_not_resumed(attached: Asked) -> None:
    attached.ask(protocol.ask_pause(0))
    assert attached.state() == (0x2A, "")
    assert attached.refusal(protocol.ask_resume(0)) == errno.EINVAL


def test_what_is_closed_while_paused_stays_paused(running: Asked) -> None:
    running.ask(protocol.ask_pause(0))
    running.ask(protocol.ask_close(0))
    assert running.state() == (0x2A, "")
    running.ask(protocol.ask_open(0, IMAGE))
    assert running.state() == (0, IMAGE)


@pytest.mark.parametrize("kind", sorted(set(wire.NAMES) - {wire.PID, wire.LIST, wire.ATTACH}))
def test_there_must_be_such_a_minor(kind: int) -> None:
    reply = Asked().model.answer(wire.encode_message(kind, 99), 0.0)
    assert reply == wire.encode_error(99, errno.ENODEV)


@pytest.mark.parametrize("kind", [0, 1, 2, 4, 17, 24, 30, 200, 0xFFFF])
def test_an_unknown_request_is_refused_whatever_its_minor(kind: int) -> None:
    reply = Asked().model.answer(wire.encode_message(kind, 99), 0.0)
    assert reply == wire.encode_error(0, errno.EINVAL)


def test_a_path_without_end_is_refused_as_unknown(attached: Asked) -> None:
    message = wire.encode_params(wire.OPEN, 0, b"aio:" + b"x" * 252)
    assert attached.model.answer(message, 0.0) == wire.encode_error(0, errno.EINVAL)


def test_a_pause_waits_for_what_is_stuck(running: Asked) -> None:
    running.model.change_io(STUCK, running.now)
    assert running.waits(protocol.ask_pause(0))
    assert running.state() == (0x14, IMAGE)
    assert running.waits(protocol.ask_close(0))
    assert running.waits(protocol.ask_pause(0))
    running.model.change_io(0, running.now)
    running.ask(protocol.ask_pause(0))
    assert running.state() == (0x2A, IMAGE)


def test_a_pause_that_is_given_up_can_be_taken_back(running: Asked) -> None:
    running.model.change_io(STUCK, running.now)
    assert running.waits(protocol.ask_pause(0))
    running.ask(protocol.ask_resume(0))
    assert running.state() == (0, IMAGE)


def test_forced_shutdown_waits_for_nothing(running: Asked) -> None:
    running.model.change_io(STUCK, running.now)
    assert running.waits(protocol.ask_pause(0))
    running.ask(protocol.ask_force_shutdown(0))
    assert running.state() == (2, "")
    assert running.model.vbds[0].requests.errors == [1, 0]


def test_a_guest_does_io_while_its_image_is_open() -> None:
    asked = Asked(rate=30.0)
    asked.ask(protocol.ask_attach(0))
    asked.now += 1
    asked.model.run(asked.now)
    assert asked.model.due(1.0, asked.now) is None
    asked.ask(protocol.ask_open(0, IMAGE))
    assert asked.model.due(1.0, asked.now) == asked.now + 1
    asked.now += 1
    asked.model.run(asked.now)
    vbd = asked.model.vbds[0]
    assert vbd.requests.completed == [20, 10]
    asked.ask(protocol.ask_pause(0))
    assert not vbd.serving
    asked.now += 10
    asked.model.run(asked.now)
    assert vbd.requests.completed == [20, 10]
    asked.ask(protocol.ask_resume(0))
    assert vbd.requests.completed == [0, 0]
    asked.model.change_rate(3.0, asked.now)
    asked.now += 1
    asked.model.run(asked.now)
    assert vbd.requests.completed == [2, 1]


def test_a_guest_that_is_being_paused_asks_for_nothing() -> None:
    asked = Asked(rate=30.0)
    asked.ask(protocol.ask_attach(0))
    asked.ask(protocol.ask_open(0, IMAGE))
    asked.model.change_io(STUCK, asked.now)
    assert asked.waits(protocol.ask_pause(0))
    asked.now += 10
    asked.model.run(asked.now)
    assert asked.model.vbds[0].requests.outstanding == 1


def test_what_is_told_of_io_is_so_for_vbds_that_come_later() -> None:
    asked = Asked(rate=10.0)
    asked.model.change_io(errno.EIO, asked.now)
    asked.ask(protocol.ask_attach(0))
    asked.model.change_io(STUCK, asked.now)  # nothing is open that could be stuck
    asked.model.change_io(errno.EBUSY, asked.now)
    asked.ask(protocol.ask_open(0, IMAGE, req_timeout=2))
    asked.now += 1
    asked.model.run(asked.now)
    assert asked.stats()["reqs_outstanding"] == 10
    assert asked.model.due(5.0, asked.now) == asked.now + 1
    asked.now += 2
    assert asked.model.vbds[0].requests.timeout_s == 2
    asked.model.run(asked.now)
    assert asked.model.vbds[0].requests.errors == [7, 3]


def test_statistics_say_what_failed(running: Asked) -> None:
    running.model.change_io(errno.EIO, running.now)
    running.model.change_rate(6.0, running.now)
    running.now += 1
    text = running.ask(protocol.ask_stats(0))
    stats = decode_stats(text).stats
    assert stats is not None
    assert stats.name == IMAGE
    assert stats.secs == (32, 16)
    assert stats.images[0].hits == (0, 0)
    assert stats.images[0].fail == (32, 16)
    assert stats.images[0].driver.status == {"reqs": {"max": 352, "pending": 0}}


def test_statistics_name_no_image_that_is_not_open(attached: Asked) -> None:
    assert attached.stats()["name"] == "(null)"
    attached.ask(protocol.ask_open(0, IMAGE))
    attached.ask(protocol.ask_pause(0))
    stats = attached.stats()
    assert (stats["name"], stats["images"]) == (IMAGE, [])


def test_statistics_are_escaped_as_little_as_tapdisks(attached: Asked) -> None:
    attached.ask(protocol.ask_open(0, 'vhd:/a"b'))
    read = decode_stats(attached.ask(protocol.ask_stats(0)))
    assert read.stats is None
    assert '"/a"b"' in read.text
    assert '"type": 4, "name": "vhd", "status": null' in read.text


def test_a_size_is_that_of_an_open_image(attached: Asked) -> None:
    assert attached.ask(protocol.ask_disk_info(0)) == Image(0, 0, 0)
    attached.ask(protocol.ask_open(0, IMAGE))
    assert attached.ask(protocol.ask_disk_info(0)) == Image(32768, 512, 0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*wire.NAMES, 0, 24, 999]),
            st.sampled_from([0, 1, 2, wire.ALL]),
            st.sampled_from([IMAGE.encode(), b"", b"x", b"vhd:/y"]),
            st.binary(max_size=300),
        ),
        max_size=20,
    )
)
def test_any_request_is_answered_in_whole_messages(
    requests: list[tuple[int, int, bytes, bytes]],
) -> None:
    asked = Asked(rate=100.0)
    for kind, minor, path, noise in requests:
        asked.now += 0.5
        asked.model.run(asked.now)
        for message in (
            wire.encode_params(kind, minor, path),
            wire.encode_message(kind, minor, noise),
        ):
            reply = asked.model.answer(message, asked.now)
            assert reply is not None  # nothing is stuck
            stats = wire.HEAD.unpack_from(reply)[0] == wire.STATS + 1
            length = wire.LENGTH.unpack_from(reply, 16)[0] if stats else 0
            assert (len(reply) - length) % wire.SIZE == 0
        assert len(asked.ask(protocol.ask_list())) == len(asked.model.vbds)
