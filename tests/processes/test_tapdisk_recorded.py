"""A simulated tapdisk, led through what a real one was led through, answers the same bytes."""

import base64
import json
from pathlib import Path

import pytest
from simulated_tapdisk import Simulated, Tapdisks

from zeventfs.tapdisk import protocol, wire
from zeventfs.tapdisk.protocol import Refused

CORPUS = Path(__file__).parent.parent / "corpus" / "tapdisk" / "exchanges.jsonl"
RECORDED_PID = 10123
AIO, VHD = "aio:/srv/xen/disk0.img", "vhd:/srv/xen/disk1.vhd"


def lead(simulated: Simulated, note: str) -> None:
    """Do what was done before the exchange *note*, if that was not recorded itself."""
    match note:
        case "attached, no image: PID":
            simulated.mark(0)
            simulated.ask(protocol.ask_attach(0))
        case "running (aio): PID":
            simulated.ask(protocol.ask_open(0, AIO))
        case "two minors in one tapdisk: LIST":
            simulated.mark(1)
            simulated.ask(protocol.ask_attach(1))
            simulated.ask(protocol.ask_open(1, VHD))
        case "open of a missing file failed: PID":
            simulated.tell("open: refuse ENOENT")
            with pytest.raises(Refused):
                simulated.ask(protocol.ask_open(0, "aio:/missing"))
            simulated.tell("well")


def test_it_answers_as_a_real_one_did(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    with Tapdisks(tmp_path) as tapdisks:
        simulated = tapdisks.start()
        for line in lines:
            if "reply" not in line:
                continue
            lead(simulated, line["note"])
            expected = base64.b64decode(line["reply"]).replace(
                wire.encode_pid(0, RECORDED_PID), wire.encode_pid(0, simulated.pid)
            )
            assert simulated.exchange(base64.b64decode(line["request"])) == expected, line["note"]
        # The last exchange recorded found no socket any more.
        assert simulated.wait() == 0
        assert not Path(simulated.path).exists()
