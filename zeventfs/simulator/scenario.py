"""A scenario as a user writes it: JSON that says which pools there are and what happens to them.

What `decode` accepts can be told, and never ends in an error; what it refuses it refuses with one
sentence that names the place (`$.opening[2].acts[0].times`). The built-in ones, in scenarios/, are
read by the same function.
"""

from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from zeventfs.errors import Invalid
from zeventfs.simulator.acts import ACTS, Act, AnyAct
from zeventfs.simulator.pool import PoolSetup

__all__ = ["DEFAULT", "MAX_BYTES", "Scenario", "Scene", "builtin", "decode", "load"]

DEFAULT = "tank"
MAX_BYTES = 1 << 20  # of a definition
_ACT_NAMES = sorted(str(act.__struct_config__.tag) for act in ACTS)

PoolName = Annotated[str, Meta(pattern=r"^[A-Za-z][-_.: A-Za-z0-9]*$", max_length=200)]


class Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Acts that happen, one after the other, to one pool and one disk of it.

    Where pool or disk are not named, the seed draws them, once each time the scene is played. In a
    `burst` the events come without waiting for one another.
    """

    acts: Annotated[tuple[AnyAct, ...], Meta(min_length=1, max_length=256)]
    pool: str | None = None
    disk: str | None = None
    repeat: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    weight: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    burst: bool = False


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pools by their names; scenes that are played once, and then others for ever, if any.

    The latter in their order or, with `at_random`, each drawn with its weight.
    """

    pools: Annotated[dict[PoolName, PoolSetup], Meta(min_length=1, max_length=64)]
    opening: Annotated[tuple[Scene, ...], Meta(max_length=1024)] = ()
    ever_after: Annotated[tuple[Scene, ...], Meta(max_length=1024)] = ()
    at_random: bool = False
    about: Annotated[str, Meta(max_length=1024)] = ""


@cache
def builtin() -> dict[str, bytes]:
    """The definitions that are installed with zeventfs, by name."""
    directory = resources.files("zeventfs.simulator") / "scenarios"
    files = sorted(directory.iterdir(), key=lambda each: each.name)
    return {each.name.removesuffix(".json"): each.read_bytes() for each in files}


def load(named: str) -> Scenario:
    """The built-in scenario *named*, or the one in the file with that absolute path.

    Raises Invalid with a sentence.
    """
    if not named.startswith("/"):
        if named not in builtin():
            raise Invalid(f"there is no scenario {named[:60]!r}: {', '.join(builtin())}")
        return decode(builtin()[named])
    path = Path(named)
    try:
        if not path.is_file():  # a pipe might never end
            reason = "it is no regular file" if path.exists() else "there is no such file"
            raise Invalid(f"can't read scenario {named!r}: {reason}")
        with path.open("rb") as file:
            definition = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Invalid(f"can't read scenario {named!r}: {error.strerror}") from None
    try:
        return decode(definition)
    except Invalid as reason:
        raise Invalid(f"scenario {named!r}: {reason}") from None


def decode(definition: bytes) -> Scenario:
    """The scenario that JSON *definition* describes. Raises Invalid with a sentence."""
    if len(definition) > MAX_BYTES:
        raise Invalid(f"a scenario has at most {MAX_BYTES} bytes")
    try:
        scenario = msgspec.json.decode(definition, type=Scenario)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error)
        if reason.endswith(".act`"):
            reason += f"; the acts are {', '.join(_ACT_NAMES)}"
        raise Invalid(reason) from None
    except RecursionError:
        raise Invalid("it is nested too deeply") from None
    for fault in _faults(scenario):
        raise Invalid(fault)
    return scenario


def _faults(scenario: Scenario) -> Iterator[str]:
    """What the types alone can't tell, each with its place."""
    if not scenario.opening and not scenario.ever_after:
        yield "nothing happens: opening or ever_after must have a scene"
    if scenario.at_random and not scenario.ever_after:
        yield "at_random has nothing to draw from: ever_after has no scene"
    for name, pool in scenario.pools.items():
        paths = pool.disks + pool.spares
        if len(set(paths)) < len(paths):
            twice = next(path for path in paths if paths.count(path) > 1)
            yield f"a disk is named twice: {twice!r} - at `$.pools[{name!r}]`"
    for part in ("opening", "ever_after"):
        for number, scene in enumerate(getattr(scenario, part)):
            where = f"$.{part}[{number}]"
            yield from _scene_faults(scenario, scene, where)
            if scene.weight != 1 and not (scenario.at_random and part == "ever_after"):
                yield f"only scenes of ever_after with at_random have a weight - at `{where}`"


def _scene_faults(scenario: Scenario, scene: Scene, where: str) -> Iterator[str]:
    if scene.pool is not None and scene.pool not in scenario.pools:
        yield f"there is no pool {scene.pool!r} - at `{where}.pool`"
    elif scene.disk is not None:
        names = scenario.pools if scene.pool is None else (scene.pool,)
        for name in names:
            pool = scenario.pools[name]
            if scene.disk not in pool.disks + pool.spares:
                yield f"pool {name!r} has no disk {scene.disk!r} - at `{where}.disk`"
    for number, act in enumerate(scene.acts):
        for field, value in _ranges(act):
            if value[0] > value[1]:
                yield f"{list(value)} begins after its end - at `{where}.acts[{number}].{field}`"


def _ranges(act: Act) -> Iterator[tuple[str, tuple[float, ...]]]:
    for field in act.__struct_fields__:
        value = getattr(act, field)
        if isinstance(value, tuple):
            yield field, value
