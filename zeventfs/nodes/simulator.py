"""simulator/: what is written to `inject` happens on the simulated devices.

Each write is whole lines, and is carried out or refused as one. Only programs that write in blocks
(cat, dd) end one inside a line: the incomplete last line of a write whose length is a multiple of
4,096 waits for the next write of the same handle, and is put before it.
"""

import logging

from zeventfs.errors import Invalid
from zeventfs.nodes.base import Clock, ControlFile, Directory, Open, Writer

__all__ = ["MAX_BEGUN", "OpenInject", "simulator_directory"]

log = logging.getLogger(__name__)

MAX_BEGUN = 1 << 20  # bytes of an incomplete line
_BLOCK = 4096
_SHOWN = 60  # bytes of a line in the log


class OpenInject(Open):
    """`inject`, open for writing; *act* is given whole lines, the last newline maybe left out."""

    __slots__ = ("_act", "_begun")

    def __init__(self, act: Writer) -> None:
        self._act = act
        self._begun = b""

    async def write(self, offset: int, written: bytes) -> int:
        """Carry out the lines that *written* completes.

        When they are refused (Invalid), the line that an earlier write began is gone with them.
        """
        del offset
        text, self._begun = self._begun + written, b""
        if len(written) % _BLOCK == 0:
            end = text.rfind(b"\n") + 1
            if len(text) - end > MAX_BEGUN:
                raise Invalid(f"a line is longer than {MAX_BEGUN} bytes")
            text, begun = text[:end], text[end:]
        else:
            begun = b""
        if text.strip():
            await self._act(text)
        self._begun = begun
        return len(written)

    def close(self) -> None:
        if self._begun.strip():
            log.warning(
                "inject was closed inside a line, whose first %d bytes are lost: %r",
                len(self._begun),
                self._begun[:_SHOWN],
            )


class InjectFile(ControlFile):
    """`simulator/inject`."""

    __slots__ = ()

    async def open(self, pid: int) -> Open:
        del pid
        return OpenInject(self._act)


def simulator_directory(inject: Writer, clock_ns: Clock) -> Directory:
    """`simulator/`, with *inject* for what is written to `inject`."""
    made_ns = clock_ns()
    return Directory(
        "simulator", {"inject": InjectFile("simulator/inject", inject, made_ns)}, made_ns
    )
