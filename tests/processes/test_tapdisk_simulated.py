"""The process that stands in for tapdisk: its files, its counters, its ends, its misbehaviours."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from simulated_tapdisk import Simulated, Tapdisks

from zeventfs.simulator.tapdisk import command, tell
from zeventfs.simulator.tapdisk.process import main
from zeventfs.simulator.tapdisk.server import Server
from zeventfs.tapdisk import protocol, wire
from zeventfs.tapdisk.protocol import Lied, Partial, Refused
from zeventfs.tapdisk.shared_memory import Counters, pages, read_counters

IMAGE = "aio:/srv/xen/disk0.img"


@pytest.fixture
def tapdisks(tmp_path: Path) -> Iterator[Tapdisks]:
    with Tapdisks(tmp_path) as started:
        yield started


@pytest.fixture
def running(tapdisks: Tapdisks) -> Simulated:
    return run(tapdisks.start())


def run(simulated: Simulated) -> Simulated:
    simulated.mark(0)
    simulated.ask(protocol.ask_attach(0))
    simulated.ask(protocol.ask_open(0, IMAGE))
    return simulated


def names(place: Path) -> set[str]:
    return {each.name for each in place.iterdir()}


def counted(simulated: Simulated) -> Counters:
    return read_counters(simulated.counters / "vdi-0")


def test_it_prints_its_control_socket_when_it_is_ready(tapdisks: Tapdisks) -> None:
    simulated = tapdisks.start()
    assert simulated.line == f"{simulated.path}\n"
    assert simulated.ask(protocol.ask_pid()) == simulated.pid
    assert simulated.process.stdout is not None
    assert (
        simulated.process.stdout.read() == b""
    )  # it is closed, and whoever reads on need not wait


def test_it_ends_with_its_last_vbd_and_leaves_only_markers(running: Simulated) -> None:
    assert names(running.directory) == {f"ctl{running.pid}", f"sim{running.pid}", "tapdisk"}
    running.ask(protocol.ask_close(0))
    running.ask(protocol.ask_detach(0))
    assert running.wait() == 0
    assert names(running.directory) == {"tapdisk"}
    assert names(running.directory / "tapdisk") == {"tapdisk-0"}
    assert names(running.shared) == set()


def test_a_killed_one_leaves_its_socket_and_its_counters(running: Simulated) -> None:
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert Path(running.path).is_socket()
    assert counted(running).rd_completed == 0
    with pytest.raises(ConnectionRefusedError):
        running.exchange(protocol.ask_pid().message)


def test_a_stale_socket_of_its_own_number_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / f"ctl{os.getpid()}"))
    with (
        Server(str(tmp_path), str(tmp_path), 0, 8) as server,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(server.path)
    assert names(tmp_path) == {"tapdisk"}


def test_counters_move_with_the_guest_and_begin_anew_after_a_pause(running: Simulated) -> None:
    assert [(page.kind, page.numbers) for page in pages(running.pid, str(running.shared))] == [
        ("vdi", (0,))
    ]
    assert counted(running) == Counters(*[0] * 11)
    running.tell("rate 30000")
    deadline = time.monotonic() + 20
    while not (found := counted(running)).wr_completed:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert found.rd_submitted == found.rd_completed
    assert found.rd_completed - 2 * found.wr_completed in {0, 1, 2}
    assert found.rd_sectors == 8 * found.rd_completed
    running.ask(protocol.ask_pause(0))
    assert list(pages(running.pid, str(running.shared))) == []
    running.tell("rate 0")
    running.ask(protocol.ask_resume(0))
    assert counted(running) == Counters(*[0] * 11)


def test_failing_io_shows_in_the_statistics_and_not_in_io_errors(running: Simulated) -> None:
    running.tell("io stick")
    assert "pending=1" in running.tell("show")
    running.tell("io fail EIO")
    assert "completed=1 errors=1 kicks_in=1 kicks_out=1" in running.tell("show")
    assert b'"fail": [ 8, 0 ]' in running.ask(protocol.ask_stats(0))
    assert counted(running).io_errors == 0
    assert counted(running).rd_completed == 1


def test_a_pause_that_sticks_shows_and_ends_when_io_goes_on(running: Simulated) -> None:
    running.tell("io stick")
    with socket.socket(socket.AF_UNIX) as pausing, socket.socket(socket.AF_UNIX) as closing:
        for connection, request in (
            (pausing, protocol.ask_pause(0)),
            (closing, protocol.ask_close(0)),
        ):
            connection.settimeout(20)
            connection.connect(running.path)
            connection.sendall(request.message)
        assert [vbd.state for vbd in running.ask(protocol.ask_list())] == [0x14]
        running.tell("io ok")
        protocol.ask_pause(0).answer(pausing.recv(1000))
        protocol.ask_close(0).answer(closing.recv(1000))  # orders are carried out one by one
    assert running.ask(protocol.ask_list()) == (protocol.Listed(0, 0x2A, ""),)


def test_who_gives_up_waiting_for_a_pause_does_not_end_it(running: Simulated) -> None:
    running.tell("io stick")
    with socket.socket(socket.AF_UNIX) as pausing:
        pausing.connect(running.path)
        pausing.sendall(protocol.ask_pause(0).message)
    while running.ask(protocol.ask_list())[0].state != 0x14:
        pass
    running.ask(protocol.ask_force_shutdown(0))


@pytest.mark.parametrize(
    ("line", "error"),
    [("wrong type", Lied), ("wrong size", Lied), ("partial 543", Partial), ("refuse EIO", Refused)],
)
def test_it_misbehaves_in_one_request_until_told_otherwise(
    running: Simulated, line: str, error: type[Exception]
) -> None:
    running.tell(f"list: {line}")
    with pytest.raises(error):
        running.ask(protocol.ask_list())
    assert running.ask(protocol.ask_pid()) == running.pid
    running.tell("well")
    running.ask(protocol.ask_list())


def test_a_silent_one_accepts_and_never_answers(running: Simulated) -> None:
    running.tell("silent")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(running.path)
        connection.sendall(protocol.ask_pid().message)
        running.tell("show")  # it has had its turn
        connection.settimeout(0)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    running.tell("well")
    assert running.ask(protocol.ask_pid()) == running.pid


def test_a_slow_one_answers_later(running: Simulated) -> None:
    running.tell("slow 0.2")
    before = time.monotonic()
    running.ask(protocol.ask_pid())
    assert time.monotonic() - before >= 0.2


def test_a_stopped_one_goes_on_when_it_is_continued(running: Simulated) -> None:
    running.tell("pid: stop")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(running.path)
        connection.sendall(protocol.ask_pid().message)
        os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)
        running.process.send_signal(signal.SIGCONT)
        assert protocol.ask_pid().answer(connection.recv(1000)) == running.pid


def test_it_exits_as_it_is_told(tapdisks: Tapdisks) -> None:
    at_once, at_pause = tapdisks.start(), run(tapdisks.start())
    at_once.tell("exit 3")
    assert at_once.wait() == 3
    at_pause.tell("pause: exit 4")
    with pytest.raises(Partial):
        at_pause.ask(protocol.ask_pause(0))
    assert at_pause.wait() == 4
    assert names(at_pause.directory) == {"tapdisk"}


def test_what_is_told_at_the_start_may_keep_it_from_starting(tapdisks: Tapdisks) -> None:
    never = tapdisks.start("--tell", "start: exit 5")
    assert never.line == ""
    assert never.wait() == 5
    late = tapdisks.start(
        env={"ZEVENTFS_TAPDISK_TELL": "start: slow 0.1; list: refuse EIO", "_": ""}
    )
    with pytest.raises(Refused):
        late.ask(protocol.ask_list())


def test_ten_connections_are_served_and_others_wait(running: Simulated) -> None:
    with ExitStack() as held:
        for _ in range(10):
            idle = held.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(running.path)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(running.path)
            waiting.sendall(protocol.ask_pid().message)
            running.tell("show")
            waiting.settimeout(0)
            with pytest.raises(BlockingIOError):
                waiting.recv(1)
            held.close()
            waiting.settimeout(20)
            assert protocol.ask_pid().answer(waiting.recv(1000)) == running.pid


def test_half_a_request_is_not_answered(running: Simulated) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(running.path)
        connection.sendall(protocol.ask_pid().message[:100])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1000) == b""
    assert running.ask(protocol.ask_pid()) == running.pid


def test_nonsense_is_refused_and_changes_nothing(running: Simulated) -> None:
    assert tell(str(running.directory), running.pid, "dance").startswith("error: ")
    assert running.ask(protocol.ask_list()) == (protocol.Listed(0, 0, IMAGE),)


def test_interrupted_it_clears_up(running: Simulated) -> None:
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 130
    assert names(running.directory) == {"tapdisk"}


def test_the_module_is_the_same_program(tmp_path: Path) -> None:
    started = subprocess.run(
        [
            *(sys.executable, "-m", "zeventfs.simulator.tapdisk", "-D", "--dir", tmp_path),
            *("--shm", tmp_path, "--tell=start: exit 6"),
        ],
        check=False,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert started.returncode == 6


def test_without_foreground_it_goes_behind(tmp_path: Path) -> None:
    places = ("--dir", str(tmp_path), "--shm", str(tmp_path))
    started = subprocess.run(
        command(*places), check=True, capture_output=True, text=True, timeout=20
    )
    pid = protocol.control_pid(Path(started.stdout.strip()).name)
    assert pid is not None
    gone = os.pidfd_open(pid)
    try:
        assert tell(str(tmp_path), pid, "exit 0") == "ok\n"
        assert select.select([gone], [], [], 20)[0]
    finally:
        os.close(gone)
    assert started.stderr == ""


def test_a_person_can_tell_it_from_a_shell(
    running: Simulated, capfd: pytest.CaptureFixture[str]
) -> None:
    place = ("tell", "--dir", str(running.directory), str(running.pid))
    assert main([*place, "list:", "refuse", "EIO"]) == 0
    assert main([*place, "dance"]) == 1
    assert main(["tell", "--dir", str(running.directory), "1", "show"]) == 1
    said = capfd.readouterr()
    assert said.out.splitlines()[0] == "ok"
    assert "error: can't understand 'dance'" in said.out
    assert "zeventfs-tapdisk: " in said.err


@pytest.mark.parametrize(
    "words",
    [
        *(["--what"], ["--rate"], ["--rate=x"], ["--rate=-1"], ["--rate=nan"], ["--sectors=0"]),
        *(["x"], ["tell"], ["tell", "x", "show"], ["--tell=dance"]),
    ],
)
def test_a_command_line_that_is_wrong_starts_nothing(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-D", *words] if words[0] != "tell" else words) == 2
    assert capfd.readouterr().err.startswith("zeventfs-tapdisk: ")


def test_its_help_says_what_can_be_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("usage: zeventfs-tapdisk")
    assert "[REQUEST:] slow SECONDS" in said
    assert all(name in said for name in wire.NAMES.values())
