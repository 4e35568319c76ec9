"""The words for the numbers in ZFS's events, for the module version that made them.

Bits of zio_flags, zio_stage and zio_pipeline move between releases, so their names are given for
releases whose tables are known and for no others; the states of pools and vdevs have kept their
numbers from 0.7 on. Sources: include/sys/zio.h, zio_impl.h, fs/zfs.h and spa.h,
module/zcommon/zfs_valstr.c of openzfs/zfs. Where a release's table is not known in full, the
bits in doubt have no name here.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["NUMBERS", "STATES", "ZPOOL_VDEV_STATE", "Release", "bit_names", "release"]

NUMBERS: Final = frozenset(
    [
        "cleared",
        "data_total",
        "data_used",
        "dio_verify_errors",
        "dropped",
        "eid",
        "evicted",
        "failed",
        "first_eid",
        "first_seq",
        "first_seqnum",
        "history_dsid",
        "history_internal_event",
        "history_time",
        "history_txg",
        "history_who",
        "last_eid",
        "last_seq",
        "last_seqnum",
        "low_water",
        "metadata_total",
        "metadata_used",
        "pool_state",
        "prev_state",
        "rate_limited",
        "regions",
        "regions_in_sync",
        "sectors",
        "seq",
        "time",
        "txg",
        "unknown",
        "vdev_ashift",
        "vdev_cksum_errors",
        "vdev_cksum_n",
        "vdev_cksum_t",
        "vdev_delays",
        "vdev_delta_ts",
        "vdev_io_n",
        "vdev_io_t",
        "vdev_laststate",
        "vdev_read_errors",
        "vdev_slow_io_n",
        "vdev_slow_io_t",
        "vdev_state",
        "vdev_write_errors",
        "zio_delay",
        "zio_delta",
        "zio_flags",
        "zio_level",
        "zio_offset",
        "zio_size",
    ]
)
"""The 64-bit keys that are numbers in JSON: their meaning keeps them below 2^53."""

_VDEV_STATE: Final = (
    "UNKNOWN",
    "CLOSED",
    "OFFLINE",
    "REMOVED",
    "UNAVAIL",
    "FAULTED",
    "DEGRADED",
    "ONLINE",
)
ZPOOL_VDEV_STATE: Final = ("UNKNOWN", "OFFLINE", *_VDEV_STATE[2:])
"""What zpool(8) calls them: it has no word of its own for CLOSED (zpool_state_to_name)."""

_POOL_STATE: Final = (
    "ACTIVE",
    "EXPORTED",
    "DESTROYED",
    "SPARE",
    "L2CACHE",
    "UNINITIALIZED",
    "UNAVAIL",
    "POTENTIALLY_ACTIVE",
)
_POOL_CONTEXT: Final = ("NONE", "OPEN", "IMPORT", "TRYIMPORT", "RECOVER", "ERROR", "CREATE")

STATES: Final = {
    "vdev_state": _VDEV_STATE,
    "vdev_laststate": _VDEV_STATE,
    "prev_state": _VDEV_STATE,
    "pool_state": _POOL_STATE,
    "pool_context": _POOL_CONTEXT,
}
"""The keys whose values have the same words in every release."""

_FLAGS_0_TO_10: Final = (
    "DONT_AGGREGATE",
    "IO_REPAIR",
    "SELF_HEAL",
    "RESILVER",
    "SCRUB",
    "SCAN_THREAD",
    "PHYSICAL",
    "CANFAIL",
    "SPECULATIVE",
    "CONFIG_WRITER",
    "DONT_RETRY",
)
_FLAGS_15_TO_18: Final = ("IO_RETRY", "PROBE", "TRYHARD", "OPTIONAL")
_FLAGS_FROM_DONT_QUEUE: Final = (
    "DONT_QUEUE",
    "DONT_PROPAGATE",
    "IO_BYPASS",
    "IO_REWRITE",
    "RAW_COMPRESS",
    "RAW_ENCRYPT",
    "GANG_CHILD",
    "DDT_CHILD",
    "GODFATHER",
    "NOPWRITE",
    "REEXECUTED",
    "DELEGATED",
)


def _flags(bit_11: str, bit_14: str, bit_19: tuple[str, ...], last: str) -> tuple[str, ...]:
    middle = (bit_11, "NODATA", "INDUCE_DAMAGE", bit_14)
    return (
        *_FLAGS_0_TO_10,
        *middle,
        *_FLAGS_15_TO_18,
        *bit_19,
        *_FLAGS_FROM_DONT_QUEUE,
        last,
    )


_STAGES_0_TO_8: Final = (
    "OPEN",
    "READ_BP_INIT",
    "WRITE_BP_INIT",
    "FREE_BP_INIT",
    "ISSUE_ASYNC",
    "WRITE_COMPRESS",
    "ENCRYPT",
    "CHECKSUM_GENERATE",
    "NOP_WRITE",
)
_DDT: Final = ("DDT_READ_START", "DDT_READ_DONE", "DDT_WRITE", "DDT_FREE")
_STAGES_TO_VERIFY: Final = (
    "GANG_ASSEMBLE",
    "GANG_ISSUE",
    "DVA_THROTTLE",
    "DVA_ALLOCATE",
    "DVA_FREE",
    "DVA_CLAIM",
    "READY",
    "VDEV_IO_START",
    "VDEV_IO_DONE",
    "VDEV_IO_ASSESS",
    "CHECKSUM_VERIFY",
)
_BRT: Final = ("BRT_FREE",)
_DIO: Final = ("DIO_CHECKSUM_VERIFY",)
_DONE: Final = ("DONE",)

_PRIORITY: Final = (
    "SYNC_READ",
    "SYNC_WRITE",
    "ASYNC_READ",
    "ASYNC_WRITE",
    "SCRUB",
    "REMOVAL",
    "INITIALIZING",
    "TRIM",
    "REBUILD",
    "[NUM_QUEUEABLE]",
    "NOW",
)
_TYPE: Final = ("NULL", "READ", "WRITE", "FREE", "CLAIM", "FLUSH", "TRIM")


class Release(NamedTuple):
    """The words of one line of releases; "" is a bit without a name."""

    bits: Mapping[str, tuple[str, ...]]  # key -> each bit's name
    words: Mapping[str, tuple[str, ...]]  # key -> each value's name
    in_text: frozenset[str]  # the keys for which `zpool events -v` prints names


def _release(
    flags: tuple[str, ...], stages: tuple[str, ...], in_text: tuple[str, ...] = ()
) -> Release:
    return Release(
        {"zio_flags": flags, "zio_stage": stages, "zio_pipeline": stages},
        {"zio_priority": _PRIORITY, "zio_type": _TYPE},
        frozenset(in_text),
    )


_TEXT_2_3: Final = ("zio_flags", "zio_stage", "zio_pipeline", "zio_priority")
_STAGES_0_8: Final = (*_STAGES_0_TO_8, *_DDT, *_STAGES_TO_VERIFY, *_DONE)
_STAGES_2_2: Final = (*_STAGES_0_TO_8, *_BRT, *_DDT, *_STAGES_TO_VERIFY, *_DONE)
_STAGES_2_3: Final = (*_STAGES_0_TO_8, *_BRT, *_DDT, *_STAGES_TO_VERIFY, *_DIO, *_DONE)
_STAGES_2_4: Final = (*_STAGES_0_TO_8, *_DDT, *_BRT, *_STAGES_TO_VERIFY, *_DIO, *_DONE)

_UNTIL_2_1: Final = _release(
    _flags("DONT_CACHE", "IO_ALLOCATING", (), "FASTWRITE"),
    _STAGES_0_8,
)
_2_2: Final = _release(_flags("", "IO_ALLOCATING", (), ""), _STAGES_2_2)
_2_3: Final = _release(
    _flags("[UNUSED 11]", "IO_ALLOCATING", ("DIO_READ",), "DIO_CHKSUM_ERR"),
    _STAGES_2_3,
    _TEXT_2_3,
)
_2_4: Final = _release(
    _flags("[UNUSED 11]", "ALLOC_THROTTLED", ("DIO_READ",), "PREALLOCATED"),
    _STAGES_2_4,
    (*_TEXT_2_3, "zio_type"),
)

_RELEASES: Final = {
    (0, 8): _UNTIL_2_1,
    (2, 0): _UNTIL_2_1,
    (2, 1): _UNTIL_2_1,
    (2, 2): _2_2,
    (2, 3): _2_3,
    (2, 4): _2_4,
}
_DEVELOPMENT: Final = 99  # "2.3.99-...": somewhere between two releases


def release(version: str | None) -> Release | None:
    """Give the words for a module version ("2.1.11-1+deb12u1"); None where they aren't known.

    *version* is as /sys/module/zfs/version has it.
    """
    parts = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?!\d)", version or "")
    if parts is None or int(parts[3] or 0) == _DEVELOPMENT:
        return None
    return _RELEASES.get((int(parts[1]), int(parts[2])))


def bit_names(table: tuple[str, ...], bits: int) -> list[str]:
    """Give the names of the bits set in *bits* (unsigned), lowest first; in hex what has none."""
    names = []
    while bits:
        lowest = bits & -bits
        bits ^= lowest
        position = lowest.bit_length() - 1
        names.append((table[position] if position < len(table) else "") or f"{lowest:#x}")
    return names
