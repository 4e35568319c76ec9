"""What a tapdisk's statistics say, and what becomes of text that is no JSON."""

import pytest

from zeventfs.tapdisk.stats import Driver, ImageStats, Stats, decode_stats

RUNNING = (
    b'{ "name": "aio:/srv/xen/disk0.img", "secs": [ 8, 16 ], "images": [ { "name": '
    b'"/srv/xen/disk0.img", "hits": [ 8, 15 ], "fail": [ 0, 1 ], "driver": { "type": 0, "name": '
    b'"aio", "status": { "reqs": { "max": 352, "pending": 0 } } } } ], '
    b'"FIXME_enospc_redirect_count": 0, "nbd_mirror_failed": 0, "reqs_outstanding": 3, '
    b'"read_caching": "false" }'
)


def test_running_statistics_are_read() -> None:
    read = decode_stats(RUNNING)
    assert read.text == RUNNING.decode()
    driver = Driver(0, "aio", {"reqs": {"max": 352, "pending": 0}})
    image = ImageStats("/srv/xen/disk0.img", (8, 15), (0, 1), driver)
    assert read.stats == Stats("aio:/srv/xen/disk0.img", (8, 16), (image,), 3, 0)


@pytest.mark.parametrize("name", [b"(null)", b'"(null)"', b"null"])
def test_a_name_that_is_not_there_is_none(name: bytes) -> None:
    text = RUNNING.replace(b'"aio:/srv/xen/disk0.img"', name).replace(b'"aio"', name)
    stats = decode_stats(text).stats
    assert stats is not None
    assert stats.name is None
    assert stats.images[0].driver.name is None
    assert stats.images[0].name == "/srv/xen/disk0.img"


def test_what_only_looks_like_no_name_stays() -> None:
    stats = decode_stats(RUNNING.replace(b"disk0.img", b": (null)")).stats
    assert stats is not None
    assert stats.name == "aio:/srv/xen/: (null)"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        RUNNING[:-1],
        RUNNING.replace(b"disk0", b'di"sk0'),
        RUNNING.replace(b"disk0", b"di\\sk0"),
        RUNNING.replace(b"disk0", b"di\xffsk0"),
        RUNNING.replace(b"8, 16", b"8"),
        RUNNING.replace(b"8, 16", b"8, -1"),
        b"[" * 100_000,
    ],
)
def test_what_cant_be_read_is_kept_as_text(text: bytes) -> None:
    assert decode_stats(text) == (text.decode(errors="backslashreplace"), None)
