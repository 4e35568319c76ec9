"""Scenarios as users write them: what is taken can be told, what is refused is one sentence."""

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeventfs.errors import Invalid
from zeventfs.simulator.acts import ACTS
from zeventfs.simulator.scenario import MAX_BYTES, builtin, decode, load
from zeventfs.simulator.story import tell
from zeventfs.simulator.zfs import ZfsDevice

NOW = 1_700_000_000_000_000_000


def written(*acts: dict[str, Any], pools: Any = None, **said: Any) -> bytes:
    pools = {"tank": {"disks": ["/dev/a"]}} if pools is None else pools
    scenes = {"opening": [{"acts": list(acts)}]} if acts else {}
    return json.dumps({"pools": pools, **scenes, **said}).encode()


CLEAR = {"act": "clear"}
WRONG = {
    "nothing": (b"", "truncated"),
    "cut short": (written(CLEAR)[:-1], "truncated"),
    "no JSON": (b"quux", "malformed"),
    "no UTF-8": (b'{"about": "\xff"}', "utf-8"),
    "two of them": (written(CLEAR) * 2, "trailing"),
    "no object": (b"[]", "Expected `object`, got `array`"),
    "nested deeply": (
        b'{"pools":{"t":{"disks":["/a"]}},"opening":[{"acts":[{"x":' + b"[" * 100_000,
        "nested too deeply",
    ),
    "too long": (b" " * (MAX_BYTES + 1), "at most 1048576 bytes"),
    "no pools": (b"{}", "missing required field `pools`"),
    "no pool": (written(CLEAR, pools={}), "length >= 1 - at `$.pools`"),
    "a pool without disks": (written(CLEAR, pools={"tank": {"disks": []}}), "disks`"),
    "a pool's name": (written(CLEAR, pools={"1": {"disks": ["/a"]}}), "at `key` in `$.pools`"),
    "a disk's path": (written(CLEAR, pools={"t": {"disks": ["a"]}}), "disks[0]`"),
    "a disk twice": (
        written(CLEAR, pools={"t": {"disks": ["/a"], "spares": ["/a"]}}),
        "a disk is named twice: '/a' - at `$.pools['t']`",
    ),
    "a layout": (
        written(CLEAR, pools={"t": {"disks": ["/a"], "layout": "x"}}),
        "Invalid enum value 'x'",
    ),
    "an unknown field": (written(CLEAR, quux=1), "unknown field `quux`"),
    "no scene": (written(), "nothing happens"),
    "nothing to draw from": (written(CLEAR, at_random=True), "nothing to draw from"),
    "no act": (written(opening=[{"acts": []}]), "length >= 1 - at `$.opening[0].acts`"),
    "an unknown act": (written({"act": "quux"}), "acts[0].act`; the acts are checksum, clear,"),
    "an act without a name": (written({}), "missing required field `act`"),
    "an act's unknown field": (written({"act": "io", "tims": 1}), "unknown field `tims`"),
    "an act's missing field": (written({"act": "statechange"}), "missing required field `state`"),
    "a state": (written({"act": "statechange", "state": "ILL"}), "acts[0].state`"),
    "times": (written({"act": "io", "times": -1}), "`int` >= 0 - at `$.opening[0].acts[0].times`"),
    "times in words": (written({"act": "io", "times": "two"}), "acts[0].times`"),
    "three times": (written({"act": "io", "times": [1, 2, 3]}), "length <= 2"),
    "times backwards": (written({"act": "io", "times": [3, 1]}), "[3, 1] begins after its end"),
    "a delay that zfs does not report": (
        written({"act": "delay", "seconds": [29, 31]}),
        ">= 30.0 - at `$.opening[0].acts[0].seconds[0]`",
    ),
    "an unknown pool": (
        written(opening=[{"pool": "quux", "acts": [CLEAR]}]),
        "there is no pool 'quux' - at `$.opening[0].pool`",
    ),
    "an unknown disk": (
        written(ever_after=[{"disk": "/dev/x", "acts": [CLEAR]}]),
        "pool 'tank' has no disk '/dev/x' - at `$.ever_after[0].disk`",
    ),
    "another pool's disk": (
        written(
            pools={"a": {"disks": ["/a"]}, "b": {"disks": ["/b"]}},
            opening=[{"pool": "a", "disk": "/b", "acts": [CLEAR]}],
        ),
        "pool 'a' has no disk '/b'",
    ),
    "a weight without a draw": (
        written(ever_after=[{"weight": 2, "acts": [CLEAR]}]),
        "have a weight - at `$.ever_after[0]`",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_one_sentence_that_says_where(kind: str) -> None:
    definition, reason = WRONG[kind]
    with pytest.raises(Invalid) as refused:
        decode(definition)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_least_scenario_is_short() -> None:
    scenario = decode(written({"act": "snapshot"}))
    [told] = tell(0, lambda: NOW, scenario)
    assert told.name == "sysevent.fs.zfs.history_event"


def test_all_builtin_scenarios_say_what_they_are_about() -> None:
    assert {"tank", "dying", "slow", "checksums", "storm", "suspended"} <= set(builtin())
    for name in builtin():
        assert load(name).about.endswith(".")


def test_a_builtin_scenario_in_a_file_is_the_same(tmp_path: Path) -> None:
    for name, definition in builtin().items():
        (tmp_path / name).write_bytes(definition)
        assert load(str(tmp_path / name)) == load(name)


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    wrong = {
        "quux": "there is no scenario 'quux': checksums, dying",
        "": "there is no scenario ''",
        str(tmp_path): "no regular file",
        str(tmp_path / "pipe"): "no regular file",
        str(tmp_path / "none"): "no such file",
        str(tmp_path / "empty"): f"scenario '{tmp_path}/empty': Input data was truncated",
        "/a\0b": "no such file",
    }
    for named, reason in wrong.items():
        with pytest.raises(Invalid) as refused:
            load(named)
        assert reason in str(refused.value), named

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Invalid, match="Input/output error"):
        load(str(tmp_path / "empty"))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_invalid_and_nothing_else(garbage: bytes) -> None:
    with pytest.raises(Invalid):
        decode(garbage)


NAMES = [str(act.__struct_config__.tag) for act in ACTS]
LEAVES = st.none() | st.booleans() | st.integers(-1, 40) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
ACT = st.fixed_dictionaries(
    {"act": st.sampled_from(NAMES)},
    optional={
        "times": VALUES,
        "name": st.sampled_from(["home", ""]),
        "dataset": st.sampled_from(["home", ""]),
        "seconds": st.just([30, 40]),
        "intervals": st.integers(0, 5),
        "state": st.sampled_from(["ONLINE", "FAULTED", "REMOVED", "UNAVAIL", "OFFLINE"]),
        "errors": st.integers(0, 3),
    },
)
FIELDS = {act.__struct_config__.tag: act.__struct_fields__ for act in ACTS}
SCENE = st.fixed_dictionaries(
    {"acts": st.lists(ACT, min_size=1, max_size=4)},
    optional={"repeat": st.integers(1, 3), "burst": st.booleans(), "pool": st.just("tank")},
)


@settings(deadline=None)
@given(VALUES, st.lists(SCENE, max_size=4), st.lists(SCENE, max_size=4), st.booleans())
def test_what_is_taken_can_be_told_and_posted(
    about: Any, opening: list[Any], later: list[Any], at_random: Any
) -> None:
    for scene in opening + later:
        scene["acts"] = [
            {key: value for key, value in act.items() if key in {"act", *FIELDS[act["act"]]}}
            for act in scene["acts"]
        ]
    pools = {"tank": {"disks": ["/dev/a"], "spares": ["/dev/b"]}}
    told = {"opening": opening, "ever_after": later, "at_random": at_random, "about": about}
    try:
        scenario = decode(written(pools=pools, **told))
    except Invalid:
        return
    device = ZfsDevice(lambda: NOW)
    for event in islice(tell(1, lambda: NOW, scenario), 100):
        assert event.wait >= 0
        assert device.post(event.name, event.pairs)
