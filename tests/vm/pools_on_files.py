"""Pools on files that only one test knows, and ways to have the kernel post events about them."""

import contextlib
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel_queue import set_parameter, tool
from programs import run

__all__ = ["FilePool"]

PLACE = Path("/vd")
SIZE = 64 << 20  # bytes: the smallest vdev that zpool(8) takes

# A channel program is one transaction: its history records are posted all at once.
BURST = """\
args = ...
for index = 1, 400 do
    zfs.sync.set_prop(args["argv"][1], "test:burst", args["argv"][2] .. index)
end
"""


class FilePool:
    """A pool on sparse files, *layout* as for `zpool create`, a number for each of its vdevs.

    `FilePool("mirror 0 1")` is a mirror. `vdev(number)` is a file, made when it is asked for.
    """

    def __init__(self, layout: str = "0", *, names: str = "{}") -> None:
        self.name = f"p{secrets.token_hex(4)}"
        self.base = PLACE / self.name
        self.base.mkdir(parents=True)
        self._names = names
        self.layout = [str(self.vdev(int(w))) if w.isdigit() else w for w in layout.split()]

    def vdev(self, number: int) -> Path:
        path = self.base / self._names.format(number)
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(SIZE)
        return path

    def create(self) -> None:
        options = ("-o", "cachefile=none", "-O", f"mountpoint={self.base}/mnt")
        tool("zpool", "create", *options, self.name, *self.layout)

    def zpool(self, command: str, *arguments: object) -> bytes:
        """Run `zpool COMMAND POOL ARGUMENTS`."""
        return tool("zpool", command, self.name, *(str(each) for each in arguments))

    def set(self, name: str, value: bytes) -> None:
        """Set a property of the pool's file system, which is an event with the value in it."""
        arguments = [b"zfs", b"set", name.encode() + b"=" + value, self.name.encode()]
        subprocess.run(arguments, check=True, timeout=60, capture_output=True)

    def burst(self, label: str = "n") -> None:
        """Have some hundred history events posted within milliseconds."""
        program = self.base / "burst.lua"
        program.write_text(BURST)
        tool("zfs", "program", self.name, program, self.name, label)

    @contextmanager
    def storm(self) -> Iterator[None]:
        """Let each write fail, which ZFS retries for ever: hundreds of ereports a second."""
        set_parameter("zfs_zevent_retain_max", 0)  # none is a duplicate of another
        tool("zpool", "set", "failmode=continue", self.name)
        tool("zinject", "-d", self.vdev(0), "-e", "io", "-T", "write", self.name)
        writer = subprocess.Popen(
            ["dd", "if=/dev/zero", f"of={self.base}/mnt/file", "bs=256k", "count=4", "conv=fsync"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            tool("zinject", "-c", "all")
            try:
                writer.wait(timeout=60)
            finally:
                writer.kill()

    def destroy(self) -> None:
        """Leave nothing of it, however it stands."""
        run(["zinject", "-c", "all"])
        if run(["zpool", "list", self.name]).returncode == 0:
            run(["zpool", "clear", self.name])  # a suspended one can't be destroyed
            tool("zpool", "destroy", "-f", self.name)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.base)
