"""simulator/: what is written to `inject` happens on the simulated devices; settings steer them.

Each write to `inject` is whole lines, and is carried out or refused as one. Only programs that
write in blocks (cat, dd) end one inside a line: the incomplete last line of a write whose length is
a multiple of 4,096 waits for the next write of the same handle, and is put before it. A setting is
read and written as a whole; a JSON object that has not ended waits likewise, also after a newline:
a shell's echo writes line by line.
"""

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from zeventfs.errors import Invalid
from zeventfs.nodes.base import (
    Attributes,
    Clock,
    ControlFile,
    Directory,
    File,
    Node,
    Open,
    OpenSnapshot,
    Writer,
)

__all__ = ["MAX_BEGUN", "OpenInject", "Setting", "simulator_directory"]

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


class Setting(NamedTuple):
    """Something of the simulator that can be looked at and changed."""

    show: Callable[[], bytes]
    change: Writer


class SettingFile(File):
    """`simulator/seed` and its like, the owner's alone."""

    __slots__ = ("_changed_ns", "_clock_ns", "_setting")
    writable = True
    private = True

    def __init__(self, key: str, setting: Setting, clock_ns: Clock) -> None:
        super().__init__(key)
        self._setting = setting
        self._clock_ns = clock_ns
        self._changed_ns = clock_ns()

    async def measure(self) -> Attributes:
        return Attributes(len(self._setting.show()), self._changed_ns)

    async def open(self, pid: int) -> Open:
        del pid
        return OpenSetting(self._setting.show(), self._change)

    async def _change(self, written: bytes) -> None:
        await self._setting.change(written)
        self._changed_ns = self._clock_ns()


class OpenSetting(OpenSnapshot):
    """A setting as it was when it was opened; what is written goes to *act*."""

    __slots__ = ("_act", "_begun")

    def __init__(self, content: bytes, act: Writer) -> None:
        super().__init__(content)
        self._act = act
        self._begun = b""

    async def write(self, offset: int, written: bytes) -> int:
        """Take what *written* says, with the blocks before it; blank is nothing."""
        del offset
        text, self._begun = self._begun + written, b""
        if len(text) > MAX_BEGUN:
            raise Invalid(f"a setting has at most {MAX_BEGUN} bytes")
        if (len(written) % _BLOCK == 0 or written.endswith(b"\n")) and _is_begun(text):
            self._begun = text
        elif text.strip():
            await self._act(text)
        return len(written)

    def close(self) -> None:
        if self._begun:
            log.warning("a setting was closed inside its JSON: %r... is lost", self._begun[:_SHOWN])


def _is_begun(text: bytes) -> bool:
    """Whether *text* is a JSON object that is still to be continued."""
    if text.lstrip().startswith(b"{"):
        try:
            msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            return "truncated" in str(error)
        except (UnicodeDecodeError, RecursionError):
            return False
    return False


def simulator_directory(
    inject: Writer,
    clock_ns: Clock,
    settings: Mapping[str, Setting] | None = None,
    acts: Mapping[str, Writer] | None = None,
) -> Directory:
    """`simulator/`, with *inject* for what is written to `inject`, and *settings* by name.

    Each of *acts* is given what is written to the file of its name, each write as a whole.
    """
    made_ns = clock_ns()
    children: dict[str, Node] = {"inject": InjectFile("simulator/inject", inject, made_ns)}
    for name, setting in (settings or {}).items():
        children[name] = SettingFile(f"simulator/{name}", setting, clock_ns)
    for name, act in (acts or {}).items():
        children[name] = ControlFile(f"simulator/{name}", act, made_ns)
    return Directory("simulator", children, made_ns)
