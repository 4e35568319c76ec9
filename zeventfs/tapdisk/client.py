"""Asks a tapdisk by its control socket, and never waits longer than it may.

Each request has a connection of its own, sent in one write, and a time limit. Of each kind,
questions and orders, at most one is under way at a time: tapdisk serves few connections, and an
idle or a torn one blocks it for everybody. It answers questions while an order (PAUSE) waits.
"""

import errno
import math
import os
import socket
from typing import Final, Generic, Self, TypeVar

import trio

from zeventfs.tapdisk import protocol, wire
from zeventfs.tapdisk.protocol import Image, Listed, Partial, Request, TapdiskError
from zeventfs.tapdisk.stats import StatsText, decode_stats

__all__ = ["Exchange", "Gone", "Hangs", "Tapdisk", "Unreachable"]

_QUESTION_S: Final = 2.0
_ORDER_S: Final = 30.0  # a pause waits for the I/O under way
_FULL_S: Final = 0.05  # between tries to connect while as many as can be are waiting
_RECEIVED: Final = 65536  # bytes at a time

T = TypeVar("T")


class Gone(TapdiskError):
    """No process is behind the socket (ESHUTDOWN)."""

    errno = errno.ESHUTDOWN


class Hangs(TapdiskError):
    """There was no answer in time (ETIMEDOUT). What was ordered may be done all the same."""

    errno = errno.ETIMEDOUT


class Unreachable(TapdiskError):
    """The socket can't be connected to, for a reason of our own; its errno is that of connect."""

    def __init__(self, number: int, path: str) -> None:
        super().__init__(f"can't connect to {path}: {os.strerror(number)}")
        self.errno = number


class Tapdisk:
    """One tapdisk, asked by the control socket at *path*; time limits are in seconds.

    Every request raises Gone, Hangs, Unreachable, Refused (the answer was ERROR), Lied or Partial,
    all of them TapdiskError, and Invalid for what can't be asked. Cancelling closes the connection;
    tapdisk may go on with what it was asked.
    """

    def __init__(
        self, path: str, *, question_s: float = _QUESTION_S, order_s: float = _ORDER_S
    ) -> None:
        self.path = path
        self._limits = {False: question_s, True: order_s}
        self.turns = {False: trio.Lock(), True: trio.Lock()}  # of questions and of orders

    async def pid(self) -> int:
        """The number of the process that answers."""
        return await self.ask(protocol.ask_pid())

    async def list(self) -> tuple[Listed, ...]:
        """The VBDs."""
        return await self.ask(protocol.ask_list())

    async def stats(self, minor: int) -> StatsText:
        """What VBD *minor* has done."""
        return decode_stats(await self.ask(protocol.ask_stats(minor)))

    async def disk_info(self, minor: int) -> Image:
        """The size of the image of *minor*."""
        return await self.ask(protocol.ask_disk_info(minor))

    async def attach(self, minor: int) -> None:
        """Make a VBD for *minor*, whose marker must be there."""
        await self.ask(protocol.ask_attach(minor))

    async def open(self, minor: int, image: str, flags: int = 0, req_timeout: int = 0) -> Image:
        """Open *image*, as in `ask_open`."""
        return await self.ask(protocol.ask_open(minor, image, flags, req_timeout))

    async def pause(self, minor: int) -> None:
        """Finish what is under way and let go of the image."""
        await self.ask(protocol.ask_pause(minor))

    async def resume(self, minor: int, image: str = "") -> None:
        """Open the image again, or *image* instead of it, and go on."""
        await self.ask(protocol.ask_resume(minor, image))

    async def close(self, minor: int) -> None:
        """Finish what is under way and close the image."""
        await self.ask(protocol.ask_close(minor))

    async def detach(self, minor: int) -> None:
        """Let go of the device; a tapdisk without any ends."""
        await self.ask(protocol.ask_detach(minor))

    async def force_shutdown(self, minor: int) -> None:
        """Close the image and wait for nothing."""
        await self.ask(protocol.ask_force_shutdown(minor))

    async def ask(self, request: Request[T], limit_s: float | None = None) -> T:
        """Send *request* and return what is answered within *limit_s*, which begins with its turn.

        A turn comes after those of the requests of the same kind that were made before.
        """
        limit = self._limits[request.order] if limit_s is None else limit_s
        turns = self.turns[request.order]
        try:
            turns.acquire_nowait()  # acquire would go once round the loop, and polling is often
        except trio.WouldBlock:
            await turns.acquire()
        try:
            with trio.move_on_after(limit), Exchange(request, self.path) as exchange:
                while not exchange.begin():  # noqa: ASYNC110 - nothing tells of room
                    await trio.sleep(_FULL_S)
                await trio.lowlevel.wait_readable(exchange.connection)
                while not exchange.receive():
                    await trio.lowlevel.wait_readable(exchange.connection)
                return exchange.answer()
        finally:
            turns.release()
        raise Hangs(f"no answer to {request.name} within {limit:g} s")


class Exchange(Generic[T]):
    """A request's own connection, as context: what is done with it by steps that never wait.

    Any step may raise TapdiskError, the first, when there is no descriptor left, Unreachable.
    """

    __slots__ = ("_path", "_reply", "_request", "_size", "connection")

    def __init__(self, request: Request[T], path: str) -> None:
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        try:
            self.connection = socket.socket(socket.AF_UNIX, kind)
        except OSError as error:
            raise Unreachable(error.errno or errno.EMFILE, path) from None
        self._path = path
        self._request = request
        self._reply = b""
        self._size: float = math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def begin(self) -> bool:
        """Connect and send the request; False if as many as can be are waiting to be accepted."""
        try:
            self.connection.connect(self._path)
        except BlockingIOError:
            return False
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Gone(error.strerror) from None
        except OSError as error:  # a path that is too long has no errno
            raise Unreachable(error.errno or errno.ENAMETOOLONG, self._path) from None
        try:
            sent = self.connection.send(self._request.message)
        except (BrokenPipeError, ConnectionResetError):
            raise Gone("it closed the connection at once") from None
        assert sent == wire.SIZE  # as a fresh Unix socket has room for this, and takes all
        return True

    def receive(self) -> bool:
        """Take what has come, of which there must be something; return whether that is all."""
        try:
            piece = self.connection.recv(_RECEIVED)
        except ConnectionResetError:
            raise Partial(f"the connection broke off after {len(self._reply)} bytes") from None
        self._reply += piece
        if self._size == math.inf and len(self._reply) >= wire.SIZE:
            self._size = self._request.size(self._reply)
        return not piece or len(self._reply) >= self._size

    def answer(self) -> T:
        """What was answered; see `Request.answer`."""
        return self._request.answer(self._reply)
