"""Where-expressions: which events a view shows; whatever is no expression is Invalid with a reason.

An expression is parts, separated by commas, and all must hold; nodes/where.md is its grammar for
users. A part is cut up first and its percent escapes are undone last, so nothing that is escaped is
taken for an operator or a wildcard. Conditions on what is known of an event without its JSON
(`Kind`) are decided by `may_match`, all others by `matches`: an event is in the view if both hold.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import ge, le
from typing import Any, Final, NamedTuple

from zeventfs.errors import Invalid
from zeventfs.event import NS
from zeventfs.globs import Glob, ascii_only, escaped, shown, unescaped

__all__ = ["Ago", "At", "Expression", "FromSeq", "Kind", "Since"]


class Kind(NamedTuple):
    """What is known of an event without its JSON; the texts are as in `zeventfs.event.Event`."""

    source: str
    name: str
    """Its class."""
    pool: str | None


class Ago(NamedTuple):
    """`since=15m`: that many nanoseconds before whoever opens the stream opens it."""

    ns: int


class At(NamedTuple):
    """`since=2026-11-21T02:00Z`: nanoseconds since 1970, UTC."""

    ns: int


class FromSeq(NamedTuple):
    """`since-seq=EPOCH:N`: event N of that life of the journal comes first."""

    epoch: str
    seq: int


Since = Ago | At | FromSeq


class _OfKind(NamedTuple):
    field: int  # of Kind
    accepts: Callable[[str], object]
    wanted: bool


class _OfRecord(NamedTuple):
    in_payload: bool
    key: str
    holds: Callable[[Any], bool]
    wanted: bool


_Condition = _OfKind | _OfRecord

_FIELDS: Final = frozenset({"seq", "epoch", "source", "class", "eid", "time", "pool", "payload"})
_KIND_FIELDS: Final = {"source": 0, "class": 1, "pool": 2}
_MISSING: Final[dict[str, Any]] = {}  # an object, and so equal to no text and no number


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A parsed expression; made by `parse` or `equal`. Equal ones show the same events."""

    canonical: str
    """The conditions, without since, in one spelling: sorted, each once, printable ASCII.

    Expressions with equal ones match the same events. It may be longer than a file's name.
    """
    since: Since | None
    """Where an open of the view's stream begins, if not at the oldest event kept."""
    _of_kind: tuple[_OfKind, ...] = field(repr=False)
    _of_record: tuple[_OfRecord, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Parse *text*, in which surrogates are bytes that are no UTF-8 (`os.fsdecode`).

        Raises Invalid with a sentence that names the part that is wrong.
        """
        if not text:
            raise Invalid("the expression is empty")
        conditions: dict[str, _Condition] = {}
        since: Since | None = None
        for number, part in enumerate(text.split(","), 1):
            try:
                key, operator, value = _cut(part)
                if key in _SINCE:
                    since = _begin(key, operator, value, since)
                else:
                    spelling, condition = _condition(key, operator, value)
                    conditions[spelling] = condition
            except Invalid as reason:
                raise Invalid(f"part {number}, {part[:80]!r}: {reason}") from None
        ordered = [conditions[spelling] for spelling in sorted(conditions)]
        return cls(
            ",".join(sorted(conditions)),
            since,
            tuple(each for each in ordered if isinstance(each, _OfKind)),
            tuple(each for each in ordered if isinstance(each, _OfRecord)),
        )

    @classmethod
    def equal(cls, key: str, value: str) -> "Expression":
        """Ask for events whose *key* is *value*, with all its characters taken as they are.

        Raises Invalid for an empty key.
        """
        return cls.parse(f"{escaped(key)}={escaped(value)}")

    @property
    def decided_by_kind(self) -> bool:
        """Whether `may_match` is the answer, and `matches` always true."""
        return not self._of_record

    def may_match(self, kind: Kind) -> bool:
        """Whether the conditions on source, class and pool hold."""
        for index, accepts, wanted in self._of_kind:
            value = kind[index]
            if (value is None or not accepts(value)) is wanted:
                return False
        return True

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether the other conditions hold for *record*, the event's decoded line of JSON."""
        payload = record["payload"]
        for in_payload, key, holds, wanted in self._of_record:
            if holds((payload if in_payload else record).get(key, _MISSING)) is not wanted:
                return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expression):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return self.canonical, type(self.since), self.since  # Ago(1) and At(1) are equal tuples


# ---- Parts

_PART: Final = re.compile(r"([^=!<>]*)([=!<>]*)(.*)", re.DOTALL)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)
_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {">=": ge, "<=": le}


def _cut(part: str) -> tuple[str, str, str]:
    """The key, unescaped, the operator, and the value, in ASCII with its escapes."""
    if not part:
        raise Invalid("it is empty")
    text = ascii_only(part)
    if wrong := _BAD_ESCAPE.search(text):
        raise Invalid(f"{wrong[0]!r} is no byte: % is followed by two hexadecimal digits")
    match = _PART.fullmatch(text)
    assert match  # it matches any text
    key, operator, value = match.groups()
    if operator not in ("=", "!=", *_ORDERS):
        named = f"{operator!r} is no operator" if operator else "there is no operator"
        raise Invalid(f"{named}: they are =, !=, >= and <=")
    if not key:
        raise Invalid("there is no key before the operator")
    return unescaped(key), operator, value


def _condition(key: str, operator: str, value: str) -> tuple[str, _Condition]:
    """The canonical spelling of a condition, and what decides it."""
    if operator in _ORDERS:
        number = _number(unescaped(value))
        holds = _holds_number(_ORDERS[operator], number)
        return f"{escaped(key)}{operator}{number}", _of_record(key, holds, wanted=True)
    glob = Glob(value)
    wanted = operator == "="
    spelling = f"{escaped(key)}{operator}{glob.spelling}"
    if key in _KIND_FIELDS:
        return spelling, _OfKind(_KIND_FIELDS[key], glob.compile(), wanted)
    return spelling, _of_record(key, _holds_text(glob.compile(shown)), wanted=wanted)


def _of_record(key: str, holds: Callable[[Any], bool], *, wanted: bool) -> _OfRecord:
    return _OfRecord(key not in _FIELDS, shown(key), holds, wanted)


# ---- Values of JSON

_NUMBER: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
_is_decimal: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?").fullmatch


def _number(text: str) -> str:
    """The decimal number *text* in its canonical spelling."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:40]!r} is no decimal number")
    sign, whole, fraction = match.groups("")
    whole = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return number if number == "0" else sign + number


def _holds_number(compare: Callable[[Any, Any], bool], number: str) -> Callable[[Any], bool]:
    """What decides whether a value of JSON compares so to *number*; Python does it exactly."""
    exact = Decimal(number)
    limit = exact if "." in number else int(exact)

    def holds(value: Any) -> bool:
        kind = type(value)  # a boolean is no number
        if kind is int or kind is float:
            return compare(value, limit)
        if kind is str:
            return _is_decimal(value) is not None and compare(Decimal(value), limit)
        return kind is list and any(map(holds, value))

    return holds


def _holds_text(accepts: Callable[[str], object]) -> Callable[[Any], bool]:
    """What decides whether the text of a value of JSON, or of one in an array, is accepted."""

    def holds(value: Any) -> bool:
        kind = type(value)
        if kind is str:
            return bool(accepts(value))
        if kind is list:
            return any(map(holds, value))
        if kind is int or kind is float:
            return bool(accepts(repr(value)))
        return kind is not dict and bool(accepts(_WORDS[value]))

    return holds


_WORDS: Final[dict[bool | None, str]] = {True: "true", False: "false", None: "null"}


# ---- Since

_AGO: Final = re.compile(r"([0-9]{1,18})([A-Za-z]*)")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:(T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.([0-9]{1,9}))?)?)(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_FROM_SEQ: Final = re.compile(r"(.+):([0-9]{1,20})", re.DOTALL)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _begin(key: str, operator: str, value: str, already: Since | None) -> Since:
    if operator != "=":
        raise Invalid(f"{key} is no condition, it takes = only")
    if already is not None:
        raise Invalid("where to begin is said twice")
    return _SINCE[key](unescaped(value))


def _since(text: str) -> Ago | At:
    if ago := _AGO.fullmatch(text):
        number, unit = ago.groups()
        if unit not in _UNITS:
            raise Invalid(f"{unit!r} is no unit of time: they are {', '.join(_UNITS)}")
        return Ago(int(number) * _UNITS[unit] * NS)
    moment = _MOMENT.fullmatch(text)
    if moment is None:
        raise Invalid(f"{text[:40]!r} is neither a time ago, as 15m, nor a date, as 2026-11-21")
    date, time, fraction, zone = moment.groups("")
    if time and not zone:
        raise Invalid("a time of day needs its zone behind it: Z, or as +02:00")
    try:
        since_1970 = datetime.fromisoformat(f"{date}{time or 'T00:00'}{zone or 'Z'}") - _EPOCH
    except ValueError as reason:
        raise Invalid(f"there is no such time: {reason}") from None
    return At(since_1970 // timedelta(seconds=1) * NS + int(f"{fraction:0<9}"))


def _from_seq(text: str) -> FromSeq:
    match = _FROM_SEQ.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:40]!r} is not EPOCH:N, as events/status and each event have them")
    return FromSeq(match[1], int(match[2]))


_SINCE: Final[dict[str, Callable[[str], Since]]] = {"since": _since, "since-seq": _from_seq}
