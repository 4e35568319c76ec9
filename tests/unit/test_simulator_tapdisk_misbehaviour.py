"""What a simulated tapdisk understands of what it is told, and what that makes of its answers."""

import pytest

from zeventfs.errors import Invalid
from zeventfs.simulator.tapdisk.misbehaviour import altered, understand
from zeventfs.simulator.tapdisk.requests import STUCK
from zeventfs.tapdisk import protocol, wire
from zeventfs.tapdisk.protocol import Lied, Partial, Refused, TapdiskError


@pytest.mark.parametrize(
    ("line", "request_", "name", "number", "text"),
    [
        ("slow 2.5", "", "slow", 2.5, ""),
        ("list: slow 0", "list", "slow", 0, ""),
        (" pause :  silent \n", "pause", "silent", 0, ""),
        ("start: exit 3", "start", "exit", 3, ""),
        ("exit 0", "", "exit", 0, ""),
        ("exit 255", "", "exit", 255, ""),
        ("partial", "", "partial", 100, ""),
        ("partial 0", "", "partial", 0, ""),
        ("partial 543", "", "partial", 543, ""),
        ("wrong cookie", "", "wrong", 0, "cookie"),
        ("refuse EIO", "", "refuse", 5, ""),
        ("open: refuse 2 no such: file", "open", "refuse", 2, "no such: file"),
        ("refuse EIO no such: file", "", "refuse", 5, "no such: file"),
        ("stop", "", "stop", 0, ""),
        ("io ok", "", "io", 0, ""),
        ("io stick", "", "io", STUCK, ""),
        ("io fail ENOSPC", "", "io", 28, ""),
        ("rate 1e3", "", "rate", 1000, ""),
        ("well", "", "well", 0, ""),
        ("show", "", "show", 0, ""),
    ],
)
def test_a_line_is_understood(
    line: str, request_: str, name: str, number: float, text: str
) -> None:
    told = understand(line)
    assert (told.request, told.name, told.number, told.text) == (request_, name, number, text)


@pytest.mark.parametrize(
    "line",
    [
        *("", "dance", "slow", "slow x", "slow -1", "slow inf", "slow nan", "slow 1 2"),
        *("silent now", "partial x", "partial -1", "partial 544", "exit", "exit 256", "exit -1"),
        *("wrong", "wrong x", "refuse", "refuse EFOO", "refuse 0", "refuse 4096", "io", "io fail"),
        *("io maybe", "rate", "wait: silent", "pause: well", "pause: io ok", "start: wrong type"),
    ],
)
def test_what_cant_be_understood_is_refused_in_a_sentence(line: str) -> None:
    with pytest.raises(Invalid) as refused:
        understand(line)
    assert str(refused.value)


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("wrong type", Lied, "type 12"),
        ("wrong cookie", Lied, "minor 5, not 4"),
        ("wrong size", Lied, "goes on"),
        ("wrong garbage", Lied, "type 65535"),
        ("partial", Partial, "after 100"),
        ("partial 0", Partial, "after 0"),
        ("refuse EBUSY not now", Refused, "EBUSY: not now"),
    ],
)
def test_an_answer_is_spoiled_so_that_it_shows(
    line: str, error: type[TapdiskError], said: str
) -> None:
    request = protocol.ask_pause(4)
    reply = altered(wire.encode_message(wire.PAUSE + 1, 4), understand(line))
    with pytest.raises(error, match=said):
        request.answer(reply)
