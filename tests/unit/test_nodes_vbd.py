"""vbd/: a directory for each life of a VBD; what it shows, what it takes, and how it ends."""

import errno
import os
import select
from pathlib import Path

import pytest
import trio
import trio.testing
from kernel_client import CONTEXT, ROOT, Kernel, error_of
from shown_vbds import BEGIN_NS, PAUSED, RUNNING, Shown, Shows
from tree_client import Client, Descriptor, World, blocked

from zeventfs.errors import (
    Busy,
    Down,
    Exists,
    Fixed,
    Invalid,
    NotFound,
    Stale,
    WouldBlock,
)
from zeventfs.fuse.inodes import Ownership
from zeventfs.nodes.base import Directory
from zeventfs.nodes.tree import tree
from zeventfs.nodes.vbd import VbdDirectory, vbd_directory
from zeventfs.vbd.chain import read_chain
from zeventfs.vbd.counters import Queue
from zeventfs.vbd.states import Channel, Shutdown, States, Vbd

ATTRIBUTES = ["state", "channel", "vbd", "shutdown", "image", "info", "errors"]
ASKED = ["queue", "kicks", "chain"]
FILES = [*ATTRIBUTES, *ASKED, "wait", "stream", "log"]
CHANGED = select.POLLPRI | select.POLLERR


class VbdWorld(World):
    """The tree with vbd/ over VBDs of which a test says what they do."""

    def __init__(self, *, steerable: bool = True) -> None:
        super().__init__()
        self.shows = Shows(self.journal, steerable=steerable)
        self.vbds = vbd_directory(self.shows, self.events.views, self.events.around)
        self.root = tree(self.events, {"vbd": self.vbds}, self.clock_ns)
        self.client = Client(self.root)

    def appear(self, name: str) -> Shown:
        self.shows.appear(name)
        return self.shows[name]


@pytest.fixture
def world() -> VbdWorld:
    return VbdWorld()


@pytest.fixture
def seven(world: VbdWorld) -> Shown:
    return world.appear("7")


@pytest.fixture
def kernel(world: VbdWorld, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(world)
    kernel.install(monkeypatch)
    return kernel


# What there is


def test_each_vbd_has_a_directory_beside_the_transitions_of_all(world: VbdWorld) -> None:
    assert world.client.names("vbd") == ["stream", "log"]
    for name in ("7", "8"):
        world.appear(name)
    assert world.client.names("vbd") == ["stream", "log", "7", "8"]
    assert sorted(world.client.names("vbd/7")) == sorted([*FILES, "control"])
    assert world.client.node("vbd/7/state").key == "vbd/7/state"
    with pytest.raises(NotFound):
        world.client.node("vbd/9")


def test_what_may_not_be_steered_has_nothing_to_steer_it_with() -> None:
    world = VbdWorld(steerable=False)
    world.appear("7")
    assert sorted(world.client.names("vbd/7")) == sorted(FILES)
    owner = Ownership(0, 0, 0o440)
    assert owner.mode_of(world.vbds) & 0o777 == 0o550
    assert owner.mode_of(world.client.node("vbd/7/image")) & 0o777 == 0o440
    with pytest.raises(Fixed):
        world.vbds.make("8")
    with pytest.raises(Fixed):
        world.vbds.remove("7")


def test_only_the_owner_steers(world: VbdWorld, seven: Shown) -> None:
    del seven
    owner = Ownership(0, 0, 0o444)
    assert owner.mode_of(world.vbds) & 0o777 == 0o755
    assert owner.mode_of(world.client.node("vbd/7")) & 0o777 == 0o555
    assert owner.mode_of(world.client.node("vbd/7/control")) & 0o777 == 0o200
    assert owner.mode_of(world.client.node("vbd/7/image")) & 0o777 == 0o644


def test_nothing_of_a_vbd_is_for_good(world: VbdWorld, seven: Shown) -> None:
    del seven
    directory = world.client.node("vbd/7")
    assert isinstance(directory, Directory)
    nodes = [directory, *(node for _, node in directory.entries())]
    assert not any(node.fixed for node in nodes)
    assert world.client.node("vbd/7") is directory
    assert world.client.node("vbd/7/stream") in nodes
    assert world.vbds.fixed


async def test_times_are_those_of_changes(world: VbdWorld, seven: Shown) -> None:
    for path in ("vbd/7", "vbd/7/state", "vbd/7/queue", "vbd/7/control"):
        assert (await world.client.stat(path)).mtime_ns == BEGIN_NS
    seven.become(RUNNING, "start", 4711)
    assert (await world.client.stat("vbd/7/state")).mtime_ns == BEGIN_NS + 10**9
    seven.now = seven.now._replace(changed_ns=-1)
    assert (await world.client.stat("vbd/7")).mtime_ns == 0


# Attributes


async def test_attributes_say_how_it_stands_and_their_sizes_are_true(
    world: VbdWorld, seven: Shown
) -> None:
    seven.set_image("vhd:/x.vhd")
    seven.become(RUNNING, "start", 4711)
    seven.break_down()
    read = world.client.content
    for name in ATTRIBUTES:
        path = f"vbd/7/{name}"
        assert (await world.client.stat(path)).size == len(await read(path)), name
    assert (await read("vbd/7/state")).startswith(b"CHANNEL=DEAD\nVBD=BROKEN\nSHUTDOWN=UP\nPID=\n")
    words = [await read(f"vbd/7/{name}") for name in ("channel", "vbd", "shutdown")]
    assert words == [b"DEAD\n", b"BROKEN\n", b"UP\n"]
    assert await read("vbd/7/image") == b"vhd:/x.vhd\n"
    assert await read("vbd/7/info") == b"driver=vhd\n"
    assert (await read("vbd/7/errors")).splitlines()[1].startswith(b"EPIPE  RUNNING      1")


async def test_a_read_at_0_is_of_a_new_moment_and_others_go_on_with_it(
    world: VbdWorld, seven: Shown
) -> None:
    opened = await world.client.open("vbd/7/state")
    begin = await opened.read(10)
    seven.become(RUNNING, "start", 4711)
    assert begin + await opened.read() == (
        b"CHANNEL=DEAD\nVBD=UNPAUSED\nSHUTDOWN=DOWN\nPID=\nREASON=path appeared\n"
        b"SINCE=2023-11-14T22:13:20.000000000Z\nIMAGE=\n"
    )
    assert await opened.read() == b""
    opened.offset = 0
    assert (await opened.read()).startswith(b"CHANNEL=RUNNING\n")


async def test_poll_tells_of_a_change_until_the_state_is_read_from_its_beginning(
    world: VbdWorld, seven: Shown
) -> None:
    opened = await world.client.open("vbd/7/state")
    assert opened.ready() & (select.POLLIN | CHANGED) == select.POLLIN
    rings = []
    assert opened.opened.bell is not None
    opened.opened.bell.call(opened, lambda: rings.append(1))
    seven.become(RUNNING, "start", 4711)
    assert rings == [1]
    for _ in range(2):
        assert opened.ready() & (select.POLLIN | CHANGED) == select.POLLIN | CHANGED
    opened.offset = 5
    await opened.read()
    assert opened.ready() & CHANGED
    opened.offset = 0
    await opened.read(1)
    assert not opened.ready() & CHANGED


# Waiting


async def test_wait_blocks_until_a_change_gives_the_state_and_ends(
    world: VbdWorld, seven: Shown
) -> None:
    seven.become(PAUSED, "pause", 4711)
    opened = await world.client.open("vbd/7/wait")
    assert opened.ready() == 0
    with pytest.raises(WouldBlock):
        await opened.read(nonblock=True)
    answer = await blocked(opened.read)
    seven.become(RUNNING, "unpause", 4711)
    assert await answer() == await world.client.content("vbd/7/state")
    assert opened.ready() == select.POLLIN | select.POLLRDNORM
    assert await opened.read() == b""
    assert (await world.client.stat("vbd/7/wait")).size == 0


async def test_after_its_end_an_open_wait_goes_on_and_misses_no_change(
    world: VbdWorld, seven: Shown
) -> None:
    opened = await world.client.open("vbd/7/wait")
    seven.become(RUNNING, "first", 4711)
    assert opened.ready() == select.POLLIN | select.POLLRDNORM | select.POLLPRI
    assert b"REASON=first" in await opened.read()
    seven.become(PAUSED, "between", 4711)
    assert await opened.read() == b"", "who reads to the end comes to it"
    assert opened.ready() & select.POLLPRI
    seven.become(RUNNING, "once more", 4711)
    assert b"REASON=once more" in await opened.read()
    assert await opened.read() == b""
    assert opened.ready() == 0
    answer = await blocked(opened.read)
    seven.become(PAUSED, "last", 4711)
    assert b"REASON=last" in await answer()


async def test_a_wait_read_again_from_the_beginning_is_for_the_next_change(
    world: VbdWorld, seven: Shown
) -> None:
    opened = await world.client.open("vbd/7/wait")
    seven.become(RUNNING, "first", 4711)
    pieces = []
    while piece := await opened.read(7):
        pieces.append(piece)
    assert b"".join(pieces) == await world.client.content("vbd/7/state")
    opened.offset = 0
    with pytest.raises(WouldBlock):
        await opened.read(nonblock=True)
    seven.become(PAUSED, "second", 4711)
    assert b"REASON=second" in await opened.read()


# What must be asked for


async def test_what_is_asked_for_is_fetched_without_holding_up_who_opens_or_looks(
    world: VbdWorld, seven: Shown
) -> None:
    assert (await world.client.stat("vbd/7/queue")).size == 0
    assert not seven.asked.is_set(), "a listing asks nothing"
    opened = await world.client.open("vbd/7/queue")
    assert opened.ready() == 0
    answer = await blocked(opened.read)
    assert seven.asked.is_set()
    seven.answer.set()
    assert await answer() == b"new=0\npending=1\nfailed=\ncompleted=5\n"
    assert opened.ready() & select.POLLIN
    assert await opened.read() == b""
    opened.close()


async def test_an_answer_that_failed_is_what_the_reader_is_told(
    world: VbdWorld, seven: Shown
) -> None:
    seven.answers.append(Busy("it is asked already"))
    seven.answer.set()
    opened = await world.client.open("vbd/7/queue")
    await trio.testing.wait_all_tasks_blocked()
    assert opened.ready() & select.POLLIN
    for _ in range(2):
        with pytest.raises(Busy):
            await opened.read()
    opened.close()


async def test_closing_gives_up_asking(world: VbdWorld, seven: Shown) -> None:
    opened = await world.client.open("vbd/7/queue")
    await trio.testing.wait_all_tasks_blocked()
    opened.close()
    seven.answers.append(Queue(1, 1, 1, 1))
    seven.answer.set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(seven.answers) == 1, "nobody asked to the end"


async def test_kicks_and_the_chain(world: VbdWorld, seven: Shown, tmp_path: Path) -> None:
    assert await world.client.content("vbd/7/kicks") == b"in=3\nout=4\n"
    assert await world.client.content("vbd/7/chain") == b""
    image = tmp_path / "raw"
    image.write_bytes(b"x" * 512)
    seven.parents = read_chain(image, "aio")
    assert (await world.client.content("vbd/7/chain")).endswith(f"ok  {image}\n".encode())


# Transitions


async def test_streams_have_the_transitions_of_all_and_of_one(world: VbdWorld) -> None:
    for name in ("7", "8"):
        world.appear(name).become(RUNNING, f"start {name}", 1)
    world.post()

    async def reasons(path: str) -> list[str]:
        events = await (await world.client.open(path)).events()
        return [event["payload"]["reason"] for event in events]

    assert await reasons("vbd/stream") == ["start 7", "start 8"]
    assert await reasons("vbd/7/stream") == ["start 7"]
    assert (await world.client.content("vbd/8/log")).count(b"\n") == 1
    assert (await world.client.content("vbd/log")).count(b"\n") == 2
    assert list(world.events.around.readers.values()) == ["vbd/stream", "vbd/7/stream"]
    size = (await world.client.stat("vbd/7/stream")).size
    assert size == len(await world.client.content("vbd/7/log"))


async def test_a_stream_waits_for_its_own_vbd(world: VbdWorld, seven: Shown) -> None:
    opened = await world.client.open("vbd/7/stream")
    answer = await blocked(opened.read)
    world.appear("8").become(RUNNING, "another's", 1)
    assert opened.ready() == 0
    seven.become(RUNNING, "mine", 2)
    assert b'"mine"' in await answer()
    opened.close()


# Steering


async def test_control_takes_requests_and_what_is_refused_changes_nothing(
    world: VbdWorld, seven: Shown
) -> None:
    write = world.client.write
    with pytest.raises(Invalid, match="vbd/7/control: there is no image"):
        await write("vbd/7/control", b"start\n")
    await write("vbd/7/image", b"vhd:/x.vhd\n")
    assert await write("vbd/7/control", b" start\n") == 7
    assert seven.now.states == RUNNING
    for words, refused in ((b"shutdown  force\n", Busy), (b"explode\n", Invalid), (b"\n", Invalid)):
        with pytest.raises(refused):
            await write("vbd/7/control", words)
    assert seven.now.states == RUNNING
    seven.break_down()
    with pytest.raises(Down):
        await write("vbd/7/control", b"start")
    with pytest.raises(Invalid, match=r"vbd/7/control: .*knows no request '\\\\xff'"):
        await write("vbd/7/control", b"\xff")


async def test_an_image_is_set_as_a_whole(world: VbdWorld, seven: Shown) -> None:
    opened = await world.client.open("vbd/7/image")
    assert await opened.write(b"vhd:/\xff x\n") == 9
    assert seven.now.image == "vhd:/\udcff x"
    opened.offset = 0
    assert await opened.read() == b"vhd:/\\udcff x\n"
    with pytest.raises(Invalid, match="vbd/7/image: 'nonsense' is not driver:path"):
        await opened.write(b"nonsense")
    assert seven.now.image == "vhd:/\udcff x"


# Making and removing


def test_made_is_listed_at_once_and_removed_is_gone_at_once(world: VbdWorld) -> None:
    made = world.vbds.make("7")
    assert made is world.client.node("vbd/7")
    with pytest.raises(Exists):
        world.vbds.make("7")
    with pytest.raises(Invalid, match="vbd/seven: an id is a number"):
        world.vbds.make("seven")
    for name in ("stream", "log", "log.9", "log.txt", "stream.\n"):
        with pytest.raises(Invalid, match="is the name of a file"):
            world.vbds.make(name)
    world.vbds.remove("7")
    assert world.client.names("vbd") == ["stream", "log"]
    with pytest.raises(NotFound):
        world.vbds.remove("7")


def test_each_life_that_is_held_has_a_number_of_its_own(world: VbdWorld) -> None:
    lives = []
    for _ in range(3):
        lives.append(world.vbds.make("7"))
        world.vbds.remove("7")
    assert len({life.ino for life in lives}) == 3
    assert [life.key for life in lives] == ["vbd/7", "vbd/7~2", "vbd/7~3"]
    eight = world.vbds.make("8").key
    world.vbds.remove("8")
    assert world.vbds.make("8").key == eight, "the kernel knows nothing of the other"


async def test_a_vbd_that_goes_while_it_is_listed_is_left_out(
    world: VbdWorld, seven: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    del seven
    monkeypatch.setattr(Shows, "get", lambda *_: None)
    assert world.client.names("vbd") == ["stream", "log"]


async def test_whoever_waits_for_a_vbd_is_known_by_its_bell(world: VbdWorld, seven: Shown) -> None:
    assert list(world.vbds.bells()) == [seven.changed]


# Removal under those who have it open


@pytest.mark.parametrize("name", [*ATTRIBUTES, *ASKED, "wait"])
async def test_reads_of_what_was_removed_are_stale(
    world: VbdWorld, seven: Shown, name: str
) -> None:
    seven.answer.set()
    opened = await world.client.open(f"vbd/7/{name}")
    await trio.testing.wait_all_tasks_blocked()
    node = opened.node
    world.vbds.remove("7")
    assert opened.ready() & select.POLLIN
    with pytest.raises(Stale):
        await opened.read()
    with pytest.raises(Stale):
        await node.measure()
    with pytest.raises(Stale):
        await opened.node.open(1)
    opened.close()


@pytest.mark.parametrize("name", ["wait", "queue", "stream"])
async def test_blocked_reads_of_what_is_removed_end_stale(
    world: VbdWorld, seven: Shown, name: str
) -> None:
    seven.become(RUNNING, "start", 1)
    opened = await world.client.open(f"vbd/7/{name}")
    if name == "stream":
        await opened.read()
    answer = await blocked(opened.read)
    bell = opened.opened.bell
    assert bell is not None
    rings: list[int] = []
    bell.call("a poller", lambda: rings.append(1))
    world.vbds.remove("7")
    with pytest.raises(Stale):
        await answer()
    assert rings == [1]
    assert opened.ready() & select.POLLIN
    opened.close()


async def test_a_removed_vbds_stream_gives_what_is_kept_first(
    world: VbdWorld, seven: Shown
) -> None:
    opened = await world.client.open("vbd/7/stream")
    seven.become(RUNNING, "start", 1)
    seven.become(RUNNING, "again", 1)
    world.vbds.remove("7")
    assert (await opened.read()).count(b"\n") == 2
    with pytest.raises(Stale):
        await opened.read(nonblock=True)
    node = opened.node
    with pytest.raises(Stale):
        await node.measure()
    with pytest.raises(Stale):
        await opened.node.open(1)
    opened.close()


async def test_a_removed_directory_and_what_steered_it_are_stale(
    world: VbdWorld, seven: Shown
) -> None:
    control = await world.client.open("vbd/7/control")
    image = await world.client.open("vbd/7/image")
    directory = world.client.node("vbd/7")
    assert isinstance(directory, VbdDirectory)
    world.vbds.remove("7")
    for opened in (control, image):
        with pytest.raises(Stale):
            await opened.write(b"start\n")
    with pytest.raises(Stale):
        await control.node.measure()
    with pytest.raises(Stale):
        await directory.measure()
    with pytest.raises(Stale):
        directory.lookup("state")
    with pytest.raises(Stale):
        list(directory.entries())
    assert seven.now.states.channel is Channel.DEAD


async def test_the_next_life_is_no_business_of_what_was_open(world: VbdWorld, seven: Shown) -> None:
    del seven
    old: Descriptor = await world.client.open("vbd/7/state")
    world.vbds.remove("7")
    world.vbds.make("7")
    world.shows["7"].become(States(Channel.LAUNCHED, Vbd.UNPAUSED, Shutdown.UP), "start", 2)
    with pytest.raises(Stale):
        await old.read()
    assert await world.client.content("vbd/7/channel") == b"LAUNCHED\n"


# As the kernel asks for it


async def test_mkdir_and_rmdir_answer_at_once_and_each_life_is_another_inode(
    kernel: Kernel, world: VbdWorld
) -> None:
    parent = await kernel.lookup("vbd")
    made = await kernel.ops.mkdir(parent, b"7", 0o755, CONTEXT)
    assert made.entry_timeout == 0, "the kernel asks anew for the name"
    assert await kernel.lookup("vbd/7") == made.st_ino
    assert await error_of(kernel.ops.mkdir(parent, b"7", 0o755, CONTEXT)) == errno.EEXIST
    assert await error_of(kernel.ops.mkdir(parent, b"\xff", 0o755, CONTEXT)) == errno.EINVAL
    fh = await kernel.open("vbd/7/state")
    await kernel.ops.rmdir(parent, b"7", CONTEXT)
    assert await error_of(kernel.ops.read(fh, 0, 100)) == errno.ESTALE
    assert await error_of(kernel.ops.getattr(made.st_ino, CONTEXT)) == errno.ESTALE
    assert await error_of(kernel.ops.rmdir(parent, b"7", CONTEXT)) == errno.ENOENT
    assert await error_of(kernel.ops.rmdir(ROOT, b"vbd", CONTEXT)) == errno.EPERM
    again = await kernel.ops.mkdir(parent, b"7", 0o755, CONTEXT)
    assert again.st_ino != made.st_ino
    assert await kernel.lookup("vbd/7") == again.st_ino
    assert (await kernel.stat("vbd/7/state")).st_size == len(
        await world.client.content("vbd/7/state")
    )


async def test_an_unknown_request_is_einval_and_logged_by_the_vbds_name(
    kernel: Kernel, seven: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    del seven
    fh = await kernel.open("vbd/7/control", os.O_WRONLY)
    assert await error_of(kernel.ops.write(fh, 0, b"explode\n")) == errno.EINVAL
    assert "vbd/7/control: a VBD knows no request 'explode'" in caplog.text
