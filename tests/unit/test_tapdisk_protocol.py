"""What is asked of a tapdisk and what its answers say, against recorded ones, and against lies."""

import base64
import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.errors import Invalid, Malformed, ZeventfsError
from zeventfs.tapdisk import protocol, wire
from zeventfs.tapdisk.protocol import Image, Lied, Listed, Partial, Refused, Request

CORPUS = Path(__file__).parent.parent / "corpus" / "tapdisk" / "exchanges.jsonl"
IMAGE = "aio:/srv/xen/disk0.img"


class Exchange(NamedTuple):
    """A request and a reply of a real tapdisk, and what tap-ctl list said then."""

    note: str
    request: bytes
    reply: bytes
    listed: str


def exchanges() -> list[Exchange]:
    lines = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    return [
        Exchange(
            line["note"],
            base64.b64decode(line["request"]),
            base64.b64decode(line["reply"]),
            line["tap_ctl_list"],
        )
        for line in lines
        if "reply" in line
    ]


RECORDED = exchanges()


def request_of(message: bytes) -> Request[Any]:
    """The request that *message* is."""
    kind, minor = wire.HEAD.unpack_from(message)
    match kind:
        case wire.PID:
            return protocol.ask_pid()
        case wire.LIST:
            return protocol.ask_list()
        case wire.OPEN:
            return protocol.ask_open(minor, IMAGE)
        case _:
            ask = getattr(protocol, f"ask_{wire.NAMES[kind]}")
            request: Request[Any] = ask(minor)
            return request


def asked(note: str) -> Exchange:
    return next(each for each in RECORDED if each.note == note)


def changed(reply: bytes, at: int, layout: str, *values: int) -> bytes:
    size = struct.calcsize("=" + layout)
    return reply[:at] + struct.pack("=" + layout, *values) + reply[at + size :]


@pytest.mark.parametrize(
    "each", [each for each in RECORDED if each.request[0] in wire.NAMES], ids=lambda each: each.note
)
def test_a_request_has_the_recorded_bytes(each: Exchange) -> None:
    assert request_of(each.request).message == each.request


@pytest.mark.parametrize(
    "each", [each for each in RECORDED if each.request[0] == wire.LIST], ids=lambda each: each.note
)
def test_a_recorded_list_says_what_tap_ctl_said(each: Exchange) -> None:
    said = [
        f"pid=10123 minor={vbd.minor} state={vbd.state:#x}".replace("=0x0", "=0")
        + (f" args={vbd.path}" if vbd.path else "")
        for vbd in protocol.ask_list().answer(each.reply)
    ]
    assert sorted(said or ["pid=10123"]) == sorted(each.listed.splitlines())


@pytest.mark.parametrize(
    "each", [each for each in RECORDED if each.request[0] == wire.LIST], ids=lambda each: each.note
)
def test_a_list_is_written_as_tapdisk_writes_it(each: Exchange) -> None:
    listed = protocol.ask_list().answer(each.reply)
    paths = [(minor, state, path.encode() or None) for minor, state, path in listed]
    assert wire.encode_list(wire.ALL, paths) == each.reply


@pytest.mark.parametrize(
    "each", [each for each in RECORDED if each.request[0] == wire.PID], ids=lambda each: each.note
)
def test_a_recorded_pid_is_read_and_written(each: Exchange) -> None:
    assert protocol.ask_pid().answer(each.reply) == 10123
    assert wire.encode_pid(0, 10123) == each.reply


@pytest.mark.parametrize(
    "each",
    [each for each in RECORDED if each.reply[0] == wire.STATS + 1],
    ids=lambda each: each.note,
)
def test_recorded_statistics_are_read_and_written(each: Exchange) -> None:
    request = request_of(each.request)
    text = request.answer(each.reply)
    assert json.loads(text)["read_caching"] == "false"
    assert wire.encode_stats(request.cookie, text) == each.reply


def test_a_recorded_size_is_read_and_written() -> None:
    reply = asked("running: DISK_INFO").reply
    image = protocol.ask_disk_info(0).answer(reply)
    assert image == Image(sectors=32768, sector_size=512, info=0)
    assert wire.encode_image(wire.DISK_INFO + 1, 0, *image) == reply


@pytest.mark.parametrize("note", ["PAUSE", "PAUSE again", "RESUME", "CLOSE", "DETACH"])
def test_what_is_done_is_recognised(note: str) -> None:
    each = asked(note)
    assert request_of(each.request).answer(each.reply) is None
    kind, cookie = wire.HEAD.unpack_from(each.request)
    assert wire.encode_message(wire.reply_type(kind), cookie) == each.reply


@pytest.mark.parametrize(
    ("note", "number", "name"),
    [("unknown minor: STATS", 19, "ENODEV"), ("OPEN while open", 114, "EALREADY")],
)
def test_a_recorded_refusal_has_its_errno(note: str, number: int, name: str) -> None:
    each = asked(note)
    request = request_of(each.request)
    with pytest.raises(Refused, match=name) as refused:
        request.answer(each.reply)
    assert refused.value.errno == number
    assert refused.value.text == ""
    assert wire.encode_error(request.cookie, number) == each.reply


def test_a_refusal_has_the_text_that_came_with_it() -> None:
    with pytest.raises(Refused, match=r"^EIO: the \\xff disk$") as refused:
        protocol.ask_pause(3).answer(wire.encode_error(3, 5, b"the \xff disk"))
    assert refused.value.text == "the \\xff disk"
    with pytest.raises(Refused, match=r"^4000$"):
        protocol.ask_pause(3).answer(wire.encode_error(0, 4000))


def test_forced_shutdown_is_answered_as_a_close() -> None:
    request = protocol.ask_force_shutdown(4)
    assert request.message[:4] == struct.pack("=HH", 23, 4)
    assert request.answer(struct.pack("=HH", 14, 4).ljust(544, b"\0")) is None


def test_an_image_is_opened_with_its_parameters() -> None:
    message = protocol.ask_open(2, IMAGE, flags=1, req_timeout=30).message
    assert len(message) == 544
    assert struct.unpack_from("=HH4xI8x256s4xH", message) == (
        7,
        2,
        1,
        IMAGE.encode().ljust(256, b"\0"),
        30,
    )
    assert message[282:] == bytes(262)
    reply = wire.encode_image(wire.OPEN + 1, 2, 1 << 40, 4096, 3)
    assert protocol.ask_open(2, IMAGE).answer(reply) == Image(1 << 40, 4096, 3)


def test_an_image_is_resumed_as_it_was_or_as_another() -> None:
    assert protocol.ask_resume(1).message == wire.encode_message(wire.RESUME, 1)
    assert protocol.ask_resume(1, IMAGE).message[20:43] == IMAGE.encode() + b"\0"


def test_a_path_is_any_bytes() -> None:
    listed = protocol.ask_list().answer(wire.encode_list(wire.ALL, [(3, 0, b"aio:/\xff")]))
    assert listed == (Listed(3, 0, "aio:/\udcff"),)
    assert b"aio:/\xff\0" in protocol.ask_open(3, "aio:/\udcff").message


def test_a_vbd_may_have_lost_its_device() -> None:
    assert protocol.ask_list().answer(wire.encode_list(wire.ALL, [(-1, 2, None)])) == (
        Listed(-1, 2, ""),
    )


def test_stale_bytes_stay_behind_a_vbd_without_image_and_are_not_read() -> None:
    reply = wire.encode_list(wire.ALL, [(0, 0, b"aio:/x"), (1, 2, None)])
    assert reply[544 + 20 : 544 + 26] == b"\0io:/x"
    assert [each.path for each in protocol.ask_list().answer(reply)] == ["aio:/x", ""]


@pytest.mark.parametrize("minor", [-1, 65535, 70000])
def test_there_are_minors_that_cant_be(minor: int) -> None:
    for ask in (protocol.ask_stats, protocol.ask_attach, protocol.ask_disk_info):
        with pytest.raises(Invalid, match="minor"):
            ask(minor)


@pytest.mark.parametrize("image", ["", "aio", "aio:", ":/x", "aio:/\0", "aio:/" + "x" * 251])
def test_there_are_images_that_cant_be(image: str) -> None:
    with pytest.raises(Invalid, match="image"):
        protocol.ask_open(0, image)


@pytest.mark.parametrize(
    ("name", "pid"),
    [
        ("ctl1", 1),
        ("ctl4194304", 4194304),
        *((name, None) for name in ("ctl01", "ctl", "ctl12345678901", "ctl-1", "ctl²", "sim1")),
        *((name, None) for name in ("1", "ctl1.old")),
    ],
)
def test_a_control_socket_is_known_by_its_name(name: str, pid: int | None) -> None:
    assert protocol.control_pid(name) == pid
    if pid is not None:
        assert wire.socket_name(pid) == name


def test_a_marker_is_known_by_its_name() -> None:
    assert protocol.marked_minor("tapdisk-0") == 0
    assert protocol.marked_minor("tapdisk-12") == 12
    assert protocol.marked_minor("tapdisk-x") is None
    assert wire.marker_name(12) == "tapdisk/tapdisk-12"


PID = protocol.ask_pid()
LIST = protocol.ask_list()
STATS = protocol.ask_stats(5)
TWO = wire.encode_list(wire.ALL, [(0, 0, b"aio:/x"), (1, 2, None)])
SOME = wire.encode_stats(5, b"{}")
PAUSED = wire.encode_message(wire.PAUSE + 1, 7)


@pytest.mark.parametrize(
    ("request_", "reply", "reason"),
    [
        (PID, wire.encode_pid(0, 0), "number 0"),
        (PID, wire.encode_pid(0, -4), "number -4"),
        (PID, wire.encode_pid(1, 4), "minor 1, not 0"),
        (PID, TWO, "type 20"),
        (PID, b"\xff" * 544, "type 65535"),
        (PID, wire.encode_pid(0, 4) + b"\0", "goes on after its 544"),
        (protocol.ask_pause(7), changed(PAUSED, 2, "H", 8), "minor 8, not 7"),
        (protocol.ask_pause(7), changed(PAUSED, 0, "H", 2), "type 2"),
        (protocol.ask_pause(7), wire.encode_error(8, 5), "minor 8, not 7"),
        (protocol.ask_pause(7), wire.encode_error(7, 0), "error 0"),
        (protocol.ask_pause(7), wire.encode_error(7, -5), "error -5"),
        (protocol.ask_pause(7), wire.encode_error(7, 5).replace(b"\0", b"x"), "type"),
        (protocol.ask_pause(7), wire.encode_error(7, 5)[:12] + b"x" * 532, "no NUL in its 256"),
        (LIST, changed(TWO, 8, "i", -1), "-1 VBDs"),
        (LIST, changed(TWO, 8, "i", 1 << 30), "VBDs"),
        (LIST, changed(TWO, 8, "i", 1), "goes on"),
        (LIST, changed(TWO, 544 + 8, "i", 2), "1 to go"),
        (LIST, changed(TWO, 544 + 8, "i", -1), "-1 VBDs"),
        (LIST, changed(TWO, 1088 + 8, "i", 1), "0 to go"),
        (LIST, changed(TWO, 544, "H", 21), "1 to go says 21"),
        (LIST, changed(TWO, 546, "H", 0), "1 to go"),
        (LIST, changed(TWO, 12, "i", -2), "minor -2"),
        (LIST, changed(TWO, 12, "i", 65535), "minor 65535"),
        (LIST, TWO[:20] + b"x" * 256 + TWO[276:], "path has no NUL"),
        (STATS, changed(SOME, 16, "Q", 1 << 40), "too long"),
        (STATS, changed(SOME, 16, "Q", 1), "goes on"),
    ],
)
def test_a_lie_is_recognised(request_: Request[Any], reply: bytes, reason: str) -> None:
    with pytest.raises(Lied, match=reason) as lied:
        request_.answer(reply)
    assert not isinstance(lied.value, Partial)
    assert isinstance(lied.value, Malformed)


@pytest.mark.parametrize(
    ("request_", "reply"), [(PID, wire.encode_pid(0, 1)), (LIST, TWO), (STATS, SOME)]
)
def test_half_an_answer_is_none(request_: Request[Any], reply: bytes) -> None:
    for size in (0, 1, 543, len(reply) - 1):
        with pytest.raises(Partial, match=f"after {size} of"):
            request_.answer(reply[:size])
    request_.answer(reply)


def test_questions_and_orders_are_told_apart() -> None:
    assert [request.order for request in (PID, LIST, STATS)] == [False] * 3
    assert protocol.ask_disk_info(0).order
    assert protocol.ask_detach(0).order
    assert protocol.ask_detach(0).name == "detach"


@settings(deadline=None)
@given(st.sampled_from([PID, LIST, STATS, protocol.ask_open(0, IMAGE)]), st.binary(max_size=1700))
def test_any_bytes_are_read_or_refused(request_: Request[Any], noise: bytes) -> None:
    head = wire.HEAD.pack(wire.reply_type(request_.kind), request_.cookie)
    for reply in (noise, head + noise, (head + noise).ljust(544, b"\0")):
        with suppress(ZeventfsError):
            request_.answer(reply)
