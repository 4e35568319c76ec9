"""What a guest asks of a simulated VBD's image, and what becomes of it, by tapdisk's rules.

Every request that came is in exactly one place: new, pending (the image has it), failed (to be
tried again), or it is completed and counted. A request that can't succeed is completed at once and
holds up nobody; one that may succeed later is tried once a second until its time is over. The clock
is given, in seconds; the same calls at the same times give the same figures.
"""

import errno
import math

__all__ = ["MOST", "RETRIED", "RETRY_S", "STUCK", "TIMEOUT_S", "Guest", "Requests"]

RETRY_S = 1.0
TIMEOUT_S = 120.0
RETRIED = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR})  # since 2023; others fail at once
MOST = 352  # requests at a time, as tapdisk has for a ring
STUCK = -1  # what an image answers that has a request and doesn't finish it
_AT_ONCE = 10_000  # more than that a guest doesn't do, however late it is asked
_SECTORS = 8
_SERVICE_US = 120


class _Request:
    """A read or a write of some sectors: when it came, when it was last tried, and its error."""

    __slots__ = ("came", "error", "sectors", "tried", "write")

    def __init__(self, write: int, sectors: int, now: float) -> None:
        self.write = write
        self.sectors = sectors
        self.came = now
        self.tried = now
        self.error = 0


class Requests:
    """The requests of one VBD. `answers` is what its image says: 0, an errno, or STUCK.

    Pairs are of reads and of writes: `submitted` and `completed` requests, `sectors` served and
    `failed_sectors`, `us` of service, and requests that ended in `errors`. `kicks_in` and
    `kicks_out` count notifications: one for all that come, or are completed, at once.
    """

    __slots__ = (
        "answers",
        "completed",
        "errors",
        "failed",
        "failed_sectors",
        "kicks_in",
        "kicks_out",
        "new",
        "pending",
        "quiesced",
        "sectors",
        "submitted",
        "timeout_s",
        "us",
    )

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self.answers = 0
        self.quiesced = False  # new requests wait, and failed ones are not tried again
        self.new: list[_Request] = []
        self.pending: list[_Request] = []
        self.failed: list[_Request] = []
        self.kicks_in = self.kicks_out = 0
        self.errors = [0, 0]
        self.reset()

    def reset(self) -> None:
        """Begin the figures of the image at zero, as tapdisk does when it opens one."""
        self.submitted, self.completed = [0, 0], [0, 0]
        self.sectors, self.failed_sectors, self.us = [0, 0], [0, 0], [0, 0]

    @property
    def outstanding(self) -> int:
        """How many have come and are not completed."""
        return len(self.new) + len(self.pending) + len(self.failed)

    def submit(self, now: float, reads: int, writes: int, sectors: int = _SECTORS) -> None:
        """Take what a guest asks at once, each of *sectors*; `run` then serves it."""
        self.new += [_Request(0, sectors, now) for _ in range(reads)]
        self.new += [_Request(1, sectors, now) for _ in range(writes)]
        self.kicks_in += 1

    def run(self, now: float) -> None:
        """Do all that can be done *now*."""
        before = sum(self.completed)
        if self.answers != STUCK:
            pending, self.pending = self.pending, []
            for request in pending:
                self._end(request, self.answers, now)
        failed, self.failed = self.failed, []
        for request in failed:
            if now >= request.came + self.timeout_s:
                self._complete(request)
            elif self.quiesced or now < request.tried + RETRY_S:
                self.failed.append(request)
            else:
                self._issue(request, now)
        if not self.quiesced:
            new, self.new = self.new, []
            for request in new:
                self.submitted[request.write] += 1
                self._issue(request, now)
        self.kicks_out += sum(self.completed) > before

    def abandon(self) -> None:
        """Complete all that is there with an error: the image is being closed by force."""
        outstanding = self.new + self.pending + self.failed
        self.new, self.pending, self.failed = [], [], []
        for request in outstanding:
            request.error = errno.EIO
            self._complete(request)
        self.kicks_out += bool(outstanding)

    def due(self) -> float | None:
        """When something has to be tried again, or is over; None if nothing is."""
        retry_s = math.inf if self.quiesced else RETRY_S
        times = [
            min(request.came + self.timeout_s, request.tried + retry_s) for request in self.failed
        ]
        return min(times, default=None)

    def counters(self) -> list[int]:
        """The figures of the image's page in shared memory, in the order of `wire.COUNTERS`.

        As tapdisk's, they count no errors of the image.
        """
        figures = [self.outstanding]
        for write in (0, 1):
            figures += [self.submitted[write], self.completed[write]]
            figures += [self.sectors[write], self.us[write]]
        return [*figures, 0, 0]

    def _issue(self, request: _Request, now: float) -> None:
        request.tried = now
        if self.answers == STUCK:
            self.pending.append(request)
        else:
            self._end(request, self.answers, now)

    def _end(self, request: _Request, error: int, now: float) -> None:
        request.error = error
        request.tried = now
        if error in RETRIED and now < request.came + self.timeout_s:
            self.failed.append(request)
        else:
            self._complete(request)

    def _complete(self, request: _Request) -> None:
        self.completed[request.write] += 1
        self.us[request.write] += _SERVICE_US
        if request.error:
            self.errors[request.write] += 1
            self.failed_sectors[request.write] += request.sectors
        else:
            self.sectors[request.write] += request.sectors


class Guest:
    """Reads and writes, two of one for each of the other, *rate* requests a second."""

    __slots__ = ("_asked", "_owed", "_since", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._since = now
        self._owed = 0.0
        self._asked = 0

    def change(self, rate: float, now: float) -> None:
        """Go on at *rate*; what was due before is still asked."""
        self._owed += (now - self._since) * self.rate
        self._since = now
        self.rate = rate

    def ask(self, requests: Requests, now: float) -> None:
        """Have all served that has become due, a ring's worth at a time.

        A guest whose ring is full asks for no more, nor for that later.
        """
        self.change(self.rate, now)
        due = int(min(self._owed, _AT_ONCE))
        self._owed %= 1
        while count := min(due, MOST - requests.outstanding):
            # Every third request is a write, counted on from one time to the next.
            writes = (self._asked + count) // 3 - self._asked // 3
            self._asked += count
            requests.submit(now, count - writes, writes)
            requests.run(now)
            due -= count
