"""The command line, the mount helper, and how a daemon is started, found and ended; no mount."""

import fcntl
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import zeventfs
from zeventfs import cli, config, follow, mount, umount
from zeventfs.errors import Closing

CORPUS = Path(__file__).parents[1] / "corpus"
GOLDEN = CORPUS / "nvlist"
EVENT = (GOLDEN / "golden_event_native.bin").read_bytes()
SMALL = (GOLDEN / "golden_small_xdr.bin").read_bytes()

Run = Callable[[config.Config, Callable[[], None]], None]


def prefixed(*lists: bytes) -> bytes:
    return b"".join(len(packed).to_bytes(4, "little") + packed for packed in lists)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep everything below tmp_path: its runtime directories, and a mountpoint in it."""
    monkeypatch.setattr(config, "runtime_base", lambda *_: tmp_path / "run")
    monkeypatch.setattr(umount, "runtime_base", lambda *_: tmp_path / "run")
    monkeypatch.setattr(mount, "FUSE_DEVICE", Path("/dev/null"))
    (tmp_path / "mnt").mkdir()
    return tmp_path / "mnt"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Put a function in the place of zeventfs.daemon.run."""

    def replace(run: Run) -> None:
        stub = ModuleType("zeventfs.daemon")
        monkeypatch.setattr(stub, "run", run, raising=False)
        monkeypatch.setitem(sys.modules, "zeventfs.daemon", stub)
        monkeypatch.setattr(zeventfs, "daemon", stub, raising=False)

    return replace


@pytest.fixture
def living(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that holds the lock on the runtime directory's pid file until SIGTERM."""
    runtime = config.runtime_directory(place)
    runtime.mkdir(parents=True)
    holding = (
        "import fcntl, os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print(os.getpid(), file=file, flush=True); print('held', flush=True)\n"
        "signal.sigwait({signal.SIGTERM})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, runtime / "pid"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    file = tmp_path / "mountinfo"
    file.write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(umount, "MOUNTINFO", file)


# Help, usage


def test_help_needs_none_of_what_the_daemon_needs() -> None:
    script = (
        "import sys, contextlib, zeventfs.cli\n"
        "with contextlib.suppress(SystemExit): zeventfs.cli.main(['mount', '--help'])\n"
        "sys.exit(any(name in sys.modules for name in ('trio', 'pyfuse3', 'msgspec')))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert b"sim.rate=" in ended.stdout


@pytest.mark.parametrize("arguments", [[], ["bogus"], ["mount", "sim"], ["umount"], ["decode"]])
def test_a_wrong_invocation_is_status_1_and_says_how(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 1
    assert "usage: zeventfs" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"zeventfs {zeventfs.__version__}\n"


# zeventfs decode


@pytest.mark.parametrize(
    "raw", [EVENT + SMALL + EVENT, prefixed(EVENT, SMALL, EVENT)], ids=["back to back", "prefixed"]
)
def test_decode_prints_each_list_as_a_json_line(
    raw: bytes, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = tmp_path / "lists"
    file.write_bytes(raw)
    assert cli.main(["decode", str(file)]) == 0
    first, small, last = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert first == last
    assert first["class"] == first["payload"]["class"]
    assert not {"seq", "epoch", "source"} & first.keys()
    assert list(small) == ["payload"]


def test_decode_says_the_same_of_both_encodings(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    for encoding in ("native", "xdr"):
        assert cli.main(["decode", str(GOLDEN / f"golden_event_{encoding}.bin")]) == 0
    native, xdr = capfdbinary.readouterr().out.splitlines()
    assert native == xdr


def test_decode_prints_zpools_text_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(EVENT)))
    assert cli.main(["decode", "--text", "-"]) == 0
    assert b"        class = " in capfdbinary.readouterr().out


@pytest.mark.parametrize(
    ("raw", "offset"),
    [
        (EVENT[:-1], len(EVENT) - 4),
        (EVENT + b"garbage", len(EVENT)),
        (prefixed(EVENT) + b"\xff\xff\xff\xff", len(EVENT) + 4),
        (prefixed(EVENT, b""), len(EVENT) + 8),
    ],
    ids=["cut", "garbage after", "length too long", "empty list"],
)
def test_decode_of_bad_input_says_at_which_byte(
    raw: bytes, offset: int, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = tmp_path / "bad"
    file.write_bytes(raw)
    assert cli.main(["decode", str(file)]) == 1
    said = capfdbinary.readouterr().err.decode()
    number = int(said.rpartition("(at byte ")[2].partition(")")[0])
    assert offset <= number <= len(raw)
    assert said.count("\n") == 1


def test_decode_finds_the_end_of_a_list_longer_than_its_first_guess() -> None:
    from zeventfs.decode import unpack  # noqa: PLC0415  # heavy for the rest of this module
    from zeventfs.nvlist import NVList, Type, encode  # noqa: PLC0415  # likewise

    long = encode(NVList.of([("s", Type.STRING, "x" * 300_000)]))
    assert [nvlist.get("s") is None for nvlist in unpack(io.BytesIO(long + EVENT + long))] == [
        False,
        True,
        False,
    ]


def test_decode_prints_each_list_after_a_length_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    printed: list[int] = []

    class Live(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 <= size <= len(EVENT), "it waits for no more than there must be"
            printed.append(capfdbinary.readouterr().out.count(b"\n"))
            return super().read(size)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Live(prefixed(EVENT, EVENT, EVENT))))
    assert cli.main(["decode", "-"]) == 0
    assert printed == [0, 0, 1, 0, 1, 0, 1]


def test_decode_ends_in_order_when_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            del size
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Interrupted()))
    assert cli.main(["decode", "-"]) == 128 + signal.SIGINT


def test_decode_of_a_missing_file_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["decode", "/no/such/file"]) == 1
    assert "No such file" in capsys.readouterr().err


# Mounting


def test_mounting_returns_when_the_tree_answers(place: Path, daemon: Callable[[Run], None]) -> None:
    def run(config: config.Config, ready: Callable[[], None]) -> None:
        (config.runtime / "session").write_text(f"{os.getsid(0)} {Path.cwd()}")
        ready()
        signal.pause()

    daemon(run)
    asked = config.parse("sim", place, ["log=stderr"])
    mount.check(asked)
    pid = mount.start(asked)
    assert (asked.runtime / "session").read_text() == f"{pid} /"
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)


def refuse(_config: config.Config, _ready: Callable[[], None]) -> None:
    raise Closing("the kernel said no")


def crash(_config: config.Config, _ready: Callable[[], None]) -> None:
    raise ValueError("a bug")


def die(_config: config.Config, _ready: Callable[[], None]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("run", "status", "sentence"),
    [
        (refuse, 32, "the kernel said no"),
        (crash, 4, "internal error: ValueError('a bug')"),
        (die, 4, "the daemon was ended by signal 9 before the tree answered"),
    ],
)
def test_a_daemon_that_ends_before_the_tree_answers_is_reported_with_its_reason(  # noqa: PLR0917  # cases and fixtures
    run: Run,
    status: int,
    sentence: str,
    place: Path,
    daemon: Callable[[Run], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    daemon(run)
    assert cli.main(["mount", "sim", str(place), "-o", f"log={place.parent}/log"]) == status
    assert capfd.readouterr().err == f"zeventfs mount: {sentence}\n"


def test_mount_helper_checks_all_but_mounts_nothing_with_f(
    place: Path, daemon: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon(die)
    assert mount.main(["sim", str(place), "-fnv", "-o", "rw,noatime"]) == 0
    assert capsys.readouterr().out == f"sim mounted on {place}\n"
    assert mount.main(["sim", str(place), "-f", "-o", "bogus"]) == 1
    assert mount.main(["sim", str(place), "-sf", "-o", "bogus"]) == 0
    assert mount.main(["sim", str(place / "missing"), "-f"]) == 32


@pytest.mark.parametrize(
    ("device", "status", "sentence"),
    [("/no/fuse", 2, "there is no /no/fuse"), ("/", 2, "can't open /")],
)
def test_without_the_fuse_device_nothing_is_tried(  # noqa: PLR0917  # cases and fixtures
    device: str,
    status: int,
    sentence: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mount, "FUSE_DEVICE", Path(device))
    assert cli.main(["mount", "sim", str(place)]) == status
    assert sentence in capsys.readouterr().err


def test_a_mountpoint_must_be_a_directory(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "file"
    file.touch()
    assert cli.main(["mount", "sim", str(file)]) == 32
    assert f"{file} is not a directory" in capsys.readouterr().err


@pytest.mark.usefixtures("living")
def test_a_living_mount_is_not_mounted_over(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["mount", "sim", str(place)]) == 32
    assert "already mounted" in capsys.readouterr().err


def test_a_dead_mount_is_not_asked_anything(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"50 1 0:77 / {place} rw - fuse.zeventfs zeventfs rw,user_id=0"
    mountinfo(place.parent, monkeypatch, line)
    assert cli.main(["mount", "sim", str(place)]) == 32
    assert "`umount -l` detaches it and leaves its events" in capsys.readouterr().err


# Ending a mount


def test_umount_ends_the_daemon(place: Path, living: subprocess.Popen[bytes]) -> None:
    assert cli.main(["umount", str(place)]) == 0
    assert living.wait() == 0


def test_umount_of_what_is_not_mounted_is_status_1(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["umount", str(place)]) == 1
    assert capsys.readouterr().err == f"zeventfs umount: {place} is not a mounted zeventfs\n"


@pytest.mark.parametrize("content", ["", "0", "-1", "garbage", "999999999", str(os.getpid())])
def test_a_pid_file_that_nobody_locks_names_no_daemon(content: str, place: Path) -> None:
    runtime = config.runtime_directory(place)
    runtime.mkdir(parents=True)
    (runtime / "pid").write_text(content)
    with umount.daemon_pidfd(runtime) as pidfd:
        assert pidfd is None


def test_looking_for_a_daemon_leaves_no_lock(place: Path) -> None:
    runtime = config.runtime_directory(place)
    runtime.mkdir(parents=True)
    (runtime / "pid").write_text(str(os.getpid()))
    with umount.daemon_pidfd(runtime), (runtime / "pid").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_topmost_mount_counts_and_names_are_unescaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountinfo(
        tmp_path,
        monkeypatch,
        "30 1 8:1 / /a\\040b rw shared:1 - ext4 /dev/sda1 rw",
        "31 1 0:77 / /a\\040b rw - fuse.zeventfs zeventfs rw,user_id=1000,group_id=0",
        "32 1 0:78 / /other rw - tmpfs tmpfs rw",
    )
    assert umount.mounted_at(Path("/a b")) == umount.Mounted("fuse.zeventfs", 77, 1000)
    assert umount.mounted_at(Path("/other")) == umount.Mounted("tmpfs", 78, 0)
    assert umount.mounted_at(Path("/a")) is None


# make run


def test_following_leaves_no_mountpoint_behind_when_it_cant_mount(
    place: Path, daemon: Callable[[Run], None], capfd: pytest.CaptureFixture[str]
) -> None:
    daemon(refuse)
    made = place / "new"
    with pytest.raises(mount.CannotMount, match="the kernel said no"):
        follow.follow("auto", made, ["log=stderr"])
    assert not made.exists()
    assert "Traceback" not in capfd.readouterr().err


# The helper in the checkout


def test_the_helper_says_what_is_missing_without_a_build(tmp_path: Path) -> None:
    helper = tmp_path / "mount.zeventfs"
    helper.write_bytes((Path(__file__).parents[2] / "mount.zeventfs").read_bytes())
    helper.chmod(0o755)
    ended = subprocess.run([helper, "sim", "/mnt"], capture_output=True, check=False)
    assert ended.returncode == 2
    assert b"run make build" in ended.stderr


def test_the_package_runs_as_a_module() -> None:
    assert importlib.util.find_spec("zeventfs.__main__") is not None
