"""The image of the machine that the kernel suite runs in: built once for each recipe, kept, shared.

An image that is there is whole: it is built under another name and renamed when it is done.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["NoImage", "image", "image_directory"]

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).resolve().parent / "machine"
ROOT = "root.ext4"  # made last
LOCK = ".zeventfs-machine.lock"  # in whatever directory the image is in
BUILDING = ".zeventfs-machine."
TESTING = "pytest", "pytest-trio", "pytest-timeout"  # of the packages that development needs


class NoImage(Exception):
    """There is no image, and none can be built; the message is a sentence."""


def _requirements() -> list[str]:
    """What the machine's Python gets: what zeventfs and its building need, and what tests it."""
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    project, dev = declared["project"], declared["project"]["optional-dependencies"]["dev"]
    names = tuple(f"{name}{sign}" for name in TESTING for sign in "><=")
    return [
        *declared["build-system"]["requires"],
        *project["dependencies"],
        *(each for each in dev if each.startswith(names)),
    ]


def image_directory() -> Path:
    """Where the image is or will be: ZEVENTFS_VM, or in the cache, named for its recipe."""
    if given := os.environ.get("ZEVENTFS_VM"):
        return Path(given).absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    recipe = hashlib.sha256("\0".join(_requirements()).encode())
    for file in sorted(RECIPE.iterdir()):
        recipe.update(b"\0%s\0" % file.name.encode() + file.read_bytes())
    return base / "zeventfs" / f"machine-{recipe.hexdigest()[:16]}"


def image() -> Path:
    """The image's directory; builds it if it isn't there. Raises NoImage."""
    directory = image_directory()
    if (directory / ROOT).exists():
        return directory
    if os.geteuid() != 0:
        raise NoImage(
            f"there is no machine in {directory}, and to build one takes root (debootstrap, "
            "chroot): run `make vm-image` as root, or name another with ZEVENTFS_VM"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _alone(directory.parent):
        if not (directory / ROOT).exists():  # nobody else has built it meanwhile
            _build(directory)
    return directory


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold the lock on *cache*, in which only one image is built at a time."""
    lock = os.open(cache / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache.glob(f"{BUILDING}*/"):  # by one that was killed
            shutil.rmtree(left)
        yield
    finally:
        os.close(lock)


def _build(directory: Path) -> None:
    print(f"building the machine in {directory}, about 8 minutes", flush=True)
    building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=directory.parent))
    try:
        recipe = subprocess.Popen(
            [RECIPE / "build", building, *_requirements()], stdin=subprocess.DEVNULL
        )
        try:
            status = recipe.wait()
        finally:
            recipe.kill()  # its namespaces, and so all that it has begun, end with it
            recipe.wait()
        if status:
            raise NoImage("there is no machine: it could not be built")
        building.chmod(0o755)
        if directory.exists():
            directory.rmdir()  # an empty one that was named for it
        building.rename(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)
