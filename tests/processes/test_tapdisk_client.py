"""The client, on simulated processes that answer, lie, hang and die: it waits as long as told."""

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from simulated_tapdisk import Simulated, Tapdisks

from zeventfs.errors import Invalid
from zeventfs.tapdisk.client import Gone, Hangs, Tapdisk, Unreachable
from zeventfs.tapdisk.protocol import (
    Image,
    Lied,
    Listed,
    Partial,
    Refused,
    TapdiskError,
    ask_list,
    ask_pause,
)
from zeventfs.tapdisk.sweep import sweep

IMAGE = "aio:/srv/xen/disk0.img"
SOON_S = 0.2


@pytest.fixture
def tapdisks(tmp_path: Path) -> Iterator[Tapdisks]:
    with Tapdisks(tmp_path) as started:
        yield started


@pytest.fixture
def simulated(tapdisks: Tapdisks) -> Simulated:
    started = tapdisks.start()
    started.mark(0)
    return started


async def opened(simulated: Simulated) -> Tapdisk:
    tapdisk = Tapdisk(simulated.path)
    await tapdisk.attach(0)
    await tapdisk.open(0, IMAGE)
    return tapdisk


async def test_a_tapdisk_is_led_through_its_life(simulated: Simulated) -> None:
    tapdisk = Tapdisk(simulated.path)
    assert await tapdisk.pid() == simulated.pid
    assert await tapdisk.list() == ()
    await tapdisk.attach(0)
    assert await tapdisk.open(0, IMAGE, req_timeout=30) == Image(32768, 512, 0)
    assert await tapdisk.disk_info(0) == Image(32768, 512, 0)
    stats = (await tapdisk.stats(0)).stats
    assert stats is not None
    assert stats.name == IMAGE
    await tapdisk.pause(0)
    assert await tapdisk.list() == (Listed(0, 0x2A, IMAGE),)
    await tapdisk.resume(0, "vhd:/y")
    await tapdisk.close(0)
    assert await tapdisk.list() == (Listed(0, 2, ""),)
    await tapdisk.open(0, IMAGE)
    await tapdisk.force_shutdown(0)
    await tapdisk.detach(0)
    assert simulated.wait() == 0
    with pytest.raises(Gone):
        await tapdisk.pid()


async def test_a_refusal_has_tapdisks_errno_and_text(simulated: Simulated) -> None:
    tapdisk = Tapdisk(simulated.path)
    with pytest.raises(Refused, match="ENODEV") as refused:
        await tapdisk.pause(0)
    assert refused.value.errno == errno.ENODEV
    simulated.tell("attach: refuse EROFS the disk is full")
    with pytest.raises(Refused, match="the disk is full"):
        await tapdisk.attach(0)


async def test_what_cant_be_asked_is_not_sent(simulated: Simulated) -> None:
    with pytest.raises(Invalid):
        await Tapdisk(simulated.path).open(0, "nothing")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("wrong type", Lied),
        ("wrong cookie", Lied),
        ("wrong size", Lied),
        ("wrong garbage", Lied),
        ("partial 0", Partial),
        ("partial 300", Partial),
    ],
)
async def test_lies_and_halves_are_told_apart(
    simulated: Simulated, line: str, error: type[TapdiskError]
) -> None:
    simulated.tell(line)
    with pytest.raises(error) as raised:
        await Tapdisk(simulated.path).pid()
    assert raised.type is error


async def test_a_silent_one_hangs(simulated: Simulated) -> None:
    simulated.tell("silent")
    with pytest.raises(Hangs, match=r"pid within 0\.2 s"):
        await Tapdisk(simulated.path, question_s=SOON_S).pid()


def stop(simulated: Simulated) -> None:
    simulated.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, simulated.pid, os.WSTOPPED | os.WNOWAIT)


def connect(path: str) -> socket.socket | None:
    """A connection, None if as many as can be are waiting already."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.connect(path)
    except BlockingIOError:
        connection.close()
        return None
    return connection


async def test_a_stopped_one_hangs_even_when_no_connection_more_finds_room(
    simulated: Simulated,
) -> None:
    stop(simulated)
    tapdisk = Tapdisk(simulated.path, question_s=SOON_S)
    with pytest.raises(Hangs):
        await tapdisk.pid()
    waiting = []
    while connection := connect(simulated.path):
        waiting.append(connection)
    with pytest.raises(Hangs):
        await tapdisk.pid()
    for each in waiting:
        each.close()
    simulated.process.send_signal(signal.SIGCONT)
    assert await Tapdisk(simulated.path).pid() == simulated.pid


async def test_a_killed_one_is_gone_though_its_socket_stays(simulated: Simulated) -> None:
    os.kill(simulated.pid, signal.SIGKILL)
    simulated.wait()
    with pytest.raises(Gone, match="refused"):
        await Tapdisk(simulated.path).list()


async def test_one_that_dies_within_a_request_answers_it_by_half(simulated: Simulated) -> None:
    tapdisk = await opened(simulated)
    simulated.tell("pause: silent")

    async def pause() -> None:
        with pytest.raises(Partial, match=r"after 0|broke off after 0"):
            await tapdisk.pause(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pause)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(simulated.pid, signal.SIGKILL)


async def test_questions_are_answered_while_an_order_waits(simulated: Simulated) -> None:
    tapdisk = await opened(simulated)
    simulated.tell("io stick")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tapdisk.pause, 0)
        with trio.fail_after(20):
            while (await tapdisk.list())[0].state != 0x14:
                pass
        simulated.tell("io ok")
    assert (await tapdisk.list())[0].state == 0x2A


async def test_a_pause_that_sticks_hangs_and_its_state_is_told(simulated: Simulated) -> None:
    tapdisk = await opened(simulated)
    simulated.tell("io stick")
    with pytest.raises(Hangs, match="pause"):
        await tapdisk.ask(ask_pause(0), limit_s=SOON_S)
    assert (await tapdisk.list())[0].state == 0x14


async def test_questions_are_asked_one_at_a_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.02
    path = str(tmp_path / "ctl1")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(10)
        tapdisk = Tapdisk(path, question_s=5)
        times = []

        async def ask() -> None:
            with pytest.raises(Hangs):
                await tapdisk.pid()
            times.append(trio.current_time())

        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
    # The second had its whole time, from when its turn came.
    assert [at - begin for at in times] == pytest.approx([5, 10])


async def test_cancelling_gives_the_turn_to_the_next(simulated: Simulated) -> None:
    simulated.tell("list: silent")
    tapdisk = Tapdisk(simulated.path)
    with trio.move_on_after(SOON_S):
        await tapdisk.list()
    assert await tapdisk.pid() == simulated.pid


async def test_a_socket_that_is_not_ours_to_use_is_unreachable(tmp_path: Path) -> None:
    for path, number in (
        (tmp_path / ("x" * 120), errno.ENAMETOOLONG),
        (tmp_path / "file" / "below", errno.ENOTDIR),
    ):
        (tmp_path / "file").touch()
        with pytest.raises(Unreachable) as raised:
            await Tapdisk(str(path)).pid()
        assert raised.value.errno == number
    with pytest.raises(Gone):
        await Tapdisk(str(tmp_path / "none")).pid()


async def test_without_a_descriptor_left_it_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    tapdisk = Tapdisk("ctl1")
    for _ in range(2):  # the turn has been given back
        with monkeypatch.context() as patch:
            patch.setattr("zeventfs.tapdisk.client.socket.socket", none_left)
            answers = await sweep([tapdisk], ask_list(), 5)
            with pytest.raises(Unreachable) as raised:
                await tapdisk.list()
        assert raised.value.errno == errno.EMFILE
        assert isinstance(answers[tapdisk], Unreachable)


Answer = Callable[[socket.socket], None]


def closed_at_once(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    """Closing with something unread is a reset."""
    connection.recv(10)
    connection.close()


@pytest.mark.parametrize(
    ("end", "error"), [(closed_at_once, Partial), (reset, Partial)], ids=["closed", "reset"]
)
async def test_a_connection_that_breaks_off_is_half_an_answer(
    tmp_path: Path, end: Answer, error: type[TapdiskError]
) -> None:
    path = str(tmp_path / "ctl1")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(10)

        async def ask() -> None:
            with pytest.raises(error):
                await Tapdisk(path).pid()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            end(listening.accept()[0])


async def test_one_that_shuts_before_it_is_asked_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "ctl1")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(10)
        connect = socket.socket.connect

        def connect_and_lose(self: socket.socket, address: str) -> None:
            connect(self, address)
            listening.accept()[0].close()

        monkeypatch.setattr(socket.socket, "connect", connect_and_lose)
        with pytest.raises(Gone, match="at once"):
            await Tapdisk(path).pid()
