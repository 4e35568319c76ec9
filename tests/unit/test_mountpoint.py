"""Only the daemon's own mount is detached, and nothing that goes wrong there raises."""

import os
import subprocess
from pathlib import Path

import pytest
import trio

from zeventfs.fuse import mountpoint as module
from zeventfs.fuse.mountpoint import Mountpoint
from zeventfs.umount import FSTYPE, Mounted

OURS = Mounted(FSTYPE, 42, 0)
PLACE = Path("/nowhere/mnt")


class Host:
    """What mountinfo says, and which commands were run."""

    def __init__(self) -> None:
        self.mounted: Mounted | None = OURS
        self.commands: list[list[str]] = []
        self.status = 0
        self.missing = False

    def mounted_at(self, path: Path) -> Mounted | None:
        assert path == PLACE
        return self.mounted

    async def run(self, command: list[str], **_: object) -> "subprocess.CompletedProcess[bytes]":
        await trio.lowlevel.checkpoint()
        if self.missing:
            raise FileNotFoundError(2, "No such file or directory")
        self.commands.append(command)
        if not self.status:
            self.mounted = None
        return subprocess.CompletedProcess(command, self.status, b"", b"it is stuck\n")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(module, "mounted_at", host.mounted_at)
    monkeypatch.setattr(trio, "run_process", host.run)
    return host


@pytest.mark.parametrize(("uid", "command"), [(0, "umount -l"), (1000, "fusermount3 -u -z")])
async def test_the_mount_is_detached(
    host: Host, monkeypatch: pytest.MonkeyPatch, uid: int, command: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    place = Mountpoint(PLACE)
    assert place.is_ours
    await place.detach()
    assert host.commands == [[*command.split(), "--", str(PLACE)]]
    await place.detach()
    assert len(host.commands) == 1


@pytest.mark.parametrize(
    "there", [None, Mounted("ext4", 42, 0), Mounted(FSTYPE, 43, 0)], ids=["none", "other", "later"]
)
async def test_what_is_not_ours_stays(host: Host, there: Mounted | None) -> None:
    place = Mountpoint(PLACE)
    host.mounted = there
    assert not place.is_ours
    await place.detach()
    assert host.commands == []


async def test_a_cancelled_daemon_detaches_all_the_same(host: Host) -> None:
    place = Mountpoint(PLACE)
    with trio.CancelScope() as scope:
        scope.cancel()
        await place.detach()
    assert host.mounted is None


async def test_what_goes_wrong_is_logged(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    place = Mountpoint(PLACE)
    host.status = 32
    await place.detach()
    host.missing = True
    await place.detach()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "it is stuck" in caplog.records[0].getMessage()


def test_a_mount_that_mountinfo_does_not_show_is_never_ours(host: Host) -> None:
    host.mounted = None
    place = Mountpoint(PLACE)
    host.mounted = OURS
    assert not place.is_ours
