"""What the handlers of requests are wrapped in: errors become errnos, and the trace has it all.

pyfuse3 ends the mount when a handler raises anything but a FUSEError. So zeventfs's own errors
become their errno, and anything else EIO and a logged traceback; after the end of the mount has
begun all that is asked is ESHUTDOWN. What a handler is asked for is told to the trace by one of the
functions here, `of_*`, before it runs, and its answer after.
"""

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Protocol, TypeVar, cast

from zeventfs.errors import Closing, ZeventfsError
from zeventfs.fuse.handles import HandleTable
from zeventfs.fuse.requests import current, pyfuse3
from zeventfs.fuse.trace import Request, Trace
from zeventfs.fuse.waits import Waits

__all__ = [
    "Answerer",
    "answers",
    "of_handle",
    "of_inode",
    "of_listing",
    "of_name",
    "of_tree",
    "of_write",
    "refusal",
    "refused",
    "traced",
]

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])


class Answerer(Protocol):
    """What the wrappers need of the handlers' object."""

    waits: Waits
    trace: Trace
    handles: HandleTable

    def listed(self, fh: int) -> int:
        """The inode of the directory that is open as *fh*, 0 if none is."""
        ...


About = Callable[..., Request]


def answers(
    about: About, told: Callable[[Any], int | str] | None = None
) -> Callable[[Handler], Handler]:
    """Let nothing but a FUSEError out of a handler; the trace has it as *about* and *told* say.

    *about* is given the handlers' object, the operation and the handler's arguments; *told* makes
    what the trace keeps of the answer, a count or a word ("ok" without it).
    """

    def wrap(handler: Handler) -> Handler:
        operation = handler.__name__

        @functools.wraps(handler)
        async def answer(self: Answerer, *args: Any) -> Any:
            request = about(self, operation, *args)
            try:
                if self.waits.closing:
                    raise Closing("the mount is at its end")  # noqa: TRY301 - answered as all are
                given = await handler(self, *args)
            except Exception as error:  # noqa: BLE001 - refused logs it
                raise refused(self, request, error, args) from None
            self.trace.end(request, "ok" if told is None else told(given))
            return given

        return cast("Handler", answer)

    return wrap


def refused(ops: Answerer, request: Request, error: Exception, args: object) -> pyfuse3.FUSEError:
    """What to raise for *error*, which is noted, and logged where it is nobody's intention."""
    if isinstance(error, ZeventfsError):
        if error.errno == errno.EINVAL:
            log.warning("%s: %s", request.operation, error)
        number = error.errno
    elif isinstance(error, pyfuse3.FUSEError):
        number = error.errno
    else:  # what is written can be long
        log.error("%s%.200r failed", request.operation, args, exc_info=error)
        number = errno.EIO
    ops.trace.fail(request, number)
    return pyfuse3.FUSEError(number)


def traced(about: About) -> Callable[[Handler], Handler]:
    """Have the trace see a handler that raises nothing, and that works at the mount's end too."""

    def wrap(handler: Handler) -> Handler:
        operation = handler.__name__

        @functools.wraps(handler)
        async def answer(self: Answerer, *args: Any) -> None:
            request = about(self, operation, *args)
            await handler(self, *args)
            self.trace.end(request, "ok")

        return cast("Handler", answer)

    return wrap


def refusal(operation: str, number: int, about: About) -> Any:
    """A handler of *operation* that answers errno *number* always."""

    async def refuse(self: Answerer, *args: object) -> NoReturn:
        self.trace.fail(about(self, operation, *args), number)
        raise pyfuse3.FUSEError(number)

    return refuse


# What a request is about. None of these may raise, and each is asked before the first await.


def _pid() -> int:
    return current()[2]


def of_inode(ops: Answerer, operation: str, inode: int, *_: object) -> Request:
    """A request for an inode."""
    return ops.trace.begin(operation, _pid(), inode)


def of_tree(ops: Answerer, operation: str, *_: object) -> Request:
    """A request for the file system."""
    return ops.trace.begin(operation, _pid(), pyfuse3.ROOT_INODE)


def of_name(ops: Answerer, operation: str, inode: int, name: bytes, *_: object) -> Request:
    """A request for a name in a directory."""
    return ops.trace.begin(operation, _pid(), inode, name)


def of_listing(ops: Answerer, operation: str, fh: int, *_: object) -> Request:
    """A request for an open directory."""
    return ops.trace.begin(operation, _pid(), ops.listed(fh))


def of_handle(ops: Answerer, operation: str, fh: int, *_: object) -> Request:
    """A request for an open file."""
    return ops.trace.begin(operation, _pid(), ops.handles.inode(fh))


def of_write(ops: Answerer, operation: str, fh: int, off: int, buf: bytes) -> Request:
    """A write."""
    return ops.trace.begin(operation, _pid(), ops.handles.inode(fh), None, off, len(buf))
