"""What holds of every mutant: it is refused with the module's own error, or it is good throughout.

Good means: both decoders agree, it is packed again and is the same, and rendered it is one JSON
line and a text. Whatever is raised here but `NvlistError` and `Invalid` is a bug.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import NamedTuple

import msgspec
from mutants import Mutant, Mutants

from zeventfs.errors import Invalid
from zeventfs.event import Event
from zeventfs.nvlist import (
    MAX_DEPTH,
    Encoding,
    NVList,
    NvlistError,
    Type,
    _shapes,
    decode,
    decode_first,
    encode,
)
from zeventfs.nvlist._native import Reader
from zeventfs.render import Renderer
from zeventfs.simulator import inject
from zeventfs.simulator.zfs import ZfsDevice
from zeventfs.sources.replay import open_replay
from zeventfs.sources.zfs import ZfsSource

__all__ = ["BATCH", "Checks", "Failure", "Outcome", "try_batch"]

BATCH = 2000  # mutants that share what the modules remember, and can be tried again with it
SLOWEST_S = 2.0  # of CPU, for one mutant; it takes a millisecond
_NATIVE = bytes([Encoding.NATIVE])
LONGEST_REASON = 2000  # characters in the log; keys and values are cut, their path is not


class Failure(Exception):
    """A mutant did not hold; the message says where it is found again."""


class Outcome(NamedTuple):
    """How many mutants were tried, and how many of them understood."""

    tried: int
    understood: int


class Checks:
    """The parts that mutants go through, as a daemon has them."""

    def __init__(self) -> None:
        _shapes.forget()
        self._renderer = Renderer("fuzz", "2.1.11")
        self._posted: list[Event] = []
        self._device = ZfsDevice(lambda: 10**18)
        self._source = ZfsSource("sim", self._device, self._posted.append, lambda: 10**18)
        self._file = os.memfd_create("recording")
        self._recording = Path(f"/proc/self/fd/{self._file}")

    def close(self) -> None:
        os.close(self._file)

    def check(self, mutant: Mutant) -> bool:
        """Tell whether *mutant* was understood; raise if anything isn't as it should be."""
        began = time.thread_time()
        understood = {
            "packed": self._packed,
            "inject": self._inject,
            "recording": self._replay,
        }[mutant.kind](mutant.raw)
        assert time.thread_time() - began < SLOWEST_S
        return understood

    def _packed(self, packed: bytes) -> bool:
        try:
            nvlist = decode(packed)
        except NvlistError as error:
            _check_refused(packed, error)
            return False
        if packed[:1] == _NATIVE:  # decoded quickly, maybe
            assert _is_same(Reader(packed).read(), nvlist)
        assert decode_first(packed + b"\0\xff")[1] == len(packed)
        for encoding in Encoding:
            assert _is_same(decode(encode(nvlist, encoding)), nvlist)
        self._check_text(nvlist)
        try:
            event = Event.from_packed("zfs", packed)
        except NvlistError:
            self._check_embedded(nvlist)
        else:
            self.check_event(event)
        return True

    def _check_embedded(self, nvlist: NVList) -> None:
        """Render *nvlist* within an event, since it has lost its own class or time."""
        try:
            event = Event.make("zfs", "fuzz", 0, [("list", Type.NVLIST, nvlist)])
        except Invalid:
            assert nvlist.layout.depth == MAX_DEPTH
        else:
            self.check_event(event)

    def check_event(self, event: Event) -> None:
        """Render *event* in every form."""
        assert event.packed[:1] == _NATIVE
        for seq in (1, None):
            line = self._renderer.json_line(event, seq)
            assert line.endswith(b"}\n")
            assert len(line.decode().splitlines()) == 1, "no program's idea of a line's end"
            said = msgspec.json.decode(line)
            assert said.get("seq") == seq
            assert list(said)[-1] == "payload"
        self._check_text(event.payload)

    def _check_text(self, payload: NVList) -> None:
        assert self._renderer.text(payload, UTC).endswith(b"\n")

    def _inject(self, written: bytes) -> bool:
        try:
            parsed = inject.parse(written)
        except Invalid as error:
            _check_reason(error)
            return False
        for name, pairs in parsed:
            self._device.post(name, pairs)  # all or nothing: what was parsed can be posted
        assert self._source.malformed == 0
        for event in self._posted:
            self.check_event(event)
        self._posted.clear()
        return bool(parsed)

    def _replay(self, recording: bytes) -> bool:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, recording, 0)
        understood = False
        for packed in _until_invalid(open_replay(self._recording)):
            try:
                event = Event.from_packed("zfs", packed)
            except NvlistError:
                continue
            assert not event.name.startswith("zeventfs."), "only a journal's own"
            self.check_event(event)
            understood = True
        return understood


def _until_invalid(recording: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from recording
    except Invalid as error:
        _check_reason(error)


def _check_reason(error: Invalid) -> None:
    """Fail if the log, which has the reason, would have more than a line of it."""
    reason = str(error)
    assert len(reason.splitlines()) == 1
    assert len(reason) < LONGEST_REASON


def _check_refused(packed: bytes, error: NvlistError) -> None:
    """Fail if somebody else takes what `decode` has refused, or refuses it for another reason."""
    if packed[:1] == _NATIVE:
        assert _reason(lambda: Reader(packed).read()) == str(error)
    if "after the list" in str(error):
        _, length = decode_first(packed)
        assert length < len(packed)
        decode(packed[:length])


def _reason(call: Callable[[], object]) -> str | None:
    try:
        call()
    except NvlistError as error:
        return str(error)
    return None


def _is_same(one: NVList, other: NVList) -> bool:
    """Compare lists, of which NaN is as good a value as any, although it equals none."""
    return one.layout == other.layout and (
        one.values == other.values or repr(one.values) == repr(other.values)
    )


def try_batch(mutants: Mutants, seed: int, batch: int, size: int = BATCH) -> Outcome:
    """Try *size* mutants of batch number *batch* of *seed*; raises Failure."""
    rnd = random.Random(f"{seed} {batch}")
    checks = Checks()
    understood = 0
    try:
        for tried in range(size):
            mutant = mutants.make(rnd)
            try:
                understood += checks.check(mutant)
            except Exception as error:
                raise Failure(
                    f"{mutant.kind}, number {tried} of batch {batch}, seed {seed}: {error!r}\n"
                    f"{mutant.kind} {mutant.raw.hex()}"
                ) from error
    finally:
        checks.close()
    return Outcome(size, understood)
