"""Names from outside (classes, pools, devices) as one printable field each, legal as a file's name.

Percent-encoding, as in RFC 3986, of the bytes of all but ASCII letters, digits and a few signs, so
that distinct names stay distinct and the name can be had back (`urllib.parse.unquote_to_bytes`).
"""

from urllib.parse import quote

__all__ = ["printable", "shown"]

_AS_THEY_ARE = "_.-~:@+="
_DOTS = {"": "%00", ".": "%2E", "..": "%2E%2E"}  # no name has a byte 0


def printable(name: str) -> str:
    """*name*, whose bytes that are no UTF-8 are surrogates (surrogateescape), in printable ASCII.

    There is no space, slash, comma or parenthesis in it, nor a wildcard of glob(7).
    """
    return _DOTS.get(name) or quote(name, _AS_THEY_ARE, errors="surrogateescape")


def shown(text: str) -> str:
    """*text* for a person, in printable characters: others as Python escapes them."""
    return "".join([char if char.isprintable() else ascii(char)[1:-1] for char in text])
