"""P2P-10, LEA-2: a lease runs on a connection of its own where both sides want one, and on the shared one else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import cocoon
from cocoon.core.units import KIB, MIB
from cocoon.sdk.npz import save
from tests.loopback.town import town
from tests.models import adder_model, affine_inputs, affine_model


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


def test_a_transfer_of_64_mib_whose_connection_breaks_at_half_goes_on_over_the_shared_one(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(adder_model())
    value = np.random.default_rng(1).standard_normal((64 * MIB - KIB) // 4, dtype=np.float32)
    with town(tmp_path) as place:
        place.bootstrap()
        seller = place.provider()
        buyer = place.start("requester", "tests.loopback.cutting", str(32 * MIB), "up", "--join", place.link)
        buyer.wait_line("ready")
        result = cocoon.connect(buyer.home).run(tmp_path / "model.onnx", {"x": value})
        sold, = [line for line in map(json.loads, seller.log().splitlines()) if line["event"] == "lease_sold"]
        resumed, = [line for line in map(json.loads, buyer.log().splitlines()) if line["event"] == "link_resumed"]
    assert hashlib.sha256(result.outputs["y"]).digest() == hashlib.sha256(value + np.float32(1)).digest()
    assert sold["direct"] and sold["lease"] == resumed["lease"] and result.receipt is not None
