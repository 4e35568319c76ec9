"""What is said of the module that is loaded, or of what is missing, from what the kernel shows."""

import errno
import os
from pathlib import Path

import pytest
from zfs_trees import BOOT_ID, CRTIME, loaded, write

from zeventfs.sources.device import Losses
from zeventfs.sources.kernel import module
from zeventfs.sources.kernel.module import (
    answers,
    life,
    losses,
    preflight,
    release_of,
    version,
    warning,
)


def test_the_version_is_as_the_module_says_it(tmp_path: Path) -> None:
    loaded(tmp_path, "2.1.11-1+deb12u1")
    assert version(tmp_path) == "2.1.11-1+deb12u1"


def test_where_no_module_is_loaded_nothing_is_known(tmp_path: Path) -> None:
    assert version(tmp_path) == ""
    assert life(tmp_path) == ""
    assert losses(tmp_path) == Losses(failed=0, len_max=0)
    assert warning(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("2.1.11-1", (2, 1, 11)),
        ("0.8.6", (0, 8, 6)),
        ("2.4.99-512_gbe7657e3f", (2, 4, 99)),
        ("", None),
        ("unknown", None),
    ],
)
def test_a_version_names_a_release(text: str, release: tuple[int, int, int] | None) -> None:
    assert release_of(text) == release


@pytest.mark.parametrize("open_to_others", ["2.2.0-1", "2.2.10", "2.3.0-rc1", "2.3.8", "2.4.3-1"])
def test_releases_that_let_other_tenants_in_are_warned_of(
    tmp_path: Path, open_to_others: str
) -> None:
    loaded(tmp_path, open_to_others)
    said = warning(tmp_path)
    assert said is not None
    assert said.startswith(f"OpenZFS {open_to_others} lets root of any user namespace")


@pytest.mark.parametrize("closed", ["0.8.6-1", "2.1.16", "2.2.11", "2.3.9-1", "2.4.4", "what"])
def test_other_releases_are_not(tmp_path: Path, closed: str) -> None:
    assert warning(loaded(tmp_path, closed)) is None


def test_a_life_is_a_boot_and_a_loading(tmp_path: Path) -> None:
    loaded(tmp_path)
    assert life(tmp_path) == f"{BOOT_ID}/{CRTIME}"
    loaded(tmp_path, crtime=CRTIME + 1)
    assert life(tmp_path) == f"{BOOT_ID}/{CRTIME + 1}"


@pytest.mark.parametrize("missing", ["proc/spl/kstat/zfs/fm", "proc/sys/kernel/random/boot_id"])
def test_a_life_that_is_half_known_is_not_known(tmp_path: Path, missing: str) -> None:
    loaded(tmp_path)
    (tmp_path / missing).unlink()
    assert life(tmp_path) == ""


def test_losses_are_posts_that_took_an_eid_and_failed(tmp_path: Path) -> None:
    assert losses(loaded(tmp_path)) == Losses(failed=3 + 2, len_max=512)


def test_losses_of_another_form_count_nothing(tmp_path: Path) -> None:
    loaded(tmp_path)
    write(tmp_path, "proc/spl/kstat/zfs/fm", "what\nerpt-dropped 4 many\nerpt-dropped\n")
    write(tmp_path, "sys/module/zfs/parameters/zfs_zevent_len_max", "-1\n")
    assert losses(tmp_path) == Losses(failed=0, len_max=0)
    assert life(tmp_path) == ""


def test_without_the_module_it_says_how_to_load_it(tmp_path: Path) -> None:
    assert preflight(tmp_path) == "the ZFS module is not loaded; load it with: modprobe zfs"
    assert not answers(tmp_path)


def test_a_device_is_not_touched_before_the_module_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/zfs")  # opening a static /dev/zfs would load the module
    said = preflight(tmp_path)
    assert said is not None
    assert "modprobe" in said


def test_without_the_device_it_says_where_it_comes_from(tmp_path: Path) -> None:
    said = preflight(loaded(tmp_path))
    assert said is not None
    assert "there is no /dev/zfs" in said


def test_what_is_no_zfs_device_is_said_to_be_none(tmp_path: Path) -> None:
    write(loaded(tmp_path), "dev/zfs", "")
    said = preflight(tmp_path)
    assert said is not None
    assert "isn't OpenZFS's device" in said


def test_what_can_not_be_opened_for_another_reason_is_said_as_the_kernel_does(
    tmp_path: Path,
) -> None:
    (loaded(tmp_path) / "dev/zfs").mkdir(parents=True)
    assert preflight(tmp_path) == "/dev/zfs can't be opened: Is a directory"


class Refusing:
    """A device whose opening, or else seeking, fails."""

    opening: int | None = None
    seeking: int | None = None

    def __init__(self, path: Path) -> None:
        if self.opening is not None:
            raise OSError(self.opening, os.strerror(self.opening), str(path))

    def seek(self, eid: int) -> None:
        assert eid == 0
        if self.seeking is not None:
            raise OSError(self.seeking, os.strerror(self.seeking))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("opening", "seeking", "words"),
    [
        (errno.EACCES, None, "can't be opened by this process: run it as root"),
        (errno.EPERM, None, "can't be opened by this process: run it as root"),
        (errno.ENODEV, None, "a node of another device, or the module is just being unloaded"),
        (errno.ENXIO, None, "a node of another device, or the module is just being unloaded"),
        (None, errno.EPERM, "CAP_SYS_ADMIN in the initial user namespace"),
        (None, errno.EIO, "/dev/zfs does not answer: Input/output error"),
    ],
)
def test_each_refusal_has_its_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opening: int | None,
    seeking: int | None,
    words: str,
) -> None:
    device = type("Refused", (Refusing,), {"opening": opening, "seeking": seeking})
    monkeypatch.setattr(module, "Zevents", device)
    said = preflight(loaded(tmp_path))
    assert said is not None
    assert words in said
    assert "\n" not in said


def test_where_it_can_be_read_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Zevents", Refusing)
    assert preflight(loaded(tmp_path)) is None
    assert answers(tmp_path)
