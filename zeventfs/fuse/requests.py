"""What pyfuse3 doesn't say about a request, and pyfuse3 itself, loaded so that it can be known.

Every module that needs pyfuse3 takes it from here: once this module is imported, pyfuse3's
requests pass through ``_requests.c``, or the import fails, since a mount whose readers can't be
interrupted must not start.

The facts are those of the request being started: a handler asks for them before its first await,
and never after it (a RuntimeError says that the request is of another kind). They cost less than
150 ns. Before each ``pyfuse3.init``, `watch` says whom to call: ``interrupted(unique)`` when a
signal came to a reader, and once ``ended()``, when the mount is gone or aborted. Both are called
from within trio's loop and may cancel scopes; their errors are printed and go no further. From
``Operations.init`` on, `started` is true, or the session runs past us. `current` is (opcode,
unique, pid), all 0 for a large write that libfuse takes through a pipe.
"""

import os
import sys

if "pyfuse3" in sys.modules:
    raise ImportError("pyfuse3 was imported before zeventfs.fuse.requests and calls libfuse itself")

_flags = sys.getdlopenflags()
sys.setdlopenflags(os.RTLD_GLOBAL | os.RTLD_NOW)
try:
    from zeventfs.fuse._requests import (
        bind,
        current,
        getattr_handle,
        poll_request,
        read_ahead,
        read_request,
        started,
        watch,
    )
finally:
    sys.setdlopenflags(_flags)

import pyfuse3  # noqa: E402 - only now do its symbols resolve to ours

from zeventfs.fuse.turns import trio_with_turns  # noqa: E402 - follows pyfuse3

bind(pyfuse3.__file__)
pyfuse3.trio = trio_with_turns  # type: ignore[attr-defined]  # its stub has no imports

__all__ = [
    "current",
    "getattr_handle",
    "poll_request",
    "pyfuse3",
    "read_ahead",
    "read_request",
    "started",
    "watch",
]
