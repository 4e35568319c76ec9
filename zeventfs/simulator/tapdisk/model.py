"""A simulated tapdisk's VBDs, and its answers: the bytes that a real one answers.

Nothing is waited for here: what can't be answered yet is None, and asked again later with the same
request. No image is looked at: each is as large as was said at the start. Where blktap's own
behaviour was not recorded it is read from its source: ATTACH of a minor that is there is EEXIST,
DETACH of an open one EBUSY.
"""

import errno
from collections.abc import Callable

from zeventfs.simulator.tapdisk.requests import STUCK, TIMEOUT_S, Guest, Requests
from zeventfs.tapdisk import wire

__all__ = ["SECTORS", "Tapdisk", "Vbd"]

SECTORS = 32768  # of an image that nothing else is said of: 16 MiB
_SECTOR_SIZE = 512
_DRIVERS = {b"aio": 0, b"vhd": 4, b"ram": 5, b"nbd": 15}  # their numbers, disktypes.h
_PAUSED = wire.CLOSED | wire.QUIESCED | wire.PAUSED
_PAUSING = wire.QUIESCE_REQUESTED | wire.PAUSE_REQUESTED


class Vbd:
    """One VBD: its state in wire's bits, its image (driver:path), the guest and what it asked."""

    __slots__ = ("guest", "image", "minor", "requests", "state")

    def __init__(self, minor: int, rate: float, now: float) -> None:
        self.minor = minor
        self.state = 0
        self.image: bytes | None = None
        self.guest = Guest(rate, now)
        self.requests = Requests()

    @property
    def serving(self) -> bool:
        """Whether the image is open; then it has a page of counters."""
        return self.image is not None and not self.state & wire.CLOSED

    def run(self, now: float) -> None:
        """Let the guest ask and the image serve, up to *now*."""
        if self.serving and not self.state & _PAUSING:
            self.guest.ask(self.requests, now)
        if self.requests.outstanding:
            self.requests.run(now)

    def start(self, now: float) -> None:
        """Serve, the figures beginning at zero; a guest does not make up for the time before."""
        self.state = 0
        self.guest = Guest(self.guest.rate, now)
        self.requests.reset()
        self.requests.quiesced = False
        self.requests.run(now)

    def shut(self) -> None:
        """Close the image; what is still asked of it fails."""
        self.requests.abandon()
        self.image = None
        self.state = self.state & _PAUSED | wire.CLOSED


class Tapdisk:
    """Process *pid*'s VBDs. `marked` says whether a minor's marker is there."""

    __slots__ = ("_answers", "_io", "_rate", "ended", "marked", "pid", "sectors", "vbds")

    def __init__(
        self, pid: int, marked: Callable[[int], bool], rate: float = 0.0, sectors: int = SECTORS
    ) -> None:
        self.pid = pid
        self.marked = marked
        self.sectors = sectors
        self.vbds: dict[int, Vbd] = {}
        self.ended = False  # the last VBD has been detached
        self._rate = rate
        self._io = 0
        self._answers: dict[int, Callable[[Vbd, bytes, float], bytes | int | None]] = {
            wire.OPEN: self._open,
            wire.PAUSE: self._pause,
            wire.RESUME: self._resume,
            wire.CLOSE: self._close,
            wire.DETACH: self._detach,
            wire.STATS: self._stats,
            wire.FORCE_SHUTDOWN: self._force_shutdown,
            wire.DISK_INFO: self._disk_info,
        }

    def run(self, now: float) -> None:
        """Let guests ask and images serve, up to *now*."""
        for vbd in self.vbds.values():
            vbd.run(now)

    def due(self, tick_s: float, now: float) -> float | None:
        """When to run next: guests that do I/O want it every *tick_s*."""
        times = [due for vbd in self.vbds.values() if (due := vbd.requests.due()) is not None]
        if any(vbd.serving and vbd.guest.rate for vbd in self.vbds.values()):
            times.append(now + tick_s)
        return min(times, default=None)

    def change_rate(self, rate: float, now: float) -> None:
        """Have every guest do *rate* requests a second, those to come too."""
        self._rate = rate
        for vbd in self.vbds.values():
            vbd.guest.change(rate, now)

    def change_io(self, answers: int, now: float) -> None:
        """Have every image answer as in `Requests`; what is stuck is always something."""
        self._io = answers
        for vbd in self.vbds.values():
            vbd.requests.answers = answers
            if answers == STUCK and vbd.serving:
                vbd.requests.submit(now, 1, 0)
            vbd.requests.run(now)

    def answer(self, request: bytes, now: float) -> bytes | None:
        """What *request*, 544 bytes, is answered, None if it has to wait."""
        kind, minor = wire.HEAD.unpack_from(request)
        if kind not in wire.NAMES or b"\0" not in _path_field(request):
            return wire.encode_error(0, errno.EINVAL)  # it looks no further, at no cookie either
        if kind == wire.PID:
            return wire.encode_pid(minor, self.pid)
        if kind == wire.LIST:
            listed = [(vbd.minor, vbd.state, vbd.image) for vbd in self.vbds.values()]
            return wire.encode_list(minor, listed)
        done: bytes | int | None
        if kind == wire.ATTACH:
            done = self._attach(minor, now)
        elif minor in self.vbds:
            done = self._answers[kind](self.vbds[minor], request, now)
        else:
            done = errno.ENODEV
        if not isinstance(done, int):
            return done
        if done:
            return wire.encode_error(minor, done)
        return wire.encode_message(wire.reply_type(kind), minor)

    # Each returns its reply, or 0 for one that says nothing more, an errno, or None: to wait.

    def _attach(self, minor: int, now: float) -> int:
        if minor in self.vbds:
            return errno.EEXIST
        if not self.marked(minor):
            return errno.ENOENT
        vbd = self.vbds[minor] = Vbd(minor, self._rate, now)
        vbd.requests.answers = self._io
        return 0

    def _open(self, vbd: Vbd, request: bytes, now: float) -> bytes | int:
        if vbd.image is not None:
            return errno.EALREADY
        image = _path_field(request).partition(b"\0")[0]
        if not _legal(image):
            return errno.EINVAL
        vbd.image = image
        vbd.requests.timeout_s = wire.PARAMS.unpack_from(request, 8)[5] or TIMEOUT_S
        vbd.start(now)
        return wire.encode_image(wire.OPEN + 1, vbd.minor, self.sectors, _SECTOR_SIZE, 0)

    def _pause(self, vbd: Vbd, request: bytes, now: float) -> int | None:
        del request, now
        if vbd.requests.pending:
            vbd.state |= _PAUSING
            vbd.requests.quiesced = True
            return None
        vbd.requests.quiesced = True
        vbd.state = _PAUSED
        return 0

    def _resume(self, vbd: Vbd, request: bytes, now: float) -> int:
        image = _path_field(request).partition(b"\0")[0]
        if image and not _legal(image):
            return errno.EINVAL
        if vbd.state & wire.PAUSED:
            vbd.image = image or vbd.image
            if vbd.image is None:
                return errno.EINVAL
            vbd.start(now)
        else:
            vbd.state &= ~_PAUSING
            vbd.requests.quiesced = False
        return 0

    def _close(self, vbd: Vbd, request: bytes, now: float) -> int | None:
        del request, now
        if vbd.requests.pending:
            return None
        vbd.shut()
        return 0

    def _force_shutdown(self, vbd: Vbd, request: bytes, now: float) -> int:
        del request, now
        vbd.shut()
        return 0

    def _detach(self, vbd: Vbd, request: bytes, now: float) -> int:
        del request, now
        if vbd.image is not None:
            return errno.EBUSY
        del self.vbds[vbd.minor]
        self.ended = not self.vbds
        return 0

    def _disk_info(self, vbd: Vbd, request: bytes, now: float) -> bytes:
        del request, now
        sectors, size = (self.sectors, _SECTOR_SIZE) if vbd.image is not None else (0, 0)
        return wire.encode_image(wire.DISK_INFO + 1, vbd.minor, sectors, size, 0)

    def _stats(self, vbd: Vbd, request: bytes, now: float) -> bytes:
        del request
        vbd.run(now)
        return wire.encode_stats(vbd.minor, _stats_text(vbd))


def _legal(image: bytes) -> bool:
    driver, _, path = image.partition(b":")
    return driver in _DRIVERS and bool(path)


def _path_field(request: bytes) -> bytes:
    path: bytes = wire.PARAMS.unpack_from(request, 8)[3]
    return path


def _stats_text(vbd: Vbd) -> bytes:
    """The JSON in tapdisk's own spacing; like tapdisk, it escapes nothing."""
    requests, image = vbd.requests, b""
    (read, written), (unread, unwritten) = requests.sectors, requests.failed_sectors
    if vbd.image is not None and vbd.serving:
        driver, _, path = vbd.image.partition(b":")
        status = b"null"
        if driver == b"aio":
            reqs = b'{ "max": 352, "pending": %d }' % len(requests.pending)
            status = b'{ "reqs": %s }' % reqs
        image = (
            b'{ "name": "%s", "hits": [ %d, %d ], "fail": [ %d, %d ], '
            b'"driver": { "type": %d, "name": "%s", "status": %s } }'
        ) % (path, read, written, unread, unwritten, _DRIVERS[driver], driver, status)
    return (
        b'{ "name": "%s", "secs": [ %d, %d ], "images": [ %s ], '
        b'"FIXME_enospc_redirect_count": 0, "nbd_mirror_failed": 0, '
        b'"reqs_outstanding": %d, "read_caching": "false" }'
    ) % (
        vbd.image or b"(null)",
        read + unread,
        written + unwritten,
        image,
        requests.outstanding,
    )
