"""The command line: `zeventfs mount`, `umount` and `decode`.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from zeventfs import __version__

__all__ = ["main"]

SOURCES: Final = """\
SOURCE:
  auto         what the host has of the next three, else the simulator
  zfs          the kernel's ZFS events, from /dev/zfs
  tapdisk      the VBDs of the host's tapdisks
  dm           the kernel's mapped devices: multipath, LVM, ...
  sim          a simulator that stands where the kernel and tapdisks stand
  replay:FILE  recorded events: packed nvlists, each after its length, or JSON lines
  Several are joined with "+".

OPTIONS, comma-separated:
  allow_other         other users may look, as far as the mode lets them
  ro                  nothing can be written, not even events/clear
  uid=, gid=          owner and group of the files (default: the caller's)
  mode=               permission bits of a readable file, octal (440)
  retain=             bytes of events to keep; K, M and G may follow (64M)
  segment=            bytes after which events/log is rotated (an eighth of retain)
  sim.seed=           which simulated history (0)
  sim.rate=           simulated events a second; 0: only what is injected (2)
  sim.scenario=       what happens: a built-in story's name or a JSON file's path (tank)
  replay.rate=        replayed events a second; 0: at once (0)
  tapdisk.dir=        where tapdisks' control sockets are (/run/blktap-control)
  tapdisk.poll=       seconds from one look at them to the next (1)
  tapdisk.control     the owner makes and steers VBDs, by the program TAPDISK names (tapdisk)
  mlock               the whole daemon stays in memory, whatever becomes of its disks
  log=                stderr, syslog or a file's absolute path
"""


class Parser(argparse.ArgumentParser):
    """Complains in one line and with status 1, which is mount(8)'s for a wrong invocation."""

    def error(self, message: str) -> NoReturn:
        """Print how to call it and *message* on stderr, and exit."""
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


def _parser() -> Parser:
    parser = Parser(prog="zeventfs", description="What happens in a host's storage, as files.")
    parser.add_argument("--version", action="version", version=f"zeventfs {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    mount = commands.add_parser(
        "mount",
        help="mount SOURCE's events at MOUNTPOINT",
        epilog=SOURCES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mount.add_argument("--foreground", action="store_true", help="stay until the mount is over")
    mount.add_argument("source", metavar="SOURCE")
    mount.add_argument("mountpoint", metavar="MOUNTPOINT")
    mount.add_argument("-o", dest="options", metavar="OPTIONS", action="append", default=[])
    mount.set_defaults(run=_mount)

    umount = commands.add_parser("umount", help="end a mount and its daemon, readers or not")
    umount.add_argument("mountpoint", metavar="MOUNTPOINT")
    umount.set_defaults(run=_umount)

    decode = commands.add_parser(
        "decode",
        help="print packed nvlists as JSON lines",
        description="Print packed nvlists (one, several, or each after its u32 length; native or "
        "XDR) as JSON lines.",
    )
    decode.add_argument("--text", action="store_true", help="print as zpool events -v does")
    decode.add_argument("file", metavar="FILE", help="the file, - for stdin")
    decode.set_defaults(run=_decode)
    return parser


def _mount(asked: argparse.Namespace) -> int:
    from zeventfs.config import parse  # noqa: PLC0415  # see the module's docstring
    from zeventfs.mount import check, serve, start, status_of  # noqa: PLC0415  # likewise

    def work() -> None:
        config = parse(asked.source, asked.mountpoint, asked.options, foreground=asked.foreground)
        check(config)
        if asked.foreground:
            serve(config, lambda: None)
        else:
            start(config)

    return status_of("zeventfs mount", work)


def _umount(asked: argparse.Namespace) -> int:
    from zeventfs.errors import ZeventfsError  # noqa: PLC0415  # see the module's docstring
    from zeventfs.umount import umount  # noqa: PLC0415  # likewise

    try:
        umount(asked.mountpoint)
    except (ZeventfsError, OSError) as error:
        print(f"zeventfs umount: {error}", file=sys.stderr)
        return 1
    return 0


def _decode(asked: argparse.Namespace) -> int:
    from zeventfs.decode import print_decoded  # noqa: PLC0415  # see the module's docstring
    from zeventfs.errors import ZeventfsError  # noqa: PLC0415  # likewise

    try:
        if asked.file == "-":
            print_decoded(sys.stdin.buffer, text=asked.text)
        else:
            with Path(asked.file).open("rb") as file:
                print_decoded(file, text=asked.text)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # as a shell has it: who reads a stream ends so
    except BrokenPipeError:
        # Nobody reads on (head, say): what is left in the buffer goes nowhere, without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ZeventfsError, OSError) as error:
        print(f"zeventfs decode: {asked.file}: {error}", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what *arguments* (the process's) say; the exit status."""
    asked = _parser().parse_args(arguments)
    status: int = asked.run(asked)
    return status
