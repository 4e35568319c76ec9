"""Flag bits of a watched tapdisk as states: what `tap-ctl list` printed, and what it meant."""

import pytest

from zeventfs.vbd.observed import OBSERVED, Flag, observe


@pytest.mark.parametrize(
    ("bits", "args", "expected"),
    [
        (0x0, False, "PID UNPAUSED UP"),
        (0x0, True, "RUNNING UNPAUSED UP"),
        (0x2A, True, "PAUSED PAUSED UP"),
        (0x14, True, "WAIT_PAUSE PAUSING UP"),
        (0x2, False, "CLOSED UNPAUSED DOWN"),
        (None, False, "DEAD BROKEN UP"),
        (0x1, False, "CLOSED DEAD DOWN"),
        (0x200, True, "PAUSED BROKEN UP"),
        (0x40, True, "WAIT_CLOSE UNPAUSED DOWN"),
        (0x42, True, "CLOSED UNPAUSED DOWN"),
        (0x6A, True, "WAIT_CLOSE PAUSED DOWN"),
        (0x54, True, "WAIT_CLOSE PAUSING DOWN"),
        (0x18C, True, "RUNNING UNPAUSED UP"),
        (0x400, True, "RUNNING UNPAUSED UP"),
    ],
)
def test_bits_are_mapped_to_states(bits: int | None, args: bool, expected: str) -> None:  # noqa: FBT001 - a parameter of the test
    assert " ".join(state.name for state in observe(bits, args=args).states) == expected


def test_the_bits_are_kept_and_named() -> None:
    assert str(observe(0x414, args=True)) == "0x414 QUIESCE_REQUESTED PAUSE_REQUESTED"
    assert observe(0x414, args=True).bits == 0x414
    assert str(observe(0, args=True)) == "0x0"
    assert str(observe(None, args=False)) == ""


def test_no_row_hides_a_later_one() -> None:
    for number, (flags, states) in enumerate(OBSERVED):
        assert observe(flags, args=True).states == states
        assert not [earlier for earlier, _ in OBSERVED[:number] if flags & earlier == earlier]
    assert Flag.LOCKING | Flag.LOG_DROPPED not in [flags for flags, _ in OBSERVED]
