"""One datagram of the kernel's uevent group as facts; what is no such datagram is Malformed.

"ACTION@DEVPATH", then KEY=VALUE, each ended by a NUL (lib/kobject_uevent.c); a mapped device's own
keys are those of drivers/md/dm-uevent.c and dm.c. Of all other devices only the SEQNUM is of
interest, for it counts over all of them.
"""

import re
from typing import Final, NamedTuple

from zeventfs.errors import Malformed

__all__ = ["LONGEST", "PathAction", "Uevent", "parse"]

LONGEST: Final = 8192
"""Bytes: more than the kernel's environment of 2,048 and a header; no datagram is longer."""

_OF_DM: Final = re.compile(rb"@/devices/virtual/block/dm-\d+\0")
_HEAD: Final = re.compile(rb"([a-z]+)@(/[^\0]*)\0")
_SEQNUM: Final = re.compile(rb"\0SEQNUM=(\d{1,20})\0")
_DEV: Final = re.compile(r"\d{1,10}:\d{1,10}")
_UDEV: Final = b"libudev\0"
_MAJOR: Final = 2**12 - 1  # MINORBITS of kdev_t.h
_MINOR: Final = 2**20 - 1
_U32: Final = 2**32 - 1
_U64: Final = 2**64 - 1


class PathAction(NamedTuple):
    """What a multipath target tells of one of its paths."""

    failed: bool
    """PATH_FAILED; else PATH_REINSTATED."""
    number: int
    """DM_SEQNUM: counts the device's own, from 1."""
    path: str
    """DM_PATH, major:minor."""
    valid_paths: int
    """DM_NR_VALID_PATHS: how many are left."""
    name: str
    uuid: str


class Uevent(NamedTuple):
    """One uevent. Of a device that is not mapped, only action, devpath and seqnum are told."""

    action: str
    """One word: add, change, remove, and others."""
    devpath: str
    seqnum: int
    dev: str | None = None
    """major:minor of a mapped device; None: of some other."""
    diskseq: int | None = None
    """DISKSEQ (since 5.15): which disk it is, never another's, even if dev is used again."""
    cookie: bool = False
    """DM_COOKIE: told by an ioctl that resumed, renamed or removed the device."""
    synthetic: bool = False
    """Asked for through sysfs, as udev does after a writer; nothing has happened."""
    read_only: bool = False
    """DISK_RO=1: the disk is read-only from now on."""
    path: PathAction | None = None


def parse(datagram: bytes) -> Uevent:
    """Raises Malformed for what is no uevent of the kernel; udev's own to its clients are none."""
    if datagram.startswith(_UDEV):
        raise Malformed("a datagram of udev's, not of the kernel's")
    if len(datagram) > LONGEST:
        raise Malformed(f"a uevent of {len(datagram)} bytes")
    if not datagram.endswith(b"\0"):
        raise Malformed("a uevent without its end")
    head = _HEAD.match(datagram)
    if head is None:
        raise Malformed(f"a uevent that begins with {datagram[:60]!r}")
    action, devpath = (_text(part) for part in head.groups())
    if _OF_DM.match(datagram, head.end(1)) is None:
        return Uevent(action, devpath, _seqnum(datagram))
    keys = _keys(datagram[head.end() : -1])
    if (keys.get("ACTION"), keys.get("DEVPATH")) != (action, devpath):
        raise Malformed("a uevent whose keys are not of its header")
    return Uevent(
        action,
        devpath,
        _number(keys, "SEQNUM", _U64),
        f"{_number(keys, 'MAJOR', _MAJOR)}:{_number(keys, 'MINOR', _MINOR)}",
        _number(keys, "DISKSEQ", _U64) if "DISKSEQ" in keys else None,
        "DM_COOKIE" in keys,
        "SYNTH_UUID" in keys,
        keys.get("DISK_RO") == "1",
        _path(keys),
    )


def _seqnum(datagram: bytes) -> int:
    found = _SEQNUM.search(datagram)
    if found is None:
        raise Malformed("a uevent without a SEQNUM")
    number = int(found[1])
    if number > _U64:
        raise Malformed(f"SEQNUM is no number below 2^64: {number}")
    return number


def _keys(environment: bytes) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in _text(environment).split("\0")]
    for key, equals, _ in pairs:
        if not equals:
            raise Malformed(f"no KEY=VALUE in a uevent: {key[:60]!r}")
    return {key: value for key, _, value in pairs}


def _path(keys: dict[str, str]) -> PathAction | None:
    action = keys.get("DM_ACTION")
    if action not in ("PATH_FAILED", "PATH_REINSTATED"):
        return None
    path = keys.get("DM_PATH", "")
    if _DEV.fullmatch(path) is None:
        raise Malformed(f"DM_PATH is no major:minor: {path[:60]!r}")
    return PathAction(
        action == "PATH_FAILED",
        _number(keys, "DM_SEQNUM", _U32),
        path,
        _number(keys, "DM_NR_VALID_PATHS", _U32),
        keys.get("DM_NAME", ""),
        keys.get("DM_UUID", ""),
    )


def _number(keys: dict[str, str], key: str, most: int) -> int:
    text = keys.get(key, "")
    # int() is lenient with signs, blanks and other alphabets' digits
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= most):
        raise Malformed(f"{key} is no number to {most}: {text[:60]!r}")
    return int(text)


def _text(raw: bytes) -> str:
    return str(raw, "utf-8", "surrogateescape")
