"""A program that stands in for tapdisk: its wire protocol, its files, a guest that does I/O.

It is a process of its own, so that what can happen to a process happens to it. `command` starts it
with as little of Python as can be; `tell` makes it misbehave.
"""

import _socket
import sys

__all__ = ["command", "tell", "tell_name"]

_TELL_S = 5.0
_PACKAGE = "/zeventfs/simulator/tapdisk/__init__.py"
# Without site and its .pth files Python starts in half the time, but finds no zeventfs by itself.
_START = "import sys; sys.path.append({!r}); from {}.process import main; sys.exit(main())"
_BOUND = "import ctypes, os; ctypes.CDLL(None).prctl(1, 9); os.getppid() == {} or os._exit(1); "


def command(*arguments: str, parent: int | None = None) -> list[str]:
    """The command line that starts a simulated tapdisk with *arguments*.

    With *parent*, the process that starts it, it is killed when the thread ends that did so,
    stopped or not (PR_SET_PDEATHSIG, prctl(2)).
    """
    start = _START.format(__file__.removesuffix(_PACKAGE), __name__)
    if parent is not None:
        start = _BOUND.format(parent) + start
    return [sys.executable, "-I", "-S", "-c", start, *arguments]


def tell_name(pid: int) -> str:
    """The socket by which process *pid* is told how to behave, in the control directory."""
    return f"sim{pid}"


def tell(directory: str, pid: int, line: str, limit_s: float = _TELL_S) -> str:
    """Tell process *pid* *line*, as in `misbehaviour`; return what it says to that.

    That is one or more lines, the first of which begins with `error:` if it did not understand.
    Blocks up to *limit_s* seconds. Raises OSError, TimeoutError among them.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(limit_s)
        connection.connect(f"{directory}/{tell_name(pid)}")
        connection.sendall(line.encode(errors="surrogateescape") + b"\n")
        said = b""
        while piece := connection.recv(65536):
            said += piece
    finally:
        connection.close()
    return said.decode(errors="backslashreplace")
