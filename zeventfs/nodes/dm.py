"""dm/: a directory for each mapped device, which says how it stands.

A device is known by its serial and not by its name: one that is renamed keeps its directory, its
inodes and whoever has something open of it, and another that takes the name is another directory.
"""

from collections.abc import Callable, Iterator
from urllib.parse import unquote
from weakref import WeakValueDictionary

from zeventfs.bell import Bell
from zeventfs.dm.shown import ShownDevice, ShownDevices
from zeventfs.errors import NotFound
from zeventfs.nodes.base import Directory, Node
from zeventfs.nodes.changing import AttributeFile, ChangingDirectory, all_of
from zeventfs.nodes.dm_text import paths_text, state_text, status_text, table_text
from zeventfs.nodes.journal_files import Surroundings
from zeventfs.nodes.views import Views
from zeventfs.printable import printable

__all__ = ["DmDirectory", "dm_directory"]

_SOURCE = "dm"
_LONGEST_NAME = 255  # bytes, NAME_MAX; a device's 127 are up to 381 when they are escaped


def _called(device: ShownDevice) -> str:
    """What the directory of *device* is called; a name that is too long ends with its serial."""
    name = printable(device.name)
    if len(name) <= _LONGEST_NAME:
        return name
    end = f"~{device.serial}"
    return name[: _LONGEST_NAME - len(end)] + end


class DmDirectory(Directory):
    """`dm/`; whoever may wait for a change of a device does so on one of `bells`."""

    __slots__ = ("_around", "_devices", "_known", "_views")

    def __init__(self, devices: ShownDevices, views: Views, around: Surroundings) -> None:
        self._devices = devices
        self._views = views
        self._around = around
        self._known: WeakValueDictionary[int, ChangingDirectory] = WeakValueDictionary()
        super().__init__("dm", {}, around.clock_ns())

    def bells(self) -> Iterator[Bell]:
        """The bells of all devices."""
        for device in all_of(self._devices):
            yield device.changed

    def lookup(self, name: str) -> Node:
        device = self._devices.get(unquote(name, errors="surrogateescape"))
        if device is None and len(name) == _LONGEST_NAME:
            device = next((each for each in all_of(self._devices) if _called(each) == name), None)
        if device is None or _called(device) != name:  # there is one way only to write it here
            raise NotFound(f"there is no device {name}")
        return self._directory(device)

    def entries(self) -> Iterator[tuple[str, Node]]:
        for device in all_of(self._devices):
            yield _called(device), self._directory(device)

    def _directory(self, device: ShownDevice) -> Node:
        known = self._known.get(device.serial)
        if known is None:
            known = self._known[device.serial] = self._made(device)
        return known

    def _made(self, device: ShownDevice) -> ChangingDirectory:
        key = f"dm/device-{device.serial}"
        contents: dict[str, Callable[[], bytes]] = {
            "state": lambda: state_text(device.facts, device.changed_ns),
            "table": lambda: table_text(device.facts),
            "status": lambda: status_text(device.facts),
            "paths": lambda: paths_text(device.facts, device.paths()),
        }
        files = {
            name: AttributeFile(f"{key}/{name}", device, content)
            for name, content in contents.items()
        }
        condition = f"source={_SOURCE},device={device.serial}"
        return ChangingDirectory(key, device, files, condition, self._views, self._around)


def dm_directory(devices: ShownDevices, views: Views, around: Surroundings) -> DmDirectory:
    """`dm/`, over what *devices* shows at any time; *views* are of the journal in *around*."""
    return DmDirectory(devices, views, around)
