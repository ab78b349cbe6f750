"""Scenarios: what a world is made of, read from TOML; a key that nobody knows is an error.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-14.
"""

from __future__ import annotations

import tomllib
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cocoon.core.errors import BadScenario
from cocoon.core.limits import LANE_LIFE_S
from cocoon.core.values import Value
from sim.engine.compute import RUN_US
from sim.engine.faults import Accidents
from sim.engine.network import Weather
from sim.engine.regions import REGIONS

T = TypeVar("T", bound=Value)
Range = tuple[int, int]

#: What one world may be at most: minutes of work and some gigabytes of memory.
SECONDS, PEERS, TASKS, MODELS, MODEL_MIB = 86_400, 20_000, 1_000_000, 1_000, 2_000


class Providers(Value):
    """A group of sellers. A range is drawn from anew for each of them; prices are nanoton per 1,000 runs."""

    name: str
    count: int = 1
    ask_nanoton: Range = (0, 0)
    setup_nanoton: int = 0
    floor_percent: int = 100
    idle_discount_percent: int = 0
    slowness_percent: Range = (100, 100)
    leases: int = 8
    joins_s: int = 0
    #: 0 stays to the end.
    leaves_s: int = 0
    #: Dishonest: bids are so much above the own asks.
    above_ask_percent: int = 0


class Requesters(Value):
    """A group of buyers; each submits ``tasks`` of them, ``every_ms`` on average."""

    name: str
    count: int = 1
    tasks: int = 10
    every_ms: int = 1_000
    begins_s: int = 2
    units: Range = (1, 1)
    spread: Range = (1, 1)
    deadline_s: int = 30
    lease_idle_s: int = 30


class Scenario(Value):
    """A world, but for its seed."""

    name: str
    seconds: int
    providers: tuple[Providers, ...]
    requesters: tuple[Requesters, ...]
    #: Everything costs what is asked, on a chain of its own.
    paid: bool = False
    block_ms: int = 500
    #: Of a new lane, at least; it also outlives the lease that it is opened for.
    lane_life_s: int = LANE_LIFE_S
    models: int = 1
    #: So many of these are decoders, billed by the token.
    decoders: int = 0
    model_mib: int = 3
    #: One run of a model on the machine whose slowness is 100 per cent.
    run_us: int = RUN_US
    #: By number in ``REGIONS``; 1 puts everybody into the first.
    regions: int = len(REGIONS)
    drift_ppm: int = 0
    wall_skew_s: int = 0
    weather: Weather = Weather()
    faults: Accidents = Accidents()

    @property
    def peers(self) -> int:
        """How many there are."""
        return sum(group.count for group in self.providers) + sum(group.count for group in self.requesters)


def read_scenario(text: str) -> Scenario:
    """Read a scenario.

    Raises:
        BadScenario: no TOML, an unknown key, a value of another type, or a world that is too large or empty.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario(f"no TOML: {error}") from None
    found = _read(Scenario, table, "")
    if (flaw := _flaw(found)) is not None:
        raise BadScenario(flaw)
    return found


def _flaw(found: Scenario) -> str | None:
    tasks = sum(group.count * group.tasks for group in found.requesters)
    for name, value, most in (
        ("seconds", found.seconds, SECONDS), ("peers", found.peers, PEERS), ("tasks", tasks, TASKS),
        ("models", found.models, MODELS), ("model_mib", found.model_mib, MODEL_MIB),
        ("regions", found.regions, len(REGIONS)),
    ):
        if not 1 <= value <= most:
            return f"{name} is {value}, outside 1 to {most}"
    if found.decoders > found.models:
        return f"decoders are {found.decoders}, more than the {found.models} models"
    if not found.providers or not found.requesters:
        return "a market has providers and requesters"
    names = [group.name for group in found.providers] + [group.name for group in found.requesters]
    if len(set(names)) != len(names):
        return "two groups have one name"
    if any(group.every_ms < 1 or group.units[0] < 1 or group.spread[0] < 1 for group in found.requesters):
        return "every_ms, units and spread begin at 1"
    return None


def _read(cls: type[T], table: Any, where: str) -> T:
    if not isinstance(table, dict):
        raise BadScenario(f"{where or 'the scenario'} is no table")
    hints, known = get_type_hints(cls), set(cls.__struct_fields__)
    if unknown := sorted(set(table) - known):
        raise BadScenario(f"unknown key {where}{unknown[0]}; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = {name: _value(hints[name], value, f"{where}{name}") for name, value in table.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise BadScenario(f"{where or 'the scenario'} lacks a key: {error}") from None


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind == Range:
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) != 2 or not all(_is_count(item) for item in pair) or pair[0] > pair[1]:
            raise BadScenario(f"{where} is a number from 0 on, or [least, most]")
        return tuple(pair)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise BadScenario(f"{where} is a list of tables: [[{where}]]")
        return tuple(_read(get_args(kind)[0], item, f"{where}.") for item in value)
    if kind in (Weather, Accidents):
        return _read(kind, value, f"{where}.")
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and _is_count(value):
        return value
    if kind is str and isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable():
        return value
    raise BadScenario(f"{where} is not a {kind.__name__}" + (" from 0 on" if kind is int else ""))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
