"""What a reader's bytes say: JSON lines as TREE.md describes them, and what was lost, counted."""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["Account", "Event", "account", "events", "is_own_gap", "labels", "posted"]

Event = dict[str, Any]

LABELLED = re.compile(r"(\w+) x*")  # what `posted` writes, and no recorded event says


class Account(NamedTuple):
    """What one reader saw: events read, events in its own gaps, those gaps, first and last seq."""

    read: int
    dropped: int
    gaps: list[Event]
    first: int
    last: int


def events(given: bytes) -> list[Event]:
    """Parse whole JSON lines; a torn one, at the end or inside, fails."""
    assert given == b"" or given.endswith(b"\n"), f"torn at the end: {given[-80:]!r}"
    parsed = [json.loads(line) for line in given.splitlines()]
    assert all(isinstance(event, dict) for event in parsed)
    return parsed


def is_own_gap(event: Event) -> bool:
    """Tell a reader's own gap, which has no seq, from the journal's."""
    return bool(event["class"] == "zeventfs.gap") and "seq" not in event


def account(seen: Iterable[Event]) -> Account:
    """Add up what a reader saw, and fail where an event is missing, doubled or out of order."""
    read = dropped = 0
    gaps: list[Event] = []
    first = following = None
    for event in seen:
        if is_own_gap(event):
            gap = event["payload"]
            start, end = int(gap["first_seq"]), int(gap["last_seq"])
            assert int(gap["dropped"]) == end - start + 1
            assert gap["cause"] in {"evicted", "cleared"}
            gaps.append(event)
            dropped += end - start + 1
        else:
            start = end = event["seq"]
            read += 1
        assert following is None or start == following, f"after {following}: {event}"
        first = start if first is None else first
        following = end + 1
    assert first is not None, "saw nothing"
    assert following is not None
    return Account(read, dropped, gaps, first, following - 1)


def posted(label: str, size: int = 0) -> bytes:
    """Return the inject line of an event that carries *label*, and *size* bytes of ballast."""
    payload = {"history_internal_str": f"{label} {'x' * size}"}
    event = {"class": "sysevent.fs.zfs.history_event", "pool": "tank", "payload": payload}
    return json.dumps(event).encode() + b"\n"


def labels(seen: Iterable[Event]) -> list[str]:
    """Return the labels of the events among *seen* that `posted` made."""
    found = (event["payload"].get("history_internal_str", "") for event in seen)
    return [match[1] for match in map(LABELLED.fullmatch, found) if match]
