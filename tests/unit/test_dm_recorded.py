"""The recorded datagrams, with what the devices said meanwhile, tell just what was done to them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dm_facts import device, other, payload

from zeventfs.dm.facts import DeviceFacts, TargetFacts
from zeventfs.dm.observer import Listed, Observer
from zeventfs.dm.uevent import Uevent, parse
from zeventfs.render import Renderer

CORPUS = Path(__file__).parents[1] / "corpus" / "dm"
MP_TABLE = "0 0 2 1 round-robin 0 1 1 7:1 1 round-robin 0 1 1 7:2 1 "
MPB_TABLE = "1 queue_if_no_path 0 1 1 round-robin 0 2 1 7:3 1 7:4 1 "
MP2_TABLE = "0 0 1 1 round-robin 0 2 1 8:0 1 8:16 1 "
POOL_TABLE = "253:12 253:13 128 300 0 "


def is_(
    name: str, minor: int, kind: str, table: str = "", status: str = "", **facts: Any
) -> DeviceFacts:
    """How a device stands, as a reading has it; 65,536 sectors, if nothing else is said."""
    target = TargetFacts(0, facts.pop("sectors", 65536), kind, table, status)
    return device(name, target, minor=minor, uuid=facts.pop("uuid", ""), **facts)


def lin(name: str = "lin2", **facts: Any) -> DeviceFacts:
    return is_(name, 2, "linear", "7:0 0", uuid="LVM-abc", **facts)


def mp(status: str, event_nr: int, name: str = "mp") -> DeviceFacts:
    return is_(name, 3, "multipath", MP_TABLE, status, uuid="mpath-1", event_nr=event_nr)


def mpb(first: str, second: str, event_nr: int = 0) -> DeviceFacts:
    line = f"2 1 0 0 1 1 E 0 2 0 7:3 {first} 7:4 {second} "
    return is_("mpb", 4, "multipath", MPB_TABLE, line, uuid="mpath-bio", event_nr=event_nr)


def mp2(first: str, second: str, event_nr: int = 0) -> DeviceFacts:
    line = f"2 0 0 0 1 1 E 0 2 0 8:0 {first} 8:16 {second} "
    return is_("mp2", 5, "multipath", MP2_TABLE, line, uuid="mpath-2", event_nr=event_nr)


def mirror(status: str, event_nr: int) -> DeviceFacts:
    table = "core 2 1024 nosync 2 253:6 0 253:7 0 1 handle_errors"
    return is_("mir", 8, "mirror", table, status, sectors=32768, uuid="mirror-1", event_nr=event_nr)


def snap2(status: str, event_nr: int = 0) -> DeviceFacts:
    table = "253:2 7:6 P 8"
    return is_(
        "snap2", 11, "snapshot", table, status, sectors=16384, uuid="snap-2", event_nr=event_nr
    )


def pool(status: str, event_nr: int = 0) -> DeviceFacts:
    return is_(
        "pool",
        14,
        "thin-pool",
        POOL_TABLE,
        status,
        sectors=40960,
        uuid="thin-pool",
        event_nr=event_nr,
    )


# What was done, how the device stood thereafter (a number: it was gone), and what is told of it.
# Status lines that were not recorded are as the kernel's functions print them.
STORY: list[tuple[str, int | DeviceFacts | tuple[DeviceFacts, ...] | None, list[str]]] = [
    (
        "dmsetup create z0",
        is_("z0", 0, "zero"),
        ["dm.created z0", "dm.table.live z0 0 65536 zero"],
    ),
    (
        "dmsetup create e0",
        is_("e0", 1, "error", uuid="TEST-uuid-e0", sectors=2048),
        ["dm.created e0", "dm.table.live e0 0 2048 error"],
    ),
    (
        "dmsetup create lin ",
        lin("lin"),
        ["dm.created lin", "dm.table.live lin 0 65536 linear"],
    ),
    ("dmsetup rename lin lin2", lin(), ["dm.renamed lin2 old_name=lin"]),
    ("dmsetup suspend lin2", lin(suspended=True), ["dm.suspended lin2"]),
    ("dmsetup resume lin2", lin(), ["dm.resumed lin2"]),
    ("dmsetup load lin2", lin(inactive=True), []),
    ("dmsetup resume lin2", lin(sectors=32768), ["dm.table.live lin2 0 32768 linear"]),
    ("dmsetup load lin2", lin(sectors=32768, inactive=True), []),
    (
        "dmsetup resume lin2",
        lin(read_only=True),
        ["dm.table.live lin2 0 65536 linear read_only"],
    ),
    (
        "dmsetup create mp ",
        mp("2 1 0 0 2 1 E 0 1 0 7:1 A 0 E 0 1 0 7:2 A 0 ", 0),
        ["dm.created mp", "dm.table.live mp 0 65536 multipath"],
    ),
    (
        "dmsetup message mp 0 fail_path 7:1",
        mp("2 1 0 0 2 1 E 0 1 0 7:1 F 1 E 0 1 0 7:2 A 0 ", 1),
        ["dm.path.failed mp path=7:1 group=1 valid_paths=1 fail_count=1"],
    ),
    ("dmsetup message mp 0 fail_path 7:1", None, []),
    (
        "dmsetup message mp 0 fail_path 7:2",
        mp("2 1 0 0 2 1 E 0 1 0 7:1 F 1 E 0 1 0 7:2 F 1 ", 2),
        ["dm.path.failed mp path=7:2 group=2 valid_paths=0 fail_count=1"],
    ),
    (
        "dmsetup message mp 0 reinstate_path 7:1",
        mp("2 1 0 0 2 1 E 0 1 0 7:1 A 1 E 0 1 0 7:2 F 1 ", 3),
        ["dm.path.reinstated mp path=7:1 group=1 valid_paths=1 fail_count=1"],
    ),
    (
        "dmsetup message mp 0 reinstate_path 7:2",
        mp("2 1 0 0 2 1 E 0 1 0 7:1 A 1 E 0 1 0 7:2 A 1 ", 4),
        ["dm.path.reinstated mp path=7:2 group=2 valid_paths=2 fail_count=1"],
    ),
    (
        "dmsetup message mp 0 switch_group 2",
        mp("2 1 0 0 2 2 E 0 1 0 7:1 A 1 E 0 1 0 7:2 A 1 ", 5),
        ["dm.group.switched mp from=1 to=2"],
    ),
    (
        "dmsetup message mp 0 disable_group 1",
        mp("2 1 0 0 2 2 D 0 1 0 7:1 A 1 E 0 1 0 7:2 A 1 ", 6),
        ["dm.group.bypassed mp group=1 paths=7:1"],
    ),
    (
        "dmsetup message mp 0 enable_group 1",
        mp("2 1 0 0 2 2 E 0 1 0 7:1 A 1 E 0 1 0 7:2 A 1 ", 7),
        ["dm.group.enabled mp group=1 paths=7:1"],
    ),
    ("dmsetup message mp 0 queue_if_no_path", None, []),
    (
        "timeout 5 dd if=/dev/mapper/mp ",
        mp("2 0 0 0 2 2 E 0 1 0 7:1 A 1 A 0 1 0 7:2 A 1 ", 7),
        [],
    ),
    (
        "dmsetup create mpb",
        mpb("A 0", "A 0"),
        ["dm.created mpb", "dm.table.live mpb 0 65536 multipath"],
    ),
    (
        "dmsetup message mpb 0 fail_path 7:3",
        mpb("F 1", "A 0", 1),
        ["dm.path.failed mpb path=7:3 group=1 valid_paths=1 fail_count=1"],
    ),
    (
        "dmsetup message mpb 0 fail_path 7:4",
        mpb("F 1", "F 1", 2),
        ["dm.path.failed mpb path=7:4 group=1 valid_paths=0 fail_count=1"],
    ),
    (
        "dmsetup message mpb 0 reinstate_path 7:4",
        mpb("F 1", "A 1", 3),
        ["dm.path.reinstated mpb path=7:4 group=1 valid_paths=1 fail_count=1"],
    ),
    (  # both paths failed before it was read
        "dmsetup create mp2",
        mp2("F 1", "F 1", 2),
        [
            "dm.created mp2",
            "dm.table.live mp2 0 65536 multipath",
            "dm.path.failed mp2 path=8:0 group=1 valid_paths=1 fail_count=1",
            "dm.path.failed mp2 path=8:16 group=1 valid_paths=0 fail_count=1",
        ],
    ),
    (
        "dmsetup message mp2 0 reinstate_path 8:0",
        mp2("F 2", "F 1", 4),
        [
            "dm.path.reinstated mp2 path=8:0 group=1 valid_paths=1 fail_count=1",
            "dm.path.failed mp2 path=8:0 group=1 valid_paths=0 fail_count=2",
        ],
    ),
    (
        "dmsetup create mlegA",
        is_("mlegA", 6, "linear", "7:5 0", sectors=32768),
        ["dm.created mlegA", "dm.table.live mlegA 0 32768 linear"],
    ),
    (
        "dmsetup create mlegB",
        is_("mlegB", 7, "linear", "7:5 32768", sectors=32768),
        ["dm.created mlegB", "dm.table.live mlegB 0 32768 linear"],
    ),
    (
        "dmsetup create mir",
        mirror("2 253:6 253:7 32/32 1 AA 1 core", 0),
        ["dm.created mir", "dm.table.live mir 0 32768 mirror"],
    ),
    (
        "dmsetup resume mlegB",
        is_("mlegB", 7, "error", sectors=32768),
        ["dm.table.live mlegB 0 32768 error"],
    ),
    (
        "sleep 2",
        mirror("2 253:6 253:7 31/32 1 AD 1 core", 1),
        [
            (
                "dm.mirror.leg_failed mir leg=253:7 how=write failed legs_alive=1"
                " regions_in_sync=31 regions=32"
            ),
        ],
    ),
    (
        "dmsetup create org",
        is_("org", 9, "snapshot-origin", "253:2", sectors=16384),
        ["dm.created org", "dm.table.live org 0 16384 snapshot-origin"],
    ),
    (
        "dmsetup create snap ",
        is_("snap", 10, "snapshot", "253:2 7:3 P 8", "16/65536 16", sectors=16384),
        ["dm.created snap", "dm.table.live snap 0 16384 snapshot"],
    ),
    (
        "dmsetup create snap2",
        snap2("16/2048 16"),
        ["dm.created snap2", "dm.table.live snap2 0 16384 snapshot"],
    ),
    (
        "timeout 10 dd if=/dev/zero of=/dev/mapper/snap2",
        snap2("Invalid", 1),
        ["dm.snapshot.invalid snap2 origin=253:2 cow=7:6 reason=Invalid"],
    ),
    (
        "dmsetup create tmeta",
        is_("tmeta", 12, "linear", "7:4 0", sectors=8192),
        ["dm.created tmeta", "dm.table.live tmeta 0 8192 linear"],
    ),
    (
        "dmsetup create tdata",
        is_("tdata", 13, "linear", "7:4 8192", sectors=40960),
        ["dm.created tdata", "dm.table.live tdata 0 40960 linear"],
    ),
    (
        "dmsetup create pool",
        pool("0 11/1024 0/320 - rw discard_passdown queue_if_no_space - 256 "),
        ["dm.created pool", "dm.table.live pool 0 40960 thin-pool"],
    ),
    (
        "dmsetup create thin",
        is_("thin", 15, "thin", "253:14 0", "0 -", uuid="thin-0"),
        ["dm.created thin", "dm.table.live thin 0 65536 thin"],
    ),
    (  # mp's path failed meanwhile
        "timeout 20 dd if=/dev/zero of=/dev/mapper/thin",
        (
            pool("0 112/1024 96/320 - rw discard_passdown queue_if_no_space - 256 ", 1),
            mp("2 0 0 0 2 2 E 0 1 0 7:1 F 2 A 0 1 0 7:2 A 1 ", 8),
        ),
        [
            "dm.path.failed mp path=7:1 group=1 valid_paths=1 fail_count=2",
            (
                "dm.thin.low_water pool low=data low_water=300 mode=rw needs_check=False"
                " no_space=queue_if_no_space data_used=96 data_total=320 metadata_used=112"
                " metadata_total=1024"
            ),
        ],
    ),
    ("dmsetup remove e0", 1, ["dm.removed e0"]),
    ("dmsetup remove --deferred z0", 0, ["dm.removed z0"]),
    ("dmsetup remove snap2", 11, ["dm.removed snap2"]),
    ("dmsetup remove thin", 15, ["dm.removed thin"]),
    (
        "dmsetup rename mp mp-renamed",
        mp("2 0 0 0 2 2 E 0 1 0 7:1 F 2 A 0 1 0 7:2 A 1 ", 8, "mp-renamed"),
        ["dm.renamed mp-renamed old_name=mp"],
    ),
    (
        "dmsetup message mp-renamed 0 fail_path 7:2",
        mp("2 0 0 0 2 2 E 0 1 0 7:1 F 2 E 0 1 0 7:2 F 2 ", 9, "mp-renamed"),
        ["dm.path.failed mp-renamed path=7:2 group=2 valid_paths=0 fail_count=2"],
    ),
    ("dmsetup remove mp-renamed", 3, ["dm.removed mp-renamed"]),
    (
        "dmsetup create we ird",
        is_("we ird", 0, "zero", sectors=8),
        ["dm.created we ird", "dm.table.live we ird 0 8 zero"],
    ),
    ("dmsetup remove we ird", 0, ["dm.removed we ird"]),
    (
        "dmsetup create sl@sh:colon=é",
        is_("sl@sh:colon=é", 0, "zero", sectors=8),
        ["dm.created sl@sh:colon=é", "dm.table.live sl@sh:colon=é 0 8 zero"],
    ),
]


def recorded() -> Iterator[tuple[str, list[Uevent]]]:
    """Each step, and the uevents up to the next one.

    The recorder kept those of block devices alone; others' stand in for what is missing.
    """
    step, last = "", None
    uevents: list[Uevent] = []
    for line in (CORPUS / "uevents.raw.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "step" in entry:
            yield step, uevents
            step, uevents = entry["step"], []
            continue
        uevent = parse(entry["raw"].encode())
        uevents += [other(number) for number in range(last or uevent.seqnum, uevent.seqnum)]
        uevents.append(uevent)
        last = uevent.seqnum + 1
    yield step, uevents


def shortly(line: dict[str, Any]) -> str:
    """An event in few words: its class, its device, and what it says beside."""
    says = payload(line)
    name = says.pop("name")
    del says["uuid"], says["dev"]
    if line["class"] == "dm.table.live":
        assert says["target_count"] == len(says["targets"])
        assert says["sectors"] == int(says["targets"][0].split()[1])
        return " ".join([line["class"], name, *says["targets"], *["read_only"] * says["read_only"]])
    pairs = [
        f"{key}={' '.join(value) if isinstance(value, list) else value}"
        for key, value in says.items()
    ]
    return " ".join([line["class"], name, *pairs])


def test_what_was_done_is_told_step_by_step() -> None:
    observer, renderer = Observer(), Renderer("epoch", None)
    assert observer.take_all([], 0) == []
    there: dict[str, DeviceFacts] = {}
    story, expected, seen = iter(STORY), [], []
    done, stands, tells = next(story)
    for step, uevents in recorded():
        found = step.startswith(done)
        if found:
            if isinstance(stands, int):
                del there[f"253:{stands}"]
            elif isinstance(stands, DeviceFacts):
                there[stands.dev] = stands
            elif stands is not None:
                there |= {facts.dev: facts for facts in stands}
            expected += tells
            done, stands, tells = next(story, ("the end", None, []))
        events = [event for uevent in uevents for event in observer.take_uevent(uevent, 1)]
        # the event number polled, or the control device was used
        listed = [Listed(facts.name, dev, facts.event_nr) for dev, facts in there.items()]
        events += observer.take_list(listed, 1)
        assert not observer.wanted.everything
        devs = dict.fromkeys((*observer.wanted.devs, *(there if found else ())))
        for dev in devs:
            events += observer.take(dev, there.get(dev), 1)
        assert not observer.wanted
        seen += [shortly(json.loads(renderer.json_line(event, 1))) for event in events]
        assert seen == expected, step
    assert done == "the end"
    assert observer.gaps == 0
    assert list(observer.devices) == sorted(facts.name for facts in there.values())
