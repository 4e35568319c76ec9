"""How tapdisk's messages and counters are laid out, and the writing of them, for both ends.

Every message is 544 bytes, in the host's byte order: type u16, cookie u16 (the minor), four bytes
of nothing, and from 8 a union, whose unused bytes are zero. The layouts are those of blktap's
tapdisk-message.h and of its metrics pages. Little is imported, and no typing: hundreds of
simulated tapdisks import this as they start.
"""

import struct

__all__ = [
    "ALL",
    "ATTACH",
    "CLOSE",
    "CLOSED",
    "CONTROL_DIRECTORY",
    "COUNTERS",
    "DEAD",
    "DETACH",
    "DISK_INFO",
    "ERROR",
    "ERROR_BODY",
    "FORCE_SHUTDOWN",
    "HEAD",
    "IMAGE",
    "LENGTH",
    "LIST",
    "LIST_BODY",
    "LOCKING",
    "LOG_DROPPED",
    "NAMES",
    "OPEN",
    "PAGE_SIZE",
    "PAGE_VERSION",
    "PARAMS",
    "PAUSE",
    "PAUSED",
    "PAUSE_REQUESTED",
    "PID",
    "PID_BODY",
    "QUESTIONS",
    "QUIESCED",
    "QUIESCE_REQUESTED",
    "RESUME",
    "RESUME_FAILED",
    "RUNTIME_ERROR",
    "SHARED_MEMORY_DIRECTORY",
    "SHUTDOWN_REQUESTED",
    "SIZE",
    "STATS",
    "XENBLKIF_CONNECT",
    "XENBLKIF_DISCONNECT",
    "encode_counters",
    "encode_error",
    "encode_image",
    "encode_list",
    "encode_message",
    "encode_params",
    "encode_pid",
    "encode_stats",
    "marker_name",
    "reply_type",
    "shared_memory_name",
    "socket_name",
]

SIZE = 544
ALL = 0xFFFF  # the cookie of a LIST

HEAD = struct.Struct("=HH")
PID_BODY = struct.Struct("=i")
IMAGE = struct.Struct("=QII")  # sectors, sector_size, info
LIST_BODY = struct.Struct("=iiI256s")  # count, minor, state, path
LENGTH = struct.Struct("=Q")  # at 16, of the text that follows a STATS reply
ERROR_BODY = struct.Struct("=i256s")  # errno, text
PARAMS = struct.Struct("=III256sIH256s")  # from flags to secondary; req_timeout is in seconds
_BODY = 8
_LENGTH = 16

ERROR, RUNTIME_ERROR, PID = 1, 2, 3
ATTACH, OPEN, PAUSE, RESUME, CLOSE, DETACH = 5, 7, 9, 11, 13, 15
LIST, STATS, FORCE_SHUTDOWN = 19, 21, 23
XENBLKIF_CONNECT, XENBLKIF_DISCONNECT, DISK_INFO = 24, 26, 28
QUESTIONS = frozenset({PID, LIST, STATS})  # what tapdisk answers while it carries out an order
NAMES = {
    PID: "pid",
    ATTACH: "attach",
    OPEN: "open",
    PAUSE: "pause",
    RESUME: "resume",
    CLOSE: "close",
    DETACH: "detach",
    LIST: "list",
    STATS: "stats",
    FORCE_SHUTDOWN: "force_shutdown",
    DISK_INFO: "disk_info",
}

# The bits of a VBD's state, tapdisk-vbd.h
DEAD, CLOSED, QUIESCE_REQUESTED, QUIESCED, PAUSE_REQUESTED, PAUSED = 1, 2, 4, 8, 0x10, 0x20
SHUTDOWN_REQUESTED, LOCKING, LOG_DROPPED, RESUME_FAILED = 0x40, 0x80, 0x100, 0x200

PAGE_SIZE = 4096
PAGE_VERSION = 1
# version; oo_reqs; submitted, completed, sectors, us of reads and then of writes; io_errors; flags
COUNTERS = struct.Struct("=I4x11Q")

CONTROL_DIRECTORY = "/run/blktap-control"
SHARED_MEMORY_DIRECTORY = "/dev/shm"  # noqa: S108 - where tapdisk has it, and no file of ours


def socket_name(pid: int) -> str:
    """The control socket of process *pid*, in the control directory."""
    return f"ctl{pid}"


def marker_name(minor: int) -> str:
    """The file that says a minor is taken, in the control directory."""
    return f"tapdisk/tapdisk-{minor}"


def shared_memory_name(pid: int) -> str:
    """The directory of the counters of process *pid*, in that for shared memory."""
    return f"td3-{pid}"


def reply_type(request_type: int) -> int:
    """The type of the message that answers a request, when all is well."""
    return CLOSE + 1 if request_type == FORCE_SHUTDOWN else request_type + 1


def encode_message(kind: int, cookie: int, body: bytes = b"", at: int = _BODY) -> bytes:
    """A message of type *kind*, with *body* at its place *at*."""
    return (HEAD.pack(kind, cookie).ljust(at, b"\0") + body).ljust(SIZE, b"\0")


def encode_params(
    kind: int, cookie: int, path: bytes, flags: int = 0, req_timeout: int = 0
) -> bytes:
    """A request with parameters: OPEN, RESUME. Of *path* 255 bytes fit."""
    return encode_message(kind, cookie, PARAMS.pack(flags, 0, 0, path, 0, req_timeout, b""))


def encode_pid(cookie: int, pid: int) -> bytes:
    """The reply to PID."""
    return encode_message(PID + 1, cookie, PID_BODY.pack(pid))


def encode_image(kind: int, cookie: int, sectors: int, sector_size: int, info: int) -> bytes:
    """The reply of type *kind*, to OPEN or DISK_INFO."""
    return encode_message(kind, cookie, IMAGE.pack(sectors, sector_size, info))


def encode_list(cookie: int, listed: list[tuple[int, int, bytes | None]]) -> bytes:
    """The reply to LIST: minor, state and, if there is an image, path of each VBD.

    Tapdisk writes all messages over one another, so of a path, where there is none, only the first
    byte is zero; state and path of the last one stay in what ends the list.
    """
    messages = []
    left, state, place = len(listed), 0, bytes(256)
    for minor, state, path in listed:
        place = b"\0" + place[1:] if path is None else path[:256].ljust(256, b"\0")
        messages.append(encode_message(LIST + 1, cookie, LIST_BODY.pack(left, minor, state, place)))
        left -= 1
    end = LIST_BODY.pack(0, -1, state, b"\0" + place[1:])
    return b"".join([*messages, encode_message(LIST + 1, cookie, end)])


def encode_stats(cookie: int, text: bytes) -> bytes:
    """The reply to STATS, and the text behind it."""
    return encode_message(STATS + 1, cookie, LENGTH.pack(len(text)), _LENGTH) + text


def encode_error(cookie: int, number: int, text: bytes = b"") -> bytes:
    """The reply to what is refused."""
    return encode_message(ERROR, cookie, ERROR_BODY.pack(number, text[:255]))


def encode_counters(numbers: list[int], version: int = PAGE_VERSION) -> bytes:
    """A page of counters, the eleven *numbers* in COUNTERS' order."""
    return COUNTERS.pack(version, *numbers).ljust(PAGE_SIZE, b"\0")
