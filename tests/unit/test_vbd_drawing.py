"""The page drawn from the tables shows every transition, and none that isn't there."""

from pathlib import Path

from zeventfs.vbd.drawing import channel_diagram, document, vbd_diagram
from zeventfs.vbd.states import CHANNEL_TRIGGERED, DRIVEN, VBD_TRIGGERED, Channel, Happening, Vbd


def edges(diagram: str) -> set[tuple[str, str]]:
    lines = [line.split(":")[0].split() for line in diagram.splitlines() if "-->" in line]
    return {(line[0], line[2]) for line in lines}


def test_the_channels_diagram_has_every_transition_but_exits() -> None:
    driven = {
        (channel.name, following.name)
        for channel, row in DRIVEN.items()
        for following in row.values()
        if following is not None and following is not channel
    }
    triggered = {
        (channel.name, following.name)
        for channel, row in CHANNEL_TRIGGERED.items()
        for trigger, following in row.items()
        if trigger is not Happening.EXITED
    }
    assert edges(channel_diagram()) == driven | triggered | {("[*]", "DEAD")}
    noted = channel_diagram().splitlines()[-1]
    assert [channel.name for channel in Channel if channel.name not in noted] == []


def test_the_vbds_diagram_has_every_transition_its_arrival_and_its_ends() -> None:
    triggered = {
        (vbd.name, following.name)
        for vbd, row in VBD_TRIGGERED.items()
        for following in row.values()
        if following is not vbd
    }
    more = {("[*]", "UNPAUSED"), ("PAUSING", "PAUSED"), ("DEAD", "[*]"), ("RECYCLED", "[*]")}
    assert edges(vbd_diagram()) == triggered | more


def test_the_page_names_every_state_and_says_what_drives_where() -> None:
    page = document()
    for state in (*Channel, *Vbd):
        assert state.name in page
    for row in (
        "| channel now | driven to RUNNING | driven to PAUSED | driven to CLOSED |",
        "| DEAD | launch a tapdisk | already there | already there |",
        "| LAUNCHED | wait | wait | wait |",
        "| PID | OPEN | already there | CLOSE, or FORCE_SHUTDOWN |",
        "| RUNNING | already there | PAUSE | CLOSE, or FORCE_SHUTDOWN |",
        "| UP | RECYCLED | CLOSED | freed, then probed |",
        "| PAUSED SHUTDOWN_REQUESTED | `0x60` | WAIT_CLOSE | PAUSED | DOWN |",
        "| no process |  | DEAD | BROKEN | UP |",
    ):
        assert f"{row}\n" in page


def test_the_documentation_has_the_page_as_it_is_drawn() -> None:
    written = (Path(__file__).parents[2] / "docs" / "vbd.md").read_text()
    assert written.endswith(document())
