"""``cocoon sim``: a market in one process, with the machines of the product and time that is only counted.

The only module of the product that imports the simulator.

Purity: shell. Spec: docs/spec/simulation.md, rules SIM-13 and SIM-14.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cocoon.cli.output import Printer

_RECORDING_BYTES = 1 << 24
#: A world holds millions of objects that live long; looking for cycles among them was a fifth of a large one's time.
_COLLECTED = 100_000, 50, 1_000


@contextmanager
def collected_seldom() -> Iterator[None]:
    """For the block, as worlds want it; a seed takes a seventh longer without."""
    found = gc.get_threshold()
    gc.set_threshold(*_COLLECTED)
    try:
        yield
    finally:
        gc.set_threshold(*found)


@click.group()
def sim() -> None:
    """Run simulated markets, and run one that failed again."""
    click.get_current_context().with_resource(collected_seldom())


@sim.command("run")
@click.argument("scenario")
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=1, show_default=True, metavar="N",
              help="Everything that is drawn by lot follows from it.")
@click.option("--seeds", type=click.IntRange(1, 1 << 20), default=1, show_default=True, metavar="COUNT",
              help="Run so many, from --seed on.")
@click.option("--record", metavar="FILE", default=None, help="Write what `cocoon sim replay` needs, of the last run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the last one sums up.")
def run(scenario: str, seed: int, seeds: int, record: str | None, as_json: bool) -> int:
    """Run SCENARIO, a TOML file or the name of one that comes with Cocoon.

    Ends with a digest of everything that every machine did, and with figures.
    The first seed that breaks a rule ends the command.
    """
    from sim.recording import pack_recording
    from sim.scenario import read_scenario
    from sim.world import World

    printer, text = Printer(as_json), _scenario_text(scenario)
    read = read_scenario(text)
    for number in range(seed, seed + seeds):
        found = World(read, number).run()
        if record is not None:
            _write(record, pack_recording(text, found))
        if found.breaches or number == seed + seeds - 1:
            return _end(printer, found.summary(), _broken(found.breaches))
        printer.item(found.summary())
    return 0


@sim.command("replay")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the last one sums up.")
def replay(file: str, as_json: bool) -> int:
    """Run a recorded world again, and compare."""
    from cocoon.core.errors import RuleBroken
    from sim.recording import replayed, unpack_recording

    recording = unpack_recording(_read(file))
    found = replayed(recording)
    same = found.digest == recording.digest
    other = None if same else RuleBroken(f"the recording ended with digest {recording.digest}, now it is another")
    return _end(Printer(as_json), {**found.summary(), "same": same}, _broken(found.breaches) or other)


@sim.command("shrink")
@click.argument("file")
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the last one sums up.")
def shrink(file: str, output: str, as_json: bool) -> int:
    """Leave out of a recorded world that broke a rule every accident that it does not need, and write OUTPUT."""
    from sim.recording import pack_again, replayed, unpack_recording
    from sim.shrinking import shrunk

    recording = shrunk(unpack_recording(_read(file)))
    found = replayed(recording)
    _write(output, pack_again(recording, found))
    return _end(Printer(as_json), found.summary(), None)


def _broken(breaches: tuple[str, ...]) -> Any:
    from cocoon.core.errors import RuleBroken

    return RuleBroken(f"{len(breaches)} breaches, the first at {breaches[0]}") if breaches else None


def _end(printer: Printer, summary: dict[str, Any], failure: Any) -> int:
    printer.fields({key: value for key, value in summary.items() if key not in ("metrics", "breaches")})
    printer.fields(summary["metrics"])
    for breach in summary["breaches"]:
        printer.line(f"broken: {breach}")
    return printer.end(summary, failure)


def _scenario_text(name: str) -> str:
    from importlib.resources import files

    packaged = files("sim") / "scenarios" / f"{name}.toml"
    if "/" not in name and packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return _read(name)


def _read(path: str) -> str:
    from cocoon.core.errors import BadScenario

    with open(path, "rb") as file:
        data = file.read(_RECORDING_BYTES + 1)
    if len(data) > _RECORDING_BYTES:
        raise BadScenario(f"{path} has more than {_RECORDING_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadScenario(f"{path} is no text") from None


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
