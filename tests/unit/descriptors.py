"""How many descriptors this process has of a file."""

from contextlib import suppress
from pathlib import Path

__all__ = ["descriptors_of"]


def descriptors_of(path: Path) -> int:
    """Count this process's descriptors of *path*, be it unlinked already."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            count += str(each.readlink()).startswith(str(path))
    return count
