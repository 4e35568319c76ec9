"""The pages of counters that a tapdisk keeps in shared memory; they are only read here.

`/dev/shm/td3-<PID>/` has a page for each VBD's image (`vdi-<minor>`), its NBD server
(`nbd-<minor>`) and each guest's ring (`vbd-<domain>-<device>`). Pages come and go as images are
opened and paused, begin at zero each time, and stay behind when the process is killed.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from zeventfs.errors import Malformed
from zeventfs.tapdisk import wire

__all__ = ["Counters", "Page", "decode_counters", "pages", "read_counters"]

_NAME: Final = re.compile(r"(vdi|nbd)-(\d{1,10})|(vbd)-(\d{1,10})-(\d{1,10})", re.ASCII)


class Counters(NamedTuple):
    """A page's figures: requests outstanding and done, sectors, microseconds, errors, flag bits."""

    oo_reqs: int
    rd_submitted: int
    rd_completed: int
    rd_sectors: int
    rd_us: int
    wr_submitted: int
    wr_completed: int
    wr_sectors: int
    wr_us: int
    io_errors: int
    flags: int


class Page(NamedTuple):
    """A page's place: `kind` is vdi, nbd or vbd; `numbers` the minor, or domain and device."""

    kind: str
    numbers: tuple[int, ...]
    path: Path


def decode_counters(page: bytes) -> Counters:
    """The figures in *page*. Raises Malformed."""
    if len(page) != wire.PAGE_SIZE:
        raise Malformed(f"a page of counters has {wire.PAGE_SIZE} bytes, not {len(page)}")
    version, *numbers = wire.COUNTERS.unpack_from(page)
    if version != wire.PAGE_VERSION:
        raise Malformed(f"version {version} of the counters is not known")
    return Counters(*numbers)


def read_counters(path: Path) -> Counters:
    """The figures of this moment in the page at *path*. Raises OSError, Malformed."""
    # What stands there may be anything, a pipe too, and a page is never waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return decode_counters(os.read(descriptor, wire.PAGE_SIZE + 1))
    finally:
        os.close(descriptor)


def pages(pid: int, directory: str = wire.SHARED_MEMORY_DIRECTORY) -> Iterator[Page]:
    """The pages of process *pid*, none if it has no directory."""
    place = Path(directory, wire.shared_memory_name(pid))
    names: list[str] = []
    with suppress(FileNotFoundError, NotADirectoryError):
        names = sorted(os.listdir(place))  # noqa: PTH208 - names are all that is asked for
    for name in names:
        if found := _NAME.fullmatch(name):
            kind, *numbers = (group for group in found.groups() if group is not None)
            yield Page(kind, tuple(map(int, numbers)), place / name)
