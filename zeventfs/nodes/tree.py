"""The whole tree: what stands under the mountpoint."""

from collections.abc import Mapping
from importlib.resources import files

from zeventfs.nodes.base import Clock, ControlFile, Directory, Node, SnapshotFile, Writer
from zeventfs.nodes.events import EventsDirectory

__all__ = ["simulator_directory", "tree"]


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


def simulator_directory(inject: Writer, clock_ns: Clock) -> Directory:
    """`simulator/`, with *inject* for what is written to `inject`."""
    made_ns = clock_ns()
    return Directory(
        "simulator",
        {"inject": ControlFile("simulator/inject", inject, made_ns)},
        made_ns,
    )
