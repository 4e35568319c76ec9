"""Where segments are kept: files in the mount's runtime directory, or memory when there is no room.

A full or broken file system must not cost an event. So a segment that gets no file is made in
memory, and that is said once; it will not survive the daemon, but it is read like any other.
"""

import logging
from pathlib import Path

from zeventfs.errors import DamagedState
from zeventfs.journal.segment import Identity, Segment

__all__ = ["Store"]

log = logging.getLogger(__name__)


class Store:
    """Segments in *directory*, or in memory only if that is None.

    `recovered` are those that an earlier daemon left there: the newest unbroken run of one epoch,
    oldest first. What else looks like a segment is removed. Raises OSError when the directory
    can't be read.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._said = False
        self.recovered = [] if directory is None else _recover(directory)

    def create(self, identity: Identity, size: int) -> Segment:
        """A new segment with room for *size* bytes of lines."""
        if self._directory is not None:
            path = self._directory / f"segment-{identity.serial:010}"
            try:
                segment = Segment.create(path, identity, size)
            except OSError as error:
                self.say_full(error)
            else:
                self._said = False
                return segment
        return self.create_in_memory(identity, size)

    def create_in_memory(self, identity: Identity, size: int) -> Segment:
        """A new segment of which the file system knows nothing."""
        return Segment.create(None, identity, size)

    def say_full(self, error: OSError) -> None:
        """Log, once until it is over, that events are kept in memory only."""
        if not self._said:
            log.warning(
                "%s: %s; events are kept in memory and would not survive the daemon",
                self._directory,
                error.strerror,
            )
            self._said = True


def _recover(directory: Path) -> list[Segment]:
    found: list[Segment] = []
    for path in sorted(directory.glob("segment-*")):
        try:
            segment = Segment.recover(path)
        except (DamagedState, OSError) as error:
            log.warning("%s is left out of the journal: %s", path.name, error)
            path.unlink(missing_ok=True)
            continue
        if found and not _follows(found[-1], segment):
            for older in found:
                older.drop()
            found.clear()
        found.append(segment)
    return found


def _follows(older: Segment, newer: Segment) -> bool:
    """Whether *newer* goes on exactly where *older* ends."""
    return (
        newer.identity.epoch == older.identity.epoch
        and newer.identity.base == older.lines.end
        and newer.identity.first_seq == older.lines.next_seq
    )
