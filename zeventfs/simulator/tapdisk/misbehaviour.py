"""What a simulated tapdisk can be told, one line at a time, and what it makes of its answers then.

    [REQUEST:] slow SECONDS     answer so much later
    [REQUEST:] silent           accept and never answer
    [REQUEST:] partial [BYTES]  answer so much of it, 100 bytes, and close
    [REQUEST:] wrong WHAT       the answer's type, cookie or size is not right; or all is garbage
    [REQUEST:] refuse ERRNO [TEXT ...]
    [REQUEST:] exit STATUS      now, or when that is asked
    [REQUEST:] stop             the same, with SIGSTOP
    io ok | stick | fail ERRNO  what becomes of guests' I/O
    rate REQUESTS               of each guest, a second; more than 10,000 it doesn't do
    well                        behave again, in everything but the rate
    show                        say how the VBDs stand

REQUEST is pid, list, stats, attach, open, pause, resume, close, detach, force_shutdown, disk_info,
or start: before it says that it is ready. Without one it is for all requests, but what is told of
one by its name goes before. An ERRNO is a name or a number.
"""

import errno

from zeventfs.errors import Invalid
from zeventfs.simulator.tapdisk.requests import STUCK
from zeventfs.tapdisk import wire

__all__ = ["HELD", "START", "Behaviour", "altered", "understand"]

START = "start"
HELD = frozenset({"slow", "silent", "exit", "stop"})  # these don't touch the answer's bytes
_OTHERS = frozenset({"io", "rate", "well", "show"})  # that are for no request
_WRONG = ("type", "cookie", "size", "garbage")
_IO = {"ok": 0, "stick": STUCK}
_PARTIAL = 100
_MOST = 1_000_000


class Behaviour:
    """A line understood: `number` is seconds, bytes, an errno, a status or a rate, by its name."""

    __slots__ = ("name", "number", "request", "text")

    def __init__(self, request: str, name: str, number: float = 0, text: str = "") -> None:
        self.request = request
        self.name = name
        self.number = number
        self.text = text


def understand(line: str) -> Behaviour:
    """What *line* tells. Raises Invalid with a sentence."""
    request, colon, rest = line.partition(":")
    request = request.strip()
    if not colon or " " in request:  # the colon is one of a text
        request, rest = "", line
    if request not in {"", START, *wire.NAMES.values()}:
        raise Invalid(f"there is no request {request[:40]!r}")
    name, *words = rest.split() or [""]
    if request and name in _OTHERS:
        raise Invalid(f"{name} is not for a request")
    if request == START and name not in HELD:
        raise Invalid(f"a start can only be {', '.join(sorted(HELD))}")
    try:
        return _understand(request, name, words)
    except (ValueError, IndexError):
        raise Invalid(f"can't understand {line.strip()[:60]!r}") from None


def _understand(request: str, name: str, words: list[str]) -> Behaviour:
    """Raises ValueError or IndexError for what is not as it should be."""
    text = ""
    number: float = 0
    if name in {"slow", "rate"}:
        number = _amount(words.pop(0))
    elif name == "partial":
        number = _whole(words.pop(0), wire.SIZE) if words else _PARTIAL
    elif name == "exit":
        number = _whole(words.pop(0), 256)
    elif name == "refuse":
        number, text = _errno(words.pop(0)), " ".join(words)
        words = []
    elif name == "wrong":
        text = _WRONG[_WRONG.index(words.pop(0))]
    elif name == "io":
        number = _io(words.pop(0), words)
    elif name not in {"silent", "stop", "well", "show"}:
        raise ValueError(name)
    if words:
        raise ValueError(name)
    return Behaviour(request, name, number, text)


def _whole(word: str, end: int) -> int:
    number = int(word)
    if not 0 <= number < end:
        raise ValueError(word)
    return number


def _amount(word: str) -> float:
    amount = float(word)
    if not 0 <= amount <= _MOST:
        raise ValueError(word)
    return amount


def _io(word: str, words: list[str]) -> int:
    if word == "fail":
        return _errno(words.pop(0))
    if word not in _IO:
        raise ValueError(word)
    return _IO[word]


def _errno(word: str) -> int:
    number = {name: value for value, name in errno.errorcode.items()}.get(word) or int(word)
    if not 0 < number < 4096:
        raise ValueError(word)
    return number


def altered(reply: bytes, behaviour: Behaviour) -> bytes:
    """What *reply* becomes."""
    kind, cookie = wire.HEAD.unpack_from(reply)
    name, text = behaviour.name, behaviour.text
    if name == "partial":
        return reply[: int(behaviour.number)]
    if name == "refuse":
        return wire.encode_error(cookie, int(behaviour.number), text.encode())
    if text == "type":
        return wire.HEAD.pack(kind + 2, cookie) + reply[4:]
    if text == "cookie":
        return wire.HEAD.pack(kind, cookie ^ 1) + reply[4:]
    if text == "size":
        return reply + b"\0"
    return b"\xff" * len(reply)
