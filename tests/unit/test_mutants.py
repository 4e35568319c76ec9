"""A short run of the fuzzer, and what hypothesis thinks of; mutant_checks says what holds."""

import json
import random
import string
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutant_checks import Checks, Failure, try_batch
from mutants import Mutant, Mutants

from zeventfs.nvlist import Encoding, NVList, Type, encode
from zeventfs.render import Renderer

SHORT = 400  # mutants, a part of a second

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
WORDS = TEXTS | st.sampled_from(["class", "time", "eid", "pool", "zio_flags", "vdev_state", "%s"])
SCALARS: dict[Type, st.SearchStrategy[Any]] = {
    Type.BOOLEAN: st.just(value=True),
    Type.BOOLEAN_VALUE: st.booleans(),
    Type.DOUBLE: st.floats(),
    Type.STRING: WORDS,
    Type.BYTE_ARRAY: st.binary(max_size=9),
    Type.HRTIME: st.integers(-(2**63), 2**63 - 1),
    Type.BYTE: st.integers(0, 255),
    **{
        Type[f"{sign}INT{bits}"]: st.integers(0, 2**bits - 1)
        if sign
        else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for sign in ("U", "")
        for bits in (8, 16, 32, 64)
    },
}


def _pairs(lists: st.SearchStrategy[NVList]) -> st.SearchStrategy[list[tuple[str, Type, Any]]]:
    values = SCALARS | {Type.NVLIST: lists}
    arrays = {
        Type[f"{kind.name.removesuffix('_VALUE')}_ARRAY"]: st.lists(each, max_size=3)
        for kind, each in values.items()
        if f"{kind.name.removesuffix('_VALUE')}_ARRAY" in Type.__members__
        and kind not in (Type.BYTE, Type.BOOLEAN)
    }
    return st.lists(
        st.one_of(
            *(st.tuples(WORDS, st.just(kind), each) for kind, each in (values | arrays).items())
        ),
        max_size=6,
    )


LISTS = st.recursive(
    st.just(NVList.of([])), lambda inner: _pairs(inner).map(NVList.of), max_leaves=4
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def mutants() -> Mutants:
    return Mutants()


@pytest.fixture(scope="module")
def checks() -> Iterator[Checks]:
    made = Checks()
    yield made
    made.close()


def test_what_mutants_are_made_from_is_understood(mutants: Mutants, checks: Checks) -> None:
    assert all(checks.check(seed) for seed in mutants.seeds())


@pytest.mark.parametrize("batch", range(3))
def test_the_same_mutants_every_time_hold(mutants: Mutants, batch: int) -> None:
    assert try_batch(mutants, 0, batch, SHORT).understood > SHORT // 10


def test_other_mutants_every_time_hold(mutants: Mutants) -> None:
    seed = random.SystemRandom().getrandbits(32)  # a failure says which it was
    assert try_batch(mutants, seed, 0, SHORT).understood


def test_a_mutant_that_does_not_hold_is_told_so_that_it_can_be_tried_again(
    mutants: Mutants, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise KeyError("bug")

    monkeypatch.setattr(Renderer, "text", broken)
    with pytest.raises(Failure, match=r"^packed, number \d+ of batch 4, seed 7: KeyError") as told:
        try_batch(mutants, 7, 4)
    kind, digits = str(told.value).splitlines()[1].split()
    fuzz = [sys.executable, Path(__file__).with_name("fuzz.py"), "--hex", kind, digits]
    done = subprocess.run([str(word) for word in fuzz], check=True, capture_output=True)
    assert done.stdout in {b"understood\n", b"refused\n"}


@given(LISTS)
@settings(max_examples=60, deadline=None)
def test_whatever_list_there_is_is_understood_in_both_encodings(
    checks: Checks, nvlist: NVList
) -> None:
    for encoding in Encoding:
        assert checks.check(Mutant("packed", encode(nvlist, encoding)))


@given(_pairs(LISTS), st.integers(-(2**63), 2**63 - 1), WORDS)
@settings(max_examples=60, deadline=None)
def test_whatever_an_event_holds_it_is_one_line(
    checks: Checks, pairs: list[tuple[str, Type, Any]], second: int, name: str
) -> None:
    head = [("class", Type.STRING, name), ("time", Type.INT64_ARRAY, (second, -second - 1))]
    assert checks.check(Mutant("packed", encode(NVList.of([*head, *pairs]))))


@given(st.dictionaries(WORDS, JSON, max_size=5), st.text(string.ascii_lowercase, min_size=1))
@settings(max_examples=60, deadline=None)
def test_whatever_object_is_injected_is_posted_or_refused(
    checks: Checks, payload: dict[str, Any], word: str
) -> None:
    event = {"class": f"ereport.{word}", "payload": payload}
    checks.check(Mutant("inject", json.dumps(event).encode()))
    checks.check(Mutant("inject", json.dumps(payload).encode()))
    checks.check(Mutant("recording", json.dumps(payload).encode()))


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_whatever_bytes_there_are_they_are_refused_or_good(checks: Checks, raw: bytes) -> None:
    for kind in ("packed", "inject", "recording"):
        checks.check(Mutant(kind, raw))
    checks.check(Mutant("packed", struct.pack("=BBBBiI", 0, 1, 0, 0, 0, 1) + raw))
