"""The messages of /dev/mapper/control, both ways: what is asked, and what is answered.

Layouts: struct dm_ioctl, dm_name_list and dm_target_spec of include/uapi/linux/dm-ioctl.h, filled
in as drivers/md/dm-ioctl.c does. An answer that can't be so is Malformed, and nothing else is
raised of it. A table's keys never leave the buffer: they are blanked in it, as dmsetup shows them.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from zeventfs.dm.facts import DeviceFacts, TargetFacts
from zeventfs.errors import Malformed

__all__ = [
    "HEAD_SIZE",
    "INTERFACE",
    "LARGEST",
    "Command",
    "Flag",
    "Head",
    "Listed",
    "Target",
    "Version",
    "answer",
    "ask",
    "facts",
    "read_devices",
    "read_head",
    "read_targets",
    "read_version",
    "write_devices",
    "write_targets",
]

_HEAD: Final = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")  # struct dm_ioctl
_NAME_HEAD: Final = struct.Struct("=QI")  # struct dm_name_list before its name
_NAME_TAIL: Final = struct.Struct("=II")  # event number and flags behind the name, since 4.37
_SPEC: Final = struct.Struct("=QQiI16s")  # struct dm_target_spec
_ALIGN: Final = 8
_NAME_MOST: Final = 127
_UUID_MOST: Final = 128
_KIND_MOST: Final = 15
_HAS_UUID: Final = 1  # DM_NAME_LIST_FLAG_HAS_UUID
_NO_UUID: Final = 2  # DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID

HEAD_SIZE: Final = _HEAD.size
LARGEST: Final = 16 << 20
"""Bytes of the largest buffer that is worth asking with: a table of 100,000 targets."""


class Version(NamedTuple):
    """Of the interface. Another major is another interface; minors only add to it."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


INTERFACE: Final = Version(4, 0, 0)
"""What is asked for: every kernel whose major it is answers, with a version of its own."""

_EVENTS: Final = Version(4, 37, 0)  # since which DM_DEV_ARM_POLL is there, Linux 4.14


def _iowr(number: int) -> int:
    return 3 << 30 | HEAD_SIZE << 16 | 0xFD << 8 | number


class Command(IntEnum):
    """The requests' numbers for ioctl(2)."""

    VERSION = _iowr(0)
    LIST_DEVICES = _iowr(2)
    DEV_STATUS = _iowr(7)
    TABLE_STATUS = _iowr(12)
    DEV_ARM_POLL = _iowr(16)


class Flag(IntFlag):
    """`flags` of what is asked and answered."""

    READONLY = 1 << 0
    SUSPEND = 1 << 1
    STATUS_TABLE = 1 << 4
    ACTIVE_PRESENT = 1 << 5
    INACTIVE_PRESENT = 1 << 6
    BUFFER_FULL = 1 << 8
    NOFLUSH = 1 << 11
    UUID = 1 << 14
    SECURE_DATA = 1 << 15


_NOTHING: Final = Flag(0)


class Head(NamedTuple):
    """A struct dm_ioctl; `dev` is a device number as of os.makedev, 0 for none."""

    version: Version = INTERFACE
    data_size: int = HEAD_SIZE
    data_start: int = HEAD_SIZE
    target_count: int = 0
    open_count: int = 0
    flags: Flag = _NOTHING
    event_nr: int = 0
    dev: int = 0
    name: str = ""
    uuid: str = ""

    @property
    def full(self) -> bool:
        """Whether the buffer was too small for the answer."""
        return bool(self.flags & Flag.BUFFER_FULL)


class Listed(NamedTuple):
    """A device of DM_LIST_DEVICES; None is what kernels before 4.37 (and 4.42) don't tell."""

    dev: int
    name: str
    event_nr: int | None = None
    uuid: str | None = None


class Target(NamedTuple):
    """A target of DM_TABLE_STATUS: its status or, asked for with STATUS_TABLE, its table line."""

    start: int
    length: int
    kind: str
    params: str


# Asking


def ask(
    size: int, *, dev: int = 0, flags: Flag = _NOTHING, version: Version = INTERFACE
) -> bytearray:
    """A buffer of *size* bytes that asks of device *dev*, or of none."""
    buffer = bytearray(size)
    _HEAD.pack_into(buffer, 0, *version, size, HEAD_SIZE, 0, 0, flags, 0, 0, dev, b"", b"")
    return buffer


def read_head(buffer: bytes | bytearray) -> Head:
    """The head of what is asked or answered. Raises Malformed."""
    if len(buffer) < HEAD_SIZE:
        raise Malformed(f"{len(buffer)} bytes are no dm_ioctl, which has {HEAD_SIZE}")
    (major, minor, patch, data_size, data_start, *numbers, _, dev, name, uuid) = _HEAD.unpack_from(
        buffer
    )
    targets, opened, flags, event_nr = numbers
    version = Version(major, minor, patch)
    if major != INTERFACE.major:
        raise Malformed(f"the interface is of version {version}, and not {INTERFACE.major}.x")
    return Head(
        version,
        data_size,
        data_start,
        targets,
        opened,
        Flag(flags),
        event_nr,
        dev,
        _text(name, "name"),
        _text(uuid, "uuid"),
    )


def read_version(buffer: bytes | bytearray) -> Version:
    """What DM_VERSION has answered. Raises Malformed for one that doesn't tell of events."""
    version = read_head(buffer).version
    if version < _EVENTS:
        raise Malformed(
            f"the interface is of version {version}, and tells events from {_EVENTS} on"
        )
    return version


def read_devices(buffer: bytes | bytearray) -> list[Listed]:
    """What DM_LIST_DEVICES has answered. Raises Malformed; the caller has seen to `full`."""
    head = read_head(buffer)
    data = _data(buffer, head)
    if len(data) < _NAME_HEAD.size or not _NAME_HEAD.unpack_from(data)[0]:
        return []
    found: list[Listed] = []
    at = 0
    while True:
        if at + _NAME_HEAD.size > len(data):
            raise Malformed(f"device {len(found)} of the list begins behind its end")
        dev, following = _NAME_HEAD.unpack_from(data, at)
        end = at + following if following else len(data)
        if end > len(data):
            raise Malformed(f"device {len(found)} of the list ends behind the list")
        found.append(_listed(dev, data[at:end], head))
        if not following:
            return found
        at = end


def _listed(dev: int, entry: bytes, head: Head) -> Listed:
    name = _text(entry[_NAME_HEAD.size :], "name")
    at = _aligned(_NAME_HEAD.size + len(_bytes(name)) + 1)
    if head.version.minor < 37 or at + _NAME_TAIL.size > len(entry):
        return Listed(dev, name)
    event_nr, flags = _NAME_TAIL.unpack_from(entry, at)
    uuid = None
    if flags & _HAS_UUID:
        uuid = _text(entry[at + _NAME_TAIL.size :], "uuid")
    elif flags & _NO_UUID:
        uuid = ""
    return Listed(dev, name, event_nr, uuid)


def read_targets(buffer: bytearray) -> tuple[Target, ...]:
    """What DM_TABLE_STATUS has answered; keys are blanked in *buffer* too. Raises Malformed."""
    head = read_head(buffer)
    size = len(_data(buffer, head))
    found: list[Target] = []
    at = 0
    while len(found) < head.target_count:
        if at + _SPEC.size > size:
            raise Malformed(f"target {len(found)} of {head.target_count} begins behind the end")
        begin = head.data_start + at
        start, length, _, following, kind = _SPEC.unpack_from(buffer, begin)
        begin += _SPEC.size
        end = buffer.find(0, begin, head.data_start + size)
        if end < 0:
            raise Malformed(f"the parameters of target {len(found)} have no end")
        name = _text(kind, "kind")
        _blank_keys(name, buffer, begin, end)
        found.append(
            Target(start, length, name, str(buffer[begin:end], "utf-8", "surrogateescape"))
        )
        if following < at + _SPEC.size and len(found) < head.target_count:
            raise Malformed(f"target {len(found)} does not stand behind the one before it")
        at = following
    return tuple(found)


def facts(head: Head, statuses: tuple[Target, ...], tables: tuple[Target, ...]) -> DeviceFacts:
    """How a device stands, of an answer's head and targets, with and without STATUS_TABLE.

    Raises Malformed where these are of different tables: it was changed in between.
    """
    if [target[:3] for target in statuses] != [target[:3] for target in tables]:
        raise Malformed("statuses and tables are of different targets")
    return DeviceFacts(
        name=head.name,
        uuid=head.uuid,
        major=os.major(head.dev),
        minor=os.minor(head.dev),
        suspended=bool(head.flags & Flag.SUSPEND),
        live=bool(head.flags & Flag.ACTIVE_PRESENT),
        inactive=bool(head.flags & Flag.INACTIVE_PRESENT),
        read_only=bool(head.flags & Flag.READONLY),
        event_nr=head.event_nr,
        open_count=head.open_count,
        targets=tuple(
            TargetFacts(status.start, status.length, status.kind, table.params, status.params)
            for status, table in zip(statuses, tables, strict=True)
        ),
    )


def _data(buffer: bytes | bytearray, head: Head) -> bytes:
    if not HEAD_SIZE <= head.data_start <= len(buffer) or head.data_size > len(buffer):
        raise Malformed(
            f"the answer stands at {head.data_start} to {head.data_size} of {len(buffer)} bytes"
        )
    return bytes(buffer[head.data_start : head.data_size])


def _text(field: bytes, what: str) -> str:
    text, nul, _ = field.partition(b"\0")
    if not nul:
        raise Malformed(f"a {what} has no end")
    return str(text, "utf-8", "surrogateescape")


def _blank_keys(kind: str, buffer: bytearray, begin: int, end: int) -> None:
    """Overwrite the keys in a target's table line, be they an algorithm's: dmsetup shows those."""
    if kind not in _KEYS:
        return
    at = begin
    for number, word in enumerate(bytes(buffer[begin:end]).split(b" ")):
        if kind == "crypt" and number == 1 and not word.startswith(b":"):  # that is a keyring's
            buffer[at : at + len(word)] = b"0" * len(word)
        elif kind == "integrity" and word.startswith(_ALGORITHMS) and word.count(b":") > 1:
            key = len(word) - word.index(b":", word.index(b":") + 1) - 1
            buffer[at + len(word) - key : at + len(word)] = b"0" * key
        at += len(word) + 1


_KEYS: Final = frozenset({"crypt", "integrity"})
_ALGORITHMS: Final = (b"internal_hash:", b"journal_crypt:", b"journal_mac:")


# Answering


def answer(buffer: bytearray, head: Head, data: bytes = b"") -> None:
    """Fill in what was asked with *head* and *data*, or that it is too small for it."""
    flags, size = head.flags & ~Flag.BUFFER_FULL, HEAD_SIZE + len(data)
    if size > len(buffer):
        flags, size, data = flags | Flag.BUFFER_FULL, HEAD_SIZE, b""
    _HEAD.pack_into(
        buffer,
        0,
        *head.version,
        size,
        HEAD_SIZE,
        head.target_count,
        head.open_count,
        flags,
        head.event_nr,
        0,
        head.dev,
        _bytes(head.name)[:_NAME_MOST],
        _bytes(head.uuid)[:_UUID_MOST],
    )
    buffer[HEAD_SIZE:size] = data


def write_devices(devices: Iterable[Listed]) -> bytes:
    """The data of DM_LIST_DEVICES; uuids are told where they are not None."""
    entries = [bytes(_entry(device)) for device in devices]
    for at, entry in enumerate(entries[:-1]):
        entries[at] = entry[:8] + struct.pack("=I", len(entry)) + entry[12:]
    return b"".join(entries)


def _entry(device: Listed) -> Iterator[int]:
    yield from _padded(_NAME_HEAD.pack(device.dev, 0) + _bytes(device.name) + b"\0")
    if device.event_nr is None:
        return
    flags = 0 if device.uuid is None else _HAS_UUID if device.uuid else _NO_UUID
    yield from _NAME_TAIL.pack(device.event_nr, flags)
    if device.uuid:
        yield from _padded(_bytes(device.uuid) + b"\0")


def write_targets(targets: Iterable[Target]) -> bytes:
    """The data of DM_TABLE_STATUS."""
    data = bytearray()
    for target in targets:
        params = _padded(_bytes(target.params) + b"\0")
        following = len(data) + _SPEC.size + len(params)
        kind = _bytes(target.kind)[:_KIND_MOST]
        data += _SPEC.pack(target.start, target.length, 0, following, kind) + params
    return bytes(data)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


def _padded(data: bytes) -> bytes:
    return data.ljust(_aligned(len(data)), b"\0")
