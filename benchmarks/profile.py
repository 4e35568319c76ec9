"""Where a server's time goes while something is measured: `perf` on it, C frames and all."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Profiler"]

LINES = 40


class Profiler:
    """Profiles if *wanted*; the profiled run is one more, whose figures count for nothing."""

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self.found: list[str] = []

    def profile(self, name: str, pids: Sequence[int], run: Callable[[], object]) -> None:
        """Do *run*, and keep where the processes' time went meanwhile as text."""
        if not self.wanted:
            return
        perf = shutil.which("perf")
        if perf is None:
            self.found.append(f"{name}: no perf here (Debian: linux-perf), so no profile")
            return
        with tempfile.TemporaryDirectory(prefix="zeventfs-perf-") as directory:
            self.found.append(f"{name}:\n{_record(perf, Path(directory) / 'data', pids, run)}")


def _record(perf: str, data: Path, pids: Sequence[int], run: Callable[[], object]) -> str:
    joined = ",".join(map(str, pids))
    recorder = subprocess.Popen(
        [perf, "record", "-q", "-F", "1999", "-o", data, "-p", joined],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)  # until it is attached to every thread; it doesn't say when
    try:
        run()
    finally:
        recorder.send_signal(signal.SIGINT)  # write what you have
        _, said = recorder.communicate(timeout=30)
    if not data.exists():
        return f"perf recorded nothing: {said.strip()}"
    shown = subprocess.run(
        [perf, "report", "--stdio", "-i", data, "--sort", "dso,symbol", "--percent-limit", "0.5"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.splitlines()
    lines = [line.rstrip("- ") for line in shown if line.strip() and not line.startswith("#")]
    return "\n".join(lines[:LINES]) or f"perf saw nothing: {said.strip()}"
