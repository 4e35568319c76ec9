r"""An event as a JSON line and as `zpool events -v` prints it; a line is always whole and valid.

JSON, as docs and TREE have it. Theory of operation: a *plan* is compiled once for each layout of a
payload: the whole line as one %-format, the order in which values go into it, and, for those values
that aren't plain numbers, a bounded memo from value to JSON text. A line is then a few look-ups and
one formatting. What a key's value looks like follows from its name and type alone:

- up to 32 bits: numbers; BOOLEAN and BOOLEAN_VALUE: true and false; DOUBLE: a number, or null
- 64 bits: numbers for the keys of names.NUMBERS, whose meaning keeps them small; else strings
- arrays (BYTE_ARRAY too) are arrays, embedded nvlists objects, in the nvlist's order
- strings: as they are in UTF-8. A byte that is no UTF-8 is written as the four characters `\xHH`,
  and so that distinct bytes stay distinct, a backslash where it reads so already as `\x5c`: every
  `\xHH` in the text (JSON's own escapes undone) stands for one byte. C0 and C1 controls, U+2028 and
  U+2029 are JSON escapes, so no program's idea of a line end occurs within a line.
- words follow the number that they explain: `vdev_state_name`, `zio_flags_names`, `speculative`
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from operator import itemgetter
from typing import Any, Final, NamedTuple

from zeventfs.event import NS, Event
from zeventfs.names import NUMBERS, STATES, bit_names, release
from zeventfs.nvlist import Layout, NVList, Slot, Type
from zeventfs.zpool_text import Printer

__all__ = ["Renderer", "time_text"]

_WIDE: Final = frozenset(
    {Type.INT64, Type.UINT64, Type.HRTIME, Type.INT64_ARRAY, Type.UINT64_ARRAY}
)
_TEXTS: Final = frozenset({Type.STRING, Type.STRING_ARRAY})
_BOOLEANS: Final = frozenset({Type.BOOLEAN_VALUE, Type.BOOLEAN_ARRAY})
_ARRAYS: Final = frozenset(
    kind for kind in Type if kind.name.endswith("_ARRAY") and kind is not Type.BYTE_ARRAY
)
_SPECULATIVE: Final = "SPECULATIVE"

_LIKE_ESCAPE: Final = re.compile(r"\\(?=x[0-9a-f]{2})")
_LINE_ENDS: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_FIRST_SECOND: Final = -62135596800  # 0001-01-01
_LAST_SECOND: Final = 253402300799  # 9999-12-31


def time_text(time_ns: int) -> str:
    """Give *time_ns*, nanoseconds since 1970, as an event's line has it: 30 characters."""
    second, nanosecond = divmod(time_ns, NS)
    return f"{_second(second)}.{nanosecond:09d}Z"


class _Memo(dict[Any, str]):
    """What *make* gives for a key, remembered for the latest keys; long keys are not kept."""

    _MOST: Final = 2048
    _LONGEST: Final = 256

    def __init__(self, make: Callable[[Any], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Any) -> str:
        text = self._make(key)
        if not isinstance(key, bytes) or len(key) <= self._LONGEST:
            if len(self) >= self._MOST:
                self.clear()
            self[key] = text
        return text


class _Plan(NamedTuple):
    line: str
    order: Callable[[Sequence[Any]], tuple[Any, ...]]
    worded: tuple[tuple[int, _Memo], ...]  # which values aren't plain numbers, and their texts


class Renderer:
    """Renders the events of one journal.

    *epoch* names the journal's life. *version* is the ZFS module's ("2.1.11"); None, or one whose
    tables aren't known, leaves out the names of flags, stages, priorities and types.
    """

    _PLANS: Final = 128

    def __init__(self, epoch: str, version: str | None) -> None:
        self._release = release(version)
        self._printer = Printer(self._release)
        self.epoch = _json_text(epoch.encode(errors="surrogateescape"))
        self._plans: dict[Layout, _Plan] = {}
        self._unnumbered: dict[Layout, _Plan] = {}
        self._texts = _Memo(_json_text)
        self._sources = _Memo(lambda name: _json_text(name.encode(errors="surrogateescape")))
        self._seconds = _Memo(_second)
        self._booleans = _Memo(lambda number: "true" if number else "false")
        self._bytes = _Memo(lambda raw: _json(list(raw)))
        self._doubles = _Memo(_double)
        self._words: dict[tuple[str, Type], _Memo] = {}

    def json_line(self, event: Event, seq: int | None) -> bytes:
        """Give the event as one line of JSON, in UTF-8, with its newline.

        *seq* None is for a reader's own gap, which has neither seq nor eid.
        """
        payload = event.payload
        plans = self._unnumbered if seq is None else self._plans
        plan = plans.get(payload.layout)
        if plan is None:
            plan = _Compiler(self).plan(payload.layout, numbered=seq is not None)
            if payload.layout.small:
                if len(plans) >= self._PLANS:
                    plans.clear()
                plans[payload.layout] = plan
        args: list[Any] = list(payload.values)
        for index, texts in plan.worded:
            args[index] = texts[args[index]]
        second, nanosecond = divmod(event.time_ns, NS)
        args += (seq, self._sources[event.source], self._seconds[second], nanosecond)
        return (plan.line % plan.order(args)).encode()

    def text(self, payload: NVList, tz: tzinfo | None = None) -> bytes:
        """Give the event as `zpool events -v` prints it; see zpool_text.Printer."""
        return self._printer.text(payload, tz)

    def texts_for(self, slot: Slot) -> _Memo | None:
        """Give the texts of *slot*'s values; None if they are plain numbers."""
        kind = slot.type
        if kind in _TEXTS:
            return self._texts
        if kind in _BOOLEANS:
            return self._booleans
        if kind is Type.DOUBLE:
            return self._doubles
        if kind is Type.BYTE_ARRAY:
            return self._bytes
        explain = None if kind in _ARRAYS else self._explain(slot)
        if explain is None:
            return None
        return self._words.setdefault((slot.name, kind), _Memo(explain))

    def _explain(self, slot: Slot) -> Callable[[int], str] | None:
        """Give what makes the text of a number with its words after it, if it has any."""
        known, key = self._release, slot.name
        number = _number(slot)
        names = STATES.get(key) or (known and known.words.get(key))
        if names:
            return lambda value: f'{number % value},"{key}_name":{_word(names, value)}'
        bits = known and known.bits.get(key)
        if not bits:
            return None
        ones = 2**64 - 1 if slot.type in _WIDE else 2**32 - 1

        def flags(value: int) -> str:
            words = bit_names(bits, value & ones)
            soft = (
                f',"speculative":{json.dumps(_SPECULATIVE in words)}' if key == "zio_flags" else ""
            )
            return f'{number % value},"{key}_names":{_json(words)}{soft}'

        return flags


class _Compiler:
    """Makes one plan: walks the layout's pairs and notes which value goes where."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._order: list[int] = []
        self._worded: list[tuple[int, _Memo]] = []

    def plan(self, layout: Layout, *, numbered: bool) -> _Plan:
        """Compile the line of an event with *layout*; seq and eid only if *numbered*.

        Behind the payload's own values stand seq, source, the second's text and the nanosecond.
        """
        seq, source, second, nanosecond = range(layout.width, layout.width + 4)
        found = {"class": layout.at("class", Type.STRING), "pool": layout.at("pool", Type.STRING)}
        if numbered:
            found["eid"] = layout.at("eid", Type.UINT64)
        members = [
            self._member("seq", "%d", seq if numbered else None),
            f'"epoch":{_literal(self._renderer.epoch)}',
            self._member("source", "%s", source),
            self._member("class", "%s", found["class"]),
            self._member("eid", "%d", found.get("eid")),
            self._member("time", '"%s.%09dZ"', second, nanosecond),
            self._member("pool", "%s", found["pool"]),
            f'"payload":{self._object(layout, 0)}',
        ]
        line = "{" + ",".join(filter(None, members)) + "}\n"
        return _Plan(line, itemgetter(*self._order), tuple(self._worded))

    def _member(self, key: str, form: str, *indices: int | None) -> str:
        """Give a member of the line's head, or nothing if its value isn't there."""
        there = [index for index in indices if index is not None]
        self._order += there
        return f'"{key}":{form}' if there else ""

    def _object(self, layout: Layout, start: int) -> str:
        pairs = zip(layout.slots, layout.starts, strict=True)
        return "{" + ",".join(self._pair(slot, start + offset) for slot, offset in pairs) + "}"

    def _pair(self, slot: Slot, start: int) -> str:
        key = _literal(_json_text(slot.name.encode(errors="surrogateescape")))
        return f"{key}:{self._value(slot, start)}"

    def _value(self, slot: Slot, start: int) -> str:
        kind = slot.type
        if kind is Type.BOOLEAN:
            return "true"
        if kind in (Type.NVLIST, Type.NVLIST_ARRAY):
            objects = []
            for layout in slot.lists:
                objects.append(self._object(layout, start))
                start += layout.width
            return objects[0] if kind is Type.NVLIST else "[" + ",".join(objects) + "]"
        if kind in _ARRAYS:
            return "[" + ",".join(self._hole(slot, start + i) for i in range(slot.nelem)) + "]"
        return self._hole(slot, start)

    def _hole(self, slot: Slot, index: int) -> str:
        """Note that the value *index* comes next in the line; give its conversion."""
        self._order.append(index)
        texts = self._renderer.texts_for(slot)
        if texts is None:
            return _number(slot)
        self._worded.append((index, texts))
        return "%s"


def _number(slot: Slot) -> str:
    return '"%d"' if slot.type in _WIDE and slot.name not in NUMBERS else "%d"


def _word(names: Sequence[str], value: int) -> str:
    return _json(names[value]) if 0 <= value < len(names) else "null"


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _json_text(raw: bytes) -> str:
    """Give *raw* as a JSON string, as the module's head says."""
    text = raw.decode(errors="backslashreplace")
    if "\\" in text:
        text = _unambiguous(raw)
    text = _json(text)
    return text if text.isascii() and "\x7f" not in text else text.translate(_LINE_ENDS)


def _unambiguous(raw: bytes) -> str:
    r"""Decode *raw* so that every `\xHH` in the text is an escape."""
    parts = raw.decode(errors="surrogateescape")
    escaped = _LIKE_ESCAPE.sub(r"\\x5c", parts)
    return escaped.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _double(number: float) -> str:
    number += 0.0  # -0.0 is equal to 0.0, and so can't have a text of its own in a memo
    return repr(number) if math.isfinite(number) else "null"


def _second(second: int) -> str:
    """Give a second since 1970; one outside the years 1 to 9999 as the nearest within."""
    within = min(max(second, _FIRST_SECOND), _LAST_SECOND)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=within)
    return moment.replace(tzinfo=None).isoformat()
