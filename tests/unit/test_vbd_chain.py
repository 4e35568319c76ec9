"""Chains of VHD parents: each level's facts, and each way to be broken named where it stands."""

import errno
import os
import shutil
import time
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vhd_images import (
    BASE,
    CHILD,
    CORPUS,
    MIB,
    Shelf,
    at,
    differencing,
    dynamic,
    fixed,
    footer,
    header,
    no_image,
    real_images,
    sealed,
)

from zeventfs.vbd.chain import DEEPEST, Chain, Reason, chain_text, image_path, read_chain
from zeventfs.vbd.images import FILES
from zeventfs.vbd.vhd import EPOCH_S, LOCATOR_BYTES

REAL = {f"/sr/{name}": content for name, content in real_images()}
EIO = OSError(errno.EIO, "Input/output error")


def found(chain: Chain) -> list[tuple[str, str, list[str]]]:
    """What is at each level: path, type, reasons."""
    return [
        (level.path, level.type.value, [finding.reason.value for finding in level.findings])
        for level in chain.levels
    ]


def last(chain: Chain) -> tuple[str, str, list[str]]:
    return found(chain)[-1]


def on_base(base: bytes | Exception, noted: int = 1000) -> dict[str, bytes | Exception]:
    """A child at /sr/child that says its parent is /sr/base, and that."""
    return {"/sr/child": differencing(BASE, at("./base"), noted=noted), "/sr/base": base}


def test_a_real_chain_is_whole_wherever_it_was_copied_to(tmp_path: Path) -> None:
    for path in CORPUS.glob("*.vhd"):
        shutil.copyfile(path, tmp_path / path.name)
    chain = read_chain(tmp_path / "grandchild.vhd")
    assert chain.problems == ()
    assert chain_text(chain).decode() == (
        "0  differencing  16777216  c3665274-4630-493d-8f65-9ac1e0e4442a  ok"
        f"  {tmp_path}/grandchild.vhd\n"
        "1  differencing  16777216  e71a49dc-d996-425b-9a88-21190b604098  ok"
        f"  {tmp_path}/child.vhd\n"
        "2  dynamic       16777216  57b3f513-1c53-4fb4-b352-083b0338be4b  ok"
        f"  {tmp_path}/base.vhd\n"
    )


def test_another_image_in_the_parents_place_is_named_in_its_line() -> None:
    images = Shelf(REAL | {"/sr/base.vhd": REAL["/sr/other.vhd"]})
    chain = read_chain("/sr/grandchild.vhd", images=images)
    assert [(each.depth, each.path, each.reason) for each in chain.problems] == [
        (2, "/sr/base.vhd", Reason.UUID)
    ]
    line = chain_text(chain).decode().splitlines()[2]
    assert line.split()[:6] == [
        *("2", "dynamic", "16777216", "780a3527-2a03-4aa1-ad6b-fad3f2a49ff2"),
        *("uuid", "/sr/base.vhd"),
    ]
    assert line.endswith("  its child means 57b3f513-1c53-4fb4-b352-083b0338be4b")


def test_a_missing_parent_has_a_line_of_its_own() -> None:
    images = Shelf({"/sr/child.vhd": REAL["/sr/child.vhd"]})
    chain = read_chain("/sr/child.vhd", images=images)
    assert found(chain) == [
        ("/sr/child.vhd", "differencing", []),
        ("/sr/base.vhd", "unknown", ["missing"]),
    ]
    missing = chain_text(chain).decode().splitlines()[1]
    assert missing.split()[:6] == ["1", "unknown", "-", "-", "missing", "/sr/base.vhd"]
    assert images.open_now == 0


def test_an_image_that_is_not_there_is_one_line() -> None:
    chain = read_chain("/sr/none", images=Shelf({}))
    assert found(chain) == [("/sr/none", "unknown", ["missing"])]
    assert chain_text(chain) == b"0  unknown  -  -  missing  /sr/none  there is no such file\n"


def test_a_damaged_footer_is_named_and_its_copy_read() -> None:
    whole = dynamic()
    chain = read_chain("/sr/child", images=Shelf(on_base(whole[:-512] + bytes(512))))
    assert chain.levels[1].uuid == BASE
    (problem,) = chain.problems
    assert problem == (
        *(1, "/sr/base", Reason.FOOTER),
        "at its end: no footer; the copy at offset 0 was read",
    )


def test_blocks_written_after_the_footer_hide_it() -> None:
    chain = read_chain("/sr/child", images=Shelf(on_base(dynamic() + bytes(4096))))
    assert last(chain) == ("/sr/base", "dynamic", ["footer"])


@pytest.mark.parametrize("end", [b"\xc7" * 512, bytes(2 * MIB)])
def test_an_image_that_a_tapdisk_writes_needs_no_footer_at_its_end(end: bytes) -> None:
    images = Shelf(on_base(dynamic()) | {"/sr/child": differencing(BASE, at("base"))[:-512] + end})
    chain = read_chain("/sr/child", in_use=True, images=images)
    assert found(chain)[0] == ("/sr/child", "differencing", ["open"])
    assert chain.problems == ()
    assert read_chain("/sr/child", images=images).problems[0].reason is Reason.FOOTER


def test_that_a_tapdisk_has_the_image_open_excuses_no_parent() -> None:
    images = Shelf(on_base(dynamic()[:-512] + b"\xc7" * 512))
    assert last(read_chain("/sr/child", in_use=True, images=images))[2] == ["footer"]


def test_a_short_footer_is_a_footer() -> None:
    for image in (dynamic()[:-1], footer(2)[:511]):
        assert read_chain("/sr/base", images=Shelf({"/sr/base": image})).problems == ()


@pytest.mark.parametrize("padding", [0, 3 * MIB, 3 * MIB + 7])
def test_the_footer_is_sought_at_the_true_end(padding: int) -> None:
    whole = dynamic()
    image = whole[:-512] + bytes(padding) + whole[-512:]
    chain = read_chain("/dev/base", images=Shelf({"/dev/base": image}))
    assert found(chain) == [("/dev/base", "dynamic", [])]


def test_without_footer_and_copy_an_image_is_damaged() -> None:
    for image, why in (
        (b"", "at its end: too short for a footer; at offset 0: too short for a footer"),
        (bytes(4096), "at its end: no footer; at offset 0: no footer"),
        (footer(2) + bytes(512), "at its end: no footer; and a fixed image has no copy"),
    ):
        chain = read_chain("/sr/child", images=Shelf(on_base(image)))
        assert last(chain) == ("/sr/base", "unknown", ["damaged"])
        assert chain.problems[0].words == why
        assert chain.levels[1].size == len(image)


def test_a_fixed_image_ends_a_chain() -> None:
    chain = read_chain("/sr/child", images=Shelf(on_base(fixed())))
    assert last(chain) == ("/sr/base", "fixed", [])
    assert chain.levels[1].size == 2048


def test_a_damaged_dynamic_header_is_named_and_ends_the_chain() -> None:
    for damaged, words in (
        (dynamic()[:600] + b"x" + dynamic()[601:], "a dynamic header with a wrong checksum"),
        (dynamic(header_at=2**63), f"what should be at offset {2**63} is beyond its end"),
    ):
        chain = read_chain("/sr/child", images=Shelf(on_base(damaged)))
        assert last(chain) == ("/sr/base", "dynamic", ["damaged"])
        assert chain.problems[0].words == words
    child = on_base(dynamic())["/sr/child"]
    assert isinstance(child, bytes)
    cut = child[:512] + bytes(1024) + child[1536:]
    assert len(read_chain("/sr/child", images=Shelf({"/sr/child": cut})).levels) == 1


def test_a_disabled_parent_is_named() -> None:
    end = footer(3, cookie=b"v_poison")
    chain = read_chain("/sr/child", images=Shelf(on_base(end + header() + end)))
    assert last(chain) == ("/sr/base", "dynamic", ["disabled"])


def test_a_parent_of_another_time_is_named() -> None:
    noted = 848547680
    images = Shelf(on_base(dynamic(created=5), noted=noted))
    chain = read_chain("/sr/child", images=images)
    assert last(chain) == ("/sr/base", "dynamic", ["timestamp"])
    assert chain.problems[0].words == "its child means it as of 2026-11-21T03:41:20Z"


def test_a_parents_time_is_when_it_was_changed_or_created() -> None:
    for noted, images in (
        (7, Shelf(on_base(dynamic(created=5), noted=7), stamps=frozenset({6, 7}))),
        (5, Shelf(on_base(dynamic(created=5), noted=5), stamps=frozenset({6, 7}))),
    ):
        assert read_chain("/sr/child", images=images).problems == (), noted


def test_a_devices_parent_only_must_be_older_than_what_is_noted_of_it() -> None:
    child = differencing(BASE, at("base"), noted=2000)
    for created, reasons in ((1, []), (2000, []), (2001, ["timestamp"])):
        images = Shelf({"/dev/child": child, "/dev/base": dynamic(created=created)})
        assert last(read_chain("/dev/child", images=images))[2] == reasons


def test_a_raw_parent_is_raw_whatever_is_in_it() -> None:
    for place, content in (("/sr/", bytes(9000)), ("/dev/", dynamic())):
        images = Shelf({f"{place}child": differencing(None, at("disk")), f"{place}disk": content})
        chain = read_chain(f"{place}child", images=images)
        assert last(chain) == (f"{place}disk", "raw", [])
        assert chain.levels[1].size == len(content)


def test_a_raw_parent_that_was_changed_is_named() -> None:
    images = {"/sr/child": differencing(None, at("disk"), noted=1), "/sr/disk": bytes(9)}
    assert last(read_chain("/sr/child", images=Shelf(images)))[2] == ["timestamp"]


def test_a_loop_is_named_where_it_closes() -> None:
    a, b = UUID(int=1), UUID(int=2)
    images = Shelf(
        {
            "/sr/a": differencing(b, at("./b"), uuid=a),
            "/sr/b": differencing(a, at("./a"), uuid=b),
        }
    )
    chain = read_chain("/sr/a", images=images)
    assert [reasons for _, _, reasons in found(chain)] == [[], [], ["loop"]]
    assert chain.problems[0].words == "the same image as at depth 0"
    assert images.open_now == 0


def test_an_image_that_is_its_own_parent_is_a_loop() -> None:
    images = Shelf({"/sr/a": differencing(CHILD, at("a"))})
    assert [reasons for _, _, reasons in found(read_chain("/sr/a", images=images))] == [
        [],
        ["loop"],
    ]


def test_a_chain_too_deep_ends_with_a_line_that_says_so() -> None:
    images = {
        f"/sr/{depth}": differencing(
            UUID(int=depth + 2), at(str(depth + 1)), uuid=UUID(int=depth + 1)
        )
        for depth in range(100)
    }
    chain = read_chain("/sr/0", images=Shelf(images))
    assert len(chain.levels) == DEEPEST + 1
    assert last(chain) == (f"/sr/{DEEPEST}", "unknown", ["deep"])
    assert [each.reason for each in chain.problems] == [Reason.DEEP]

    whole = images | {f"/sr/{DEEPEST - 1}": dynamic(UUID(int=DEEPEST))}
    assert read_chain("/sr/0", images=Shelf(whole)).problems == ()


def test_what_can_not_be_opened_is_unreadable_and_why_is_said() -> None:
    denied = PermissionError(errno.EACCES, "Permission denied")
    for error, words in (
        (denied, "Permission denied"),
        (OSError(), "can't be read"),
        (no_image(), "neither a regular file nor a block device"),
    ):
        chain = read_chain("/sr/child", images=Shelf(on_base(error)))
        assert last(chain) == ("/sr/base", "unknown", ["unreadable"])
        assert chain.problems[0].words == words


def test_what_can_not_be_read_at_its_end_is_read_at_its_beginning() -> None:
    whole = dynamic()
    images = Shelf({"/sr/base": whole}, broken=frozenset({len(whole) - 512}))
    chain = read_chain("/sr/base", images=images)
    assert found(chain) == [("/sr/base", "dynamic", ["footer"])]
    assert chain.problems[0].words.startswith("at its end: Input/output error;")
    for broken, kind in ((0, "unknown"), (512, "dynamic")):
        images.broken = frozenset({len(whole) - 512, broken} if broken == 0 else {512})
        chain = read_chain("/sr/base", images=images)
        assert found(chain) == [("/sr/base", kind, ["unreadable"])]


def test_a_parent_is_sought_by_the_locators_in_the_tables_order() -> None:
    child = differencing(
        *(BASE, (b"MacX", b"nonsense"), (b"W2ru", ".\\gone".encode("utf-16-le"))),
        *((b"W2ku", "D:\\far\\base".encode("utf-16-le")), at("base")),
    )
    images = Shelf({"/sr/child": child, "/sr/far/base": dynamic(), "/sr/base": dynamic()})
    assert last(read_chain("/sr/child", images=images)) == ("/sr/far/base", "dynamic", [])
    assert images.sought == ["/sr/child", "/sr/gone", "/far/base", "/sr/far/base"]


def test_a_locator_that_is_no_path_is_passed_over() -> None:
    child = differencing(BASE, at("x" * LOCATOR_BYTES), at("base"))
    images = Shelf({"/sr/child": child, "/sr/base": dynamic()})
    assert read_chain("/sr/child", images=images).problems == ()
    assert images.sought == ["/sr/child", "/sr/base"]


def test_a_path_is_relative_to_where_the_child_really_is() -> None:
    child = differencing(BASE, at("base"))
    images = Shelf(
        {"/links/child": child, "/links/base": fixed(), "/sr/base": dynamic()},
        links={"/links/child": "/sr/child"},
    )
    assert last(read_chain("/links/child", images=images)) == ("/sr/base", "dynamic", [])


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        ("/dev/VG_XenStorage-1/VHD-2", "/dev/mapper/base"),
        ("/dev/mapper/VG_XenStorage--1-VHD--2", "/dev/mapper/base"),
        ("/dev/drbd/by-res/child/0", "/dev/drbd/by-res/child/base"),
        ("/dev/loop0", "/dev/base"),
    ],
)
def test_volumes_seek_parents_where_libvhd_does(child: str, parent: str) -> None:
    images = Shelf(
        {child: differencing(BASE, at("./base"), noted=2000), parent: dynamic()},
        links={child: "/dev/dm-3" if child != "/dev/loop0" else child},
    )
    assert last(read_chain(child, images=images)) == (parent, "dynamic", [])


def test_only_a_name_is_no_way_for_tapdisk_and_so_is_named() -> None:
    child = differencing(BASE, (b"Wi2r", b"base"), at("gone"), name="..\\lost/base")
    images = {"/sr/child": child, "/sr/base": dynamic(), "/sr/..\\lost/base": fixed()}
    assert last(read_chain("/sr/child", images=Shelf(images))) == (
        *("/sr/base", "dynamic"),
        ["locator"],
    )
    del images["/sr/base"]
    assert last(read_chain("/sr/child", images=Shelf(images))) == (
        *("/sr/gone", "unknown"),
        ["missing"],
    )
    images["/sr/child"] = differencing(BASE, name="base")
    assert last(read_chain("/sr/child", images=Shelf(images)))[0] == "/sr/base"


def test_a_child_that_names_no_parent_has_none() -> None:
    for links in ({}, {"/sr/child": EIO}):
        images = Shelf({"/sr/child": differencing(BASE)}, links=links)
        chain = read_chain("/sr/child", images=images)
        assert last(chain) == ("", "unknown", ["missing"])
        assert chain_text(chain).splitlines()[1].split()[4:6] == [b"missing", b"-"]
    images = Shelf({"/sr/child": differencing(BASE, at("base"))}, links={"/sr/child": EIO})
    assert last(read_chain("/sr/child", images=images))[0] == ""


def test_images_of_other_drivers_are_one_line() -> None:
    shelf = Shelf({"/sr/disk": bytes(5000), "/sr/socket": no_image()})
    for args, line in (
        ("aio:/sr/disk", b"0  raw  5000  -  ok  /sr/disk\n"),
        ("aio:/sr/gone", b"0  raw  -  -  missing  /sr/gone  there is no such file\n"),
        ("qcow2:/sr/disk", b"0  unknown  5000  -  ok  /sr/disk\n"),
        ("nbd:/sr/socket", b"0  unknown  -  -  ok  /sr/socket\n"),
        ("/sr/disk", b"0  unknown  5000  -  ok  /sr/disk\n"),
    ):
        driver, path = image_path(args)
        assert chain_text(read_chain(path, driver, images=shelf)) == line
    assert shelf.open_now == 0
    assert shelf.reads == []


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ("vhd:/sr/a:b.vhd", ("vhd", "/sr/a:b.vhd")),
        ("aio:/dev/sdb", ("aio", "/dev/sdb")),
        ("/sr/a:b", ("", "/sr/a:b")),
        (":/sr/a", ("", ":/sr/a")),
        ("", ("", "")),
    ],
)
def test_what_a_tapdisk_opens_is_driver_and_path(args: str, parts: tuple[str, str]) -> None:
    assert image_path(args) == parts


def test_a_path_is_one_field_whatever_is_in_it() -> None:
    path = "/sr/a b\n\udcff%.vhd"
    chain = read_chain(path, images=Shelf({path: dynamic()}))
    assert chain_text(chain).split()[5] == b"/sr/a%20b%0A%FF%25.vhd"


def test_several_findings_of_a_level_are_in_its_one_line() -> None:
    chain = read_chain("/sr/child", images=Shelf(on_base(dynamic(CHILD)[:-512])))
    line = chain_text(chain).decode().splitlines()[1]
    assert line.split()[4] == "footer,uuid"
    assert line.count("; ") == 2
    assert [each.reason.value for each in chain.problems] == ["footer", "uuid"]


# What is read of one level at most: footer, copy, header and eight locators
MOST_READ = 512 + 512 + 1024 + 8 * LOCATOR_BYTES
SUMMED = ((0, 64, 512), (512, 36, 1024))  # footer's copy and header: where, checksum, length


@settings(deadline=None)
@given(
    st.sampled_from(["/sr/base.vhd", "/sr/child.vhd", "/sr/grandchild.vhd"]),
    st.lists(st.tuples(st.integers(0, 5119), st.integers(0, 255)), max_size=12),
    st.integers(0, 5120),
    st.sampled_from(["cut off", "summed"]),
)
def test_damage_of_any_kind_is_described_in_bounded_reading(
    path: str, damage: list[tuple[int, int]], length: int, how: str
) -> None:
    image = bytearray(REAL[path])
    for where, byte in damage:
        image[where % len(image)] = byte
    if how == "summed":  # so that wrong fields get past the checksums
        for start, checksum, size in SUMMED:
            image[start : start + size] = sealed(bytes(image[start : start + size]), checksum)
    else:
        del image[length:]
    shelf = Shelf(REAL | {path: bytes(image)})
    chain = read_chain("/sr/grandchild.vhd", images=shelf)
    assert sum(shelf.reads) <= MOST_READ * len(chain.levels)
    assert shelf.open_now == 0
    text = chain_text(chain).decode("ascii")
    assert text.count("\n") == len(chain.levels)
    assert text.replace("\n", "").isprintable()


def test_only_files_and_block_devices_are_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # an open of it would wait for a writer
    for path in (fifo, tmp_path, Path("/dev/null"), Path("/dev/ptmx")):
        chain = read_chain(path)
        assert found(chain) == [(str(path), "unknown", ["unreadable"])]
    for name in ("\0", "/dev/null/x", "x\ud800"):
        assert found(read_chain(name)) == [(name, "unknown", ["missing"])]


def test_no_descriptor_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("grandchild.vhd", "base.vhd"):
        shutil.copyfile(CORPUS / name, tmp_path / name)
    assert last(read_chain(tmp_path / "grandchild.vhd"))[2] == ["missing"]
    null = os.stat("/dev/null")  # noqa: PTH116 - pathlib's has no descriptor's counterpart
    monkeypatch.setattr(os, "fstat", lambda _fd: null)  # as if exchanged while it was opened
    assert found(read_chain(tmp_path / "base.vhd"))[0][2] == ["unreadable"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_files_time_is_of_utc_or_of_the_hosts_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x")
    os.utime(path, (EPOCH_S + 5000, EPOCH_S + 5000))
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    try:
        image = FILES.open(str(path))
        image.close()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert image.stamps == {5000, 5000 - 5 * 3600}


def test_a_device_is_known_by_its_number_and_has_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "device"
    path.write_bytes(bytes(1000))
    facts = list(path.stat())
    facts[0] = 0o060600
    device = os.stat_result(facts, {"st_rdev": 0x703})
    monkeypatch.setattr(os, "fstat", lambda _fd: device)
    image = FILES.open(str(path))
    monkeypatch.undo()
    image.close()
    assert (image.size, image.identity, image.stamps) == (1000, ("device", 0x703), frozenset())
