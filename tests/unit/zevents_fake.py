"""Stands in for /dev/zfs at the boundary of the compiled part; its module loads and unloads."""

import errno
import os
import struct
import threading
from pathlib import Path

import pytest

from zeventfs.sources.device import SEEK_END, SEEK_START
from zeventfs.sources.kernel import device, reader

HEAD = struct.Struct("=QQ")
NOT_LOADED = "the module is not loaded"


def event(eid: int, size: int = 40) -> bytes:
    """Something of *size* bytes that ends as every packed event does: EID, end of the list."""
    return b"e" * (size - 12) + eid.to_bytes(8, "little") + bytes(4)


class Module:
    """The module: its queue, its life ("" while it isn't loaded), and who reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue: list[tuple[int, bytes]] = []
        self.life = "boot/1"
        self.dropped = 0
        self.looks = 0  # how often it was asked whether it is there
        self.failure = 0  # the errno of each call on what is opened now; 0: none
        self.broken: Exception | None = None  # raised once by a take
        self.vanishing = False  # whether the device goes between a look and its opening
        self.changed = threading.Condition()
        self.opened: list[FakeZevents] = []
        monkeypatch.setattr(reader, "_LOOK_S", 0.001)
        for module in (reader, device):
            monkeypatch.setattr(module, "preflight", self.preflight)
            monkeypatch.setattr(module, "life", lambda _root: self.life)
            monkeypatch.setattr(module, "Zevents", self.open)

    def preflight(self, _root: Path) -> str | None:
        self.looks += 1
        return None if self.life else NOT_LOADED

    def open(self, path: Path) -> "FakeZevents":
        assert path == Path("/dev/zfs")
        if self.vanishing:
            self.vanishing = False
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        self.opened.append(FakeZevents(self))
        return self.opened[-1]

    def post(self, *eids: int, size: int = 40) -> None:
        with self.changed:
            self.queue += [(eid, event(eid, size)) for eid in eids]
            self.changed.notify_all()

    def unload(self, failure: int = errno.ESHUTDOWN) -> None:
        """End all reading with *failure*."""
        with self.changed:
            self.life = ""
            for each in self.opened:
                each.failure = failure
            self.changed.notify_all()

    def load(self, life: str, *eids: int) -> None:
        with self.changed:
            if self.opened and life != "boot/1":
                self.queue.clear()
            self.post(*eids)
            self.life = life


class FakeZevents:
    """One open (zeventfs.sources.kernel._zevents.Zevents)."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.failure = module.failure
        self.last = 0
        self.ended = False
        self.guarded = False
        self.closed = False
        self.asked_for: list[int] = []  # sizes of buffers

    def _next(self) -> bytes | None:
        return next((packed for eid, packed in self.module.queue if eid > self.last), None)

    def take(self, buffer: bytearray, block: bool) -> tuple[int, int, int, int]:  # noqa: FBT001 - as it is
        changed = self.module.changed
        self.asked_for.append(len(buffer))
        with changed:
            if block:
                changed.wait_for(lambda: self._next() or self.failure or self.ended)
            if self.module.broken is not None:
                error, self.module.broken = self.module.broken, None
                raise error
            return self._fill(buffer)

    def _fill(self, buffer: bytearray) -> tuple[int, int, int, int]:
        used = count = 0
        while not (self.failure or self.ended):
            packed = self._next()
            if packed is None:
                return used, count, errno.ENOENT, 0
            need = HEAD.size + len(packed)
            if need > len(buffer) - used:
                return used, count, errno.ENOMEM, need
            buffer[used : used + need] = HEAD.pack(len(packed), self.module.dropped) + packed
            self.module.dropped = 0
            used += need
            count += 1
            self.last = int.from_bytes(packed[-12:-4], "little")
        return used, count, self.failure or errno.EINTR, 0

    def guard(self) -> None:
        self.guarded = True
        with self.module.changed:
            self.module.changed.wait_for(lambda: self.ended)

    def end(self) -> None:
        with self.module.changed:
            self.ended = True
            self.module.changed.notify_all()

    def begin(self) -> None:
        self.ended = False

    def seek(self, eid: int) -> None:
        self._fail()
        eids = [eid for eid, _ in self.module.queue]
        if eid == SEEK_START:
            self.last = 0
        elif eid == SEEK_END:
            self.last = max(eids, default=0)
        elif eid in eids:
            self.last = eid
        else:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def clear(self) -> int:
        self._fail()
        count = len(self.module.queue)
        self.module.queue.clear()
        return count

    def close(self) -> None:
        self.closed = True

    def _fail(self) -> None:
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))
