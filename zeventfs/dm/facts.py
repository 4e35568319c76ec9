"""How one mapped device stands, as the device-mapper ioctls tell it: facts of one moment.

Made by who reads /dev/mapper/control (or stands in for it), compared by `changes`, and shown by
the tree. Formats: the kernel's Documentation/admin-guide/device-mapper/, uapi/linux/dm-ioctl.h.
"""

from typing import NamedTuple

__all__ = ["DeviceFacts", "TargetFacts"]


class TargetFacts(NamedTuple):
    """One target of a table: sectors *start* to start + *length* - 1, of 512 bytes each."""

    start: int
    length: int
    kind: str
    """Its type's name: "linear", "multipath", "mirror", "snapshot", "thin-pool"."""
    table: str
    """Its parameters, as `dmsetup table` prints them."""
    status: str
    """As `dmsetup status` prints it; empty for targets that have none."""


class DeviceFacts(NamedTuple):
    """One mapped device."""

    name: str
    uuid: str
    """Empty if it has none."""
    major: int
    minor: int
    suspended: bool
    live: bool
    """Whether it has a live table (DM_ACTIVE_PRESENT_FLAG)."""
    inactive: bool
    """Whether a table is loaded and not yet live (DM_INACTIVE_PRESENT_FLAG)."""
    read_only: bool
    event_nr: int
    open_count: int
    targets: tuple[TargetFacts, ...]

    @property
    def dev(self) -> str:
        """major:minor, as the kernel writes it."""
        return f"{self.major}:{self.minor}"

    @property
    def sectors(self) -> int:
        """The size, in sectors of 512 bytes."""
        return max((target.start + target.length for target in self.targets), default=0)
