"""Runs the kernel suite in a machine of its own: `run_in_machine.py [PYTEST_ARGUMENT...]`.

Of the whole suite, without arguments, what fails is run once more: emulated on a busy host it may
have been late for a limit.

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

from machine_boot import Ended, Stuck, boot
from machine_image import CHECKOUT, NoImage, image

LIMIT = 45 * 60.0  # seconds, for all machines together: a busy host may take long
NO_RESULT, NO_MACHINE = 6, 7  # pytest's own go up to 5
NEEDED = "zeventfs", "tests", "pyproject.toml", "setup.py", "mount.zeventfs", "README.md", "LICENSE"
IN_MACHINE = """\
set -euo pipefail
# What 64 readers of a storm write is more than there is memory for.
export PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 TEST_PATIENCE=10 TMPDIR=/var/tmp
(while touch /host/alive; do sleep 5; done) &
echo "booted in $(cut -d ' ' -f 1 /proc/uptime) s"
modprobe --all fuse zfs
mount -t fusectl fusectl /sys/fs/fuse/connections
mkdir /root/checkout
cd /root/checkout
tar -xf /host/checkout.tar
python setup.py -q build_ext --inplace
suite() {{
    # Through a pipe, or pytest would take the console for somebody's terminal.
    python -m pytest --timeout=600 "$@" 2>&1 | cat
}}
{run}
"""
WHOLE = """\
suite -v tests/vm || {
    echo "once more what has failed"
    suite -v tests/vm --last-failed --last-failed-no-failures=none
}"""


def _share(directory: Path, arguments: list[str]) -> None:
    """Put into *directory* what the machine is to have and do: the checkout, and the suite.

    The checkout is one file: each file that the machine opens through 9p costs it milliseconds.
    """
    with tarfile.open(directory / "checkout.tar", "w") as checkout:
        for name in NEEDED:
            checkout.add(CHECKOUT / name, name, filter=_as_checked_out)
    run = f"suite {shlex.join(arguments)}" if arguments else WHOLE
    (directory / "run").write_text(IN_MACHINE.format(run=run))


def _as_checked_out(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what was built; the machine's user is root."""
    if Path(member.name).name == "__pycache__" or member.name.endswith((".so", ".egg-info")):
        return None
    member.uid = member.gid = 0
    return member


def _boot(machine: Path, share: Path) -> int:
    """Boot *machine*, and another where one got stuck."""
    begun = time.monotonic()
    while True:
        left = LIMIT - (time.monotonic() - begun)
        try:
            return boot(machine, share, left)
        except Stuck as reason:
            print(f"make test-vm: {reason}; another is booted", file=sys.stderr, flush=True)


def _terminate(number: int, _at: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, _terminate)
    arguments = sys.argv[1:]
    begun = time.monotonic()
    try:
        found = image()
        if arguments == ["--image"]:
            print(f"the machine is in {found}")
            return 0
        with tempfile.TemporaryDirectory(prefix="zeventfs-machine") as share:
            _share(Path(share), arguments)
            return _boot(found, Path(share))
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
