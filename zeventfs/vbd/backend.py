"""All VBDs of one backend: one machine for each, from its path's appearance until it is freed.

There are never two machines of one VBD. A path that appears while the channel of an earlier one
still closes waits for it (RECYCLED), and gets its machine when the driver probes again.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

from zeventfs.vbd.facts import Destroy, Effect, Fact, PathRecreated, PathRemoved
from zeventfs.vbd.machine import LIMITS, Machine
from zeventfs.vbd.states import Channel, Request

__all__ = ["Backend"]

Id = TypeVar("Id", bound=Hashable)


class Backend(Mapping[Id, Machine]):
    """The machines by the ids of their VBDs.

    Everything is told to a machine through the backend, which forgets it with its Destroy.
    """

    def __init__(self, limits: Mapping[Channel, float] = LIMITS) -> None:
        self._limits = limits
        self._machines: dict[Id, Machine] = {}

    def __getitem__(self, vbd: Id) -> Machine:
        return self._machines[vbd]

    def __iter__(self) -> Iterator[Id]:
        return iter(self._machines)

    def __len__(self) -> int:
        return len(self._machines)

    def appear(self, vbd: Id) -> list[Effect]:
        """The path is there: found by a probe, or made just now."""
        if vbd in self._machines:
            return self.hear(vbd, PathRecreated())
        self._machines[vbd] = Machine(limits=self._limits)
        return []

    def adopt(self, vbd: Id, machine: Machine) -> list[Effect]:
        """Take over a tapdisk that was found, with a *machine* in the states it was found in."""
        if vbd in self._machines:
            raise ValueError(f"VBD {vbd} has a machine")
        self._machines[vbd] = machine
        return self._told(vbd, machine.resume())

    def vanish(self, vbd: Id) -> list[Effect]:
        """The path is gone."""
        return self.hear(vbd, PathRemoved())

    def vanish_all(self) -> list[tuple[Id, list[Effect]]]:
        """All paths are gone at once, as when the backend's root is reset: each is closed."""
        return [(vbd, self.vanish(vbd)) for vbd in list(self._machines)]

    def ask(self, vbd: Id, request: Request) -> list[Effect]:
        """As Machine.ask. Raises KeyError if there is no such VBD."""
        return self._told(vbd, self._machines[vbd].ask(request))

    def hear(self, vbd: Id, fact: Fact) -> list[Effect]:
        """As Machine.hear; of a VBD that is gone it comes too late."""
        machine = self._machines.get(vbd)
        return [] if machine is None else self._told(vbd, machine.hear(fact))

    def _told(self, vbd: Id, effects: list[Effect]) -> list[Effect]:
        if Destroy() in effects:
            del self._machines[vbd]
        return effects
