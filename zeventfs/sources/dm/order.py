"""The order in which path events have happened, of uevents that were received together.

While the kernel is busy, those of a device wait, and then are sent the last first: dm_uevent_add of
drivers/md/dm.c puts each before the others. Their numbers (DM_SEQNUM) are those of their happening.
"""

from collections.abc import Sequence

from zeventfs.dm.uevent import Uevent

__all__ = ["ends_within_run", "in_order"]


def in_order(received: Sequence[Uevent]) -> Sequence[Uevent]:
    """All of *received*: each device's path events in their places, but in their own order."""
    if len(received) < 2:
        return received
    places: dict[str, list[int]] = {}
    for place, each in enumerate(received):
        if each.path is not None and each.dev is not None:
            places.setdefault(each.dev, []).append(place)
    ordered = list(received)
    for of_one in places.values():
        events = sorted((received[place] for place in of_one), key=_number)
        for place, each in zip(of_one, events, strict=True):
            ordered[place] = each
    return ordered


def ends_within_run(received: Sequence[Uevent]) -> bool:
    """Whether path events that were sent the last first may go on behind *received*."""
    if not received or received[-1].path is None:
        return False
    dev, last = received[-1].dev, received[-1].path.number
    before = next((each for each in received[-2::-1] if each.dev == dev and each.path), None)
    return before is None or _number(before) > last


def _number(event: Uevent) -> int:
    assert event.path is not None
    return event.path.number
