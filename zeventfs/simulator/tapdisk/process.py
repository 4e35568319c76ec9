"""zeventfs-tapdisk: the options, the beginning and the end of a simulated tapdisk's process.

It ends by itself once its last VBD is detached, and then clears up; a signal that kills it leaves
the sockets and the counters behind, as with a real one.
"""

import os
import sys

from zeventfs.errors import Invalid
from zeventfs.simulator.tapdisk import tell
from zeventfs.simulator.tapdisk.misbehaviour import START, understand
from zeventfs.simulator.tapdisk.model import SECTORS
from zeventfs.simulator.tapdisk.server import Server
from zeventfs.tapdisk import wire

__all__ = ["main"]

_USAGE = """\
usage: zeventfs-tapdisk [-D] [--dir DIRECTORY] [--shm DIRECTORY] [--rate REQUESTS]
                        [--sectors NUMBER] [--tell LINE]...
       zeventfs-tapdisk tell [--dir DIRECTORY] PID WORD...

A stand-in for tapdisk. -D stays in the foreground. Once ready, it prints its control socket's path.
An option's default is in the environment: ZEVENTFS_TAPDISK_DIR, _SHM, _RATE, _SECTORS, and _TELL,
with ; between lines. What can be told:
"""
_DEFAULTS = {
    "dir": wire.CONTROL_DIRECTORY,
    "shm": wire.SHARED_MEMORY_DIRECTORY,
    "rate": "0",
    "sectors": str(SECTORS),
}


class _Usage(Exception):
    """The command line is not as it should be."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words[:1] == ["tell"]:
            return _tell(words[1:])
        return _serve(words)
    except (_Usage, Invalid) as error:
        print(f"zeventfs-tapdisk: {error or 'see --help'}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"zeventfs-tapdisk: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _options(words: list[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """What is set, what is told, and the words that are no options."""
    environment = os.environ
    found = {
        name: environment.get(f"ZEVENTFS_TAPDISK_{name.upper()}", default)
        for name, default in _DEFAULTS.items()
    }
    told = [line for line in environment.get("ZEVENTFS_TAPDISK_TELL", "").split(";") if line]
    left = list(words)
    while left and left[0].startswith("--"):
        name, equals, value = left.pop(0)[2:].partition("=")
        if name not in {*found, "tell"} or not (equals or left):
            raise _Usage
        value = value if equals else left.pop(0)
        if name == "tell":
            told.append(value)
        else:
            found[name] = value
    return found, told, left


def _tell(words: list[str]) -> int:
    found, _, left = _options(words)
    if len(left) < 2 or not left[0].isdecimal():
        raise _Usage
    said = tell(found["dir"], int(left[0]), " ".join(left[1:]))
    print(said, end="")
    return 1 if said.startswith("error:") else 0


def _serve(words: list[str]) -> int:
    if "--help" in words:
        from zeventfs.simulator.tapdisk import misbehaviour  # noqa: PLC0415 - for its text only

        print(_USAGE + (misbehaviour.__doc__ or "").partition("\n\n")[2], end="")
        return 0
    foreground = "-D" in words
    found, told, left = _options([word for word in words if word != "-D"])
    try:
        rate, sectors = float(found["rate"]), int(found["sectors"])
    except ValueError:
        raise _Usage from None
    if left or not 0 <= rate <= 1e6 or not 0 < sectors < 1 << 53:
        raise _Usage
    lines = [understand(line) for line in told]
    if not foreground and os.fork():
        return 0
    server = Server(found["dir"], found["shm"], rate, sectors)
    for line in lines:
        server.told(line)
    server.held_back(START)
    with server:
        _say_ready(server.path)
        if not foreground:
            os.setsid()
            os.dup2(1, 2)
        return server.serve()


def _say_ready(path: str) -> None:
    """Print *path*; then, as tapdisk does, hold neither input nor output."""
    os.write(1, path.encode(errors="surrogateescape") + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
