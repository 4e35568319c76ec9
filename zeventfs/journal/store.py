"""Where segments are kept: files in the mount's runtime directory, or memory when there is no room.

A full or broken file system must not cost an event. So a segment that gets no file is made in
memory, and that is said once; it will not survive the daemon, but it is read like any other.
"""

import logging
from contextlib import suppress
from pathlib import Path

from zeventfs.errors import DamagedState
from zeventfs.journal.segment import Identity, Segment

__all__ = ["Store"]

log = logging.getLogger(__name__)

_NAME = "segment-%010d"
_NAMES = "segment-" + 10 * "[0-9]"


class Store:
    """Segments in *directory*, or in memory only if that is None.

    `recovered` are those that an earlier daemon left there: the newest unbroken run of one epoch,
    oldest first, if it reaches to the epoch's last event: going on from before that would give
    seqs and positions twice. What else looks like a segment is removed.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._said = False
        self.recovered = [] if directory is None else _recover(directory)

    def create(self, identity: Identity, size: int) -> Segment:
        """A new segment with room for *size* bytes of lines."""
        if self._directory is not None:
            path = self._directory / (_NAME % identity.serial)
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
    run: list[Segment] = []
    for path in sorted(directory.glob(_NAMES)):
        try:
            segment = Segment.recover(path)
        except (DamagedState, OSError) as error:
            log.warning("%s is left out of the journal: %s", path, error)
            _remove(path)
            continue
        if run and not _follows(run[-1], segment):
            _drop(run)
        elif run and not run[-1].used:
            run.pop().drop()  # the newer one has its place
        run.append(segment)
    if run and run[-1].sealed:
        log.warning("%s: the newest events are missing; a new epoch begins", directory)
        _drop(run)
    return run


def _remove(path: Path) -> None:
    with suppress(OSError):  # a directory, say; nobody of ours made it
        path.unlink()


def _drop(run: list[Segment]) -> None:
    for segment in run:
        segment.drop()
    run.clear()


def _follows(older: Segment, newer: Segment) -> bool:
    """Whether *newer* goes on exactly where *older* ends."""
    return (
        newer.identity.epoch == older.identity.epoch
        and newer.identity.base == older.lines.end
        and newer.identity.first_seq == older.lines.next_seq
    )
