"""Errors by where they happened: how often each, and when the first and the last of them.

The memory is bounded: what comes when no bucket more can be had is counted all the same, together.
"""

from collections.abc import Iterator

__all__ = ["Bucket", "Dispersion"]

_MOST_BUCKETS = 64
_LONGEST_PLACE = 64  # characters; the channel's states have twelve at most
_LONGEST_REASON = 256  # characters, as an ERROR's text on the wire has bytes


class Bucket:
    """Errors of one *errno* in one *place*: how many, when the first and last in ns, and why."""

    __slots__ = ("count", "errno", "first_ns", "last_ns", "place", "reason")

    def __init__(self, errno: int, place: str, first_ns: int) -> None:
        self.errno = errno
        self.place = place
        self.count = 0
        self.first_ns = first_ns
        self.last_ns = first_ns
        self.reason = ""
        """The last one's."""


class Dispersion:
    """Buckets by errno and place; `unkept` errors have none."""

    __slots__ = ("_buckets", "unkept")

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, str], Bucket] = {}
        self.unkept = 0

    def note(self, errno: int, place: str, time_ns: int, reason: str = "") -> None:
        """Count one error."""
        key = errno, place[:_LONGEST_PLACE]
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _MOST_BUCKETS:
                self.unkept += 1
                return
            bucket = self._buckets[key] = Bucket(*key, time_ns)
        bucket.count += 1
        bucket.last_ns = time_ns
        bucket.reason = reason[:_LONGEST_REASON]

    def __iter__(self) -> Iterator[Bucket]:
        """The buckets, in the order of their first errors."""
        return iter(self._buckets.values())
