"""Where models go: public ones are announced and fetched by id, private ones vanish with the lease."""

from __future__ import annotations

from pathlib import Path

from cocoon.sdk.npz import save
from tests.loopback.conftest import Settled
from tests.models import five_models


def test_a_private_model_is_gone_from_the_provider_when_the_lease_has_ended(settled: Settled, tmp_path: Path) -> None:
    _, model, inputs = five_models()[0]
    (tmp_path / "model.onnx").write_bytes(model)
    save(tmp_path / "in.npz", inputs)
    leased = settled.provider.home / "leased"
    buyer = settled.town.requester("short-lived")
    command = ("run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "in.npz"), "--json")
    done = settled.town.cocoon(buyer, *command)
    assert done.code == 0, done
    held = [path for path in leased.rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in held] == [model], "a warm lease keeps the model"
    assert buyer.terminate() == 0
    # The drain of a provider waits until every lease is cleared away.
    assert settled.provider.terminate() == 0
    assert not [path for path in leased.rglob("*") if path.is_file()]
    assert model not in b"".join(path.read_bytes() for path in settled.provider.home.rglob("*") if path.is_file())


def test_a_public_model_is_run_by_its_id_from_whoever_announces_it(settled: Settled, tmp_path: Path) -> None:
    name, model, inputs = five_models()[1]
    (tmp_path / "model.onnx").write_bytes(model)
    save(tmp_path / "in.npz", inputs)
    holder = settled.town.provider("holder")
    added = settled.town.cocoon(holder, "models", "add", "--public", str(tmp_path / "model.onnx"), "--json")
    assert added.code == 0, added
    listed = settled.town.cocoon(holder, "models", "ls", "--json")
    model_id = listed.objects[0]["model"]
    run = ("run", model_id, "--input", str(tmp_path / "in.npz"), "--output", str(tmp_path / "out.npz"), "--json")
    seller = settled.town.provider("seller")
    done = settled.town.cocoon(settled.requester, *run)
    assert done.code == 0, done
    assert (tmp_path / "out.npz").exists()
    ran_it = [peer for peer in (holder, seller) if (peer.home / "models" / model_id).is_dir()]
    assert holder in ran_it


def test_an_unknown_model_id_is_not_found(settled: Settled, tmp_path: Path) -> None:
    save(tmp_path / "in.npz", five_models()[0][2])
    done = settled.town.cocoon(settled.requester, "run", "ab" * 32, "--input", str(tmp_path / "in.npz"), "--json")
    assert (done.code, done.error["code"]) == (18, "not_found")
