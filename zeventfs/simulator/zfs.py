"""A ZFS module without ZFS: /dev/zfs's event queue, into which events are posted by name.

What the kernel's zfs_zevent_post (module/zfs/fm.c) does to an event on its way into the queue is
done here: it gets its EID before it is known whether it can be queued, so that every attempt takes
exactly one, and a failed one leaves a hole in them.
"""

import dataclasses
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from zeventfs.nvlist import NVList, Type, decode, pack
from zeventfs.simulator.ring import LEN_MAX, Ring
from zeventfs.sources.device import Losses

__all__ = ["ERPT_DATA_SZ", "FmCounters", "Pair", "ZfsDevice", "console_line"]

Pair = tuple[str, Type, Any]

ERPT_DATA_SZ = 6144  # the largest packed event in bytes, include/sys/fm/util.h
_NS = 1_000_000_000
_TAIL = frozenset({"time", "eid"})

# Native nvlists are their pairs back to back, so the last two pairs and the end behind them are
# always these bytes but for three numbers.
_LIST_HEAD, _END = 12, 4
_TAIL_BYTES = pack([("time", Type.INT64_ARRAY, (0, 0)), ("eid", Type.UINT64, 0)])[_LIST_HEAD:]
_TAIL_STRUCT = struct.Struct("=24s qq 24s Q 4s")  # the pairs' heads, the numbers, the end
_TIME_HEAD, _, _, _EID_HEAD, _, _LIST_END = _TAIL_STRUCT.unpack(_TAIL_BYTES)


@dataclasses.dataclass(slots=True)
class FmCounters:
    """What the kernel shows as the kstat zfs/0/fm: events that were not posted, by cause."""

    erpt_dropped: int = 0
    erpt_set_failed: int = 0
    fmri_set_failed: int = 0
    payload_set_failed: int = 0
    erpt_duplicates: int = 0


class ZfsDevice(Ring):
    """The simulated /dev/zfs. Post in the event loop's thread; cursors may block in any other.

    *clock* gives nanoseconds since 1970. While `zfs_zevent_console` is true, *console* gets each
    posted event as one line without its end, as the kernel prints it on the console.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        len_max: int = LEN_MAX,
        console: Callable[[str], object] = print,
        life: str = "",
    ) -> None:
        super().__init__(len_max, life=life)
        self.fm = FmCounters()
        self.zfs_zevent_console = False
        self._clock = clock
        self._console = console
        self._eid = 0
        self._delayed: list[bytes] = []

    @property
    def eid(self) -> int:
        """The EID that was given last, to a posted event or to a hole; 0 when there is none yet."""
        return self._eid

    def losses(self) -> Losses:
        """What was lost, as the kstat and the parameter say it."""
        return Losses(self.fm.erpt_dropped + self.fm.erpt_set_failed, self.len_max)

    def load(self, life: str) -> None:
        """Be loaded again after `shutdown`: EIDs and counters begin anew; see Ring.load."""
        self._eid = 0
        self._delayed.clear()
        self.fm = FmCounters()
        super().load(life)

    def insert_delayed(self) -> None:
        """Queue what was posted with *delayed*, in the order in which it was."""
        delayed, self._delayed = self._delayed, []
        for packed in delayed:
            self.put(packed)

    def post(self, name: str, pairs: Iterable[Pair], *, delayed: bool = False) -> int | None:
        """Post an event of class *name*; return its EID, None when it could not be posted.

        *pairs* are all of the event's pairs in order, its class among them; `time` and `eid` are
        put after them, in place of any that they bring. An event that is larger than ERPT_DATA_SZ
        bytes when packed counts as fm.erpt_dropped, and its EID becomes a hole. One that is
        *delayed* has its EID and waits for the list's lock while other CPUs overtake it, until
        `insert_delayed`. Raises Invalid for a value that its type can't hold, with nothing posted,
        and DeviceError ESHUTDOWN.
        """
        self._queue.check()
        eid = self._eid + 1
        packed = pack([pair for pair in pairs if pair[0] not in _TAIL])[:-_END]
        # The time is that of the posting, not of the simulator's preparations for it.
        packed += _TAIL_STRUCT.pack(
            _TIME_HEAD, *divmod(self._clock(), _NS), _EID_HEAD, eid, _LIST_END
        )
        self._eid = eid
        if len(packed) > ERPT_DATA_SZ:
            self.fm.erpt_dropped += 1
            return None
        if self.zfs_zevent_console:
            self._console(console_line(name, decode(packed)))
        if delayed:
            self._delayed.append(packed)
        else:
            self.put(packed)
        return eid


def console_line(name: str, nvlist: NVList) -> str:
    """Return an event of class *name* as fm_nvprint (fm.c up to 2.0) prints it, in one line.

    The kernel breaks the line at zfs_zevent_cols; a log has no width, so here it is one, and the
    strings' own line ends don't break it either.
    """
    return name + "".join(_printed(nvlist))


def _printed(nvlist: NVList) -> Iterator[str]:
    for name, kind, value in nvlist.pairs():
        if name != "class":  # the line begins with it
            yield f" {name}={_console_value(kind, value)}"


def _console_value(kind: Type, value: Any) -> str:
    text: str
    match kind:
        case Type.STRING:
            text = '"{}"'.format(value.replace("\n", "\\n"))
        case Type.NVLIST:
            text = f"[{''.join(_printed(value))} ]"
        case Type.NVLIST_ARRAY:
            text = f"[{''.join(printed for each in value for printed in _printed(each))} ]"
        case Type.BOOLEAN | Type.BOOLEAN_VALUE:
            text = _BOOLEANS[kind, value]
        case Type.STRING_ARRAY | Type.BOOLEAN_ARRAY | Type.BYTE_ARRAY:
            text = "[...]"
        case Type.DOUBLE:
            text = ""  # the kernel has no such type, and prints nothing for one it doesn't know
        case _ if isinstance(value, tuple):
            text = f"[ {''.join(f'{_hex(each, 64)} ' for each in value)}]"
        case _:
            text = _hex(value, _SIGNED_BITS.get(kind, 64))
    return text


_BOOLEANS = {
    (Type.BOOLEAN, True): " 1",
    (Type.BOOLEAN_VALUE, True): "1",
    (Type.BOOLEAN_VALUE, False): "0",
}
_SIGNED_BITS = {Type.INT8: 8, Type.INT16: 16, Type.INT32: 32}


def _hex(number: int, bits: int) -> str:
    """Return C's `0x%llx` of *number* as an integer of *bits* bits."""
    return f"{number & ((1 << bits) - 1):#x}"
