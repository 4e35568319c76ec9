"""The signals that ask the daemon to end, from its first moment to its last.

They only ask: however often they come, and when, the daemon ends in order and clears up.
"""

import signal
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Self

import trio

__all__ = ["EndSignals"]

_ASKING: Final = (signal.SIGTERM, signal.SIGINT)
_IGNORED: Final = (signal.SIGHUP,)  # the end of a terminal; there is nothing to read anew


class EndSignals:
    """Within this context, SIGTERM and SIGINT are noted and nothing else happens."""

    def __init__(self) -> None:
        self.came: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._token: trio.lowlevel.TrioToken | None = None
        self._event: trio.Event | None = None

    def __enter__(self) -> Self:
        for number in (*_ASKING, *_IGNORED):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number not in _ASKING:
            return
        self.came = self.came or signal.Signals(number)
        if self._token is not None and self._event is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._event.set, idempotent=True)

    async def wait(self) -> signal.Signals:
        """Wait for the first that asks, which may have come long ago; one task may wait."""
        self._event = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        if self.came is None:
            await self._event.wait()
        assert self.came is not None
        return self.came
