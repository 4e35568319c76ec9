"""The tables of `states` as a page of Markdown with Mermaid diagrams: what the docs show.

Nothing is said here that the tables don't say, so the docs can't differ from what the machine does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from zeventfs.vbd.machine import LIMITS
from zeventfs.vbd.observed import ATTACHED, OBSERVED, ORPHAN, RUNNING
from zeventfs.vbd.states import (
    ARRIVED,
    CHANNEL_TRIGGERED,
    DRIVEN,
    FREED,
    SENT,
    SHUTDOWN_TRIGGERED,
    TARGET,
    VBD_TRIGGERED,
    Channel,
    Happening,
    Message,
    Reply,
    Shutdown,
    State,
    States,
    Trigger,
    Vbd,
)

__all__ = ["channel_diagram", "document", "vbd_diagram"]

_TARGETS = (Channel.RUNNING, Channel.PAUSED, Channel.CLOSED)


def document() -> str:
    """Return the whole page; its sections are of the second level."""
    sections = (
        ("Where the channel is driven", _targets()),
        ("What it does to get there", _driven()),
        ("What moves the channel", _triggered(CHANNEL_TRIGGERED)),
        ("What moves the VBD", _triggered(VBD_TRIGGERED)),
        ("What moves shutdown", _triggered(SHUTDOWN_TRIGGERED)),
        ("Time limits", _limits()),
        ("The channel, drawn", _fenced(channel_diagram())),
        ("The VBD, drawn", _fenced(vbd_diagram())),
        ("Flag bits of a tapdisk that is only watched", _observed()),
    )
    return "\n".join(f"## {title}\n\n{content}" for title, content in sections)


def channel_diagram() -> str:
    """Return the channel's transitions: driven ones with their targets, others with triggers."""
    edges: dict[tuple[str, str], list[str]] = {("[*]", Channel.DEAD.name): []}
    for channel, row in DRIVEN.items():
        for target, following in row.items():
            if following is not None and following is not channel:
                _add(edges, channel, following, f"to {target.name}")
    for channel, triggers in CHANNEL_TRIGGERED.items():
        for trigger, following in triggers.items():
            if trigger is not Happening.EXITED:
                _add(edges, channel, following, _words(trigger))
    exits = [channel.name for channel, on in CHANNEL_TRIGGERED.items() if Happening.EXITED in on]
    note = f"    note right of DEAD: exited, from {', '.join(exits)}"
    return _diagram(edges, [note])


def vbd_diagram() -> str:
    """Return the VBD's transitions: triggered ones, arrivals, and the end."""
    edges: dict[tuple[str, str], list[str]] = {("[*]", Vbd.UNPAUSED.name): []}
    for vbd, triggers in VBD_TRIGGERED.items():
        for trigger, following in triggers.items():
            if following is not vbd:
                _add(edges, vbd, following, _words(trigger))
    for vbd, following in ARRIVED.items():
        _add(edges, vbd, following, "arrived")
    ends = [f"    {vbd.name} --> [*]: {_freed(vbd)}" for vbd in Vbd if vbd in FREED]
    return _diagram(edges, ends)


def _freed(vbd: Vbd) -> str:
    return "freed, then probed" if vbd is Vbd.RECYCLED else "freed"


def _targets() -> str:
    rows = (
        (shutdown.name, vbd.name, target.name, ARRIVED[vbd].name if vbd in ARRIVED else _end(vbd))
        for shutdown, by_vbd in TARGET.items()
        for vbd, target in by_vbd.items()
    )
    return _table(("shutdown", "VBD", "channel is driven to", "and there the VBD becomes"), rows)


def _end(vbd: Vbd) -> str:
    return _freed(vbd) if vbd in FREED else ""


def _driven() -> str:
    rows = (
        (channel.name, *(_deed(channel, row[target]) for target in _TARGETS))
        for channel, row in sorted(DRIVEN.items(), key=lambda item: item[0].value)
    )
    titles = ("channel now", *(f"driven to {target.name}" for target in _TARGETS))
    return _table(titles, rows)


def _deed(channel: Channel, following: Channel | None) -> str:
    if following is None:
        return "wait"
    if following is channel:
        return "already there"
    if following is Channel.LAUNCHED:
        return "launch a tapdisk"
    message = SENT[following]
    if message is Message.CLOSE:
        return f"{message.name}, or {Message.FORCE_SHUTDOWN.name}"
    return message.name


def _triggered(
    table: Mapping[Channel, Mapping[Trigger, Channel]]
    | Mapping[Vbd, Mapping[Trigger, Vbd]]
    | Mapping[Shutdown, Mapping[Trigger, Shutdown]],
) -> str:
    rows = (
        (state.name, _words(trigger), "" if following is state else following.name)
        for state, triggers in table.items()
        for trigger, following in triggers.items()
    )
    return _table(("in state", "by", "becomes"), rows)


def _limits() -> str:
    rows = ((channel.name, f"{seconds:g}") for channel, seconds in LIMITS.items())
    return _table(("channel", "seconds"), rows)


def _observed() -> str:
    rows = [
        (str(flags.name).replace("|", " "), f"`{int(flags):#x}`", *(state.name for state in states))
        for flags, states in OBSERVED
    ]
    rows.append(("none of these, with args", "", *(state.name for state in RUNNING)))
    rows.append(("none of these, without args", "", *(state.name for state in ATTACHED)))
    rows.append(("no process", "", *(state.name for state in ORPHAN)))
    return _table(
        ("first whose bits are all set", "bits", *(f.upper() for f in States._fields)), rows
    )


def _words(trigger: Trigger) -> str:
    return f"{trigger.name} answered" if isinstance(trigger, Reply) else trigger.value


def _add(edges: dict[tuple[str, str], list[str]], old: State, new: State, label: str) -> None:
    edges.setdefault((old.name, new.name), []).append(label)


def _diagram(edges: Mapping[tuple[str, str], Sequence[str]], more: Sequence[str]) -> str:
    lines = ["stateDiagram-v2"]
    for (old, new), labels in edges.items():
        lines.append(f"    {old} --> {new}" + (f": {', '.join(labels)}" if labels else ""))
    return "\n".join([*lines, *more]) + "\n"


def _fenced(diagram: str) -> str:
    return f"```mermaid\n{diagram}```\n"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(_lines(titles, rows))


def _lines(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |\n"
    yield f"|{'---|' * len(titles)}\n"
    for row in rows:
        yield f"| {' | '.join(row)} |\n"
