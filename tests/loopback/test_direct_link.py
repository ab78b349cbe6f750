"""P2P-10, LEA-2: a lease runs on a connection of its own where both sides want one, and on the shared one else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cocoon.sdk.npz import save
from tests.loopback.town import town
from tests.models import affine_inputs, affine_model


@pytest.mark.parametrize(("provider", "requester"), [("true", "true"), ("false", "true"), ("true", "false")])
def test_a_run_comes_back_whichever_way_its_lease_takes(tmp_path: Path, provider: str, requester: str) -> None:
    (tmp_path / "model.onnx").write_bytes(affine_model())
    save(tmp_path / "in.npz", affine_inputs())
    with town(tmp_path) as place:
        place.bootstrap()
        seller = place.provider(direct_links=provider)
        buyer = place.requester(direct_links=requester)
        done = place.cocoon(
            buyer, "run", str(tmp_path / "model.onnx"), *("--input", str(tmp_path / "in.npz")) * 3, "--json"
        )
        assert done.code == 0, done
        sold = [line for line in map(json.loads, seller.log().splitlines()) if line["event"] == "lease_sold"]
    assert [line["direct"] for line in sold] == [provider == requester == "true"]
