"""File systems that are full soon, for what must outlive that."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["tmpfs"]


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Path]:
    """Have a tmpfs of *size* ("64k") at *path*; skips the test where none can be mounted."""
    if os.geteuid():
        pytest.skip("only root may mount a tmpfs")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tiny", str(path)]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
