"""Events recorded elsewhere, put into a device of their own as they are, their EIDs and times kept.

A recording is JSON lines whose `native` is a packed nvlist in base64, as tests/corpus/zevents.jsonl
(lines without it, such as a first one that says where it was taken, are passed over), or packed
nvlists, each after its length (u32, little endian), as events/log.nvl has them. It is read bit by
bit: it may be larger than memory, or a pipe.

zeventfs's own events in it (`zeventfs.gap` and the like) are passed over: they tell of the journal
that was recorded. What is missing between the others' EIDs is found missing again.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from zeventfs.errors import Invalid
from zeventfs.event import Event
from zeventfs.nvlist import Encoding, NvlistError, decode, encode
from zeventfs.simulator.ring import LEN_MAX, Ring

__all__ = ["MAX_LINE", "MAX_PACKED", "ReplayDevice", "open_replay"]

MAX_PACKED = 1 << 20  # bytes of one packed nvlist; the kernel's are at most 6,144
MAX_LINE = 4 << 20  # bytes of one JSON line

_OWN = "zeventfs."
_OWN_BYTES = _OWN.encode()


class ReplayDevice(Ring):
    """The device of one recording (zeventfs.sources.device.Device).

    *rate* is events a second, 0 = one right after the other. EIDs are the recording's: they may
    jump and begin again, and `seek` finds those that are queued.
    """

    def __init__(self, path: Path, rate: float = 0, *, len_max: int = LEN_MAX) -> None:
        super().__init__(len_max)
        self.path = path
        self.rate = rate

    def feed(self, packed: bytes) -> None:
        """Queue a recorded event, packed native, and call the subscribers; see Ring.put."""
        self.put(packed)

    def play(self) -> Iterator[float]:
        """Feed the recording; yield after each event for how many seconds to pause.

        The one who iterates does the waiting, so that this needs no event loop and no clock. Raises
        Invalid where the recording is bad, after what came before it was fed, and OSError.
        """
        pause = 1 / self.rate if self.rate else 0.0
        for packed in open_replay(self.path):
            self.feed(packed)
            yield pause


def open_replay(path: Path) -> Iterator[bytes]:
    """Yield the events of the recording at *path*, each as a packed native nvlist.

    What isn't native is packed anew; what is isn't decoded here, so that it is decoded once, by
    whoever reads it. Raises Invalid, naming the line or the offset in bytes, and OSError.
    """
    with path.open("rb") as file:
        start = file.read(4)
        # Four bytes of text are, as a length, larger than any that is taken.
        prefixed = len(start) == 4 and int.from_bytes(start, "little") <= MAX_PACKED
        recorded = _length_prefixed(file, start) if prefixed else _json_lines(file, start)
        for packed in recorded:
            # Hardly an event has the bytes anywhere, and so hardly one is decoded for its class.
            if _OWN_BYTES not in packed or not _is_own(packed):
                yield packed


def _is_own(packed: bytes) -> bool:
    try:
        return Event.from_packed("", packed).name.startswith(_OWN)
    except NvlistError:  # whoever reads it will see that too
        return False


def _length_prefixed(file: BinaryIO, length: bytes) -> Iterator[bytes]:
    """Yield the events of a recording whose first 4 bytes, a *length*, are already read."""
    offset = 0
    while length:
        size = int.from_bytes(length, "little")
        if len(length) < 4 or size > MAX_PACKED:
            raise Invalid(f"Offset {offset} has no length of an event, but {length.hex()}.")
        packed = file.read(size)
        if len(packed) < size:
            raise Invalid(f"Offset {offset} begins an event of {size} bytes, {len(packed)} follow.")
        yield _native(packed, f"Offset {offset}")
        offset += 4 + size
        length = file.read(4)


def _json_lines(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """Yield the events of a recording whose first bytes, *start*, are already read."""
    for number, line in enumerate(_lines(file, start), 1):
        if line.strip() and (native := _recorded(line, f"Line {number}")) is not None:
            yield _native(native, f"Line {number}")


def _lines(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    *whole, begun = start.split(b"\n")
    yield from whole
    while line := begun + file.readline(MAX_LINE + 1):
        yield line
        begun = b""


def _recorded(line: bytes, where: str) -> bytes | None:
    """Return the packed event of a JSON line, None when it has none."""
    if len(line) > MAX_LINE:
        raise Invalid(f"{where} is longer than {MAX_LINE} bytes.")
    try:
        recorded: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"{where} isn't JSON: {error}.") from None
    if not isinstance(recorded, dict):
        raise Invalid(f"{where} isn't an object.")
    if "native" not in recorded:
        return None
    try:
        return base64.b64decode(recorded["native"], validate=True)
    except (TypeError, ValueError) as error:  # binascii.Error is a ValueError
        raise Invalid(f"{where}: native isn't base64: {error}.") from None


def _native(packed: bytes, where: str) -> bytes:
    """Return *packed* as the kernel would have it."""
    if packed[:1] == bytes([Encoding.NATIVE]):
        return packed
    try:
        return encode(decode(packed))
    except NvlistError as error:
        raise Invalid(f"{where} has no nvlist: {error}.") from None
