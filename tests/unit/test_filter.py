"""Where-expressions: what they hold for, one canonical spelling, and a reason for what is none."""

import fnmatch
import os
import re
import shlex
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from importlib import resources
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from zeventfs.errors import Invalid
from zeventfs.event import NS, Event
from zeventfs.filter import Ago, At, Expression, FromSeq, Kind
from zeventfs.nvlist import Type
from zeventfs.render import Renderer

parse = Expression.parse

KIND = Kind("zfs", "ereport.fs.zfs.io", "tank")
PAYLOAD = {
    "class": "of the payload",
    "vdev_path": "/dev/sda1",
    "vdev_state": 6,
    "vdev_guid": "18446744073709551615",
    "zio_delay": 30000000001,
    "zio_flags_names": ["SPECULATIVE", "CANFAIL"],
    "history_internal": True,
    "off": False,
    "load": 0.5,
    "nothing": None,
    "cksum": ["5", "7", 12],
    "empty": [],
    "inner": {"key": "value"},
    "text": "5 disks",
    "k,e=y": "odd",
}
RECORD = {
    "seq": 7,
    "epoch": "abc",
    "source": "zfs",
    "class": "ereport.fs.zfs.io",
    "eid": 42,
    "time": "2026-11-21T02:33:01.123456789Z",
    "pool": "tank",
    "payload": PAYLOAD,
}


def holds(text: str, record: dict[str, Any] = RECORD, kind: Kind = KIND) -> bool:
    expression = parse(text)
    return expression.may_match(kind) and expression.matches(record)


def shows(text: str, value: Any) -> bool:
    return parse(text).matches({"payload": {"key": value}})


@pytest.mark.parametrize(
    "text",
    [
        *("source=zfs", "class=ereport.fs.zfs.*", "class=*.io", "pool=tank", "pool=t[a-c]nk"),
        *("seq=7", "seq>=7", "seq<=7", "eid=42", "eid>=41.5", "time=2026-11-21T*", "epoch=a?c"),
        *("vdev_path=%2fdev%2Fsda1", "vdev_path=*sd[!b-z]?", "vdev_state=6", "vdev_state<=6"),
        *("vdev_guid=18446744073709551615", "vdev_guid>=18446744073709551615"),
        *("history_internal=true", "off=false", "nothing=null", "load=0.5", "load>=0.5"),
        *("zio_flags_names=SPECULATIVE", "zio_flags_names=CAN*", "cksum=12", "cksum>=11"),
        *("zio_delay>=30000000000,pool=tank", "k%2Ce%3Dy=odd", "cksum<=5.0", "load<=0.50"),
        *("pool!=other", "seq!=8", "zio_flags_names!=OTHER", "missing!=x", "empty!=*", "inner!=*"),
        *("text=5 disks", "text=5%20disks", "vdev_state>=-1", "since=5m", "since=5m,pool=tank"),
    ],
)
def test_what_holds_for_an_event(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        *("source=dm", "class=*.data", "class=Ereport*", "class=ereport", "pool=tan", "pool!=ta*"),
        *("seq>=8", "seq<=6", "seq!=7", "time=2027*", "class=of*", "eid<=41.9", "pool="),
        *("vdev_state>=7", "vdev_guid<=18446744073709551614", "vdev_guid>=18446744073709551616"),
        *("history_internal>=1", "history_internal=1", "nothing>=0", "text>=5", "text<=5"),
        *("missing=*", "missing>=0", "missing<=0", "empty=*", "empty>=0", "inner=*", "inner>=0"),
        *(
            "zio_flags_names!=SPECULATIVE",
            "cksum>=13",
            "cksum!=5",
            "pool=tank,seq=8",
            "epoch=a%3Fc",
        ),
        *("pool>=5", "payload=*", "since=5m,pool=other", "vdev_path=%2A"),
    ],
)
def test_what_does_not_hold_for_an_event(text: str) -> None:
    assert not holds(text)


def test_an_event_without_a_pool_has_no_pool_to_equal() -> None:
    kind = KIND._replace(pool=None)
    assert not parse("pool=*").may_match(kind)
    assert parse("pool!=tank").may_match(kind)


def test_source_class_and_pool_are_decided_without_the_record() -> None:
    expression = parse("class=*.io,pool!=other,source=zfs")
    assert expression.decided_by_kind
    assert expression.may_match(KIND)
    assert not expression.may_match(KIND._replace(pool="other"))
    assert expression.matches({"payload": {}})
    assert parse("since=1m").decided_by_kind
    for text in ("pool>=5", "seq=1", "class=*.io,vdev_state=6"):
        assert not parse(text).decided_by_kind
        assert parse(text).may_match(KIND)


def test_numbers_are_compared_exactly() -> None:
    above = 2**53 + 1
    for value in (above, str(above), f"{above}.0"):
        assert shows(f"key>={above}", value)
        assert not shows(f"key>={above}.5", value)
        assert not shows(f"key<={above - 1}", value)
    assert shows("key<=0.1", "0.1")
    assert not shows("key<=0.1", 0.1)  # which is a little more
    digits = "9" * 5000
    assert shows(f"key>={digits}", digits)
    assert not shows(f"key>={digits}", 1)
    assert not shows("key>=1", "\u0665")


@pytest.mark.parametrize(
    "value", ["", "-", "1.", ".5", "1e3", " 5", "5 ", "0x10", "1_0", "5*", "5\n"]
)
def test_what_is_no_decimal_number_is_neither_compared_nor_compared_with(value: str) -> None:
    assert not shows("key>=-100", value)
    with pytest.raises(Invalid, match=r"^part 1, 'key>=.*is no decimal number$"):
        parse(f"key>={value}")


def test_bytes_that_are_no_utf8_are_found_in_names_and_in_json() -> None:
    raw = os.fsdecode(b"a\xff")
    for text in ("key=a%FF", f"key={raw}", r"key=a\xff", "key=?%FF*"):
        assert shows(text, r"a\xff")
    assert parse("pool=a%FF").may_match(Kind("zfs", "c", raw))
    assert parse("pool=?[!%20]").may_match(Kind("zfs", "c", raw))
    event = Event.make("zfs", "c", 0, [("key", Type.STRING, raw), (raw, Type.STRING, "x")])
    record = msgspec.json.decode(Renderer("e", None).json_line(event, 1))
    assert parse("key=a%FF,a%FF=x").matches(record)


def test_bytes_of_one_character_may_be_escaped_or_not() -> None:
    half = os.fsdecode(b"\xc3")
    for text in ("key=\u00fc", "key=%C3%BC", "key=%c3%bc", f"key={half}%BC", "key=[%C3%BC]"):
        assert shows(text, "\u00fc")
    assert parse("key=\u00fc") == parse("key=%c3%bc") == parse(f"key={half}%BC")
    assert parse("key=\u00fc").canonical == "key=%C3%BC"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("pool=tank,class=*.io,pool=tank", "class=*.io,pool=tank"),
        ("key>=007.50,key<=-0.0,a>=-08", "a>=-8,key<=0,key>=7.5"),
        ("k%65y=%74%61nk%2a", "key=tank%2A"),
        ("a=***b**", "a=*b*"),
        ("a=[cab-d]", "a=[a-d]"),
        ("a=[]!^-]", "a=[%21%2D%5D-%5E]"),
        ("a=[!%2Da]", "a=[!%2Da]"),
        ("a=[b", "a=%5Bb"),
        ("a=[!]", "a=%5B%21%5D"),
        ("a=b=c", "a=b%3Dc"),
        ("a=", "a="),
        ("a=two words", "a=two%20words"),
        ("since=5m", ""),
        ("since=5m,b!=%2C", "b!=%2C"),
    ],
)
def test_the_canonical_spelling(text: str, canonical: str) -> None:
    assert parse(text).canonical == canonical


def test_equal_expressions_are_equal_and_hash_alike() -> None:
    assert parse("b=1,a>=2.0") == parse("a>=2,b=%31")
    assert len({parse("b=1,a=2"), parse("a=2,b=1"), parse("a=2")}) == 2
    assert parse("since=60s") == parse("since=1m")
    assert parse("since=1m") != parse("since=1m,a=1")
    assert parse("a=1") != "a=1"


def test_a_time_ago_and_a_time_are_never_equal() -> None:
    ago, at = parse("since=5s"), parse("since=1970-01-01T00:00:05Z")
    assert ago.since == at.since  # as tuples
    assert ago != at


def test_an_expression_cant_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        parse("a=1").canonical = "b=1"  # type: ignore[misc]  # that is the test


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("since=90s", Ago(90 * NS)),
        ("since=15m", Ago(15 * 60 * NS)),
        ("since=2h", Ago(7200 * NS)),
        ("since=1d", Ago(86400 * NS)),
        ("since=1w", Ago(7 * 86400 * NS)),
        ("since=0s", Ago(0)),
        ("since=%315m", Ago(15 * 60 * NS)),
        ("since=1970-01-02", At(86400 * NS)),
        ("since=1970-01-01T00:01Z", At(60 * NS)),
        ("since=1970-01-01T02%3A00:01+02:00", At(NS)),
        ("since=1969-12-31T23:59:59.5Z", At(-NS // 2)),
        ("since=1970-01-01T00:00:00.123456789Z", At(123456789)),
        ("since=0001-01-01T00:00+23:59", At((-62135596800 - 86340) * NS)),
        ("since=9999-12-31T23:59:59-23:59", At((253402300799 + 86340) * NS)),
        ("since-seq=9f86d081884c7d65:1287", FromSeq("9f86d081884c7d65", 1287)),
        ("since-seq=a%2Cb:c:0", FromSeq("a,b:c", 0)),
    ],
)
def test_where_a_view_begins(text: str, since: Any) -> None:
    found = parse(text).since
    assert found == since
    assert type(found) is type(since)
    assert parse(f"pool=tank,{text}").since == since


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001  the strategy wants them naive
def test_any_time_is_understood_to_the_microsecond(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (delta.days * 86400 + delta.seconds) * 10**6 + delta.microseconds
    assert parse(f"since={moment.isoformat(timespec='microseconds')}Z").since == At(
        microseconds * 1000
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the expression is empty"),
        (",", "part 1, '': it is empty"),
        ("a=1,", "part 2, '': it is empty"),
        ("a=1,,b=2", "part 2, '': it is empty"),
        ("pool", "part 1, 'pool': there is no operator: they are =, !=, >= and <="),
        ("a=1,pool==tank", "part 2, 'pool==tank': '==' is no operator"),
        ("a<5", "'<' is no operator"),
        ("a=>5", "'=>' is no operator"),
        ("a!b=5", "'!' is no operator"),
        ("=tank", "there is no key before the operator"),
        ("a=50%", "'%' is no byte: % is followed by two hexadecimal digits"),
        ("a=%4", "'%4' is no byte"),
        ("%zz=1", "'%zz' is no byte"),
        ("a=%%41", "'%%4' is no byte"),
        ("a=%+1", "'%+1' is no byte"),
        ("a>=", "'' is no decimal number"),
        ("a<=5*", "'5*' is no decimal number"),
        ("a=[z-a]", "a range ends before it begins: 'z' to 'a'"),
        ("a=[%FF]", "a byte that is no UTF-8 can't be in brackets"),
        ("pool=[a\udcff]", "a byte that is no UTF-8 can't be in brackets"),
        ("a=\ud800", "it has a surrogate that stands for no byte"),
        ("since=5x", "'x' is no unit of time: they are s, m, h, d, w"),
        ("since=5", "'' is no unit of time"),
        ("since=", "'' is neither a time ago, as 15m, nor a date, as 2026-11-21"),
        ("since=1.5h", "'1.5h' is neither"),
        ("since=-5m", "'-5m' is neither"),
        ("since=yesterday", "'yesterday' is neither"),
        ("since=2026-11-21T02Z", "'2026-11-21T02Z' is neither"),
        ("since=2026-11-21Z", "'2026-11-21Z' is neither"),
        ("since=2026-11-21T02:00", "a time of day needs its zone behind it"),
        ("since=2026-02-30", "there is no such time: day"),
        ("since=0000-01-01", "there is no such time: year"),
        ("since=2026-11-21T24:01Z", "there is no such time: hour"),
        ("since=2026-11-21T02:00+24:00", "there is no such time: "),
        ("since>=5m", "since is no condition, it takes = only"),
        ("since-seq!=a:1", "since-seq is no condition, it takes = only"),
        ("since=5m,pool=tank,since=5m", "part 3, 'since=5m': where to begin is said twice"),
        ("since=5m,since-seq=a:1", "where to begin is said twice"),
        ("since-seq=5", "'5' is not EPOCH:N"),
        ("since-seq=:5", "':5' is not EPOCH:N"),
        ("since-seq=a:-5", "'a:-5' is not EPOCH:N"),
        ("since-seq=a:*", "'a:*' is not EPOCH:N"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_part_and_the_reason(
    text: str, reason: str
) -> None:
    with pytest.raises(Invalid, match=re.escape(reason)) as refused:
        parse(text)
    assert str(refused.value).isprintable()


def test_an_exact_value_may_hold_anything() -> None:
    for value in ("ereport.fs.zfs.io", "a*b?[c]", "a,b/c%d", "", ".", "\udcff", "\u00fc\n"):
        expression = Expression.equal("class", value)
        assert expression.decided_by_kind
        assert expression.may_match(Kind("zfs", value, None))
        assert not expression.may_match(Kind("zfs", f"{value}x", None))
        escaped = "".join(f"%{byte:02x}" for byte in os.fsencode(value))
        assert expression == parse(f"class={escaped}")
    assert Expression.equal("k,=", "*").matches({"payload": {"k,=": "*"}})
    with pytest.raises(Invalid):
        Expression.equal("", "x")
    with pytest.raises(Invalid):
        Expression.equal("x", "\ud800")


def test_a_glob_is_matched_in_time_whatever_it_is() -> None:
    text = "a" * 20_000
    for glob in ("*a" * 100 + "*b*", "*a" * 100 + "b", "*" + "a?" * 60 + "b", "*[ab]" * 50 + "c"):
        assert not shows(f"key={glob}", text)
        assert shows(f"key!={glob}", text)


def test_every_example_of_the_mounted_readme_is_an_expression() -> None:
    text = (resources.files("zeventfs.nodes") / "where.md").read_text()
    commands = [line for line in text.splitlines() if re.match("  (cat|tail|grep) ", line)]
    for line in commands:
        argument = next(word for word in shlex.split(line) if word.startswith("where/"))
        _, expression, file = argument.split("/")
        assert parse(expression).since is None or file == "stream"
    assert len(commands) >= 8
    for begin in re.findall("^  (since=[^ ]+)  ", text, re.MULTILINE):
        assert parse(begin).since is not None


PIECES = st.sampled_from(
    [*"ab-*?[]!=<>%,.", "[a-b]", "[!a]", "%2A", "%41", "%c3", "%BC", "%ff", "\u00fc", "\udcff"]
)
VALUES = st.lists(PIECES, max_size=12).map("".join)
CONDITIONS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["a", "%61", "pool", "class", "seq", "since", "since-seq", "\udcc3"]),
    st.sampled_from(["=", "!=", ">=", "<="]),
    VALUES | st.decimals(allow_nan=False, allow_infinity=False, places=3).map("{:f}".format),
)
EXPRESSIONS = st.lists(CONDITIONS, min_size=1, max_size=4).map(",".join)
NAMES = st.text(st.sampled_from("ab-*?[]!.=AB\u00fc\udcff\\\n"), max_size=8)


@settings(deadline=None)
@given(st.text() | st.binary().map(os.fsdecode) | EXPRESSIONS | VALUES)
@example(f"a>={'9' * 5000}")
@example(f"since={'9' * 5000}s")
@example(f"since-seq=a:{'9' * 5000}")
@example("a=\ud800")
def test_a_text_is_an_expression_or_invalid(text: str) -> None:
    try:
        expression = parse(text)
    except Invalid:
        return
    expression.may_match(KIND)
    expression.matches(RECORD)


@settings(deadline=None)
@given(EXPRESSIONS, NAMES)
def test_the_canonical_spelling_is_that_of_an_equal_expression(text: str, name: str) -> None:
    try:
        expression = parse(text)
    except Invalid:
        return
    canonical = expression.canonical
    assert canonical.isascii()
    assert canonical.isprintable()
    assert not set(canonical) & set("/ \\'\"")
    if canonical:
        again = parse(canonical)
        assert again.canonical == canonical
        assert again.since is None
        assert (again == expression) == (expression.since is None)
        kind = Kind("zfs", name, name)
        record: dict[str, Any] = {"seq": 1, "payload": {"a": name}}
        assert again.may_match(kind) == expression.may_match(kind)
        assert again.matches(record) == expression.matches(record)


@settings(deadline=None)
@given(EXPRESSIONS)
def test_not_equal_is_the_negation_of_equal(text: str) -> None:
    key, operator, value = re.split("(=)", text.split(",", maxsplit=1)[0], maxsplit=1)
    assume(key[-1] not in "!<>" and not key.startswith("since"))
    try:
        equal, unequal = parse(f"{key}{operator}{value}"), parse(f"{key}!={value}")
    except Invalid:
        return
    records: list[dict[str, Any]] = [RECORD, {"payload": {"a": ["a", 5]}}, {"payload": {}}]
    for record in records:
        for kind in (KIND, Kind("zfs", "a", None)):
            assert (equal.may_match(kind) and equal.matches(record)) != (
                unequal.may_match(kind) and unequal.matches(record)
            )


@settings(deadline=None)
@given(st.text(st.sampled_from("ab-*?[]!^"), max_size=10), NAMES)
@example("[--a]", "a")
@example("[a-b-z]", "-")
@example("[]-a]", "^")
@example("[!]a]", "b")
def test_a_glob_means_what_fnmatch_says(glob: str, name: str) -> None:
    assume(glob[:1] != "!")
    try:
        expression = parse(f"pool={glob}")
    except Invalid:  # an empty range
        return
    assert expression.may_match(Kind("zfs", "c", name)) == fnmatch.fnmatchcase(name, glob)


@settings(deadline=None)
@given(st.binary(), st.binary(min_size=1))
def test_what_is_percent_encoded_is_itself(value: bytes, other: bytes) -> None:
    name = os.fsdecode(value)
    kind = Kind("zfs", "c", name)
    assert parse(f"pool={quote(value, '')}").may_match(kind)
    assert Expression.equal("pool", name).may_match(kind)
    assert not parse(f"pool={quote(value + other)}").may_match(kind)
    assert parse(f"pool=*{quote(value)}").may_match(Kind("zfs", "c", os.fsdecode(other) + name))
