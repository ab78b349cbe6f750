"""``cocoon sim``: one object in the end, exit codes, and files that come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cocoon.cli.main import main
from cocoon.core.errors import BadScenario, RuleBroken
from tests.unit.sim.worlds import text


def last(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    line: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def test_a_run_ends_with_a_digest_and_figures_and_its_recording_gives_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, record = tmp_path / "a.toml", tmp_path / "r.json"
    scenario.write_text(text(), encoding="utf-8")
    assert main(["sim", "run", str(scenario), "--seed", "3", "--record", str(record), "--json"]) == 0
    ran = last(capsys)["summary"]
    assert isinstance(ran, dict) and len(ran["digest"]) == 32 and ran["metrics"]["tasks"] == 5
    assert main(["sim", "replay", str(record), "--json"]) == 0
    assert last(capsys)["summary"] == {**ran, "same": True}
    assert main(["sim", "shrink", str(record), str(tmp_path / "s.json"), "--json"]) == 0
    assert last(capsys)["summary"] == ran


def test_several_seeds_give_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "a.toml"
    scenario.write_text(text(), encoding="utf-8")
    assert main(["sim", "run", str(scenario), "--seeds", "3", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_another_digest_than_the_recorded_one_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "r.json"
    record.write_text(
        json.dumps({"form": 1, "scenario": text(), "seed": 1, "digest": "0" * 32, "faults": []}), encoding="utf-8"
    )
    assert main(["sim", "replay", str(record), "--json"]) == RuleBroken.exit_code
    told = last(capsys)
    assert told["error"]["code"] == "rule_broken"           # type: ignore[index]


@pytest.mark.parametrize("content", [b"speed = 9", b"\xff\xfe", b"{}"])
def test_what_is_no_scenario_is_refused_with_its_own_code(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_bytes(content)
    for command in ("run", "replay"):
        assert main(["sim", command, str(bad), "--json"]) == BadScenario.exit_code
        assert "bad_scenario" in capsys.readouterr().out
    assert main(["sim", "run", str(tmp_path / "nowhere.toml")]) == 2
