"""One simulated mapped device, and the uevents that are told of it, as drivers/md/dm.c has them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from zeventfs.simulator.dm.targets import Target

__all__ = ["MAJOR", "Device"]

MAJOR: Final = 253


@dataclass(slots=True)
class Device:
    """Minor *minor* of MAJOR; `table` is None until one is live."""

    name: str
    uuid: str
    minor: int
    diskseq: int
    table: Sequence[Target] | None = None
    inactive: Sequence[Target] | None = None
    suspended: bool = False
    read_only: bool = False
    event_nr: int = 0
    open_count: int = 0
    path_seqnum: int = field(default=0, init=False)

    def uevent(self, action: str, *pairs: str) -> list[str]:
        """What a uevent says, but for its SEQNUM."""
        path = f"/devices/virtual/block/dm-{self.minor}"
        return [
            f"{action}@{path}",
            f"ACTION={action}",
            f"DEVPATH={path}",
            "SUBSYSTEM=block",
            *pairs,
            f"MAJOR={MAJOR}",
            f"MINOR={self.minor}",
            f"DEVNAME=dm-{self.minor}",
            "DEVTYPE=disk",
            f"DISKSEQ={self.diskseq}",
        ]

    def path_uevent(self, action: str, path: str, valid: int) -> list[str]:
        """PATH_FAILED or PATH_REINSTATED of a path, major:minor, with *valid* ones left."""
        self.path_seqnum += 1
        return self.uevent(
            "change",
            "DM_TARGET=multipath",
            f"DM_ACTION={action}",
            f"DM_SEQNUM={self.path_seqnum}",
            f"DM_PATH={path}",
            f"DM_NR_VALID_PATHS={valid}",
            f"DM_NAME={self.name}",
            f"DM_UUID={self.uuid}",
        )
