"""Mapped devices to show, without device-mapper behind them: a test says what becomes of them."""

from collections.abc import Iterator, Mapping

from zeventfs.bell import Bell
from zeventfs.dm.facts import DeviceFacts, TargetFacts
from zeventfs.dm.shown import PathSince, ShownDevice
from zeventfs.event import Event
from zeventfs.journal.journal import Journal
from zeventfs.nvlist import Type

__all__ = ["BEGIN_NS", "FACTS", "LINEAR", "MULTIPATH", "Devices", "Mapped"]

BEGIN_NS = 1_700_000_000 * 10**9
LINEAR = TargetFacts(0, 65536, "linear", "7:0 0", "")
MULTIPATH = TargetFacts(
    0,
    65536,
    "multipath",
    "0 0 2 1 round-robin 0 1 1 7:1 1 round-robin 0 1 1 7:2 1 ",
    "2 1 0 0 2 1 E 0 1 0 7:1 F 12 A 0 1 0 7:2 A 0 ",
)
FACTS = DeviceFacts(
    name="lin",
    uuid="LVM-abc",
    major=253,
    minor=3,
    suspended=False,
    live=True,
    inactive=False,
    read_only=False,
    event_nr=0,
    open_count=0,
    targets=(LINEAR,),
)


class Mapped:
    """One mapped device (ShownDevice); what becomes of it is an event."""

    def __init__(self, devices: "Devices", serial: int, facts: DeviceFacts) -> None:
        self._devices = devices
        self.serial = serial
        self.name = facts.name
        self.names: tuple[str, ...] = (facts.name,)
        self.facts = facts
        self.changed_ns = BEGIN_NS
        self.changes = 0
        self.changed = Bell()
        self.gone = False
        self.since: dict[str, PathSince] = {}

    def paths(self) -> Mapping[str, PathSince]:
        return self.since

    def become(self, event: str, facts: DeviceFacts) -> None:
        """Stand so, which is told as *event*."""
        self.facts = facts
        self.changes += 1
        self.changed_ns += 10**9
        self._devices.post(self, event)
        self.changed.ring()


class Devices:
    """Mapped devices by name (ShownDevices); what happens to them is posted to *journal*."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._devices: dict[str, Mapped] = {}
        self._made = 0
        self.changed = Bell()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._devices))

    def get(self, name: str) -> ShownDevice | None:
        return self._devices.get(name)

    def create(self, name: str, *targets: TargetFacts) -> Mapped:
        self._made += 1
        facts = FACTS._replace(name=name, minor=self._made, targets=targets or (LINEAR,))
        device = self._devices[name] = Mapped(self, self._made, facts)
        self.post(device, "dm.created")
        self.changed.ring()
        return device

    def rename(self, name: str, new: str) -> None:
        device = self._devices[new] = self._devices.pop(name)
        device.name = new
        device.names = (*device.names, new)
        device.become("dm.renamed", device.facts._replace(name=new))
        self.changed.ring()

    def remove(self, name: str) -> None:
        device = self._devices.pop(name)
        self.post(device, "dm.removed")
        device.gone = True
        device.changed.ring()
        self.changed.ring()

    def post(self, device: Mapped, event: str) -> None:
        pairs = [("name", Type.STRING, device.name), ("device", Type.UINT64, device.serial)]
        self._journal.append(Event.make("dm", event, device.changed_ns, pairs))
