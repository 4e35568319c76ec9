"""Names that only come and go: the kernel would keep them for as long as it has memory.

The kernel asks anew for a name that it may not keep, but forgets the inode behind it only when it
needs the memory. Where a name can be anything, that is too many: so the names that were asked for
longest ago are taken back, unless their nodes are in use.
"""

from collections.abc import Callable

from zeventfs.nodes.base import Node

__all__ = ["PassingNames"]

_MOST = 256  # that the kernel may know without using them
_AT_ONCE = 8  # looked at for each name that is too many


class PassingNames:
    """The names of such nodes; *take_back* is told a directory's inode and a name in it.

    It must not wait: the kernel has a lock on that directory while it looks a name up.
    """

    def __init__(self, take_back: Callable[[int, bytes], None]) -> None:
        self._take_back = take_back
        self._nodes: dict[tuple[int, bytes], Node] = {}  # the latest that was asked for is last

    def __len__(self) -> int:
        return len(self._nodes)

    def told(self, parent: int, name: bytes, node: Node) -> None:
        """Note that the kernel was told of *node*, which is called *name* in *parent*."""
        self._nodes.pop((parent, name), None)
        self._nodes[parent, name] = node
        if len(self._nodes) <= _MOST:
            return
        for place in list(self._nodes)[:_AT_ONCE]:
            oldest = self._nodes.pop(place)
            if oldest.in_use:
                self._nodes[place] = oldest
            else:
                self._take_back(*place)
