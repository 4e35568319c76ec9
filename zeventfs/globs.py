"""Globs with percent escapes, each compiled once; what is escaped is never a wildcard.

Theory of operation: a text is bytes. Those beyond ASCII are percent-encoded first of all
(`ascii_only`), so that only one spelling is left to be cut up; escapes are undone in the pieces.
The globs are fnmatch's, and become regular expressions as there: no star but the last is ever tried
in a second place, so a match takes at most the product of the two lengths.
"""

import re
from collections.abc import Callable
from functools import partial
from operator import eq
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from zeventfs.errors import Invalid

__all__ = ["Glob", "ascii_only", "escaped", "shown", "unescaped"]

_ASCII: Final = "".join(map(chr, range(128)))
_SIGNS: Final = ":@+"  # they need no escape, and read better without

_LEXEME: Final = re.compile(
    r"(?P<star>\*+)"
    r"|(?P<one>\?)"
    r"|\[(?P<negated>!?+)(?P<members>\]?+[^]]*)\]"
    r"|(?:%..|[^*?\[])+|\[",  # as in fnmatch, a bracket that nothing closes is a character
    re.DOTALL,
)
_MEMBERS: Final = re.compile(r"((?:%..)+)|(.)", re.DOTALL)


def ascii_only(text: str) -> str:
    """Percent-encode what is not ASCII; surrogates are bytes that are no UTF-8.

    Raises Invalid for a surrogate that can't be one.
    """
    return _quoted(text, _ASCII)


def escaped(text: str) -> str:
    """Percent-encode all that means something in an expression, or is not printable ASCII.

    Raises Invalid as `ascii_only` does.
    """
    return _quoted(text, _SIGNS)


def unescaped(text: str) -> str:
    """Undo what `escaped` or `ascii_only` did."""
    return unquote(text, errors="surrogateescape")


def shown(text: str) -> str:
    r"""*text* as an event's JSON has it: bytes that are no UTF-8 are `\xHH`."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _quoted(text: str, safe: str) -> str:
    try:
        return quote(text, safe, errors="surrogateescape")
    except UnicodeEncodeError:
        raise Invalid("it has a surrogate that stands for no byte") from None


class _Piece(NamedTuple):
    """A run of literal characters, or one wildcard and its regular expression."""

    spelling: str
    literal: str | None
    pattern: str = ""


class Glob:
    """The glob *value*, in ASCII with valid escapes.

    Raises Invalid for brackets in which is no set of characters.
    """

    __slots__ = ("_pieces", "spelling")

    def __init__(self, value: str) -> None:
        self._pieces = [_piece(lexeme) for lexeme in _LEXEME.finditer(value)]
        self.spelling = "".join(piece.spelling for piece in self._pieces)
        """Canonical."""

    def compile(self, look: Callable[[str], str] = str) -> Callable[[str], object]:
        """What is true for a text that matches, in which literals look as *look* has them."""
        if all(piece.literal is not None for piece in self._pieces):
            return partial(eq, look("".join(piece.literal or "" for piece in self._pieces)))
        runs = [""]  # of what is between stars
        for piece in self._pieces:
            if piece.spelling == "*":
                runs.append("")
            elif piece.literal is None:
                runs[-1] += piece.pattern
            else:
                runs[-1] += re.escape(look(piece.literal))
        pattern = runs.pop()
        if runs:
            first, *others = runs
            # The earliest place for a run leaves most to those behind it: no other need be tried.
            pattern = first + "".join(f"(?>.*?{run})" for run in others) + ".*" + pattern
        return re.compile(pattern, re.DOTALL).fullmatch


def _piece(lexeme: re.Match[str]) -> _Piece:
    if lexeme["star"]:
        return _Piece("*", None)
    if lexeme["one"]:
        return _Piece("?", None, ".")
    if lexeme["members"]:
        return _set(lexeme["members"], negated=bool(lexeme["negated"]))
    literal = unescaped(lexeme[0])
    return _Piece(escaped(literal), literal)


def _set(members: str, *, negated: bool) -> _Piece:
    ranges = _merged(_ranges(members))
    spelling = "".join(
        _bound(low) + (f"-{_bound(high)}" if low < high else "") for low, high in ranges
    )
    pattern = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
    return _Piece(f"[{'!' * negated}{spelling}]", None, f"[{'^' * negated}{pattern}]")


def _bound(code: int) -> str:
    return "%2D" if code == ord("-") else escaped(chr(code))


def _ranges(members: str) -> list[tuple[int, int]]:
    """The first and last code point of each character or range in brackets."""
    chars: list[str] = []  # a hyphen that may make a range is ""
    for literals, plain in _MEMBERS.findall(members):
        chars += unescaped(literals) if literals else [plain.strip("-")]
    ranges = []
    at = 0
    while at < len(chars):
        end = at + 2 if chars[at + 1 : at + 2] == [""] and at + 2 < len(chars) else at
        low, high = ord(chars[at] or "-"), ord(chars[end] or "-")
        if low > high:
            raise Invalid(f"a range ends before it begins: {chr(low)!r} to {chr(high)!r}")
        ranges.append((low, high))
        at = end + 1
    if any(0xDC80 <= code <= 0xDCFF for bounds in ranges for code in bounds):
        raise Invalid("a byte that is no UTF-8 can't be in brackets")
    return ranges


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return merged
