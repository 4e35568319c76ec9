"""simulator/inject: whole lines, and blocks that end inside one."""

import logging

import pytest
from tree_client import Client, World

from zeventfs.errors import Invalid
from zeventfs.nodes.base import File
from zeventfs.nodes.simulator import MAX_BEGUN, Setting, simulator_directory

LINE = b'{"class":"sysevent.fs.zfs.config_sync"}\n'


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("written", [LINE, LINE[:-1], LINE * 3, LINE * 2 + LINE[:-1]])
async def test_a_write_is_carried_out_as_one(world: World, written: bytes) -> None:
    assert await world.client.write("simulator/inject", written) == len(written)
    assert world.injected == [written]


@pytest.mark.parametrize("written", [b"", b"\n", b" \n\n", b"\n" * 4096])
async def test_blank_lines_are_nothing(world: World, written: bytes) -> None:
    assert await world.client.write("simulator/inject", written) == len(written)
    assert world.injected == []


async def test_blocks_that_end_inside_a_line_come_to_the_same_lines(world: World) -> None:
    text = LINE * 1000
    inject = await world.client.open("simulator/inject")
    for at in range(0, len(text), 4096):
        block = text[at : at + 4096]
        assert await inject.write(block) == len(block)
    inject.close()
    assert b"".join(world.injected) == text
    assert all(each.endswith(b"\n") for each in world.injected)


async def test_a_block_that_ends_with_its_line_keeps_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    inject = await world.client.open("simulator/inject")
    await inject.write(LINE[:-1].ljust(4095) + b"\n")
    assert len(world.injected) == 1
    inject.close()
    assert not caplog.records


async def test_a_line_longer_than_blocks_is_put_together(world: World) -> None:
    inject = await world.client.open("simulator/inject")
    for _ in range(5):
        await inject.write(b"x" * 4096)
    await inject.write(b"y\n")
    assert world.injected == [b"x" * 5 * 4096 + b"y\n"]


async def test_the_last_newline_may_be_left_out_after_blocks_too(world: World) -> None:
    inject = await world.client.open("simulator/inject")
    await inject.write(LINE.ljust(4096, b"x"))
    await inject.write(b"y")
    assert world.injected == [LINE, b"x" * (4096 - len(LINE)) + b"y"]


async def test_what_one_handle_began_is_not_anothers(world: World) -> None:
    first, second = [await world.client.open("simulator/inject") for _ in range(2)]
    await first.write(b"x" * 4096)
    await second.write(LINE)
    assert world.injected == [LINE]
    await first.write(b"\n")
    assert world.injected[1] == b"x" * 4096 + b"\n"


async def test_what_is_never_completed_is_logged_at_close(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    inject = await world.client.open("simulator/inject")
    await inject.write(b"never" + b" " * 4091)
    inject.close()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "4096 bytes are lost: b'never" in record.getMessage()
    assert world.injected == []


async def test_a_line_without_end_is_refused(world: World) -> None:
    inject = await world.client.open("simulator/inject")
    block = b"x" * (1 << 17)
    for _ in range(MAX_BEGUN // len(block)):
        await inject.write(block)
    with pytest.raises(Invalid):
        await inject.write(block)
    await inject.write(LINE)
    assert world.injected == [LINE]
    inject.close()


async def test_after_a_refusal_the_next_write_stands_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    inject = await world.client.open("simulator/inject")
    await inject.write(b"nonsense".ljust(4096))
    world.refuse = Invalid("Line 1")
    with pytest.raises(Invalid):
        await inject.write(b"more of it\n".ljust(8192))
    world.refuse = None
    await inject.write(LINE)
    assert world.injected == [LINE]
    inject.close()
    assert not caplog.records


class Knob:
    """A setting that says what was last written to it."""

    def __init__(self) -> None:
        self.said = b"as made\n"
        self.refuse: Exception | None = None

    async def change(self, written: bytes) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.said = written

    def client(self) -> Client:
        clock = iter(range(1, 100))

        async def inject(written: bytes) -> None:
            del written

        settings = {"knob": Setting(lambda: self.said, self.change)}
        return Client(simulator_directory(inject, lambda: next(clock), settings))


async def test_a_setting_is_read_and_written_and_is_its_owners_alone() -> None:
    client = Knob().client()
    node = client.node("knob")
    assert isinstance(node, File)
    assert (node.readable, node.writable, node.private) == (True, True, True)
    assert await client.content("knob") == b"as made\n"
    before = await client.stat("knob")
    held = await client.open("knob")
    await client.write("knob", b"another\n")
    assert await held.read() == b"as made\n"
    assert await client.content("knob") == b"another\n"
    after = await client.stat("knob")
    assert (before.size, after.size) == (8, 8)
    assert after.mtime_ns > before.mtime_ns


async def test_a_refused_setting_stays_and_so_does_a_blank_one() -> None:
    knob = Knob()
    client = knob.client()
    before = await client.stat("knob")
    knob.refuse = Invalid("no")
    with pytest.raises(Invalid):
        await client.write("knob", b"quux")
    for blank in (b"", b"\n", b" " * 4096):
        await client.write("knob", blank)
    assert knob.said == b"as made\n"
    assert await client.stat("knob") == before


@pytest.mark.parametrize("size", [4095, 4096, 4097, 8192, 9000])
async def test_json_in_blocks_is_one_setting(size: int) -> None:
    knob = Knob()
    text = b'{"a":"' + b"x" * (size - 8) + b'"}'
    opened = await knob.client().open("knob")
    for at in range(0, size, 4096):
        await opened.write(text[at : at + 4096])
    opened.close()
    assert knob.said == text


async def test_json_line_by_line_is_one_setting() -> None:
    knob = Knob()
    opened = await knob.client().open("knob")
    for line in (b"{\n", b' "a":\n', b"  1\n"):
        await opened.write(line)
        assert knob.said == b"as made\n"
    await opened.write(b"}\n")
    assert knob.said == b'{\n "a":\n  1\n}\n'


@pytest.mark.parametrize(
    "garbage", [b"\xff", b"x", b'{"a":"\xff"}', b'{"a":' + b"[" * 8191, b'{"a":']
)
async def test_what_cannot_be_continued_is_passed_on(garbage: bytes) -> None:
    knob = Knob()
    written = garbage if garbage == b'{"a":' else garbage.ljust(8192, b"x")
    await knob.client().write("knob", written)
    assert knob.said == written


async def test_a_setting_that_is_not_continued_is_logged_and_a_long_one_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    knob = Knob()
    opened = await knob.client().open("knob")
    await opened.write(b'{"a":"'.ljust(4096))
    opened.close()
    assert "closed inside its JSON" in caplog.text
    with pytest.raises(Invalid, match="at most"):
        await (await knob.client().open("knob")).write(b"{" * (MAX_BEGUN + 1))


async def test_vbd_is_there_where_it_is_simulated_and_is_given_each_write_as_a_whole() -> None:
    told: list[bytes] = []

    async def act(written: bytes) -> None:
        told.append(written)

    assert Client(simulator_directory(act, lambda: 0)).names("") == ["inject"]
    client = Client(simulator_directory(act, lambda: 0, acts={"vbd": act}))
    assert client.names("") == ["inject", "vbd"]
    await client.write("vbd", b"add 7\nadd 8\n")
    assert told == [b"add 7\nadd 8\n"]
