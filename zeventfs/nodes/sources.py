"""sources/: a directory for each source of the mount, which says how it stands."""

from collections.abc import Callable, Mapping

from zeventfs.event import NS
from zeventfs.nodes.base import Attributes, Clock, Directory, Node, SnapshotFile
from zeventfs.printable import shown
from zeventfs.render import time_text
from zeventfs.sources.status import SourceStatus

__all__ = ["Status", "sources_directory"]

Status = Callable[[], SourceStatus]


class SourceDirectory(Directory):
    """`sources/<source>/`, over what *status* tells; its times are those of arrivals."""

    __slots__ = ("_changed_ns",)

    def __init__(self, name: str, status: Status, made_ns: int) -> None:
        def changed_ns() -> int:
            return status().last_arrival_ns or made_ns

        def file(name: str, content: Callable[[SourceStatus], str]) -> SnapshotFile:
            def render() -> bytes:
                return content(status()).encode(errors="backslashreplace")

            return SnapshotFile(f"{key}/{name}", render, changed_ns)

        key = f"sources/{name}"
        self._changed_ns = changed_ns
        children: dict[str, Node] = {name: file(name, content) for name, content in _FILES.items()}
        super().__init__(key, children, made_ns)

    async def measure(self) -> Attributes:
        return Attributes(0, self._changed_ns())


def sources_directory(statuses: Mapping[str, Status], clock_ns: Clock) -> Directory:
    """`sources/`, with the sources' *statuses* by their names."""
    made_ns = clock_ns()
    children: dict[str, Node] = {
        name: SourceDirectory(name, status, made_ns) for name, status in statuses.items()
    }
    return Directory("sources", children, made_ns)


def _state(now: SourceStatus) -> str:
    return f"{now.state.value}\n"


def _reason(now: SourceStatus) -> str:
    """One line, whatever the reason says, or nothing."""
    return f"{shown(now.reason)}\n" if now.reason else ""


def _counters(now: SourceStatus) -> str:
    return (
        f"events={now.events}\n"
        f"gaps={now.gaps}\n"
        f"dropped={now.dropped}\n"
        f"evicted={now.evicted}\n"
        f"failed={now.failed}\n"
        f"cleared={now.cleared}\n"
        f"unknown={now.unknown}\n"
        f"late={now.late}\n"
        f"rate_limited={now.rate_limited}\n"
        f"malformed={now.malformed}\n"
        f"kernel_dropped={now.kernel_dropped}\n"
        f"last_eid={_known(now.last_eid)}\n"
        f"last_time={'' if now.last_time_ns is None else time_text(now.last_time_ns)}\n"
    )


def _lag(now: SourceStatus) -> str:
    if now.last_time_ns is None or now.last_arrival_ns is None:
        seconds = ""
    else:
        behind = now.last_arrival_ns - now.last_time_ns
        whole, fraction = divmod(abs(behind), NS)
        seconds = f"{'-' if behind < 0 else ''}{whole}.{fraction:09d}"
    return f"seconds={seconds}\nwaiting={_known(now.waiting)}\n"


def _known(number: int | None) -> str:
    return "" if number is None else str(number)


_FILES = {"state": _state, "reason": _reason, "counters": _counters, "lag": _lag}
