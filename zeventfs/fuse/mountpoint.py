"""Where a daemon's mount is, and how it lets go of it, without asking the mounted tree anything.

Only what this daemon has mounted is ever detached: something else may be mounted there by now.
"""

import logging
from pathlib import Path

import trio

from zeventfs.umount import FSTYPE, detach_command, mounted_at

__all__ = ["Mountpoint"]

log = logging.getLogger(__name__)


class Mountpoint:
    """*path*, at which this daemon has just mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        mounted = mounted_at(path)
        self._connection = None if mounted is None else mounted.connection

    @property
    def is_ours(self) -> bool:
        """Whether this daemon's mount is still there, and nothing over it."""
        mounted = mounted_at(self.path)
        return (
            mounted is not None
            and mounted.fstype == FSTYPE
            and mounted.connection == self._connection
        )

    async def detach(self) -> None:
        """Let go of the mountpoint, if the mount is still there; what goes wrong is logged."""
        if not self.is_ours:
            return
        with trio.CancelScope(shield=True):  # half done would be worse than late
            await self._run(detach_command(self.path))

    async def _run(self, command: list[str]) -> None:
        try:
            done = await trio.run_process(
                command, check=False, capture_stdout=True, capture_stderr=True
            )
        except OSError as error:
            log.warning("%s: %s", command[0], error)
            return
        if done.returncode and self.is_ours:
            why = done.stderr.decode(errors="replace").strip()
            log.warning("%s: %s", " ".join(command), why)
