"""What one mount is asked to be: SOURCE, MOUNTPOINT and `-o` options become a Config.

Whatever is accepted here can be carried out as it stands; whatever can't is refused with one
sentence, before anything is mounted. No path at or below the mountpoint is asked for anything that
its file system would have to answer: a stuck mount there must not hang its own `umount`.
"""

import grp
import hashlib
import math
import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from zeventfs.errors import Invalid

__all__ = [
    "Config",
    "escape_path",
    "mountpoint_path",
    "parse",
    "parse_sources",
    "read_sim_rate",
    "read_sim_seed",
    "runtime_base",
    "runtime_directory",
]

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

SEGMENT_LEAST: Final = 64 * KIB
SEGMENTS_MOST: Final = 256
RETAIN_LEAST: Final = SEGMENT_LEAST
RETAIN_MOST: Final = 64 * GIB
RATE_MOST: Final = 1_000_000.0
SEED_MOST: Final = (1 << 64) - 1
ID_MOST: Final = (1 << 32) - 2  # all ones means "no change" to chown(2)

NAME_MAX: Final = 255  # bytes of one file name, limits.h
TAPDISK_DIR: Final = "/run/blktap-control"
TAPDISK_DIR_MOST: Final = 90  # bytes: a control socket's name has 108 with its NUL, unix(7)
POLL_LEAST: Final = 0.1
POLL_MOST: Final = 3600.0
SYMLINKS_MOST: Final = 40  # as the kernel counts them, path_resolution(7)

# mount(8)'s own: those that it hands to every helper and that mean nothing to a read-only tree.
GENERIC: Final = frozenset(
    """
    async atime auto defaults dev diratime dirsync exec group iversion lazytime loud mand
    noatime noauto nodev nodiratime noexec nofail noiversion nolazytime nomand norelatime
    nostrictatime nosuid nosymfollow nouser owner relatime silent strictatime suid symfollow
    sync user users _netdev
    """.split()  # noqa: SIM905  # a paragraph reads better than forty quoted lines
)
GENERIC_PREFIXES: Final = ("x-", "X-", "comment=", "user=", "uhelper=", "helper=")

# A "+" joins sources only where one begins after it: a replayed file's name may hold others.
JOINT: Final = re.compile(r"\+(?=(?:auto|sim|zfs|tapdisk|dm)(?:\+|$)|replay:)")


@dataclass(frozen=True, slots=True)
class Config:
    """One mount, as asked for; paths are absolute, `retain` and `segment` in bytes.

    `sources` holds "sim", "zfs", "tapdisk", "dm" and "replay:/absolute/path", `auto` already
    resolved; rates are events a second, `tapdisk_poll` is in seconds; `sim_scenario` is a
    built-in's name or a file's absolute path; `mode` is the permission bits of a readable file;
    `log` is "stderr", "syslog" or the absolute path of a file. `runtime` is this mount's own
    directory for what must outlive a daemon; nobody has made it yet.
    """

    sources: tuple[str, ...]
    mountpoint: Path
    runtime: Path
    allow_other: bool
    ro: bool
    uid: int
    gid: int
    mode: int
    retain: int
    segment: int
    sim_seed: int
    sim_rate: float
    sim_scenario: str
    replay_rate: float
    tapdisk_dir: str
    tapdisk_poll: float
    tapdisk_control: bool
    mlock: bool
    log: str


def parse(
    source: str,
    mountpoint: str | os.PathLike[str],
    options: Iterable[str] = (),
    *,
    sloppy: bool = False,
    foreground: bool = False,
) -> Config:
    """The Config of `mount SOURCE MOUNTPOINT -o OPTIONS`, each of *options* one `-o`'s words.

    The caller's ids are the defaults of uid= and gid=; with *sloppy*, unknown options are passed
    over. Raises Invalid with a sentence for whatever can't be done.
    """
    path = mountpoint_path(mountpoint)
    runtime = runtime_directory(path)
    config = Config(
        sources=parse_sources(source),
        mountpoint=path,
        runtime=runtime,
        allow_other=False,
        ro=False,
        uid=os.getuid(),
        gid=os.getgid(),
        mode=0o440,
        retain=64 * MIB,
        segment=0,  # not given: settled below, when retain= is known
        sim_seed=0,
        sim_rate=2.0,
        sim_scenario="tank",
        replay_rate=0.0,
        tapdisk_dir=TAPDISK_DIR,
        tapdisk_poll=1.0,
        tapdisk_control=False,
        mlock=False,
        log="stderr" if foreground else _background_log(runtime),
    )
    for words in options:
        for option in words.split(","):
            config = _apply(config, option.strip(), sloppy=sloppy)
    return _settle_segment(_settle_control(config))


def _apply(config: Config, option: str, *, sloppy: bool) -> Config:
    """*config* after one more *option*; as in fstab, a later one of the same name wins."""
    key, equals, value = option.partition("=")
    if equals and key in VALUED:
        return VALUED[key](config, value)
    if key in VALUED:
        raise Invalid(f"option {key} needs a value: {key}=...")
    if option in FLAGS:
        return FLAGS[option](config)
    if not option or option in GENERIC or option.startswith(GENERIC_PREFIXES) or sloppy:
        return config
    if key in FLAGS:
        raise Invalid(f"option {key} takes no value")
    raise Invalid(f"unknown option: {option}")


def _settle_segment(config: Config) -> Config:
    if config.segment == 0:
        return replace(config, segment=max(SEGMENT_LEAST, config.retain // 8))
    if config.segment * SEGMENTS_MOST < config.retain:
        raise Invalid(
            f"segment={config.segment} is too little for retain={config.retain}: "
            f"at most {SEGMENTS_MOST} segments are kept, each an open file"
        )
    if config.segment > config.retain:
        raise Invalid(
            f"segment={config.segment} is more than retain={config.retain}: "
            "what is kept must hold a whole segment"
        )
    return config


def _settle_control(config: Config) -> Config:
    if config.tapdisk_control:
        if "tapdisk" not in config.sources:
            raise Invalid("tapdisk.control is for source tapdisk")
        program = os.environ.get("TAPDISK") or "tapdisk"
        if shutil.which(program) is None:
            raise Invalid(f"tapdisk.control: there is no program {program!r} (TAPDISK names one)")
    return config


def _background_log(runtime: Path) -> str:
    """Where a daemon without a terminal logs: syslog, or beside its state where there is none."""
    return "syslog" if Path("/dev/log").exists() else str(runtime / "log")


def _size(key: str, least: int, most: int) -> Callable[[str], int]:
    """Reads bytes, with K, M or G for powers of 1,024."""

    def read(value: str) -> int:
        match = re.fullmatch(r"([0-9]{1,18})([KMG]?)", value, re.ASCII)
        if match is None:
            raise Invalid(f"{key}={value} is no size: bytes, or a number with K, M or G")
        size = int(match[1]) * {"": 1, "K": KIB, "M": MIB, "G": GIB}[match[2]]
        if not least <= size <= most:
            raise Invalid(f"{key}={value} is out of range: {least} to {most} bytes")
        return size

    return read


def _rate(key: str) -> Callable[[str], float]:
    """Reads events a second."""

    def read(value: str) -> float:
        try:
            rate = float(value)
        except ValueError:
            rate = math.nan
        if not 0 <= rate <= RATE_MOST:
            raise Invalid(f"{key}={value} is no rate: 0 to {RATE_MOST:.0f} events a second")
        return rate

    return read


def _whole(value: str, most: int) -> int | None:
    """*value* as a decimal number of at most *most*, or None."""
    if re.fullmatch(r"[0-9]{1,20}", value, re.ASCII) and int(value) <= most:
        return int(value)
    return None


def read_sim_seed(value: str) -> int:
    """The seed that *value* says; Invalid when it says none."""
    seed = _whole(value, SEED_MOST)
    if seed is None:
        raise Invalid(f"sim.seed={value} is no seed: a number from 0 to {SEED_MOST}")
    return seed


def _read_uid(value: str) -> int:
    uid = _whole(value, ID_MOST)
    if uid is None:
        try:
            return pwd.getpwnam(value).pw_uid
        except KeyError:
            raise Invalid(f"uid={value} names no user of this host") from None
    return uid


def _read_gid(value: str) -> int:
    gid = _whole(value, ID_MOST)
    if gid is None:
        try:
            return grp.getgrnam(value).gr_gid
        except KeyError:
            raise Invalid(f"gid={value} names no group of this host") from None
    return gid


def _read_mode(value: str) -> int:
    if re.fullmatch(r"0*[0-7]{1,3}", value, re.ASCII) is None:
        raise Invalid(f"mode={value} is no mode: octal permission bits, 0 to 777")
    return int(value, 8)


def _read_log(value: str) -> str:
    if value in {"stderr", "syslog"} or value.startswith("/"):
        return value
    raise Invalid(f"log={value} is no place to log to: stderr, syslog or a file's absolute path")


def _read_tapdisk_dir(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise Invalid(f"tapdisk.dir={value} is no absolute path of a directory")
    if len(os.fsencode(value)) > TAPDISK_DIR_MOST:
        raise Invalid(f"tapdisk.dir={value} is too long: a socket in it has no more than 107 bytes")
    return os.path.normpath(value)


def _read_poll(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not POLL_LEAST <= seconds <= POLL_MOST:
        raise Invalid(f"tapdisk.poll={value}: from {POLL_LEAST} to {POLL_MOST:.0f} seconds")
    return seconds


def _read_scenario(value: str) -> str:
    from zeventfs.simulator.scenario import load  # noqa: PLC0415  # umount needs no JSON

    try:
        load(value)
    except Invalid as reason:
        raise Invalid(f"sim.scenario={value}: {reason}") from None
    return value


_read_retain = _size("retain", RETAIN_LEAST, RETAIN_MOST)
_read_segment = _size("segment", SEGMENT_LEAST, RETAIN_MOST)
read_sim_rate = _rate("sim.rate")
_read_replay_rate = _rate("replay.rate")

VALUED: Final[Mapping[str, Callable[[Config, str], Config]]] = {
    "uid": lambda config, value: replace(config, uid=_read_uid(value)),
    "gid": lambda config, value: replace(config, gid=_read_gid(value)),
    "mode": lambda config, value: replace(config, mode=_read_mode(value)),
    "retain": lambda config, value: replace(config, retain=_read_retain(value)),
    "segment": lambda config, value: replace(config, segment=_read_segment(value)),
    "sim.seed": lambda config, value: replace(config, sim_seed=read_sim_seed(value)),
    "sim.rate": lambda config, value: replace(config, sim_rate=read_sim_rate(value)),
    "sim.scenario": lambda config, value: replace(config, sim_scenario=_read_scenario(value)),
    "replay.rate": lambda config, value: replace(config, replay_rate=_read_replay_rate(value)),
    "tapdisk.dir": lambda config, value: replace(config, tapdisk_dir=_read_tapdisk_dir(value)),
    "tapdisk.poll": lambda config, value: replace(config, tapdisk_poll=_read_poll(value)),
    "log": lambda config, value: replace(config, log=_read_log(value)),
}
FLAGS: Final[Mapping[str, Callable[[Config], Config]]] = {
    "allow_other": lambda config: replace(config, allow_other=True),
    "ro": lambda config: replace(config, ro=True),
    "rw": lambda config: replace(config, ro=False),
    "tapdisk.control": lambda config: replace(config, tapdisk_control=True),
    "mlock": lambda config: replace(config, mlock=True),
}


def parse_sources(text: str) -> tuple[str, ...]:
    """The sources that SOURCE names, `auto` resolved and replayed files by their absolute paths.

    Raises Invalid for what is unknown, unreadable, or named twice.
    """
    sources = tuple(source for word in JOINT.split(text) for source in _sources(word))
    for source in sources:
        if sources.count(source) > 1:
            raise Invalid(f"source {source} is named twice")
    return sources


def _sources(word: str) -> tuple[str, ...]:
    kind, colon, file = word.partition(":")
    if word == "auto":
        return _hosts() or ("sim",)
    if word in {"sim", "zfs", "tapdisk", "dm"}:
        return (word,)
    if kind == "replay" and colon:
        return (f"replay:{_replayed(file)}",)
    raise Invalid(
        f"unknown source: {word!r} (auto, sim, zfs, tapdisk, dm or replay:FILE, joined with +)"
    )


def _hosts() -> tuple[str, ...]:
    """What this host has of its own, and lets us read."""
    from zeventfs.sources.dm import kernel as dm  # noqa: PLC0415  # umount asks no device
    from zeventfs.sources.kernel import module as zfs  # noqa: PLC0415  # nor this one

    there = {
        "zfs": zfs.answers(),
        "tapdisk": Path(TAPDISK_DIR).is_dir(),
        "dm": dm.answers(),
    }
    return tuple(source for source, is_there in there.items() if is_there)


def _replayed(file: str) -> str:
    if not file or "\0" in file:
        raise Invalid("replay: needs a file's name after it")
    path = Path(os.path.realpath(file))
    if not path.exists():
        raise Invalid(f"can't replay {file}: there is no such file")
    if not path.is_file():  # a pipe or a device could be read only once, and might never end
        raise Invalid(f"can't replay {file}: it is no regular file")
    if not os.access(path, os.R_OK):
        raise Invalid(f"can't replay {file}: reading it is not permitted")
    return str(path)


def mountpoint_path(mountpoint: str | os.PathLike[str]) -> Path:
    """*mountpoint* as the kernel lists it: absolute, through all symbolic links.

    Unlike realpath(3) this asks the last component nothing but readlink(2), which the kernel
    answers for a mounted file system's root by itself, even where its daemon is stuck.
    """
    path = os.fspath(mountpoint)
    if not path or "\0" in path:
        raise Invalid("the mountpoint's name is empty or holds a NUL")
    for _ in range(SYMLINKS_MOST):
        parent, name = os.path.split(path.rstrip("/"))
        if name in {"", ".", ".."}:
            return Path(os.path.realpath(path))
        resolved = Path(os.path.realpath(parent)) / name
        try:
            target = resolved.readlink()
        except OSError:  # no link, or nothing there: the mount will tell
            return resolved
        path = str(resolved.parent / target)
    raise Invalid(f"too many symbolic links at {mountpoint}")


def escape_path(path: Path) -> str:
    """*path* as one legal file name, as `systemd-escape --path` makes it (systemd.unit(5)).

    A name that would be too long for a file is cut and ends in "~" and a hash of the whole; "~"
    is in no other name.
    """
    stripped = os.fsencode(path).strip(b"/")
    if not stripped:
        return "-"
    words = []
    for at, byte in enumerate(stripped):
        char = chr(byte)
        if char == "/":
            words.append("-")
        elif char.isascii() and (char.isalnum() or char in ":_" or (char == "." and at > 0)):
            words.append(char)
        else:
            words.append(f"\\x{byte:02x}")
    name = "".join(words)
    if len(name) > NAME_MAX:
        digest = hashlib.blake2b(stripped, digest_size=16).hexdigest()
        return f"{name[: NAME_MAX - 1 - len(digest)]}~{digest}"
    return name


def runtime_base(uid: int, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the runtime directories of *uid*'s mounts are.

    /run/zeventfs for root; for a user, zeventfs under $XDG_RUNTIME_DIR if it is an absolute path,
    else /tmp/zeventfs-UID (whoever makes that must see that it is the user's own).
    """
    if uid == 0:
        return Path("/run/zeventfs")
    given = environ.get("XDG_RUNTIME_DIR", "")
    return Path(given) / "zeventfs" if given.startswith("/") else Path(f"/tmp/zeventfs-{uid}")  # noqa: S108  # its owner is checked when it is made


def runtime_directory(mountpoint: Path) -> Path:
    """The runtime directory of the caller's mount at *mountpoint* (from `mountpoint_path`)."""
    return runtime_base(os.geteuid()) / escape_path(mountpoint)
