"""Mutates recorded nvlists for a while: `python tests/fuzz_nvlist.py [SECONDS] [SEED]`.

Whatever the bytes: decoding gives a list or NvlistError, quickly; the quick and the generic decoder
agree; and a list that was understood is packed, rendered as JSON and printed as text.
"""

import base64
import json
import random
import struct
import sys
import time
from datetime import UTC
from pathlib import Path

import msgspec

from zeventfs.errors import Invalid
from zeventfs.event import Event
from zeventfs.nvlist import Encoding, NVList, NvlistError, Type, _shapes, decode, encode
from zeventfs.nvlist._native import Reader
from zeventfs.render import Renderer

CORPUS = Path(__file__).parent / "corpus"
ODD = [0, 1, 2, 23, 24, 27, 2**15, 2**16 - 1, 2**28, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1]
SLOWEST = 0.5  # seconds; the corpus's longest list takes about a millisecond


def seeds() -> list[bytes]:
    recorded = [json.loads(line) for line in (CORPUS / "zevents.jsonl").read_text().splitlines()]
    packed = [base64.b64decode(one[form]) for one in recorded[1:] for form in ("native", "xdr")]
    return packed + [path.read_bytes() for path in (CORPUS / "nvlist").glob("*.bin")]


def mutate(packed: bytes, other: bytes, rnd: random.Random) -> bytes:
    raw = bytearray(packed)
    for _ in range(rnd.randint(1, 6)):
        at = rnd.randrange(0, max(1, len(raw) - 4))
        way = rnd.randrange(5)
        if way == 0:
            raw[at : at + 1] = bytes([rnd.randrange(256)])
        elif way == 1:
            word = at & ~3
            raw[word : word + 4] = struct.pack(rnd.choice("<>") + "I", rnd.choice(ODD))
        elif way == 2:
            raw[at & ~3 :] = other[at & ~3 :]
        elif way == 3:
            del raw[at : at + rnd.choice([1, 4, 8, 24])]
        else:
            raw[at:at] = raw[at : at + rnd.choice([4, 8, 32])]
    return bytes(raw)


def outcome(packed: bytes, *, generic: bool) -> tuple[object, object]:
    try:
        nvlist = Reader(packed).read() if generic else _shapes.decode(packed)
    except NvlistError as error:
        return str(error), error.offset
    return nvlist.layout, repr(nvlist.values)


def check(packed: bytes, renderer: Renderer) -> bool:
    """Say whether *packed* was understood; raise if anything isn't as it should be."""
    began = time.perf_counter()
    quick = outcome(packed, generic=False)
    assert time.perf_counter() - began < SLOWEST
    assert quick == outcome(packed, generic=True)
    try:
        nvlist = decode(packed)
    except NvlistError:
        return False
    for encoding in Encoding:
        assert decode(encode(nvlist, encoding)).layout == nvlist.layout
    assert renderer.text(nvlist, UTC).endswith(b"\n")
    wrap(nvlist, renderer)
    return True


def wrap(nvlist: NVList, renderer: Renderer) -> None:
    """Render *nvlist* within an event, since it may have lost its own class."""
    try:
        event = Event.make("zfs", "fuzz", 0, [("list", Type.NVLIST, nvlist)])
    except Invalid:
        assert nvlist.layout.depth == 100
        return
    line = renderer.json_line(event, 1)
    assert line.count(b"\n") == 1
    json.loads(line)
    msgspec.json.decode(line)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    rnd = random.Random(seed)
    renderer = Renderer("fuzz", "2.1.11")
    packed = seeds()
    tried = understood = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        mutant = mutate(rnd.choice(packed), rnd.choice(packed), rnd)
        try:
            understood += check(mutant, renderer)
        except BaseException:
            print(f"seed {seed}, after {tried}: {mutant.hex()}", file=sys.stderr)
            raise
        tried += 1
    print(f"{tried} mutants, {understood} understood, seed {seed}")


if __name__ == "__main__":
    main()
