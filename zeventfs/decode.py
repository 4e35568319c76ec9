"""`zeventfs decode`: packed nvlists in a file become JSON lines, or text as zpool prints it.

A file holds lists back to back, or each after its length (u32, little endian), native or XDR; one
list is the simplest case of the first. A length is told from a list's header by what follows: the
bytes 4 to 8 of a list are its version, which is 0, and those of a length's list are its header,
which is not 0 on this host.
"""

import sys
from collections.abc import Iterator
from typing import Final

from zeventfs.event import Event
from zeventfs.nvlist import NVList, NvlistError, decode, encode
from zeventfs.render import Renderer

__all__ = ["print_decoded", "unpack"]

LENGTH: Final = 4  # bytes of a length before a list
WINDOW: Final = 1 << 16  # bytes, first guess at what a list of unknown length needs


def unpack(raw: bytes) -> Iterator[NVList]:
    """The lists in *raw*, one after the other; raises NvlistError, the offset being *raw*'s."""
    prefixed = raw[LENGTH : 2 * LENGTH] not in (bytes(LENGTH), b"")
    at = 0
    while at < len(raw):
        if prefixed:
            begin = at + LENGTH
            end = begin + int.from_bytes(raw[at:begin], "little")
            if end > len(raw):
                raise NvlistError("a length says more than there is", at)
            yield _decode(raw, begin, end)
        else:
            end = _end_of_list(raw, at)
            yield _decode(raw, at, end)
        at = end


def _decode(raw: bytes, begin: int, end: int) -> NVList:
    try:
        return decode(raw[begin:end])
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


def print_decoded(raw: bytes, *, text: bool) -> None:
    """Print what *raw* holds on stdout; raises NvlistError after what comes before the error."""
    renderer = Renderer("", None)
    out = sys.stdout.buffer
    try:
        for nvlist in unpack(raw):
            out.write(renderer.text(nvlist) if text else _json_line(renderer, nvlist))
    finally:
        out.flush()


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
