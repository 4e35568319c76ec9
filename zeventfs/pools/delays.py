"""How long I/Os were at a device: zio_delay in powers of two, for one vdev or for a whole pool.

At most 64 numbers, whatever is counted. Only what an ereport says can be counted, so this is how
slow the slow and the failed ones were, not all I/O.
"""

from collections.abc import Iterator

__all__ = ["Delays", "duration"]

_WIDTH = 40  # characters of the longest bar
_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns"))


class Delays:
    """A histogram of delays in nanoseconds, up to 2^64 - 1.

    `untimed` are the I/Os without a delay: they failed before they were sent to the device.
    """

    __slots__ = ("_counts", "untimed")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}  # by bit length
        self.untimed = 0

    def count(self, delay_ns: int) -> None:
        """Take note of one I/O."""
        if delay_ns:
            bits = delay_ns.bit_length()
            self._counts[bits] = self._counts.get(bits, 0) + 1
        else:
            self.untimed += 1

    @property
    def timed(self) -> int:
        """How many I/Os had a delay."""
        return sum(self._counts.values())

    def buckets(self) -> Iterator[tuple[int, int]]:
        """From how many ns on (to less than twice of it), and how many, the shortest first.

        From the first to the last that isn't empty, and so those between that are.
        """
        if self._counts:
            for bits in range(min(self._counts), max(self._counts) + 1):
                yield 1 << (bits - 1), self._counts.get(bits, 0)

    def bars(self) -> Iterator[str]:
        """A line for each bucket, with a bar; the longest is the most frequent one's."""
        most = max(self._counts.values(), default=0)
        width = len(str(most))
        for begin_ns, count in self.buckets():
            bar = "#" * -(-count * _WIDTH // most)  # whatever isn't none is to be seen
            begin, end = duration(begin_ns), duration(2 * begin_ns)
            yield f"{begin:>8} .. {end:>8}  {count:>{width}}  {bar}".rstrip()


def duration(ns: int) -> str:
    """*ns* for a person, with three digits at least: "34.4 s"."""
    size, unit = next((size, unit) for size, unit in _UNITS if ns >= size)
    decimals = max(0, 3 - len(str(ns // size))) if size > 1 else 0
    return f"{ns / size:.{decimals}f} {unit}"
