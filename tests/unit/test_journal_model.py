"""The journal and its readers against a model: whatever happens, each event is read or counted."""

import errno
import itertools
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from zeventfs.event import Event
from zeventfs.journal.column import Column
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.reader import Reader
from zeventfs.journal.rendition import Rendition
from zeventfs.journal.segment import Segment
from zeventfs.journal.store import Store
from zeventfs.journal.text import TextColumn, TextRendition
from zeventfs.nvlist import NVList, decode

pytestmark = pytest.mark.timeout(300)  # seconds when it passes; what fails is made small first

LIMITS = Limits(retain=2000, segment=300)
EPOCH = "%016x"
SIZES = st.sampled_from([1, 7, 40, 100, 300, 1000, 1 << 17])
STYLES = st.sampled_from(["json", "text", "nvl"])
EMPTY = NVList.of([])


class PlainEncoder:
    """JSON lines of events whose packed form is only padding."""

    def json_line(self, event: Event, seq: int | None) -> bytes:
        names = ("dropped", "first_seq", "last_seq", "cause")
        rest: dict[str, Any] = (
            {"gap": {name: event.payload.get(name) for name in names}}
            if seq is None
            else {"seq": seq, "pad": event.packed.decode()}
        )
        return json.dumps(rest).encode() + b"\n"


def text_of(packed: bytes) -> bytes:
    return b"event %s\n\n" % packed


def records(got: bytes) -> list[bytes]:
    """Give the packed events of *got* that are whole, each with the length before it."""
    found = []
    at = 0
    while at + 4 <= len(got):
        end = at + 4 + int.from_bytes(got[at : at + 4], "little")
        if end > len(got):
            break
        found.append(got[at:end])
        at = end
    return found


def ends(found: list[bytes]) -> list[int]:
    return list(itertools.accumulate(map(len, found), initial=0))


@dataclass(eq=False)
class Client:
    """Who reads: its file offset is the length of what it has, as long as it never seeks."""

    reader: Reader
    seq: int
    style: str
    got: bytearray = field(default_factory=bytearray)
    offset: int = 0
    sought: bool = False

    def read(self, size: int) -> memoryview | bytes | None:
        answer = self.reader.read(self.offset, size)
        if answer is not None:
            assert len(answer) <= size
            self.offset += len(answer)
            self.got += answer
        return answer

    def due(self) -> int:
        """The seq that follows what was read, every line of which must be in its place."""
        if self.style == "json":
            return self._due_after_json()
        return self._due_after_text() if self.style == "text" else self._due_after_nvlists()

    def _due_after_json(self) -> int:
        due = self.seq
        for line in bytes(self.got).split(b"\n")[:-1]:
            event = json.loads(line)
            gap = event.get("gap")
            if gap is None:
                assert event["seq"] == due
                due += 1
            else:
                assert gap["first_seq"] == due
                assert gap["dropped"] == gap["last_seq"] - gap["first_seq"] + 1 > 0
                assert gap["cause"] in {"evicted", "cleared"}
                due += gap["dropped"]
        return due

    def _due_after_text(self) -> int:
        due = self.seq
        for line in bytes(self.got).split(b"\n")[:-1]:
            if line.startswith(b"dropped "):
                count = int(line.split()[1])
                assert count > 0
                due += count
            elif line:
                assert line.startswith(b"event %d:" % due)
                due += 1
        return due

    def _due_after_nvlists(self) -> int:
        due = self.seq
        for record in records(bytes(self.got)):
            packed = record[4:]
            if packed.startswith(b"%d:" % due):
                due += 1
            else:
                gap = decode(packed)
                assert gap.get("class") == "zeventfs.gap"
                assert gap.get("first_seq") == due
                assert gap.get("cause") in {"evicted", "cleared"}
                due += gap.get("dropped")
                assert gap.get("last_seq") == due - 1
        return due

    def marks(self) -> list[int]:
        """Where an event begins or ends, in the last answer."""
        start, end = self.reader.start, self.reader.end
        if self.style == "nvl":
            return [at for at in ends(records(bytes(self.got))) if start <= at < end]
        newline = b"\n" if self.style == "json" else b"\n\n"  # an event's text has several lines
        return [
            at
            for at in range(start, end)
            if at == 0 or self.got[max(at - len(newline), 0) : at] == newline
        ]


@dataclass(eq=False)
class Log:
    """Who reads one segment to its end."""

    segment: Segment
    column: Column
    shown: bytes = b""


class JournalModel(RuleBasedStateMachine):
    clients = Bundle("clients")
    logs = Bundle("logs")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="zeventfs-model-"))
        self.epoch = 0
        self.full = False
        self.open: list[Client] = []
        self.held: list[Log] = []
        self.fallocate = os.posix_fallocate
        self.patch = patch("os.posix_fallocate", self.allocate)
        self.patch.start()

    def allocate(self, fd: int, start: int, length: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.fallocate(fd, start, length)

    def teardown(self) -> None:
        self.full = False
        try:
            for client in self.open:
                self.drain(client)
        finally:
            self.patch.stop()
            shutil.rmtree(self.directory)

    @initialize()
    def begin(self) -> None:
        self.start(Store(self.directory))

    def start(self, store: Store) -> None:
        """Have a daemon's journal, which goes on where the last one ended or begins anew."""
        went_on = bool(store.recovered)
        if not went_on:
            self.epoch += 1
            self.world = b""
            self.records: list[bytes] = []
            self.posted = 0
            self.cleared_at = 0
            self.ended_at = 0
            self.open.clear()
        self.journal = Journal(EPOCH % self.epoch, PlainEncoder(), LIMITS, lambda: 1, store)
        self.text: TextRendition | None = None
        self.text_end = 0
        self.nvlists: Rendition | None = None
        self.unasked = 0
        assert self.journal.current.lines.next_seq == self.posted + 1
        assert self.journal.lines.end == len(self.world)

    @rule(sizes=st.lists(st.sampled_from([0, 10, 50, 120, 290, 700]), min_size=1, max_size=9))
    def post(self, sizes: list[int]) -> None:
        for size in sizes:
            self.posted += 1
            packed = b"%d:%s" % (self.posted, b"x" * size)
            event = Event("zfs", packed, EMPTY, "x", 0, None, None)
            assert self.journal.append(event) == self.posted
            self.world += PlainEncoder().json_line(event, self.posted)
            self.records.append(len(packed).to_bytes(4, "little") + packed)

    @rule()
    def clear(self) -> None:
        self.journal.clear()
        self.cleared_at = len(self.world)

    @rule(full=st.booleans())
    def have_a_full_disk_or_not(self, full: bool) -> None:  # noqa: FBT001 - hypothesis passes names
        self.full = full

    @rule(target=clients)
    def open_json(self) -> Client:
        oldest = self.journal.statistics().first_seq
        return self.add(Client(Reader(self.journal.lines, lambda: 1), oldest, "json"))

    @rule(target=clients)
    def open_text(self) -> Client:
        self.text = self.journal.text(text_of)
        oldest = self.text.oldest.seq
        assert oldest == self.journal.statistics().first_seq
        return self.add(Client(Reader(self.text, lambda: 1), oldest, "text"))

    @rule(target=clients)
    def open_nvlists(self) -> Client:
        if self.nvlists is None:
            self.nvlists = self.journal.nvlists()
            self.unasked = self.journal.segments[0].identity.first_seq - 1
        oldest = self.nvlists.oldest.seq
        assert oldest == self.journal.statistics().first_seq
        return self.add(Client(Reader(self.nvlists, lambda: 1), oldest, "nvl"))

    def world_of(self, client: Client) -> bytes:
        """Give all bytes that were ever at a position of *client*'s rendition."""
        return self.world if client.style == "json" else self.packed_world

    @property
    def packed_world(self) -> bytes:
        return b"".join(self.records[self.unasked :])

    def add(self, client: Client) -> Client:
        self.open.append(client)
        return client

    def read_once(self, client: Client, size: int) -> bool:
        if client.style == "text":
            assert self.text is not None
            position = client.offset + client.reader.skew + size
            while self.text.end < position and not self.text.catch_up(2):
                pass
        before = client.reader.state()
        ready = client.reader.ready()
        at_end = client.offset == before.end
        answer = client.read(size)
        if at_end:
            assert ready == bool(answer)
        if not answer:  # b"" is the end of file of those who asked where it is
            assert client.sought or client.reader.state() == before
            return False
        if client.sought and client.style != "text" and client.reader.gap is None:
            position = client.reader.start + client.reader.skew
            end = position + len(answer)
            assert self.world_of(client)[position:end] == answer
            whole = (
                bytes(answer).endswith(b"\n")
                if client.style == "json"
                else end in ends(self.records[self.unasked :])
            )
            assert whole or client.reader.end == client.reader.start + size or client.reader._rest
        return True

    @rule(client=clients, size=SIZES, times=st.integers(1, 5))
    def read(self, client: Client, size: int, times: int) -> None:
        if client in self.open:
            for _ in range(times):
                if not self.read_once(client, size):
                    break

    @rule(client=clients, choice=st.integers(0, 20))
    def step_back_to_the_end_of_a_line(self, client: Client, choice: int) -> None:
        """Do as bash's read does."""
        if client not in self.open or client.sought or client.offset != client.reader.end:
            return
        marks = client.marks()
        if marks:
            client.offset = marks[choice % len(marks)]
            del client.got[client.offset :]

    @rule(client=clients, offset=st.integers(0, 5000), size=SIZES)
    def seek(self, client: Client, offset: int, size: int) -> None:
        if client in self.open and client.style != "text":
            client.sought = True
            client.offset = offset
            within = client.reader.start <= offset <= client.reader.end
            self.read_once(client, size)
            oldest, end = client.reader.rendition.begin, len(self.world_of(client))
            if not within and oldest <= offset <= end:
                assert client.reader.skew == 0

    @rule(client=clients)
    def seek_to_the_end(self, client: Client) -> None:
        if client in self.open:
            client.reader.seek_to_end()
            assert not client.reader.ready()
            client.reader._sought = None  # as if nothing had been made of it

    @rule(client=consumes(clients))
    def close(self, client: Client) -> None:
        if client in self.open:
            self.drain(client)
            self.open.remove(client)

    def drain(self, client: Client) -> None:
        while self.read_once(client, 500):
            pass
        if not client.sought:
            assert client.due() == self.posted + 1
            assert client.reader.seq == self.posted + 1

    @rule(target=logs, age=st.integers(0, 5), style=STYLES)
    def open_log(self, age: int, style: str) -> Log:
        segment = self.journal.segments[-1 - age % len(self.journal.segments)]
        self.journal.hold(segment)
        column: Column = segment.nvlists if style == "nvl" else segment.lines
        if style == "text":
            self.text = self.journal.text(text_of)
            column = self.text.column_of(segment)
        log = Log(segment, column)
        self.held.append(log)
        return log

    @rule(log=logs, count=st.integers(1, 5))
    def read_log(self, log: Log, count: int) -> None:
        if log not in self.held:
            return
        if isinstance(log.column, TextColumn):
            log.column.render(count)
        if log.segment.stale:
            assert not log.column.buffer
            return
        content = bytes(log.column.buffer[: log.column.length])
        assert content.startswith(log.shown)
        log.shown = content

    @rule(log=consumes(logs))
    def close_log(self, log: Log) -> None:
        if log in self.held:
            self.held.remove(log)
            self.journal.release(log.segment)

    @rule()
    def kill_and_recover(self) -> None:
        """Positions but of lines begin anew with a daemon, and what is held is held no more."""
        states = [
            (client, client.reader.state())
            for client in self.open
            if client.style == "json" and not self.has_lost_the_rest_of_a_line(client)
        ]
        self.held.clear()
        self.open[:] = [client for client, _ in states]
        self.start(Store(self.directory))
        for client, state in states:
            if client in self.open:
                client.reader = Reader(self.journal.lines, lambda: 1)
                client.reader.restore(state)
                client.offset = max(client.offset, client.reader.start)
                if client.offset > len(client.got):
                    client.sought = True  # it had stepped back to what is gone now

    def has_lost_the_rest_of_a_line(self, client: Client) -> bool:
        """Whether only this daemon's memory has what is left of the line.

        A file is recovered only if all that follow it are there, too.
        """
        if not client.reader._rest:
            return False
        position = client.reader.end + client.reader.skew
        for segment in reversed(self.journal.segments):
            if segment.in_memory:
                return True
            if segment.lines.base <= position:
                return False
        return True

    @invariant()
    @precondition(lambda self: self.epoch)
    def readers_have_each_event_or_a_gap_for_it(self) -> None:
        for client in self.open:
            if not client.sought:
                assert client.due() <= self.posted + 1

    @invariant()
    @precondition(lambda self: self.epoch)
    def what_was_shown_stays(self) -> None:
        lines = self.journal.lines
        assert lines.end == len(self.world)
        for column in lines.columns:
            assert column.buffer[: column.length] == self.world[column.base : column.end]
        assert lines.begin >= self.cleared_at or not self.cleared_at
        if self.nvlists is not None:
            assert self.nvlists.end == len(self.packed_world)
            for column in self.nvlists.columns:
                kept = column.buffer[: column.length]
                assert kept == self.packed_world[column.base : column.end]
        if self.text is not None:
            assert self.text.end >= self.text_end
            self.text_end = self.text.end

    @invariant()
    @precondition(lambda self: self.epoch)
    def the_summary_counts_every_event_from_its_first_on(self) -> None:
        tallies = [tally for _, tally in self.journal.summary]
        if self.journal.summary.others is not None:
            tallies.append(self.journal.summary.others)
        assert sum(each.count for each in tallies) == self.posted - self.journal.counted_from + 1

    @invariant()
    @precondition(lambda self: self.epoch)
    def no_more_is_kept_than_may_be(self) -> None:
        journal = self.journal
        assert journal.kept == sum(each.used for each in journal.segments)
        assert journal.kept <= LIMITS.retain or len(journal.segments) == 1
        assert sum(each.used for each in journal._held) <= LIMITS.retain
        for log in self.held:
            kept = log.segment in journal.segments or log.segment in journal._held
            assert kept != log.segment.stale or not log.segment.used

    @invariant()
    @precondition(lambda self: self.epoch)
    def only_what_is_kept_has_a_file(self) -> None:
        journal = self.journal
        kept = {
            segment._mapped.path
            for segment in (*journal.segments, *journal._held)
            if not segment.in_memory
        }
        assert kept == set(self.directory.iterdir())


JournalModel.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestJournalAgainstItsModel = JournalModel.TestCase
