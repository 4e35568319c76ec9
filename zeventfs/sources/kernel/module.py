"""What is known of OpenZFS's kernel module: which it is, whether it can be read, what it lost.

Nothing here loads the module: a static /dev/zfs does so when it is opened, and so isn't touched
before the module is there. Each function takes the *root* of the tree that it looks at, which is
another in tests, and raises nothing. It is imported where `source=auto` looks for a source, before
anything else is, and so imports hardly anything.
"""

import errno
import re
from pathlib import Path

from zeventfs.sources.device import SEEK_START, Losses
from zeventfs.sources.kernel._zevents import Zevents

__all__ = [
    "DEVICE",
    "ROOT",
    "answers",
    "life",
    "losses",
    "preflight",
    "release_of",
    "version",
    "warning",
]

ROOT = Path("/")
DEVICE = "dev/zfs"

_MODULE = "sys/module/zfs"
_FM = "proc/spl/kstat/zfs/fm"
_BOOT_ID = "proc/sys/kernel/random/boot_id"

# Released with the check of the caller's own user namespace, and no check of its zone: commit
# aa99598276, "secpolicy_sys_config: only permit a global zone credential", ended it.
_OPEN_TO_OTHERS = (
    ((2, 2, 0), (2, 2, 10)),
    ((2, 3, 0), (2, 3, 8)),
    ((2, 4, 0), (2, 4, 3)),
)

_REFUSALS = {
    errno.EPERM: (
        "the kernel refuses ZFS's events to this process: it takes CAP_SYS_ADMIN in the initial"
        " user namespace (root on the host, not in a container or under unshare)"
    ),
    errno.ENOTTY: "/dev/zfs isn't OpenZFS's device, or of a release that this doesn't know",
}


def version(root: Path = ROOT) -> str:
    """The loaded module's version as it says it, such as "2.1.11-1"; "" when none is loaded."""
    return _read(root, f"{_MODULE}/version").strip()


def release_of(text: str) -> tuple[int, int, int] | None:
    """The release that a version names: (2, 1, 11) of "2.1.11-1"; None if it names none."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def warning(root: Path = ROOT) -> str | None:
    """A sentence where the loaded release lets other tenants at the events; None elsewhere."""
    text = version(root)
    release = release_of(text)
    if release is None or not any(low <= release <= high for low, high in _OPEN_TO_OTHERS):
        return None
    return (
        f"OpenZFS {text} lets root of any user namespace, and so other tenants' containers, read"
        " and clear this host's events; 2.2.11, 2.3.9 and 2.4.4 don't"
    )


def life(root: Path = ROOT) -> str:
    """Which life of the module's queue this is: the same until the module is loaded anew.

    It is the boot's id and the time of loading, in ns since the boot (`crtime`, the last but one
    number in the head of the kstat zfs/0/fm); "" where either can't be read.
    """
    boot = _read(root, _BOOT_ID).strip()
    head = _read(root, _FM).partition("\n")[0].split()
    return f"{boot}/{head[-2]}" if boot and len(head) > 1 else ""


def losses(root: Path = ROOT) -> Losses:
    """How many posts took an EID and failed, and how much the queue holds; 0 for what is unknown.

    Releases up to 2.0.4 say how much they chose to hold where nothing was asked for.
    """
    counts = {}
    for line in _read(root, _FM).splitlines():
        match line.split():
            case [name, _, number] if number.isdecimal():
                counts[name] = int(number)
    len_max = _read(root, f"{_MODULE}/parameters/zfs_zevent_len_max").strip()
    return Losses(
        failed=counts.get("erpt-dropped", 0) + counts.get("erpt-set-failed", 0),
        len_max=int(len_max) if len_max.isdecimal() else 0,
    )


def preflight(root: Path = ROOT) -> str | None:
    """What keeps this process from reading the events, and what to do, in a sentence; or None.

    What is tried is a SEEK to the start, on a descriptor of its own.
    """
    if not (root / _MODULE).exists():
        return "the ZFS module is not loaded; load it with: modprobe zfs"
    try:
        device = Zevents(root / DEVICE)
    except OSError as error:
        return _unopened(error)
    try:
        device.seek(SEEK_START)
    except OSError as error:
        return _REFUSALS.get(error.errno or 0, f"/dev/zfs does not answer: {error.strerror}")
    finally:
        device.close()
    return None


def answers(root: Path = ROOT) -> bool:
    """Whether there are ZFS events to be read here: what `source=auto` goes by."""
    return preflight(root) is None


def _unopened(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return (
                "the ZFS module is loaded, but there is no /dev/zfs: udev makes it on a host, and a"
                " container has to be given it (--device /dev/zfs)"
            )
        case errno.EACCES | errno.EPERM:
            return (
                "/dev/zfs can't be opened by this process: run it as root, and in a container with"
                " the device allowed (--device /dev/zfs)"
            )
        case errno.ENODEV | errno.ENXIO:
            return "/dev/zfs is a node of another device, or the module is just being unloaded"
    return f"/dev/zfs can't be opened: {error.strerror}"


def _read(root: Path, path: str) -> str:
    """The text of a small file; "" where there is none, or it can't be read."""
    try:
        return (root / path).read_text(errors="replace")
    except OSError:
        return ""
