"""What is asked of a tapdisk, and what its answers say: bytes in, facts out.

A `Request` knows its message, how long the answer to it is once the first 544 bytes are there, and
how to read it. An answer is believed only if all that can be checked is right: type, cookie, the
numbering of a list, lengths, the NULs of texts. Anything else is `Lied`, with the reason.
The format is blktap's tapdisk-message.h; see `wire`.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, NamedTuple, TypeVar

from zeventfs.errors import Invalid, Malformed, ZeventfsError
from zeventfs.tapdisk import wire

__all__ = [
    "MAX_STATS",
    "Image",
    "Lied",
    "Listed",
    "Partial",
    "Refused",
    "Request",
    "TapdiskError",
    "ask_attach",
    "ask_close",
    "ask_detach",
    "ask_disk_info",
    "ask_force_shutdown",
    "ask_list",
    "ask_open",
    "ask_pause",
    "ask_pid",
    "ask_resume",
    "ask_stats",
    "control_pid",
    "marked_minor",
]

MAX_STATS: Final = 1 << 20  # bytes; tapdisk's own buffer is 32 KiB
_MAX_LISTED: Final = 0xFFFF  # a minor is 16 bits, and all ones means all
_MAX_PATH: Final = 255  # bytes, and a NUL

T = TypeVar("T")


class TapdiskError(ZeventfsError):
    """A tapdisk did not do as it was asked, or can't be asked."""


class Lied(TapdiskError, Malformed):
    """The answer can't be an answer to this request (EPROTO)."""


class Partial(Lied):
    """The connection ended within the answer, or before it (EPROTO)."""


class Refused(TapdiskError):
    """The answer was ERROR: `errno` is tapdisk's, `text` what it said to that, often nothing."""

    def __init__(self, number: int, text: str) -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(f"{name}: {text}" if text else name)
        self.errno = number
        self.text = text


class Image(NamedTuple):
    """An open image's size, in sectors of `sector_size` bytes, and its `info` bits."""

    sectors: int
    sector_size: int
    info: int


class Listed(NamedTuple):
    """A VBD as LIST shows it: `state` in the bits of `wire`; `path` is driver:path, or empty.

    `minor` is -1 for a VBD whose device has gone before its image.
    """

    minor: int
    state: int
    path: str


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request, and what the answer to it means.

    Of orders, tapdisk carries out one at a time; the others, questions, it answers meanwhile.
    """

    kind: int
    cookie: int
    message: bytes
    read: Callable[[bytes], T]

    @property
    def name(self) -> str:
        """What the request is called."""
        return wire.NAMES[self.kind]

    @property
    def order(self) -> bool:
        """Whether this has to wait for the orders before it."""
        return self.kind not in wire.QUESTIONS

    def size(self, head: bytes) -> int:
        """How many bytes the answer has that begins with the 544 bytes *head*. Raises Lied."""
        kind, cookie = wire.HEAD.unpack_from(head)
        if kind == wire.ERROR:
            # What tapdisk rejects before it has looked at the cookie, it answers with 0.
            if cookie not in {self.cookie, 0}:
                raise Lied(f"ERROR is for minor {cookie}, not {self.cookie}")
            return wire.SIZE
        if kind != wire.reply_type(self.kind):
            raise Lied(f"the answer to {self.name} is of type {kind}")
        if cookie != self.cookie:
            raise Lied(f"the answer is for minor {cookie}, not {self.cookie}")
        if self.kind == wire.LIST:
            return wire.SIZE * (_count(head) + 1)
        if self.kind == wire.STATS:
            return wire.SIZE + _length(head)
        return wire.SIZE

    def answer(self, reply: bytes) -> T:
        """What the whole *reply* says. Raises Refused, Partial or Lied."""
        size = self.size(reply) if len(reply) >= wire.SIZE else wire.SIZE
        if len(reply) < size:
            raise Partial(f"the answer ends after {len(reply)} of {size} bytes")
        if len(reply) > size:
            raise Lied(f"the answer goes on after its {size} bytes")
        if wire.HEAD.unpack_from(reply)[0] == wire.ERROR:
            raise _refusal(reply)
        return self.read(reply)


# Requests


def ask_pid() -> Request[int]:
    """Ask who answers."""
    return Request(wire.PID, 0, wire.encode_message(wire.PID, 0), _read_pid)


def ask_list() -> Request[tuple[Listed, ...]]:
    """Ask which VBDs there are."""
    message = wire.encode_message(wire.LIST, wire.ALL)
    return Request(wire.LIST, wire.ALL, message, _read_list)


def ask_stats(minor: int) -> Request[bytes]:
    """Ask what VBD *minor* has done. The answer is JSON, or nearly; see `stats`.

    All minors at once can't be asked for: that crashes some tapdisks.
    """
    message = wire.encode_message(wire.STATS, _checked(minor))
    return Request(wire.STATS, minor, message, _read_stats)


def ask_disk_info(minor: int) -> Request[Image]:
    """Ask how large the image of *minor* is."""
    message = wire.encode_message(wire.DISK_INFO, _checked(minor))
    return Request(wire.DISK_INFO, minor, message, _read_image)


def ask_attach(minor: int) -> Request[None]:
    """Make a VBD for *minor*, whose marker must be there."""
    return _order(wire.ATTACH, minor)


def ask_open(minor: int, image: str, flags: int = 0, req_timeout: int = 0) -> Request[Image]:
    """Open *image* (driver:path), its requests to be tried for *req_timeout* seconds, 0: 120."""
    message = wire.encode_params(
        wire.OPEN, _checked(minor), _image_bytes(image), flags, req_timeout
    )
    return Request(wire.OPEN, minor, message, _read_image)


def ask_pause(minor: int) -> Request[None]:
    """Finish what is under way, then let go of the image."""
    return _order(wire.PAUSE, minor)


def ask_resume(minor: int, image: str = "") -> Request[None]:
    """Open the image again, or *image* instead of it, and go on."""
    path = _image_bytes(image) if image else b""
    message = wire.encode_params(wire.RESUME, _checked(minor), path)
    return Request(wire.RESUME, minor, message, _read_nothing)


def ask_close(minor: int) -> Request[None]:
    """Finish what is under way, then close the image."""
    return _order(wire.CLOSE, minor)


def ask_detach(minor: int) -> Request[None]:
    """Let go of the device; a tapdisk without any ends."""
    return _order(wire.DETACH, minor)


def ask_force_shutdown(minor: int) -> Request[None]:
    """Close the image and wait for nothing."""
    return _order(wire.FORCE_SHUTDOWN, minor)


def _order(kind: int, minor: int) -> Request[None]:
    return Request(kind, minor, wire.encode_message(kind, _checked(minor)), _read_nothing)


def _checked(minor: int) -> int:
    if not 0 <= minor < wire.ALL:
        raise Invalid(f"there can be no minor {minor}")
    return minor


def _image_bytes(image: str) -> bytes:
    path = os.fsencode(image)
    driver, colon, rest = path.partition(b":")
    if not (driver and colon and rest):
        raise Invalid(f"an image is driver:path, not {image[:60]!r}")
    if b"\0" in path or len(path) > _MAX_PATH:
        raise Invalid(f"an image's name has at most {_MAX_PATH} bytes, none of them NUL")
    return path


# Names in the control directory


def control_pid(name: str) -> int | None:
    """The pid of the tapdisk whose control socket is called *name*, None if that is none."""
    return _number(name, "ctl")


def marked_minor(name: str) -> int | None:
    """The minor that the marker *name* says is taken, None if that is no marker."""
    return _number(name, "tapdisk-")


def _number(name: str, prefix: str) -> int | None:
    digits = name.removeprefix(prefix)
    if digits == name or not (digits.isascii() and digits.isdecimal()) or len(digits) > 10:
        return None
    return int(digits) if str(int(digits)) == digits else None


# Answers


def _read_nothing(reply: bytes) -> None:
    del reply


def _read_pid(reply: bytes) -> int:
    pid: int = wire.PID_BODY.unpack_from(reply, 8)[0]
    if pid <= 0:
        raise Lied(f"no process has the number {pid}")
    return pid


def _read_image(reply: bytes) -> Image:
    return Image(*wire.IMAGE.unpack_from(reply, 8))


def _read_stats(reply: bytes) -> bytes:
    return reply[wire.SIZE :]


@lru_cache(1024)  # who polls gets the same bytes from the same tapdisk time after time
def _read_list(reply: bytes) -> tuple[Listed, ...]:
    messages = [reply[at : at + wire.SIZE] for at in range(0, len(reply), wire.SIZE)]
    for number, message in enumerate(reversed(messages)):
        kind, cookie = wire.HEAD.unpack_from(message)
        if (kind, cookie, _count(message)) != (wire.LIST + 1, wire.ALL, number):
            raise Lied(f"a list's message with {number} to go says {kind}, {cookie:#x}")
    return tuple(_read_listed(message) for message in messages[:-1])


def _read_listed(message: bytes) -> Listed:
    _, minor, state, path = wire.LIST_BODY.unpack_from(message, 8)
    if not -1 <= minor < wire.ALL:
        raise Lied(f"there can be no minor {minor}")
    return Listed(minor, state, os.fsdecode(_text(path, "path")))


def _refusal(reply: bytes) -> TapdiskError:
    number, text = wire.ERROR_BODY.unpack_from(reply, 8)
    if number <= 0:
        return Lied(f"there is no error {number}")
    return Refused(number, _text(text, "text").decode(errors="backslashreplace"))


def _count(message: bytes) -> int:
    count: int = wire.LIST_BODY.unpack_from(message, 8)[0]
    if not 0 <= count <= _MAX_LISTED:
        raise Lied(f"there can't be {count} VBDs")
    return count


def _length(head: bytes) -> int:
    length: int = wire.LENGTH.unpack_from(head, 16)[0]
    if length > MAX_STATS:
        raise Lied(f"statistics of {length} bytes are too long")
    return length


def _text(field: bytes, name: str) -> bytes:
    text, nul, _ = field.partition(b"\0")
    if not nul:
        raise Lied(f"the {name} has no NUL in its {len(field)} bytes")
    return text
