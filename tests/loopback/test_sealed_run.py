"""A stranger runs a real model for another: the issue's thin and true path, on real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cocoon.ledger.verify import verify_record
from cocoon.sdk.npz import load, save
from tests.loopback.conftest import Settled
from tests.models import five_models


@pytest.mark.parametrize("name", [name for name, _, _ in five_models()])
def test_a_user_model_gives_the_very_bits_of_a_local_onnx_runtime(settled: Settled, tmp_path: Path, name: str) -> None:
    model, inputs = next((model, inputs) for found, model, inputs in five_models() if found == name)
    (tmp_path / "model.onnx").write_bytes(model)
    save(tmp_path / "in.npz", inputs)
    done = settled.town.cocoon(
        settled.requester, "run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "in.npz"),
        "--output", str(tmp_path / "out.npz"), "--json",
    )
    assert done.code == 0, done
    subprocess.run(
        [sys.executable, "-m", "tests.loopback.run_directly", str(tmp_path / "model.onnx"),
         str(tmp_path / "in.npz"), str(tmp_path / "direct.npz")], check=True, cwd=Path(__file__).parents[2],
    )
    ours, direct = load(tmp_path / "out.npz"), load(tmp_path / "direct.npz")
    assert sorted(ours) == sorted(direct)
    for key in direct:
        assert ours[key].dtype == direct[key].dtype and ours[key].shape == direct[key].shape
        if direct[key].dtype == object:
            assert ours[key].tolist() == direct[key].tolist()
        else:
            assert ours[key].tobytes() == direct[key].tobytes()


def test_each_output_stands_under_a_receipt_of_the_provider(settled: Settled, tmp_path: Path) -> None:
    _, model, inputs = five_models()[0]
    (tmp_path / "model.onnx").write_bytes(model)
    names = []
    for index in range(3):
        names += ["--input", str(tmp_path / f"in{index}.npz")]
        save(tmp_path / f"in{index}.npz", {key: np.roll(value, index) for key, value in inputs.items()})
    done = settled.town.cocoon(
        settled.requester, "run", str(tmp_path / "model.onnx"), *names, "--output", str(tmp_path / "out"), "--json"
    )
    assert done.code == 0, done
    hashes = {item["output_hash"] for item in done.objects if "output_hash" in item}
    assert len(hashes) == 3
    summary = done.objects[-1]["summary"]
    record_file = tmp_path / "receipt"
    covered = set()
    for receipt in summary["receipts"]:
        shown = settled.town.cocoon(
            settled.requester, "receipts", "show", receipt, "--output", str(record_file), "--force", "--json"
        )
        assert shown.code == 0, shown
        facts = verify_record(record_file.read_bytes())
        assert facts.provider.hex() and summary["provider"].startswith("12D3KooW")
        covered |= {commitment.hash.hex() for commitment in facts.outputs}
        checked = settled.town.cocoon(tmp_path / "nobody", "receipts", "verify", str(record_file), "--json")
        assert checked.code == 0 and checked.objects[-1]["summary"]["verified"] is True
    assert hashes <= covered


def test_the_requester_never_maps_onnx_runtime(settled: Settled, tmp_path: Path) -> None:
    _, model, inputs = five_models()[1]
    (tmp_path / "model.onnx").write_bytes(model)
    save(tmp_path / "in.npz", inputs)
    run = settled.town.cocoon(
        settled.requester, "run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "in.npz"),
        "--output", str(tmp_path / "out.npz"), "--json",
    )
    assert run.code == 0
    assert not any("onnxruntime" in maps(pid) for pid in settled.requester.tree())
    provider_maps = [maps(pid) for pid in settled.provider.tree()]
    assert "onnxruntime" not in provider_maps[0], "the peer itself must not import it"
    assert any("onnxruntime" in text for text in provider_maps[1:]), "no worker maps it, so the witness sees nothing"


def maps(pid: int) -> str:
    """Every file mapped by a process."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_listing_speaks_json_line_by_line(settled: Settled) -> None:
    offers = settled.town.cocoon(settled.requester, "offers", "--json")
    assert offers.code == 0
    assert offers.objects[-1] == {"summary": {"offers": 1}}
    assert json.loads(offers.out.splitlines()[0])["execution_provider"]


def test_the_market_of_a_free_town_names_no_private_model_and_a_bootstrap_has_no_part_in_it(
    settled: Settled, tmp_path: Path
) -> None:
    _, model, inputs = five_models()[2]
    (tmp_path / "model.onnx").write_bytes(model)
    save(tmp_path / "in.npz", inputs)
    words = ("run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "in.npz"), "--json")
    assert settled.town.cocoon(settled.requester, *words).code == 0
    sold = settled.town.cocoon(settled.provider, "market", "--json").objects
    calls = [item for item in sold if item.get("part") == "calls"]
    assert {(call["model"], call["bid_nanoton"], call["outcome"]) for call in calls} <= {
        ("private", 0, "won"), ("private", 0, "")
    }
    assert sold[-1]["summary"]["won"] >= 1 and sold[-1]["summary"]["lost"] == 0
    bought = settled.town.cocoon(settled.requester, "market", "--json").objects[-1]["summary"]
    assert bought["calls"] == 0 < bought["auctions"]
    assert settled.town.cocoon(settled.bootstrap, "market", "--json").error["code"] == "no_local_peer"
