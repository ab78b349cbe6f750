"""A scenario or a recording that is not understood to the last key is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cocoon.core.errors import BadScenario
from sim.recording import pack_recording, replayed, unpack_recording
from sim.scenario import read_scenario
from tests.unit.sim.worlds import SCENARIOS, run, text


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_that_comes_with_cocoon_is_read(path: Path) -> None:
    assert read_scenario(path.read_text(encoding="utf-8")).peers > 1


@pytest.mark.parametrize("wrong", [
    text(speed=9), text(seconds=0), text(seconds='"long"'), text(seconds="true"), text(seconds=10**9), text(paid=1),
    text(models=0), text(regions=9), text(name='""'), text(weather="3"), text(weather="{rain = 1}"),
    text(faults="{kills = -1}"), text() + "units = [3, 1]\n", text() + "units = [0, 1]\n", text() + "every_ms = 0\n",
    text() + '[[requesters]]\nname = "r"\n', text() + "[[requesters]]\ncount = 1\n", "seconds = 3", "= nothing",
    text() + "[[providers]]\n" + 'name = "many"\ncount = 100000\n', 'name = "x"\nseconds = 1\nproviders = []',
], ids=range(21))
def test_what_is_no_scenario_is_refused(wrong: str) -> None:
    with pytest.raises(BadScenario):
        read_scenario(wrong)


def test_a_recording_gives_the_same_run_and_one_with_fewer_accidents_another() -> None:
    written = text(faults="{kills = 3, until_s = 20}")
    _, found = run(read_scenario(written), 5)
    packed = pack_recording(written, found)
    assert replayed(unpack_recording(packed)) == found
    table = json.loads(packed)
    table["faults"] = table["faults"][1:]
    assert replayed(unpack_recording(json.dumps(table))).digest != found.digest


@pytest.mark.parametrize("change", [
    {"form": 2}, {"seed": "1"}, {"faults": [[0, "flood", 1, [0]]]}, {"faults": [[0, "kill", 1, [9]]]},
    {"faults": [[0, "kill", -1, [0]]]}, {"scenario": "seconds = 1"}, {"digest": None},
])
def test_what_is_no_recording_is_refused(change: dict[str, object]) -> None:
    table = {"form": 1, "scenario": text(), "seed": 1, "digest": "", "faults": []} | change
    with pytest.raises(BadScenario):
        unpack_recording(json.dumps(table))
    with pytest.raises(BadScenario):
        unpack_recording("no json")
