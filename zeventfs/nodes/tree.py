"""The whole tree: what stands under the mountpoint."""

from collections.abc import Mapping
from importlib.resources import files

from zeventfs.nodes.base import Clock, Directory, Node, SnapshotFile
from zeventfs.nodes.events import EventsDirectory

__all__ = ["tree"]


def tree(events: EventsDirectory, others: Mapping[str, Directory], clock_ns: Clock) -> Directory:
    """The root, with *events*, the directories *others* by name, and the README."""
    readme = (files("zeventfs.nodes") / "README.md").read_bytes()
    made_ns = clock_ns()
    children: dict[str, Node] = {
        "README": SnapshotFile("README", lambda: readme, lambda: made_ns),
        "events": events,
        **others,
    }
    return Directory("", children, made_ns)
