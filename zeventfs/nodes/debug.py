"""debug/: what the daemon itself is doing, for a person in front of a tree that does not answer."""

from collections.abc import Callable

from zeventfs.nodes.base import Clock, Directory, SnapshotFile

__all__ = ["debug_directory"]


class _RequestsFile(SnapshotFile):
    """`debug/requests`: what others ask for is for the owner's eyes only."""

    __slots__ = ()
    private = True


def debug_directory(requests: Callable[[], bytes], clock_ns: Clock) -> Directory:
    """`debug/`, with *requests* for the content of `requests`, which is always of now."""
    return Directory(
        "debug", {"requests": _RequestsFile("debug/requests", requests, clock_ns)}, clock_ns()
    )
