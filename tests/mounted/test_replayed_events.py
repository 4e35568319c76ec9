"""Recorded events of a real OpenZFS 2.1.11, replayed through the tree: JSON and zpool's text."""

import json
import os
import re
from functools import cache
from typing import Any

import pytest
from conftest import Mount
from lines import Event, events
from mounted_tree import CORPUS, Mounted
from programs import run
from waits import until

SOURCE = f"replay:{CORPUS}"
PAIR = re.compile(r"^ {8}(\w+) = (.*)$", re.MULTILINE)
IN_WORDS = re.compile(r".*_names?|speculative")


@cache
def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CORPUS.read_text().splitlines()[1:]]


def is_own(event: Event) -> bool:
    return str(event["class"]).startswith("zeventfs.")


@pytest.fixture
def replayed(mount: Mount) -> Mounted:
    mounted = mount(source=SOURCE)

    def all_there() -> bool:
        log = events(mounted.read("events/log"))
        return sum(not is_own(event) for event in log) >= len(recorded())

    until(all_there, "the whole corpus replayed")
    return mounted


def test_every_recorded_event_is_in_the_stream_once_and_in_order(replayed: Mounted) -> None:
    seen = [event for event in replayed.everything() if not is_own(event)]
    assert [(event["class"], event["eid"]) for event in seen] == [
        (record["class"], record["eid"]) for record in recorded()
    ]
    assert {event["source"] for event in seen} == {"zfs"}


def test_holes_in_the_sources_numbers_are_gaps_for_all_readers(replayed: Mounted) -> None:
    seen = replayed.everything()
    numbers = [event["seq"] for event in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    previous: int | None = None
    gap: Event | None = None
    for event in seen:
        if event["class"] == "zeventfs.gap":
            assert gap is None
            assert event["payload"]["cause"] == "source"
            gap = event["payload"]
        elif not is_own(event):
            if previous is not None and event["eid"] > previous:
                hole = event["eid"] - previous - 1
                told = gap and (int(gap["first_eid"]), int(gap["last_eid"]), int(gap["dropped"]))
                assert told == ((previous + 1, event["eid"] - 1, hole) if hole else None)
            previous, gap = event["eid"], None


def test_the_end_of_the_replay_is_an_event_and_readers_wait_on(replayed: Mounted) -> None:
    until(lambda: is_own(replayed.everything()[-1]), "an event that says the end")
    descriptor = replayed.open("events/stream")
    os.lseek(descriptor, 0, os.SEEK_END)
    waiting = replayed.blocked_read(descriptor)
    with pytest.raises(TimeoutError):
        waiting.result(timeout=0.3)
    replayed.umount()
    with pytest.raises(OSError, match="shutdown"):
        waiting.result(timeout=5.0)


def test_the_text_is_what_zpool_events_printed(replayed: Mounted) -> None:
    until(lambda: is_own(replayed.everything()[-1]), "the end of the replay")
    text = replayed.drain(replayed.open("events/stream.txt", os.O_NONBLOCK))
    assert replayed.read("events/log.txt") == text
    at = 0
    records = iter(recorded())
    for event in replayed.everything():
        end = text.index(b"\n\n", at) + 2
        if event["class"] == "zeventfs.gap":
            expected = b"dropped %d events\n" % int(event["payload"]["dropped"])
        elif is_own(event):
            expected = text[at:end]
            assert event["class"].encode() in expected.partition(b"\n")[0]
        else:
            record = next(records)
            # What had been evicted before zpool could print it was recorded without its text.
            expected = record["text_v"].encode("latin-1") if "text_v" in record else text[at:end]
        assert text[at : at + len(expected)] == expected
        at += len(expected)
    assert at == len(text)
    for name in ("events/stream.txt", "events/log.txt"):
        assert replayed.path(name).stat().st_size == len(text)


def test_the_text_has_the_time_zone_of_the_mount(mount: Mount) -> None:
    mounted = mount(source=SOURCE, env={"TZ": "JST-9"})
    text = until(lambda: mounted.read("events/log.txt"), "text")
    assert text.startswith(b"Nov 21 2026 12:22:24.625802682 sysevent.fs.zfs.pool_create\n")


def test_jq_reads_every_payload_in_its_recorded_order(replayed: Mounted) -> None:
    own = 'select(.class | startswith("zeventfs.") | not)'
    done = run(["jq", "-c", f"{own} | .payload | keys_unsorted", replayed.path("events/log")])
    assert (done.returncode, done.stderr) == (0, b"")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for keys, record in zip(found, recorded(), strict=True):
        if "text_v" in record:
            expected = [name for name, _ in PAIR.findall(record["text_v"])]
            assert [key for key in keys if key in expected] == expected
            assert all(IN_WORDS.fullmatch(key) for key in keys if key not in expected)


def test_every_number_and_string_is_the_recorded_one(replayed: Mounted) -> None:
    """zpool's text is the witness: it prints integers as hex of their unsigned image."""
    seen = [event for event in replayed.everything() if not is_own(event)]
    kinds: dict[str, set[type]] = {}
    compared = 0
    for event, record in zip(seen, recorded(), strict=True):
        for name, text in PAIR.findall(record.get("text_v", "")):
            value = event["payload"][name]
            if number := re.fullmatch(r'(?:"\w+" \()?0x([0-9a-f]+)\)?', text):
                assert int(value) % (1 << 64) == int(number[1], 16) or (
                    int(value) % (1 << 32) == int(number[1], 16)
                )
                kinds.setdefault(name, set()).add(type(value))
            elif string := re.fullmatch(r'"(.*)"', text):
                if name.startswith("vdev_spare_paths"):
                    continue
                assert value == string[1].encode("latin-1").decode(errors="surrogateescape")
            else:
                continue
            compared += 1
        assert (
            event["pool"] == record["text_v"].partition('pool = "')[2].partition('"')[0]
            if ('pool = "' in record.get("text_v", ""))
            else True
        )
    assert compared > 2000
    assert all(len(found) == 1 for found in kinds.values()), "the kind depends on the value"
    assert all(found == {str} for name, found in kinds.items() if name.endswith("_guid"))


def test_the_time_is_the_recorded_one(replayed: Mounted) -> None:
    seen = [event for event in replayed.everything() if not is_own(event)]
    for event, record in zip(seen, recorded(), strict=True):
        if "text_v" in record:
            day, clock = record["text_v"].split()[1:4:2]
            assert event["time"] == f"2026-11-{int(day):02}T{clock}Z"


def test_words_stand_beside_numbers(replayed: Mounted) -> None:
    seen = replayed.everything()
    states = [event["payload"] for event in seen if event["class"].endswith(".statechange")]
    assert states
    assert all("vdev_state_name" in payload for payload in states)
    inputs = [event["payload"] for event in seen if "zio_flags" in event["payload"]]
    assert inputs
    assert all(isinstance(payload["zio_flags_names"], list) for payload in inputs)
    assert all(isinstance(payload["speculative"], bool) for payload in inputs)


def test_text_streams_block_and_follow(mounted: Mounted) -> None:
    mounted.post(2)
    cat = mounted.program("cat", mounted.path("events/stream.txt"))
    cat.await_output('"n1 ')
    cat.await_blocked()
    mounted.post()
    cat.await_output('"n2 [^\n]*"\n(.+\n)+\n', limit=1.0)
    assert cat.out == mounted.read("events/log.txt")
    assert cat.out.count(b"sysevent.fs.zfs.history_event\n") == 3


def test_text_readers_that_were_overtaken_see_how_many_they_missed(mount: Mount) -> None:
    mounted = mount("retain=128K", "segment=64K")
    mounted.post(10, size=2000)
    lines = mounted.stream()
    text = mounted.open("events/stream.txt", os.O_NONBLOCK)
    mounted.post(200, size=2000)
    gap = events(mounted.drain(lines))[0]["payload"]
    seen = mounted.drain(text)
    assert seen.startswith(b"dropped %d events\n" % int(gap["dropped"]))
    assert seen.count(b"\ndropped ") == 0
    assert seen.count(b"        class = ") == 210 - int(gap["dropped"])


def test_text_in_small_pieces_is_the_same_text(replayed: Mounted) -> None:
    until(lambda: is_own(replayed.everything()[-1]), "the end of the replay")
    whole = replayed.read("events/log.txt")
    assert replayed.drain(replayed.open("events/stream.txt", os.O_NONBLOCK), 100) == whole


def test_a_replay_at_a_rate_plays_on_while_it_is_read(mount: Mount) -> None:
    mounted = mount("replay.rate=100", source=SOURCE)
    cat = mounted.program("cat", mounted.path("events/stream"))
    cat.await_output(r"(.*\n){10}")
    assert len(mounted.everything()) < len(recorded())
    cat.await_output(r"(.*\n){60}")
