"""Names from outside: one printable field each, distinct ones distinct."""

import os
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zeventfs.printable import printable


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("ereport.fs.zfs.io", "ereport.fs.zfs.io"),
        ("mirror-0:a+b@c=d~_", "mirror-0:a+b@c=d~_"),
        ("two words\n", "two%20words%0A"),
        ("a/b,c%d", "a%2Fb%2Cc%25d"),
        ("(others)", "%28others%29"),
        ("*?[", "%2A%3F%5B"),
        ("\u00fc", "%C3%BC"),
        ("\udcff", "%FF"),
        ("", "%00"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
    ],
)
def test_what_a_name_looks_like(name: str, field: str) -> None:
    assert printable(name) == field


@settings(deadline=None)
@given(st.binary().filter(lambda raw: b"\0" not in raw))
@example(b"")
def test_any_name_is_one_field_from_which_it_can_be_had_back(raw: bytes) -> None:
    field = printable(os.fsdecode(raw))
    assert field.isascii()
    assert field.isprintable()
    assert len(field.split()) == 1
    assert not set(field) & set("/,()*?[]'\"\\$")
    assert unquote_to_bytes(field) == (raw or b"\0")
