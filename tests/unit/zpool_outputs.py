"""What zpool printed of real pools: tests/corpus/zpool, whose README says how."""

from pathlib import Path

from zeventfs.pools.status import PoolStatus
from zeventfs.pools.status_text import parse_text

__all__ = ["printed", "recorded"]

CORPUS = Path(__file__).parent.parent / "corpus" / "zpool"


def printed(name: str) -> tuple[bytes, bytes, bytes]:
    """What zpool printed of the pools as *name* says: the list, with -g, with -P."""
    listed, guids, paths = [
        (CORPUS / f"{name}.{kind}").read_bytes() for kind in ("list", "guids", "paths")
    ]
    return listed, guids, paths


def recorded(name: str) -> dict[str, PoolStatus]:
    """What that says, by pool."""
    return {pool.name: pool for pool in parse_text(*printed(name))}
