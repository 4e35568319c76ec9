"""The kernel's latest requests, and all that are still to be answered, for who looks at a hung one.

Noting a request is some stores into a slot that is there already. A request whose slot comes to
its turn again while it still waits keeps it, and the ring gets a new one: what waits is never lost.
Nothing but numbers, the operation and the name that was asked for is kept of a request.
"""

import errno
import time
from collections.abc import Callable, Iterator
from itertools import islice

__all__ = ["KEPT", "SHOWN_WAITING", "Request", "Trace"]

KEPT = 1024  # requests; a power of 2
SHOWN_WAITING = 100  # of those that are older and wait: stat(2) renders the file, for its size
_PRINTABLE = frozenset(range(0x21, 0x7F)) - {ord("\\")}
_NS = 10**9
_US = 10**3


class Request:
    """A request: what it asks of inode *inode*, its answer, and when both were (monotonic ns).

    `name` is what it names in a directory; `offset` and `size` are those of a read or write, else
    `size` is -1. The `answer` is a count of bytes, a word, or None while there is none.
    """

    __slots__ = (
        "answer",
        "began_ns",
        "ended_ns",
        "inode",
        "name",
        "offset",
        "operation",
        "overtaken",
        "pid",
        "size",
    )

    def __init__(self) -> None:
        self.operation = ""
        self.pid = 0
        self.inode = 0
        self.name: bytes | None = None
        self.offset = 0
        self.size = -1
        self.began_ns = 0
        self.ended_ns = 0
        self.answer: int | str | None = ""
        self.overtaken = False


class Trace:
    """The last KEPT requests, and older ones that wait; *clock_ns* is monotonic, in ns."""

    __slots__ = ("_clock_ns", "_next", "_overtaken", "_ring")

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._next = 0
        self._ring = [Request() for _ in range(KEPT)]
        self._overtaken: dict[Request, None] = {}

    def begin(  # noqa: PLR0913, PLR0917 - by place, for it is called at every read
        self,
        operation: str,
        pid: int,
        inode: int,
        name: bytes | None = None,
        offset: int = 0,
        size: int = -1,
    ) -> Request:
        """Note that a request begins; `end` notes its answer."""
        at = self._next
        self._next = at + 1 & KEPT - 1
        request = self._ring[at]
        if request.answer is None:
            request = self._set_aside(at)
        request.operation = operation
        request.pid = pid
        request.inode = inode
        request.name = name
        request.offset = offset
        request.size = size
        request.answer = None
        request.began_ns = self._clock_ns()
        return request

    def _set_aside(self, at: int) -> Request:
        waiting = self._ring[at]
        waiting.overtaken = True
        self._overtaken[waiting] = None
        fresh = self._ring[at] = Request()
        return fresh

    def end(self, request: Request, answer: int | str) -> None:
        """Note the answer of *request*: bytes, or a word."""
        request.ended_ns = self._clock_ns()
        request.answer = answer
        if request.overtaken:
            self._overtaken.pop(request, None)

    def fail(self, request: Request, number: int) -> None:
        """Note that *request* was answered with errno *number*."""
        self.end(request, errno.errorcode.get(number, str(number)))

    def __iter__(self) -> Iterator[Request]:
        """What is kept, the oldest first."""
        yield from self._overtaken
        yield from self._latest()

    def _latest(self) -> Iterator[Request]:
        for each in (*self._ring[self._next :], *self._ring[: self._next]):
            if each.operation:
                yield each

    def render(self, name_of: Callable[[int], str]) -> bytes:
        """One line a request; *name_of* gives what an inode is called.

        When it began (seconds before now), the operation, what it is about, the pid, how long it
        took, the answer; a request that has none ends in `waiting`. Of the older ones that wait
        there are the SHOWN_WAITING eldest, then a line that says how many more there are.
        """
        now = self._clock_ns()
        lines = [_line(each, now, name_of) for each in islice(self._overtaken, SHOWN_WAITING)]
        if (more := len(self._overtaken) - SHOWN_WAITING) > 0:
            lines.append(f"{'...':>13} {more} more waiting\n")
        lines += [_line(each, now, name_of) for each in self._latest()]
        return "".join(lines).encode()


def _line(request: Request, now_ns: int, name_of: Callable[[int], str]) -> str:
    what = name_of(request.inode)
    if request.name is not None:
        what = f"{what.rstrip('/')}/{_printable(request.name)}"
    if request.size >= 0:
        what += f" offset={request.offset} size={request.size}"
    if request.answer is None:
        end = "waiting"
    else:
        end = f"{(request.ended_ns - request.began_ns) // _US}us {request.answer}"
    age = (request.began_ns - now_ns) / _NS
    return f"{age:13.6f} {request.operation} {what} pid={request.pid} {end}\n"


def _printable(name: bytes) -> str:
    """*name* as one word of printable ASCII; any other byte is a backslash, x and its hex code."""
    return "".join([chr(byte) if byte in _PRINTABLE else f"\\x{byte:02x}" for byte in name])
