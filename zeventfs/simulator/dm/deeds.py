"""What can be written to have the simulator's mapped devices do it: a line each, words apart.

create NAME KIND            linear, multipath, mirror, snapshot or thin-pool
suspend NAME
resume NAME
rename NAME NEW
remove NAME
fail_path NAME PATH         major:minor, as below
reinstate_path NAME PATH
switch_group NAME NUMBER
disable_group NAME NUMBER
enable_group NAME NUMBER
fail_leg NAME NUMBER [HOW]  D, S, R or F; legs count from 0
fail_log NAME [HOW]         D or F
fill NAME NUMBER            sectors of a snapshot, blocks of a pool
extend NAME NUMBER          blocks that a pool has from now on
mode NAME MODE              of a pool: rw, ro, out_of_data_space or Fail
lose NUMBER                 so many uevents reach nobody
"""

from collections.abc import Callable, Mapping
from typing import Final

from zeventfs.simulator.dm.devices import Devices
from zeventfs.simulator.dm.story import made
from zeventfs.simulator.dm.targets import Snapshot

__all__ = ["DEEDS"]


def _create(devices: Devices, name: str, kind: str) -> None:
    devices.create(name, made(kind))


def _switch_group(devices: Devices, name: str, number: str) -> None:
    devices.use_group(name, int(number))


def _disable_group(devices: Devices, name: str, number: str) -> None:
    devices.bypass_group(name, int(number), bypassed=True)


def _enable_group(devices: Devices, name: str, number: str) -> None:
    devices.bypass_group(name, int(number), bypassed=False)


def _fail_leg(devices: Devices, name: str, number: str, how: str = "D") -> None:
    devices.fail_leg(name, int(number), how)


def _fill(devices: Devices, name: str, number: str) -> None:
    table = devices.device(name).table
    fill = devices.fill_snapshot if table and isinstance(table[0], Snapshot) else devices.fill_pool
    fill(name, int(number))


def _extend(devices: Devices, name: str, number: str) -> None:
    devices.extend_pool(name, int(number))


def _lose(devices: Devices, number: str) -> None:
    devices.lose(int(number))


DEEDS: Final[Mapping[str, Callable[..., None]]] = {
    "create": _create,
    "suspend": Devices.suspend,
    "resume": Devices.resume,
    "rename": Devices.rename,
    "remove": Devices.remove,
    "fail_path": Devices.fail_path,
    "reinstate_path": Devices.reinstate_path,
    "switch_group": _switch_group,
    "disable_group": _disable_group,
    "enable_group": _enable_group,
    "fail_leg": _fail_leg,
    "fail_log": Devices.fail_log,
    "fill": _fill,
    "extend": _extend,
    "mode": Devices.set_pool_mode,
    "lose": _lose,
}
"""The first words of a line. All raise OSError, KeyError or ValueError for what can't be done."""
