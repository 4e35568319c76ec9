"""pools/: a directory for each pool that events spoke of, which says how it stands.

Pools come and go, so nothing here is for good. A node knows its pool by name: what is held open or
looked up stays right when another pool takes the name, and is stale when there is none any more.
"""

from collections.abc import Callable, Iterator
from urllib.parse import unquote

from zeventfs.errors import NotFound, Stale
from zeventfs.nodes.base import Attributes, Clock, Directory, Node, SnapshotFile
from zeventfs.pools.pool import Pool
from zeventfs.pools.pools import Pools
from zeventfs.pools.tables import delays_json, delays_text, errors_text, state_text, vdevs_text
from zeventfs.printable import printable

__all__ = ["PoolDirectory", "PoolsDirectory", "pools_directory"]

View = Callable[[str], Directory]
Find = Callable[[str], Pool | None]
_LATEST_NS = 2**63 - 1  # an event may say any time

_FILES: dict[str, Callable[[Pool], bytes]] = {
    "state": state_text,
    "vdevs": vdevs_text,
    "delays": delays_text,
    "delays.json": delays_json,
    "errors": errors_text,
}


class _PoolFile(SnapshotFile):
    __slots__ = ()
    fixed = False


class PoolDirectory(Directory):
    """`pools/<pool>/`: its own files, and those of *view_of* its name."""

    __slots__ = ("_find", "_name", "_view_of")
    fixed = False

    def __init__(self, name: str, find: Find, view_of: View) -> None:
        key = f"pools/{printable(name)}"
        self._name = name
        self._find = find
        self._view_of = view_of
        super().__init__(
            key, {each: self._file(key, each, content) for each, content in _FILES.items()}, 0
        )

    def _file(self, key: str, name: str, content: Callable[[Pool], bytes]) -> Node:
        return _PoolFile(f"{key}/{name}", lambda: content(self._pool()), self._changed_ns)

    def _pool(self) -> Pool:
        pool = self._find(self._name)
        if pool is None:
            raise Stale("exported or destroyed, and its events are gone")
        return pool

    def _changed_ns(self) -> int:
        return min(max(0, self._pool().last_ns), _LATEST_NS)

    async def measure(self) -> Attributes:
        return Attributes(0, self._changed_ns())

    def lookup(self, name: str) -> Node:
        self._pool()
        if name in _FILES:
            return super().lookup(name)
        return self._view_of(self._name).lookup(name)

    def entries(self) -> Iterator[tuple[str, Node]]:
        self._pool()
        yield from super().entries()
        yield from self._view_of(self._name).entries()


class PoolsDirectory(Directory):
    """`pools/`; *oldest_seq* gives the seq of the oldest event that the journal keeps."""

    __slots__ = ("_oldest_seq", "_pools", "_view_of")

    def __init__(
        self, pools: Pools, view_of: View, oldest_seq: Callable[[], int], made_ns: int
    ) -> None:
        super().__init__("pools", {}, made_ns)
        self._pools = pools
        self._view_of = view_of
        self._oldest_seq = oldest_seq

    def _find(self, name: str) -> Pool | None:
        return self._pools.current(self._oldest_seq()).get(name)

    def _directory(self, name: str) -> Directory:
        return PoolDirectory(name, self._find, self._view_of)

    def lookup(self, name: str) -> Node:
        # The name within is as the events have it; there is one way only to write it here
        within = unquote(name, errors="surrogateescape")
        if printable(within) != name or self._find(within) is None:
            raise NotFound(f"there is no pool {name}")
        return self._directory(within)

    def entries(self) -> Iterator[tuple[str, Node]]:
        for name in sorted(self._pools.current(self._oldest_seq())):
            yield printable(name), self._directory(name)


def pools_directory(
    pools: Pools, view_of: View, oldest_seq: Callable[[], int], clock_ns: Clock
) -> Directory:
    """`pools/`, over what *pools* knows at any time.

    *view_of* gives, for a pool's name as its events have it, the directory of its stream and logs;
    it is asked when somebody looks for them. *oldest_seq*: see PoolsDirectory.
    """
    return PoolsDirectory(pools, view_of, oldest_seq, clock_ns())
