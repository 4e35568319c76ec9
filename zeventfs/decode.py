"""`zeventfs decode`: packed nvlists in a file become JSON lines, or text as zpool prints it.

A file holds lists back to back, or each after its length (u32, little endian), native or XDR; one
list is the simplest case of the first. A length is told from a list's header by what follows: the
bytes 4 to 8 of a list are its version, which is 0, and those of a length's list are its header,
which is not 0 on this host. Lists after their lengths are printed as they come: the file may be a
pipe that has no end, from events/stream.nvl.
"""

import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

from zeventfs.event import Event
from zeventfs.nvlist import NVList, NvlistError, decode, encode
from zeventfs.render import Renderer

__all__ = ["print_decoded", "unpack"]

LENGTH: Final = 4  # bytes of a length before a list
WINDOW: Final = 1 << 16  # bytes, first guess at what a list of unknown length needs


def unpack(file: BinaryIO) -> Iterator[NVList]:
    """The lists in *file*, one after the other; raises NvlistError, the offset being *file*'s."""
    start = file.read(2 * LENGTH)
    if start[LENGTH:] not in (bytes(LENGTH), b""):
        return _after_lengths(file, start)
    return _back_to_back(start + file.read())


def _after_lengths(file: BinaryIO, begun: bytes) -> Iterator[NVList]:
    """The lists of a file whose first bytes, *begun*, are already read; reads no byte too many."""
    at = 0
    while begun:
        size = int.from_bytes(begun[:LENGTH], "little")
        packed = begun[LENGTH:] + _read(file, size - len(begun[LENGTH:]))
        if len(begun) < LENGTH or len(packed) < size:
            raise NvlistError("a length says more than there is", at)
        yield _decode(packed, at + LENGTH)
        at += LENGTH + size
        begun = file.read(LENGTH)


def _read(file: BinaryIO, size: int) -> bytes:
    """At most *size* bytes, and no memory for more than there are."""
    pieces = []
    while size > 0 and (piece := file.read(min(size, WINDOW))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _back_to_back(raw: bytes) -> Iterator[NVList]:
    at = 0
    while at < len(raw):
        end = _end_of_list(raw, at)
        yield _decode(raw[at:end], at)
        at = end


def _decode(packed: bytes, begin: int) -> NVList:
    """The list *packed*, which stands at *begin* in its file."""
    try:
        return decode(packed)
    except NvlistError as error:
        said = str(error).removesuffix(f" (at byte {error.offset})")
        raise NvlistError(said, begin + error.offset) from None


def _end_of_list(raw: bytes, begin: int) -> int:
    """Where the list at *begin* ends; the end of *raw* where none can be found.

    `decode` stops at the first byte after a list. No list is the begin of another, so where the
    bytes up to there are one, they are the one.
    """
    window = WINDOW
    while True:
        packed = raw[begin : begin + window]
        try:
            decode(packed)
        except NvlistError as error:
            if _is_list(packed[: error.offset]):
                return begin + error.offset
        else:
            return begin + len(packed)
        if begin + window >= len(raw):
            return len(raw)
        window *= 2


def _is_list(packed: bytes) -> bool:
    try:
        decode(packed)
    except NvlistError:
        return False
    return True


def print_decoded(file: BinaryIO, *, text: bool) -> None:
    """Print what *file* holds on stdout; raises NvlistError after what comes before the error."""
    renderer = Renderer("", None)
    out = sys.stdout.buffer
    for nvlist in unpack(file):
        out.write(renderer.text(nvlist) if text else _json_line(renderer, nvlist))
        out.flush()  # the next one may be long in coming


def _json_line(renderer: Renderer, nvlist: NVList) -> bytes:
    """The tree's line of an event, from its class on; of another list, from its payload on.

    seq, epoch and source are of a journal, which these lists are not in.
    """
    packed = encode(nvlist)
    try:
        event, first = Event.from_packed("", packed), b'"class":'
    except NvlistError:
        event, first = Event("", packed, nvlist, "", 0, None, None), b'"payload":'
    line = renderer.json_line(event, 0)
    return b"{" + line[line.index(first) :]  # no quoted text holds these: its quotes are escaped
