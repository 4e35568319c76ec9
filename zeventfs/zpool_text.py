"""An event's text, byte for byte as `zpool events -v` prints it, with the empty line after it.

The format is cmd/zpool/zpool_main.c's (zpool_do_events_short, zpool_do_events_nvprint). From 2.3 on
zpool(8) puts the names of flags and the like after some numbers; before, and where the release
isn't known, there are none. As for JSON lines (see render), the text of a layout is compiled once.
"""

from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, Final, NamedTuple

from zeventfs.names import ZPOOL_VDEV_STATE, Release, bit_names
from zeventfs.nvlist import Layout, NVList, Slot, Type

__all__ = ["Printer"]

_INDENT: Final = 8
_MONTHS: Final = "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
_UNSIGNED: Final = {
    # a scalar is printed as the unsigned image of its own width, but an array's small elements as
    # that of the int which they are promoted to
    Type.INT8: 0xFF,
    Type.INT8_ARRAY: 0xFFFFFFFF,
    Type.INT16: 0xFFFF,
    Type.INT16_ARRAY: 0xFFFFFFFF,
    Type.INT32: 0xFFFFFFFF,
    Type.INT32_ARRAY: 0xFFFFFFFF,
    Type.INT64: 2**64 - 1,
    Type.INT64_ARRAY: 2**64 - 1,
    Type.HRTIME: 2**64 - 1,
}
_CONSTANT: Final = {
    Type.BOOLEAN: b"1",
    Type.BOOLEAN_ARRAY: b"<unknown>",
    Type.BYTE_ARRAY: b"<unknown>",
    Type.DOUBLE: b"<unknown>",
}
_STATES: Final = frozenset({"vdev_state", "vdev_laststate"})
_GAP: Final = b"zeventfs.gap"

_Convert = Callable[[Any], Any]


class _Plan(NamedTuple):
    name: int | None  # which value is the class
    time: int | None  # which the second; the nanosecond follows
    dropped: int | None  # which is what a gap says
    body: bytes  # the lines of the pairs, as a %-format
    order: tuple[int, ...]  # which values go into it
    converted: tuple[tuple[int, _Convert], ...]  # which values are something else before that


class Printer:
    """Prints events in the words of one release of zpool(8); None: without names."""

    _PLANS: Final = 128

    def __init__(self, known: Release | None) -> None:
        self._known = known
        self._plans: dict[Layout, _Plan] = {}

    def text(self, payload: NVList, tz: tzinfo | None = None) -> bytes:
        """Give the text of one event; of a gap, zpool's line for what was dropped.

        The time is *tz*'s, or the process's local time (TZ) if that is None. A list without class
        or time, or with such as no event has, has them empty and at 0.
        """
        layout = payload.layout
        plan = self._plans.get(layout)
        if plan is None:
            plan = _Compiler(self._known).plan(layout)
            if layout.small:
                if len(self._plans) >= self._PLANS:
                    self._plans.clear()
                self._plans[layout] = plan
        values: list[Any] = list(payload.values)
        name = b"" if plan.name is None else values[plan.name]
        if name == _GAP:
            return b"dropped %d events\n" % (0 if plan.dropped is None else values[plan.dropped])
        second, nanosecond = (0, 0) if plan.time is None else values[plan.time : plan.time + 2]
        head = f"{_ctime(second, tz)}.{nanosecond:09d} ".encode() + name
        for index, convert in plan.converted:
            values[index] = convert(values[index])
        return head + plan.body % tuple([values[index] for index in plan.order])


def _ctime(second: int, tz: tzinfo | None) -> str:
    try:
        moment = datetime.fromtimestamp(second, tz)
    except (OverflowError, ValueError, OSError):
        # no calendar has it; the kernel's clock never says so
        return f"@{second}"
    return f"{_MONTHS[moment.month - 1]} {moment.day:2d} {moment.year} {moment:%H:%M:%S}"


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


class _Compiler:
    """Makes one plan: walks the layout's pairs and notes which value goes where, and how."""

    def __init__(self, known: Release | None) -> None:
        self._known = known
        self._lines: list[bytes] = [b""]
        self._order: list[int] = []
        self._converted: list[tuple[int, _Convert]] = []

    def plan(self, layout: Layout) -> _Plan:
        self._pairs(layout, 0, b" " * _INDENT)
        body = b"\n".join([*self._lines, b"", b""])
        return _Plan(
            layout.at("class", Type.STRING),
            layout.at("time", Type.INT64_ARRAY, 2),
            layout.at("dropped", Type.UINT64),
            body,
            tuple(self._order),
            tuple(self._converted),
        )

    def _pairs(self, layout: Layout, start: int, margin: bytes) -> None:
        for slot, offset in zip(layout.slots, layout.starts, strict=True):
            name = _raw(slot.name).replace(b"%", b"%%")
            if slot.type is Type.NVLIST:
                self._embedded(slot.lists[0], start + offset, name, margin)
            elif slot.type is Type.NVLIST_ARRAY:
                self._embedded_array(slot, start + offset, name, margin)
            else:
                self._lines.append(margin + name + b" = " + self._value(slot, start + offset))

    def _embedded(self, layout: Layout, start: int, name: bytes, margin: bytes) -> None:
        self._lines.append(margin + name + b" = (embedded nvlist)")
        self._pairs(layout, start, margin + b" " * _INDENT)
        self._lines.append(margin + b"(end " + name + b")")

    def _embedded_array(self, slot: Slot, start: int, name: bytes, margin: bytes) -> None:
        self._lines.append(margin + name + b" = (%d embedded nvlists)" % slot.nelem)
        for number, layout in enumerate(slot.lists):
            self._embedded(layout, start, name + b"[%d]" % number, margin)
            start += layout.width
        self._lines += [margin + b"(end " + name + b")", b""]

    def _value(self, slot: Slot, start: int) -> bytes:
        kind = slot.type
        if kind in _CONSTANT:
            return _CONSTANT[kind]
        if kind is Type.STRING:
            return self._hole(start, b'"%b"')
        if kind is Type.STRING_ARRAY:
            return b"".join(self._hole(start + i, b'"%b" ') for i in range(slot.nelem))
        if kind.name.endswith("_ARRAY"):
            convert = _unsigned(kind)
            return b"".join(self._hole(start + i, b"%#x ", convert) for i in range(slot.nelem))
        words = self._words(slot)
        if words is not None:
            return self._hole(start, b"%b", words)
        return self._hole(start, b"%#x", _unsigned(kind))

    def _hole(self, index: int, form: bytes, convert: _Convert | None = None) -> bytes:
        """Note that the value *index* comes next in the text; give its format."""
        self._order.append(index)
        if convert is not None:
            self._converted.append((index, convert))
        return form

    def _words(self, slot: Slot) -> _Convert | None:
        """Give what prints a scalar with the words that zpool(8) has for it, if it has any."""
        key, known = slot.name, self._known
        if slot.type is Type.BOOLEAN_VALUE:
            return lambda number: b"1" if number else b"0"
        if slot.type is Type.UINT64 and key in _STATES:
            return _state
        if known is None or key not in known.in_text or slot.type in _UNSIGNED:
            return None
        bits, names = known.bits.get(key), known.words.get(key, ())
        if bits:
            return lambda number: _named(number, bit_names(bits, number & (1 << len(bits)) - 1))
        return lambda number: _named(number, list(names[number : number + 1]))


def _unsigned(kind: Type) -> _Convert | None:
    ones = _UNSIGNED.get(kind)
    return None if ones is None else lambda number: number & ones


def _state(number: int) -> bytes:
    state = ZPOOL_VDEV_STATE[number] if number < len(ZPOOL_VDEV_STATE) else ZPOOL_VDEV_STATE[0]
    return f'"{state}" ({number:#x})'.encode()


def _named(number: int, names: list[str]) -> bytes:
    return f"{number:#x} [{' '.join(names)}]".encode()
