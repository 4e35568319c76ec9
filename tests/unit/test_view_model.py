"""Views against a model: every matching event is read, or counted in a gap in its place."""

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from zeventfs.bell import Bell
from zeventfs.event import Event
from zeventfs.filter import Expression
from zeventfs.journal.journal import Journal, Limits
from zeventfs.journal.reader import Reader
from zeventfs.journal.segment import Segment
from zeventfs.nodes.streams import Format, JsonFormat, NvlistFormat, TextFormat
from zeventfs.nodes.views import View, ViewFormat, Views
from zeventfs.nvlist import Type, decode
from zeventfs.render import Renderer

pytestmark = pytest.mark.timeout(300)

LIMITS = Limits(retain=4000, segment=700)
CLASSES = ["a", "b", "c"]
EXPRESSIONS = ["class=a", "class=[ab]", "class!=a", "n>=3", "class=b,n<=4", "class=z", "n>=0"]
STYLES = {"json": 0, "text": 1, "nvl": 2}


@dataclass(frozen=True)
class Posted:
    seq: int
    label: str
    n: int

    def matches(self, expression: str) -> bool:
        holds = {
            "class=a": self.label == "a",
            "class=[ab]": self.label in "ab",
            "class!=a": self.label != "a",
            "n>=3": self.n >= 3,
            "class=b,n<=4": self.label == "b" and self.n <= 4,
            "class=z": False,
            "n>=0": True,
        }
        return holds[expression]


@dataclass(eq=False)
class Client:
    """Who reads a view from its beginning to its end; `since` is the first seq it is due."""

    expression: str
    style: str
    view: View
    format: ViewFormat
    reader: Reader
    since: int
    got: bytearray = field(default_factory=bytearray)

    def items(self) -> list[tuple[int, int, int] | None]:
        """What was read: for each gap its events lost, first and last seq, None for an event."""
        if self.style == "json":
            lines = [json.loads(line) for line in bytes(self.got).splitlines()]
            return [None if "seq" in line else _gap(line["payload"]) for line in lines]
        if self.style == "text":
            texts = bytes(self.got).decode().split("\n")
            found: list[tuple[int, int, int] | None] = []
            for line in texts:
                if line.startswith("dropped "):
                    found.append((int(line.split()[1]), 0, 0))
                elif line and not line.startswith(" "):
                    found.append(None)
            return found
        found = []
        at = 0
        while at < len(self.got):
            size = int.from_bytes(self.got[at : at + 4], "little")
            payload = decode(bytes(self.got[at + 4 : at + 4 + size]))
            gap = payload.get("class") == "zeventfs.gap"
            keys = ("dropped", "first_seq", "last_seq")
            found.append(tuple(payload.get(key) for key in keys) if gap else None)
            at += 4 + size
        return found


def _gap(payload: dict[str, int]) -> tuple[int, int, int]:
    return payload["dropped"], payload["first_seq"], payload["last_seq"]


class ViewModel(RuleBasedStateMachine):
    clients = Bundle("clients")
    kept = Bundle("kept")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        renderer = Renderer("epoch", None)
        self.renderer = renderer
        self.journal = Journal("epoch", renderer, LIMITS, lambda: self.now)
        formats: tuple[Format, ...] = (
            JsonFormat(self.journal),
            TextFormat(self.journal, lambda packed: renderer.text(decode(packed))),
            NvlistFormat(self.journal),
        )
        self.views = Views(self.journal, formats)
        self.journal.subscribe(self.views.arrived)
        self.posted: list[Posted] = []
        self.open: list[Client] = []
        self.rung: dict[Bell, int] = {}

    @rule(
        labels=st.lists(
            st.tuples(st.sampled_from(CLASSES), st.integers(0, 6), st.sampled_from([0, 90, 800])),
            min_size=1,
            max_size=12,
        )
    )
    def post(self, labels: list[tuple[str, int, int]]) -> None:
        for label, n, size in labels:
            self.now += 1
            pairs = [("n", Type.INT32, n), ("filler", Type.STRING, "." * size)]
            seq = self.journal.append(Event.make("zfs", label, self.now, pairs))
            self.posted.append(Posted(seq, label, n))

    @rule()
    def clear(self) -> None:
        self.journal.clear()

    def hold(self, style: ViewFormat) -> None:
        while not style._search():
            pass
        self.views.hold(style)

    @rule(
        target=clients,
        expression=st.sampled_from(EXPRESSIONS),
        style=st.sampled_from(sorted(STYLES)),
    )
    def open_view(self, expression: str, style: str) -> Client:
        view = self.views.view(Expression.parse(expression))
        chosen = view.formats[STYLES[style]]
        self.hold(chosen)
        chosen.reach(0)
        reader = Reader(chosen.rendition(), lambda: 1)
        since = self.journal.lines.oldest.seq
        client = Client(expression, style, view, chosen, reader, since)
        self.open.append(client)
        return client

    @rule(
        target=clients,
        expression=st.sampled_from(EXPRESSIONS),
        since=st.integers(0, 60),
        by_time=st.booleans(),
    )
    def open_since(self, expression: str, since: int, by_time: bool) -> Client:  # noqa: FBT001
        view = self.views.view(Expression.parse(expression))
        chosen = view.formats[0]
        self.hold(chosen)
        chosen.reach(1 << 40)
        rendition = chosen.rendition()
        # an event's time is its seq here
        mark = rendition.since_time(since) if by_time else rendition.since_seq(since)
        reader = Reader(rendition, lambda: 1, mark)
        first = min(max(since, self.journal.lines.oldest.seq), len(self.posted) + 1)
        client = Client(expression, "json", view, chosen, reader, first)
        self.open.append(client)
        return client

    @rule(target=kept, expression=st.sampled_from(EXPRESSIONS))
    def keep_a_view_that_nobody_reads(self, expression: str) -> View:
        return self.views.view(Expression.parse(expression))

    @rule(view=consumes(kept))
    def forget_a_view(self, view: View) -> None:
        del view

    def due(self, client: Client) -> list[Posted]:
        return [
            each
            for each in self.posted
            if each.seq >= client.since and each.matches(client.expression)
        ]

    def read_once(self, client: Client, size: int) -> bool:
        offset = len(client.got)
        reader = client.reader
        client.format.reach(offset + max(reader.skew, 0) + size)
        ready = reader.ready() if offset == reader.end else None
        answer = reader.read(offset, size)
        assert ready in {None, answer is not None}
        if answer is None:
            return False
        assert 0 < len(answer) <= size
        client.got += answer
        return True

    @rule(client=clients, size=st.sampled_from([7, 150, 400, 2000]), times=st.integers(1, 4))
    def read(self, client: Client, size: int, times: int) -> None:
        if client in self.open:
            for _ in range(times):
                self.read_once(client, size)

    @rule(client=clients, back=st.integers(0, 400), size=st.sampled_from([100, 2000]))
    def step_back_within_the_last_answer(self, client: Client, back: int, size: int) -> None:
        if client in self.open:
            offset = max(client.reader.start, client.reader.end - back)
            line_ends = {at for at in range(1, len(client.got) + 1) if client.got[at - 1] == 10}
            if client.style != "json" or offset not in {0, *line_ends}:
                return
            del client.got[offset:]
            self.read_once(client, size)

    def drain(self, client: Client) -> None:
        while self.read_once(client, 1500):
            pass
        due = self.due(client)
        at = 0
        for item in client.items():
            if item is None:
                at += 1
                continue
            dropped, first, last = item
            lost = due[at : at + dropped]
            assert len(lost) == dropped > 0
            if client.style != "text":
                assert all(first <= each.seq <= last for each in lost)
            at += dropped
        assert at == len(due)
        if client.style == "json":
            read = [json.loads(line) for line in bytes(client.got).splitlines()]
            seqs = [line["seq"] for line in read if "seq" in line]
            assert set(seqs) <= {each.seq for each in due}
            assert seqs == sorted(seqs)
        assert client.reader.lag == 0

    @rule(client=clients)
    def drain_it(self, client: Client) -> None:
        if client in self.open:
            self.drain(client)

    @rule(client=consumes(clients))
    def close(self, client: Client) -> None:
        if client in self.open:
            self.drain(client)
            self.open.remove(client)
            client.format.release()

    @rule(
        expression=st.sampled_from(EXPRESSIONS),
        style=st.sampled_from(sorted(STYLES)),
        age=st.integers(0, 6),
    )
    def read_a_log(self, expression: str, style: str, age: int) -> None:
        segment = self.journal.segments[-1 - age % len(self.journal.segments)]
        view = self.views.view(Expression.parse(expression))
        chosen = view.formats[STYLES[style]]
        self.hold(chosen)
        column = chosen.column(segment)
        chosen.reach_in(column, 1 << 40)
        wanted = [
            each
            for each in self.posted
            if each.matches(expression)
            and segment.lines.first_seq <= each.seq < segment.lines.next_seq
        ]
        assert bytes(column.slice(0, column.length)) == b"".join(
            self.encoded(segment, each.seq, style) for each in wanted
        )
        chosen.release()

    def encoded(self, segment: Segment, seq: int, style: str) -> bytes:
        packed = segment.packed(seq)
        if style == "json":
            return segment.line(seq)
        if style == "text":
            return self.renderer.text(decode(packed))
        return len(packed).to_bytes(4, "little") + packed

    @invariant()
    def views_that_nobody_uses_are_gone(self) -> None:
        held = {id(client.format.matches) for client in self.open}
        assert {id(each) for each in self.views._held} == held

    def teardown(self) -> None:
        for client in self.open:
            self.drain(client)


ViewModel.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestViewsAgainstTheirModel = ViewModel.TestCase
