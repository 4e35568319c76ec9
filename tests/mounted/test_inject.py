"""simulator/inject: events in one write are posted together, or none of them."""

import errno
import os

import pytest
from lines import events, labels, posted
from mounted_tree import Mounted
from programs import run

BAD = {
    "not JSON": b"quux\n",
    "cut short": b'{"class": "sysevent.fs.zfs.scrub_start", "quux\n',
    "no object": b'["quux"]\n',
    "null": b"null\n",
    "no class": b"{}\n",
    "class is no string": b'{"class": 17}\n',
    "class is empty": b'{"class": ""}\n',
    "payload is no object": b'{"class": "sysevent.fs.zfs.scrub_start", "payload": 3}\n',
    "no UTF-8": b'{"class": "\xff\xfe"}\n',
    "binary": bytes(range(256)) * 4 + b"\n",
    "zeros": b"\0" * 4096,
    "nested deeply": b"[" * 20_000 + b"\n",
    "number past every type": b'{"class": "sysevent.fs.zfs.scrub_start", "payload": {"pool_guid": '
    + b"9" * 400
    + b"}}\n",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_line_that_cannot_be_understood_is_einval_and_nothing_is_posted(
    mounted: Mounted, kind: str
) -> None:
    mounted.expects("inject|[Ll]ine [0-9]")
    reader = mounted.stream()
    mounted.drain(reader)
    before = len(mounted.log)
    with pytest.raises(OSError, match="Invalid argument") as refused:
        mounted.write("simulator/inject", posted("good") + BAD[kind] + posted("good"))
    assert refused.value.errno == errno.EINVAL
    assert "ine 2" in mounted.log[before:]
    assert mounted.drain(reader) == b""
    made = mounted.post()
    assert labels(events(mounted.drain(reader))) == made


def test_the_write_returns_when_the_event_can_be_read(mounted: Mounted) -> None:
    reader = mounted.stream()
    mounted.drain(reader)
    for _ in range(50):
        made = mounted.post()
        assert labels(events(os.read(reader, 1 << 17))) == made


def test_echo_posts_an_event(mounted: Mounted) -> None:
    line = '{"class":"ereport.fs.zfs.io","pool":"tank","payload":{"zio_err":5}}'
    inject = mounted.path("simulator/inject")
    assert run(["sh", "-c", f"echo '{line}' > \"$1\"", "writer", inject]).returncode == 0
    (event,) = mounted.everything()
    assert (event["class"], event["pool"]) == ("ereport.fs.zfs.io", "tank")
    assert event["payload"]["zio_err"] == 5


def test_a_whole_write_is_posted_in_order(mounted: Mounted) -> None:
    mounted.write("simulator/inject", b"".join(posted(f"m{index}") for index in range(300)))
    seen = mounted.everything()
    assert labels(seen) == [f"m{index}" for index in range(300)]
    eids = [event["eid"] for event in seen]
    assert eids == list(range(eids[0], eids[0] + 300))


def test_what_is_no_utf8_or_holds_newlines_stays_one_line(mounted: Mounted) -> None:
    line = (
        b'{"class":"sysevent.fs.zfs.history_event","pool":"tank",'
        b'"payload":{"history_internal_str":"a\\nb\\u0001\\u2028\\ud83d\\ude00\\"\\\\"}}\n'
    )
    mounted.write("simulator/inject", line)
    content = mounted.drain(mounted.stream())
    assert content.count(b"\n") == 1
    (event,) = events(content)
    assert event["payload"]["history_internal_str"] == 'a\nb\u0001\u2028\U0001f600"\\'
