"""The compiled parts, one of them against libfuse3; everything else is in pyproject.toml."""

import shlex
import subprocess

from setuptools import Extension, setup


def pkg_config(flag: str) -> list[str]:
    """What pkg-config says of fuse3 for *flag*, in words."""
    return shlex.split(subprocess.check_output(["pkg-config", flag, "fuse3"], text=True))


FLAGS = ["-O2", "-Wall", "-Wextra"]

setup(
    ext_modules=[
        Extension(
            "zeventfs.fuse._requests",
            ["zeventfs/fuse/_requests.c"],
            extra_compile_args=[*FLAGS, *pkg_config("--cflags")],
        ),
        Extension(
            "zeventfs.sources.kernel._zevents",
            ["zeventfs/sources/kernel/_zevents.c"],
            extra_compile_args=FLAGS,
        ),
    ]
)
