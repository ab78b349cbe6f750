"""A tape of what the machines of a live peer took and ordered, and a player that gives the same to fresh ones.

A machine is a function of its state, the time and a fact: played again in another
process, from the state that it was born with, it must order the same, to the byte.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cocoon.ledger
import cocoon.scheduler
from cocoon.core.values import Value


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of one machine.

    Attributes:
        machine: Number of the instance, in the order of their first facts.
        state: The machine before this step, pickled, if no step before says it: when it is new, or was changed by hand.
        event: The fact, pickled.
        orders: What followed, spelled.
    """

    machine: int
    kind: str
    state: bytes | None
    now_ns: int
    event: bytes
    orders: str


def machines() -> list[type]:
    """Every class of the product's pure cores that takes facts."""
    found: list[type] = []
    for package in (cocoon.scheduler, cocoon.ledger):
        for path in sorted(Path(package.__path__[0]).glob("*.py")):
            if "Purity: pure" in path.read_text(encoding="utf-8"):
                module = importlib.import_module(f"{package.__name__}.{path.stem}")
                found += [one for one in vars(module).values() if _is_machine(one, module.__name__)]
    return found


def _is_machine(one: Any, module: str) -> bool:
    return isinstance(one, type) and one.__module__ == module and "handle" in vars(one)


def spelled(value: Any) -> str:
    """One text per value, whatever the order of hashes."""
    if isinstance(value, Value) or (is_dataclass(value) and not isinstance(value, type)):
        names = value.__struct_fields__ if isinstance(value, Value) else [item.name for item in fields(value)]
        inner = ", ".join(f"{name}={spelled(getattr(value, name))}" for name in names)
        return f"{type(value).__name__}({inner})"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(spelled(item) for item in value)) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{spelled(key)}: {spelled(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(spelled(item) for item in value) + "]"
    return repr(value)


@dataclass
class Recorder:
    """Wraps ``handle`` of every machine in this process, and writes what passes."""

    out: BinaryIO
    #: By identity: the machine, so that no other gets its place in memory, its number, and how it was left.
    _known: dict[int, tuple[Any, int, str]] = field(default_factory=dict)

    def start(self) -> None:
        """Record from now on."""
        for machine in machines():
            machine.handle = self._around(machine.handle)                       # type: ignore[attr-defined]

    def _around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def handle(machine: Any, now_ns: int, event: Any) -> Any:
            _, number, left = self._known.get(id(machine), (machine, len(self._known), ""))
            state = None if spelled(machine) == left else pickle.dumps(machine)
            fact = pickle.dumps(event)
            orders = inner(machine, now_ns, event)
            self._known[id(machine)] = machine, number, spelled(machine)
            entry = Entry(number, type(machine).__name__, state, now_ns, fact, spelled(orders))
            pickle.dump(entry, self.out)
            self.out.flush()
            return orders

        return handle


def read(path: Path) -> Iterator[Entry]:
    """The steps of a tape; the last one may be cut off by the end of its peer."""
    with path.open("rb") as tape:
        while True:
            try:
                yield pickle.load(tape)
            except EOFError:
                return


@dataclass(frozen=True, slots=True)
class Played:
    """One step, played again."""

    entry: Entry
    orders: str


def play(entries: Sequence[Entry]) -> Iterator[Played]:
    """Give every fact to a machine that began as the recorded one did."""
    there: dict[int, Any] = {}
    for entry in entries:
        if entry.state is not None:
            there[entry.machine] = pickle.loads(entry.state)
        orders = there[entry.machine].handle(entry.now_ns, pickle.loads(entry.event))
        yield Played(entry, spelled(orders))
