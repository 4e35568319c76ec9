"""Runs the kernel suite in a machine of its own: `run_in_machine.py [PYTEST_ARGUMENT...]`.

The exit status is pytest's; 6 where the machine ended without one, 7 where there is no machine.
With `--image` alone it only sees to it that there is an image, and says where.
"""

import shlex
import signal
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from types import FrameType

from machine_boot import Ended, boot
from machine_image import CHECKOUT, NoImage, image

LIMIT = 40 * 60.0  # seconds, against a hang: a busy host may take long
NO_RESULT, NO_MACHINE = 6, 7  # pytest's own go up to 5
NEEDED = "zeventfs", "tests", "pyproject.toml", "setup.py", "mount.zeventfs", "README.md", "LICENSE"
IN_MACHINE = """\
set -euo pipefail
# What 64 readers of a storm write is more than there is memory for.
export PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 TEST_PATIENCE=10 TMPDIR=/var/tmp
echo "booted in $(cut -d ' ' -f 1 /proc/uptime) s"
modprobe --all fuse zfs
mount -t fusectl fusectl /sys/fs/fuse/connections
mkdir /root/checkout
cd /root/checkout
tar -xf /host/checkout.tar
python setup.py -q build_ext --inplace
# Through a pipe, or pytest would take the console for somebody's terminal.
python -m pytest -p no:cacheprovider --timeout=600 {arguments} 2>&1 | cat
"""


def _share(directory: Path, arguments: list[str]) -> None:
    """Put into *directory* what the machine is to have and do: the checkout, and the suite.

    The checkout is one file: each file that the machine opens through 9p costs it milliseconds.
    """
    with tarfile.open(directory / "checkout.tar", "w") as checkout:
        for name in NEEDED:
            checkout.add(CHECKOUT / name, name, filter=_as_checked_out)
    (directory / "run").write_text(IN_MACHINE.format(arguments=shlex.join(arguments)))


def _as_checked_out(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what was built; the machine's user is root."""
    if Path(member.name).name == "__pycache__" or member.name.endswith((".so", ".egg-info")):
        return None
    member.uid = member.gid = 0
    return member


def _terminate(number: int, _at: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, _terminate)
    arguments = sys.argv[1:] or ["-v", "tests/vm"]
    begun = time.monotonic()
    try:
        found = image()
        if arguments == ["--image"]:
            print(f"the machine is in {found}")
            return 0
        with tempfile.TemporaryDirectory(prefix="zeventfs-machine") as share:
            _share(Path(share), arguments)
            return boot(found, Path(share), LIMIT)
    except NoImage as reason:
        print(f"make test-vm: {reason}", file=sys.stderr)
        return NO_MACHINE
    except Ended as reason:
        print(f"make test-vm: {reason}; above is its console", file=sys.stderr)
        return NO_RESULT
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        print(f"{time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
