"""The one compiled part, against libfuse3; everything else is in pyproject.toml."""

import shlex
import subprocess

from setuptools import Extension, setup


def pkg_config(flag: str) -> list[str]:
    """What pkg-config says of fuse3 for *flag*, in words."""
    return shlex.split(subprocess.check_output(["pkg-config", flag, "fuse3"], text=True))


setup(
    ext_modules=[
        Extension(
            "zeventfs.fuse._requests",
            ["zeventfs/fuse/_requests.c"],
            extra_compile_args=["-O2", "-Wall", "-Wextra", *pkg_config("--cflags")],
        )
    ]
)
