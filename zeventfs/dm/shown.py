"""What the tree shows of mapped devices: between nodes/dm and who watches them."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from zeventfs.bell import Bell
from zeventfs.dm.facts import DeviceFacts

__all__ = ["PathSince", "ShownDevice", "ShownDevices"]


class PathSince(NamedTuple):
    """When a path came to be as it is, in ns since 1970; and the error it failed with, if known."""

    since_ns: int
    error: str


class ShownDevice(Protocol):
    """One mapped device, from its creation to its removal, whatever it is called meanwhile."""

    serial: int
    """Which device of this mount it is: never another's, and the same after a rename."""
    names: tuple[str, ...]
    """All that it was called since it is watched, the present one last: whose events are its."""
    facts: DeviceFacts
    """How it stood when it was last read."""
    changed_ns: int
    """When it last changed, ns since 1970."""
    changes: int
    """How many changes there were so far: another number, another state."""
    changed: Bell
    """Rings after each change of its facts or name, and when it is gone."""
    gone: bool
    """Whether it was removed: what is open of it then ends with ESTALE."""

    @property
    def name(self) -> str:
        """As it is called now."""
        ...

    def paths(self) -> Mapping[str, PathSince]:
        """Since when each path of it, by major:minor, is as it is."""
        ...


class ShownDevices(Protocol):
    """All mapped devices of the mount. `changed` rings when one appears, is renamed or is gone."""

    changed: Bell

    def __iter__(self) -> Iterator[str]:
        """The names of those that there are, sorted."""
        ...

    def get(self, name: str) -> ShownDevice | None:
        """The device called *name* now, None if there is none."""
        ...
