"""One vdev as the latest events tell it, or the kernel when it was asked; what none told is None.

The kernel's own error counts are taken from the events that carry them, not added up here: so they
are right however many events were lost, and as old as the vdev's latest ereport, or the latest
question.
"""

from typing import Final

from zeventfs.pools.delays import Delays
from zeventfs.pools.facts import Facts
from zeventfs.pools.status import Question, VdevStatus

__all__ = ["Vdev", "text"]

_LAST: Final = 1 << 30  # behind all that have a rank
_LONGEST = 1024  # bytes kept of what an event says, MAXPATHLEN on FreeBSD


class Vdev:
    """A vdev; *guid* is None for what stands for all those that there was no room for.

    `parent` is None for a child of the root, and as long as `placed` is false. `seen` is false
    for a vdev that is known from its children only. `since_ns` is when it came into `state`, None
    if it was in it already when it was first heard of. `gone` says in words how it left the pool,
    `gone_ns` when.

    `name`, `role` and `spare` are as in VdevStatus, "" as long as the kernel wasn't asked; `rank`
    is its place among its pool's vdevs. `told_ns` is the time of the latest event about it.
    """

    __slots__ = (
        "_told",
        "cksum_errors",
        "delays",
        "ereports",
        "gone",
        "gone_ns",
        "guid",
        "name",
        "parent",
        "path",
        "placed",
        "rank",
        "read_errors",
        "role",
        "seen",
        "since_ns",
        "slow",
        "spare",
        "state",
        "told_ns",
        "type",
        "write_errors",
    )

    def __init__(self, guid: int | None) -> None:
        self.guid = guid
        self.name = ""
        self.type = ""
        self.path = ""
        self.role = ""
        self.spare = ""
        self.rank = _LAST
        self.told_ns = 0
        self.parent: int | None = None
        self.placed = False
        self.seen = False
        self._told: object = None
        self.ereports = 0
        self.delays = Delays()
        self.gone = ""
        self.gone_ns = 0
        self.forget()

    def forget(self) -> None:
        """Know no more how it stands, as after an export: the kernel begins anew as well."""
        self.state: int | None = None
        self.since_ns: int | None = None
        self.read_errors: int | None = None
        self.write_errors: int | None = None
        self.cksum_errors: int | None = None
        self.slow: int | None = None

    def clear(self) -> None:
        """Have no errors, as zpool-clear(8) does it."""
        self.read_errors = self.write_errors = self.cksum_errors = self.slow = 0

    def describe(self, facts: Facts) -> bool:
        """Take over what it is and where it is; tell whether that is other than last told."""
        told = (facts.vdev_path, facts.vdev_type, facts.parent_guid, facts.parent_type)
        if told == self._told:
            return False
        size = sum(len(each) for each in told if isinstance(each, bytes))
        self._told = told if size <= _LONGEST else None
        self.seen = True
        if facts.vdev_path is not None:
            self.path = text(facts.vdev_path)
        if facts.vdev_type is not None:
            self.type = text(facts.vdev_type)
        if facts.parent_guid is not None:
            self.placed = True
            self.parent = None if facts.parent_type == b"root" else facts.parent_guid
        return True

    def change(self, state: int, time_ns: int, *, known: bool) -> None:
        """Be in *state*; *known* says that the event tells of the change to it."""
        self.spare = ""
        if state != self.state:
            self.since_ns = time_ns if known or self.state is not None else None
            self.state = state

    def note(self, facts: Facts) -> None:
        """Take over the counts of an ereport, and count it."""
        self.ereports += 1
        if facts.vdev_read_errors is not None:
            self.read_errors = facts.vdev_read_errors
        if facts.vdev_write_errors is not None:
            self.write_errors = facts.vdev_write_errors
        if facts.vdev_cksum_errors is not None:
            self.cksum_errors = facts.vdev_cksum_errors
        if facts.vdev_delays is not None:
            self.slow = facts.vdev_delays

    def settle(self, status: VdevStatus, rank: int, question: Question) -> None:
        """Be as the kernel answered *question*, but for what newer events have told."""
        newer = question.before(self.told_ns)
        if self.gone and newer:
            return
        self.join()
        self.seen = self.placed = True
        self.parent, self.role, self.rank = status.parent, status.role, rank
        self.name = status.name
        self.path = status.path or self.path
        self.type = status.type or self.type
        self._told = None
        if status.state is not None and (self.state is None or not newer):
            self.change(status.state, question.asked_ns, known=False)
            self.spare = status.spare
        for key in ("read_errors", "write_errors", "cksum_errors", "slow"):
            count = getattr(status, key)
            if count is not None and (getattr(self, key) is None or not newer):
                setattr(self, key, count)

    def leave(self, how: str, time_ns: int) -> None:
        """Be no longer in the pool."""
        self.gone, self.gone_ns = how, time_ns

    def join(self) -> None:
        """Be in the pool, and new to it if it had left it."""
        if self.gone:
            self.gone = ""
            self.placed = False
            self._told = None
            self.forget()


def text(value: bytes) -> str:
    """What is kept of a string."""
    return str(value[:_LONGEST], "utf-8", "surrogateescape")
