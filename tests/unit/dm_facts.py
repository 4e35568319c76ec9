"""Mapped devices to be read, datagrams to be taken, and events as their readers see them."""

import json
from collections.abc import Iterable
from typing import Any

from zeventfs.dm.facts import DeviceFacts, TargetFacts
from zeventfs.dm.uevent import Uevent, parse
from zeventfs.event import Event
from zeventfs.render import Renderer

LINEAR = TargetFacts(0, 65536, "linear", "7:0 0", "")
TWO_GROUPS = "0 0 2 1 round-robin 0 1 1 7:1 1 round-robin 0 1 1 7:2 1 "
ONE_GROUP = "0 0 1 1 round-robin 0 2 1 7:1 1 7:2 1 "


def device(name: str = "lin", *targets: TargetFacts, **facts: Any) -> DeviceFacts:
    """A live device 253:2 with one linear target, but for what is said."""
    given = DeviceFacts(
        name,
        f"uuid-{name}",
        253,
        2,
        suspended=False,
        live=True,
        inactive=False,
        read_only=False,
        event_nr=0,
        open_count=0,
        targets=targets or (LINEAR,),
    )
    return given._replace(**facts)


def multipath(status: str, table: str = TWO_GROUPS) -> TargetFacts:
    return TargetFacts(0, 65536, "multipath", table, status)


def two_groups(first: str = "A 0", second: str = "A 0", states: str = "EE", to: int = 1) -> str:
    """A status line of paths 7:1 and 7:2, in a group each."""
    return f"2 0 0 0 2 {to} {states[0]} 0 1 0 7:1 {first} {states[1]} 0 1 0 7:2 {second} "


def mp(first: str = "A 0", second: str = "A 0", **facts: Any) -> DeviceFacts:
    """The multipath device mp, 253:3."""
    line = two_groups(first, second, facts.pop("states", "EE"), facts.pop("to", 1))
    return device("mp", multipath(line), minor=3, **facts)


def datagram(action: str, minor: int, seqnum: int, **keys: object) -> bytes:
    """What the kernel sends of the mapped device 253:*minor*."""
    path = f"/devices/virtual/block/dm-{minor}"
    pairs = {
        "ACTION": action,
        "DEVPATH": path,
        "SUBSYSTEM": "block",
        **keys,
        "MAJOR": 253,
        "MINOR": minor,
        "DEVNAME": f"dm-{minor}",
        "DEVTYPE": "disk",
        "SEQNUM": seqnum,
    }
    lines = [f"{action}@{path}", *[f"{key}={value}" for key, value in pairs.items()], ""]
    return "\0".join(lines).encode("utf-8", "surrogateescape")


def uevent(action: str, minor: int, seqnum: int, **keys: object) -> Uevent:
    return parse(datagram(action, minor, seqnum, **keys))


def path_uevent(
    verb: str, path: str, number: int, valid: int, seqnum: int, **keys: object
) -> Uevent:
    """A path of mp FAILED or REINSTATED."""
    of_mp = {
        "DM_TARGET": "multipath",
        "DM_ACTION": f"PATH_{verb}",
        "DM_SEQNUM": number,
        "DM_PATH": path,
        "DM_NR_VALID_PATHS": valid,
        "DM_NAME": "mp",
        "DM_UUID": "uuid-mp",
    }
    return uevent("change", 3, seqnum, **(of_mp | keys))


def other(seqnum: int) -> Uevent:
    """A uevent of a device that is not mapped."""
    return parse(b"add@/devices/virtual/bdi/9\0ACTION=add\0SEQNUM=%d\0" % seqnum)


def lines(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The events as their JSON lines have them."""
    renderer = Renderer("epoch", None)
    return [json.loads(renderer.json_line(event, 1)) for event in events]


def told(events: Iterable[Event]) -> list[tuple[str, dict[str, Any]]]:
    """Class and payload of each."""
    return [(line["class"], payload(line)) for line in lines(events)]


def payload(line: dict[str, Any]) -> dict[str, Any]:
    """What an event says, without its class and time, which every payload repeats."""
    return {
        key: value for key, value in line["payload"].items() if key not in ("class", "time", "eid")
    }


def classes(events: Iterable[Event]) -> list[str]:
    return [event.name for event in events]
