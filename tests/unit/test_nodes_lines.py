"""Small files: a line is always a line, and a column a column."""

from zeventfs.nodes.lines import encoded, pairs, table
from zeventfs.printable import shown


def test_pairs_and_lines_stay_lines_whatever_is_in_them() -> None:
    assert pairs({"A": 1, "B": "x\nC=2"}) == b"A=1\nB=x\\nC=2\n"
    assert encoded(["\x1b[1m", "\udcff", "é"]) == "\\x1b[1m\n\\udcff\né\n".encode()
    assert shown("a\tb") == "a\\tb"


def test_a_table_has_words_to_the_left_and_numbers_to_the_right() -> None:
    rows = [("ab\n", "7", ""), ("c", "1000", "x")]
    assert table(("NAME", "N", "Z"), rows, {"N"}) == (
        b"NAME     N  Z\nab\\n     7\nc     1000  x\n"
    )
    assert table(("NAME", "N"), []) == b"NAME  N\n"
