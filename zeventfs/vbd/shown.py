"""What the tree shows of VBDs and asks of them: between nodes/vbd and who drives or watches them.

Two may stand behind it, with one code path: tapdisks that are only watched, and those that an
agent spawns and steers. Nothing here does anything by itself.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from zeventfs.bell import Bell
from zeventfs.vbd.chain import Chain
from zeventfs.vbd.counters import Kicks, Queue
from zeventfs.vbd.dispersion import Dispersion
from zeventfs.vbd.states import Request, States

__all__ = ["ShownVbd", "ShownVbds", "Status"]


class Status(NamedTuple):
    """How a VBD stands, all of one moment; times are ns since 1970."""

    states: States
    pid: int | None
    """Of its tapdisk, None if it has none."""
    reason: str
    """Why it came to stand so: the latest change's."""
    changed_ns: int
    """When that was."""
    changes: int
    """How many changes there were so far: another number, another state."""
    image: str
    """driver:path, empty if it has none."""


class ShownVbd(Protocol):
    """One VBD. Its `changed` rings after each change of its status, and when it is gone."""

    id: str
    changed: Bell
    gone: bool
    """Whether it was removed: what is open of it then ends with ESTALE."""
    errors: Dispersion

    def status(self) -> Status:
        """How it stands now."""
        ...

    def info(self) -> Mapping[str, str]:
        """What else is known of it and of its tapdisk, as key and value, for `info`."""
        ...

    async def queue(self) -> Queue:
        """Its requests; asks the tapdisk, and has None for what can't be known."""
        ...

    async def kicks(self) -> Kicks | None:
        """Its notifications; None if they can't be known."""
        ...

    async def chain(self) -> Chain | None:
        """Its image's parents, read now; None if it has no image."""
        ...

    def ask(self, request: Request) -> None:
        """Ask for something. Raises Down, Busy, Invalid (no image to start with), Fixed."""
        ...

    def set_image(self, image: str) -> None:
        """Have it open *image*, driver:path, at its next start. Raises Invalid, Busy, Fixed."""
        ...


class ShownVbds(Protocol):
    """All VBDs of the mount. `changed` rings when one appears or is gone."""

    changed: Bell
    steerable: bool
    """Whether control, image, mkdir and rmdir are there at all."""

    def __iter__(self) -> Iterator[str]:
        """The ids of those that are listed, sorted as a person would."""
        ...

    def get(self, vbd: str) -> ShownVbd | None:
        """The VBD called *vbd*, None if none is listed so."""
        ...

    def appear(self, vbd: str) -> None:
        """Its device's path appears (mkdir). Raises Exists, Invalid (no id of a VBD), Fixed."""
        ...

    def vanish(self, vbd: str) -> None:
        """Its path is removed (rmdir): it is listed no more at once. Raises NotFound, Fixed."""
        ...
