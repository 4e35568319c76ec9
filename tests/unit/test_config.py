"""SOURCE, MOUNTPOINT and options become a Config, or one sentence."""

import grp
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest

from zeventfs import config as module
from zeventfs.config import (
    Config,
    escape_path,
    mountpoint_path,
    parse,
    parse_sources,
    runtime_base,
    runtime_directory,
)
from zeventfs.errors import Invalid
from zeventfs.sources.dm import kernel as dm
from zeventfs.sources.kernel import module as kernel


def options(*words: str, sloppy: bool = False) -> Config:
    return parse("sim", "/mnt", words, sloppy=sloppy)


def test_without_options_a_mount_is_the_callers_and_keeps_64_mib_in_eight_segments() -> None:
    config = options()
    assert (config.uid, config.gid, config.mode) == (os.getuid(), os.getgid(), 0o440)
    assert (config.retain, config.segment) == (64 << 20, 8 << 20)
    assert (config.sim_seed, config.sim_rate, config.replay_rate) == (0, 2.0, 0.0)
    assert config.sim_scenario == "tank"
    assert not config.allow_other
    assert not config.ro
    assert not config.mlock


def test_every_option_is_taken() -> None:
    config = options(
        "allow_other,ro,uid=12,gid=34,mode=0444",
        "retain=1M,segment=128K,sim.seed=7,sim.rate=0.5,replay.rate=100,log=/var/log/z",
        "sim.scenario=storm,mlock",
    )
    assert config.mlock
    assert config.allow_other
    assert config.ro
    assert (config.uid, config.gid, config.mode) == (12, 34, 0o444)
    assert (config.retain, config.segment) == (1 << 20, 128 << 10)
    assert (config.sim_seed, config.sim_rate, config.replay_rate) == (7, 0.5, 100.0)
    assert config.log == "/var/log/z"
    assert config.sim_scenario == "storm"


def test_a_later_option_wins_over_an_earlier_one() -> None:
    config = options("ro,mode=444", "rw,mode=400")
    assert not config.ro
    assert config.mode == 0o400


def test_users_and_groups_may_be_named() -> None:
    user, group = pwd.getpwuid(0), grp.getgrgid(0)
    config = options(f"uid={user.pw_name},gid={group.gr_name}")
    assert (config.uid, config.gid) == (0, 0)


@pytest.mark.parametrize(
    "words",
    [
        "defaults,auto,noauto,user,users,nofail,_netdev,exec,nosuid,dev,noatime,relatime",
        "x-systemd.automount,X-mount.mkdir,comment=anything,user=joe",
        "",
        ",, ",
    ],
)
def test_what_mount_passes_to_every_helper_means_nothing_here(words: str) -> None:
    assert options(words) == options()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("bogus", "unknown option: bogus"),
        ("bogus=1", "unknown option: bogus=1"),
        ("retain", "option retain needs a value"),
        ("ro=1", "option ro takes no value"),
        ("uid=no-such-user", "names no user"),
        ("uid=4294967295", "names no user"),
        ("gid=no-such-group", "names no group"),
        ("mode=8", "octal"),
        ("mode=1777", "octal"),
        ("mode=-1", "octal"),
        ("retain=big", "is no size"),
        ("retain=1T", "is no size"),
        ("retain=1K", "out of range"),
        ("retain=65G", "out of range"),
        ("segment=63K", "out of range"),
        ("retain=1M,segment=2M", "more than retain"),
        ("retain=1G,segment=1M", "at most 256 segments"),
        ("sim.seed=-1", "is no seed"),
        ("sim.seed=18446744073709551616", "is no seed"),
        ("sim.rate=fast", "is no rate"),
        ("sim.scenario=quux", "there is no scenario 'quux': checksums, dying, "),
        ("sim.scenario=/nowhere/quux", "there is no such file"),
        ("sim.rate=nan", "is no rate"),
        ("sim.rate=-1", "is no rate"),
        ("replay.rate=inf", "is no rate"),
        ("log=relative", "is no place to log to"),
    ],
)
def test_what_cant_be_done_is_refused_in_one_sentence(words: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence) as refusal:
        options(words)
    assert "\n" not in str(refusal.value)


def test_sloppily_unknown_options_are_passed_over_but_not_wrong_values() -> None:
    assert options("bogus,ro=1", sloppy=True) == options()
    with pytest.raises(Invalid):
        options("retain=big", sloppy=True)


def test_a_small_queue_still_has_segments_of_64_kib() -> None:
    config = options("retain=64K")
    assert (config.retain, config.segment) == (65536, 65536)


def test_the_log_is_stderr_in_the_foreground() -> None:
    assert parse("sim", "/mnt", foreground=True).log == "stderr"


@pytest.mark.parametrize(("there", "expected"), [(True, "syslog"), (False, "/run/x/log")])
def test_the_log_is_syslog_in_the_background_or_beside_the_state_without_one(
    monkeypatch: pytest.MonkeyPatch, *, there: bool, expected: str
) -> None:
    monkeypatch.setattr(module, "runtime_directory", lambda _: Path("/run/x"))
    monkeypatch.setattr(Path, "exists", lambda _: there)
    assert options().log == expected


def test_auto_is_what_the_host_has_or_else_the_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAPDISK_DIR", str(tmp_path / "blktap-control"))
    monkeypatch.setattr(kernel, "answers", lambda: False)
    monkeypatch.setattr(dm, "answers", lambda: False)
    assert parse_sources("auto") == ("sim",)
    (tmp_path / "blktap-control").mkdir()
    assert parse_sources("auto") == ("tapdisk",)
    monkeypatch.setattr(kernel, "answers", lambda: True)
    monkeypatch.setattr(dm, "answers", lambda: True)
    assert parse_sources("auto") == ("zfs", "tapdisk", "dm")
    assert parse_sources("sim+tapdisk") == ("sim", "tapdisk")


def test_tapdisks_are_watched_every_second_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    config = parse("tapdisk", tmp_path)
    assert config.tapdisk_dir == "/run/blktap-control"
    assert (config.tapdisk_poll, config.tapdisk_control) == (1.0, False)
    config = parse("tapdisk", tmp_path, ["tapdisk.dir=/a//b/,tapdisk.poll=0.5"])
    assert (config.tapdisk_dir, config.tapdisk_poll) == ("/a/b", 0.5)


def test_who_steers_tapdisks_has_a_program_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPDISK", "sh")
    assert parse("tapdisk", tmp_path, ["tapdisk.control"]).tapdisk_control
    with pytest.raises(Invalid, match="for source tapdisk"):
        parse("sim", tmp_path, ["tapdisk.control"])
    monkeypatch.setenv("TAPDISK", "no-such-program")
    with pytest.raises(Invalid, match="no program 'no-such-program'"):
        parse("tapdisk", tmp_path, ["tapdisk.control"])


@pytest.mark.parametrize(
    "option",
    [
        "tapdisk.dir=",
        "tapdisk.dir=relative",
        "tapdisk.dir=/" + "x" * 90,
        "tapdisk.dir=/a\0b",
        "tapdisk.poll=0",
        "tapdisk.poll=nan",
        "tapdisk.poll=often",
        "tapdisk.poll=3601",
        "tapdisk.control=yes",
        "tapdisk.poll",
    ],
)
def test_an_option_of_tapdisks_that_makes_no_sense_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(Invalid, match=r"tapdisk\."):
        parse("tapdisk", tmp_path, [option])


def test_sources_are_joined_with_plus_and_replayed_files_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a+b.jsonl"
    file.touch()
    monkeypatch.chdir(tmp_path)
    assert parse_sources("sim+replay:a+b.jsonl") == ("sim", f"replay:{file}")
    assert parse_sources("replay:a+b.jsonl+sim") == (f"replay:{file}", "sim")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("sim+sim", "named twice"),
        ("auto+sim", "named twice"),
        ("", "unknown source"),
        ("sim+", "unknown source"),
        ("bogus", "unknown source"),
        ("replay", "unknown source"),
        ("replay:", "needs a file's name"),
        ("replay:/no/such/file", "no such file"),
        ("replay:/tmp", "no regular file"),
    ],
)
def test_a_source_that_cant_be_read_is_refused(source: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        parse_sources(source)


def test_a_file_that_may_not_be_read_is_not_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(Invalid, match="not permitted"):
        parse_sources(f"replay:{file}")


def test_a_mountpoint_is_absolute_through_all_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real" / "mnt").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "point").symlink_to("link/mnt")
    monkeypatch.chdir(tmp_path)
    expected = tmp_path / "real" / "mnt"
    for name in ("real/mnt", "link/mnt/", "point", "real/../real/mnt", str(expected)):
        assert mountpoint_path(name) == expected
    monkeypatch.chdir(expected)
    assert mountpoint_path(".") == expected
    assert mountpoint_path("..") == expected.parent
    assert mountpoint_path("/") == Path("/")


def test_a_mountpoint_that_isnt_there_still_has_a_path(tmp_path: Path) -> None:
    assert mountpoint_path(tmp_path / "missing") == tmp_path / "missing"


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_mountpoint_needs_a_name(name: str) -> None:
    with pytest.raises(Invalid, match="empty or holds a NUL"):
        mountpoint_path(name)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Invalid, match="too many symbolic links"):
        mountpoint_path(tmp_path / "a")


def test_resolving_a_mountpoint_asks_it_only_for_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    asked: list[str] = []
    lstat = os.lstat

    def noted(path: str | bytes | os.PathLike[str], **keywords: int) -> os.stat_result:
        asked.append(os.fspath(path) if not isinstance(path, bytes) else os.fsdecode(path))
        return lstat(path, **keywords)

    monkeypatch.setattr(os, "lstat", noted)
    monkeypatch.setattr(os, "stat", noted)
    mountpoint_path(point)
    assert str(tmp_path) in asked
    assert str(point) not in asked


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "-"),
        ("/mnt", "mnt"),
        ("/srv/a-b", "srv-a\\x2db"),
        ("/.hidden/x.y", "\\x2ehidden-x.y"),
        ("/a b/\xe9:_", "a\\x20b-\\xc3\\xa9:_"),
        ("/back\\slash~", "back\\x5cslash\\x7e"),
    ],
)
def test_paths_are_escaped_as_systemd_does(path: str, name: str) -> None:
    assert escape_path(Path(path)) == name


def test_a_long_path_is_a_legal_name_and_still_its_own() -> None:
    one, other = (escape_path(Path("/" + "d/" * 300 + last)) for last in "xy")
    assert len(one) == len(other) == 255
    assert one != other
    assert one.rpartition("~")[0] == other.rpartition("~")[0]


@pytest.mark.parametrize(
    ("uid", "environ", "base"),
    [
        (0, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/zeventfs"),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/zeventfs"),
        (1000, {"XDG_RUNTIME_DIR": "relative"}, "/tmp/zeventfs-1000"),
        (1000, {}, "/tmp/zeventfs-1000"),
    ],
)
def test_runtime_directories_are_roots_or_the_users(
    uid: int, environ: dict[str, str], base: str
) -> None:
    assert runtime_base(uid, environ) == Path(base)


@pytest.mark.parametrize("points", [("/mnt/a", "/mnt/a/b", "/mnt-a")])
def test_each_mountpoint_has_a_runtime_directory_of_its_own(points: Sequence[str]) -> None:
    assert len({runtime_directory(Path(point)) for point in points}) == len(points)


def test_a_scenario_may_be_a_file(tmp_path: Path) -> None:
    story = tmp_path / "story.json"
    story.write_text(
        '{"pools": {"tank": {"disks": ["/dev/a"]}}, "opening": [{"acts": [{"act": "clear"}]}]}'
    )
    assert options(f"sim.scenario={story}").sim_scenario == str(story)
    story.write_text('{"pools": {}}')
    with pytest.raises(Invalid, match=r"scenario '.*story.json': Expected `object` of length >= 1"):
        options(f"sim.scenario={story}")
