"""VHDs on block devices: the footer is at the device's true end, however little the image needs."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zeventfs.vbd.chain import Reason, chain_text, read_chain

CORPUS = Path(__file__).parents[1] / "corpus" / "vhd"
MIB = 1 << 20


@contextmanager
def loop_device(backing: Path) -> Iterator[str]:
    make = ["losetup", "--find", "--show", "--read-only", str(backing)]
    made = subprocess.run(make, check=False, capture_output=True, text=True)
    if made.returncode:  # some containers have none; mounting needs none, so the rest is proved
        pytest.skip(f"there are no loop devices here: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def on_a_volume(image: Path, volume: Path) -> None:
    """As libvhd has it on a volume of 3 MiB: all at the beginning but the footer."""
    content = image.read_bytes()
    volume.write_bytes(content[:-512] + bytes(3 * MIB - len(content)) + content[-512:])


def test_a_footer_at_a_devices_end_is_found(tmp_path: Path) -> None:
    shutil.copyfile(CORPUS / "child.vhd", tmp_path / "child.vhd")
    on_a_volume(CORPUS / "base.vhd", tmp_path / "volume")
    with loop_device(tmp_path / "volume") as device:
        (tmp_path / "base.vhd").symlink_to(device)
        chain = read_chain(tmp_path / "child.vhd")
        alone = read_chain(device)
        raw = read_chain(device, "aio")
    assert chain.problems == ()
    assert [level.size for level in chain.levels] == [16 * MIB, 16 * MIB]
    assert chain_text(alone).decode() == (
        f"0  dynamic  16777216  57b3f513-1c53-4fb4-b352-083b0338be4b  ok  {device}\n"
    )
    assert chain_text(raw).decode() == f"0  raw  {3 * MIB}  -  ok  {device}\n"


def test_a_device_without_its_footer_is_named(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    on_a_volume(CORPUS / "base.vhd", volume)
    volume.write_bytes(volume.read_bytes()[:-512] + bytes(512))
    with loop_device(volume) as device:
        chain = read_chain(device)
    assert [(each.depth, each.reason) for each in chain.problems] == [(0, Reason.FOOTER)]
