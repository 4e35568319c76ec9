"""Text: rendered when it is asked for, once, and what never was is counted all the same."""

from zeventfs.journal.reader import Reader
from zeventfs.journal.rendition import Losses
from zeventfs.journal.segment import Identity, Segment
from zeventfs.journal.text import TextRendition


class Tape:
    """Segments of three events each, rendered as "event N"; `rendered` is what was."""

    def __init__(self, events: int) -> None:
        self.segments = [self.segment(1)]
        self.rendered: list[int] = []
        self.posted = 0
        self.text: TextRendition | None = None
        self.post(events)

    def segment(self, serial: int) -> Segment:
        first_seq = 3 * serial - 2
        return Segment.create(None, Identity("epoch", serial, first_seq, first_seq - 1), 10)

    def post(self, events: int) -> None:
        for _ in range(events):
            if len(self.segments[-1].lines.ends) == 3:
                self.segments.append(self.segment(len(self.segments) + 1))
                if self.text is not None:
                    self.text.add_segment(self.segments[-1])
            self.posted += 1
            self.segments[-1].append(b"\n", b"%d" % self.posted, 0)

    def begun(self) -> TextRendition:
        self.text = TextRendition(self.segments, self.encode, Losses())
        return self.text

    def encode(self, packed: bytes) -> bytes:
        self.rendered.append(int(packed))
        return b"event %s\n" % packed


def read(reader: Reader, offset: int) -> bytes | None:
    answer = reader.read(offset, 1000)
    return None if answer is None else bytes(answer)


def events(*numbers: int) -> bytes:
    return b"".join(b"event %d\n" % number for number in numbers)


def test_nothing_is_rendered_before_it_is_asked_for() -> None:
    tape = Tape(7)
    text = tape.begun()
    assert (tape.rendered, text.end) == ([], 0)
    assert not text.catch_up(2)
    assert tape.rendered == [1, 2]
    assert not text.catch_up(3)
    assert text.catch_up(99)
    assert tape.rendered == list(range(1, 8))
    assert text.catch_up(99)
    assert read(Reader(text, lambda: 0), 0) == events(*range(1, 8))


def test_new_segments_follow() -> None:
    tape = Tape(2)
    text = tape.begun()
    assert text.catch_up(9)
    tape.post(5)
    assert text.catch_up(9)
    assert read(Reader(text, lambda: 0), 0) == events(*range(1, 8))


def test_a_log_may_be_rendered_before_the_stream_comes_to_it() -> None:
    tape = Tape(7)
    text = tape.begun()
    column = text.column_of(tape.segments[1])
    assert column.render(99) == 3
    assert bytes(column.buffer[: column.length]) == events(4, 5, 6)
    assert text.catch_up(99)
    assert tape.rendered == [4, 5, 6, 1, 2, 3, 7]
    assert text.column_of(tape.segments[1]) is column
    assert read(Reader(text, lambda: 0), 0) == events(*range(1, 8))


def test_slices_stay_good_when_the_text_grows() -> None:
    tape = Tape(1)
    text = TextRendition(tape.segments, lambda packed: packed * 50_000, Losses())
    column = text.column_of(tape.segments[0])
    column.render(1)
    kept = column.buffer[:50_000]
    tape.post(2)
    column.render(2)
    assert bytes(kept) == b"1" * 50_000
    assert bytes(column.buffer[: column.length]) == b"1" * 50_000 + b"2" * 50_000 + b"3" * 50_000


def test_an_eviction_of_what_was_never_rendered_is_a_gap() -> None:
    tape = Tape(8)
    text = tape.begun()
    reader = Reader(text, lambda: 0)
    for _ in range(2):
        text.evict_segment()
    assert text.catch_up(99)
    assert read(reader, 0) == b"dropped 6 events\n"
    assert read(reader, 17) == events(7, 8)


def test_an_eviction_of_what_was_rendered_in_part_counts_what_was_not_read() -> None:
    tape = Tape(5)
    text = tape.begun()
    reader = Reader(text, lambda: 0)
    text.catch_up(2)
    assert read(reader, 0) == events(1, 2)
    text.evict_segment()
    text.catch_up(99)
    assert read(reader, 16) == b"dropped 1 events\n"
    assert read(reader, 33) == events(4, 5)


def test_an_eviction_of_what_was_read_is_no_gap() -> None:
    tape = Tape(5)
    text = tape.begun()
    reader = Reader(text, lambda: 0)
    text.catch_up(3)
    assert read(reader, 0) == events(1, 2, 3)
    text.evict_segment()
    text.catch_up(99)
    assert read(reader, 24) == events(4, 5)


def test_a_clear_counts_segments_that_the_stream_had_not_come_to() -> None:
    tape = Tape(3)
    text = tape.begun()
    text.catch_up(99)
    reader = Reader(text, lambda: 0)
    assert read(reader, 0) == events(1, 2, 3)
    tape.post(7)
    text.clear_before_segment(tape.segments[-1])
    text.catch_up(99)
    assert read(reader, 24) == b"dropped 6 events\n"
    assert read(reader, 41) == events(10)


def test_cleared_segments_are_evicted_one_after_the_other() -> None:
    tape = Tape(10)
    text = tape.begun()
    text.clear_before_segment(tape.segments[-1])
    for _ in range(3):
        text.evict_segment()
    text.catch_up(99)
    assert read(Reader(text, lambda: 0), 0) == events(10)


def test_an_empty_segment_is_replaced_wherever_it_stands() -> None:
    for rendered in (False, True):
        tape = Tape(3)
        text = tape.begun()
        empty, other = tape.segment(2), tape.segment(2)
        text.add_segment(empty)
        if rendered:
            text.catch_up(99)
        end = text.end
        text.replace_segment(empty, other)
        assert text.end == end
        other.append(b"\n", b"4", 0)
        text.catch_up(99)
        assert read(Reader(text, lambda: 0), 0) == events(1, 2, 3, 4)


def test_what_was_evicted_for_good_is_rendered_no_more() -> None:
    tape = Tape(4)
    text = tape.begun()
    column = text.column_of(tape.segments[0])
    column.render(1)
    text.evict_segment()
    tape.segments[0].drop()
    assert column.render(1) == 0
    assert column.length == 8
    assert not column.buffer
