"""Plays a recording into its device, at its pace, beside everything else that the daemon does.

The file is read and parsed in a thread, some events in advance: it may lie on a slow disk, and
hold gigabytes of lines that are no events. Fed they are in the event loop's thread.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import trio

from zeventfs.errors import Invalid
from zeventfs.sources.replay import ReplayDevice, open_replay

__all__ = ["play"]

log = logging.getLogger(__name__)

_AHEAD = 256  # events read at once
_AHEAD_BYTES = 1 << 20  # or so many bytes
_AT_ONCE = 32  # events fed before others get a turn


class _Batch(NamedTuple):
    """The next events of a recording; `end` says why none follow, None if some may."""

    events: list[bytes]
    end: str | None


def _read_on(recording: Iterator[bytes]) -> _Batch:
    events: list[bytes] = []
    size = 0
    try:
        for packed in recording:
            events.append(packed)
            size += len(packed)
            if len(events) == _AHEAD or size >= _AHEAD_BYTES:
                return _Batch(events, None)
    except (Invalid, OSError) as error:
        log.warning("the recording ends early: %s", error)
        return _Batch(events, str(error))
    return _Batch(events, "end of the recording")


async def play(device: ReplayDevice) -> str:
    """Feed *device* its recording, `device.rate` events a second; return why it ended."""
    pause = 1 / device.rate if device.rate else 0.0
    recording = open_replay(device.path)
    fed = 0
    while True:
        batch = await trio.to_thread.run_sync(_read_on, recording, abandon_on_cancel=True)
        for packed in batch.events:
            device.feed(packed)
            fed += 1
            if pause:
                await trio.sleep(pause)
            elif fed % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        if batch.end is not None:
            return batch.end
