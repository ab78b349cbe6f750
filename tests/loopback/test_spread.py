"""A task over three providers at once, one of which is killed half-way: complete, in order, each unit paid once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.core.units import NANOTON_PER_TON
from cocoon.sdk.npz import load, save
from tests import journals
from tests.loopback.paid import ASKS, TON, Market, accepted, covered, market, until
from tests.loopback.town import Peer
from tests.models import affine_inputs, affine_model

UNITS = 240
#: What the first asks per 1,000 runs, the second and the third more; a receipt is due every dozen runs or so.
RUN_NANOTON_PER_1000 = (40_000_000, 50_000_000, 60_000_001)
NAMES = ("provider", "second", "third")


def asks(index: int) -> dict[str, str]:
    """The prices of one provider."""
    return {**ASKS, "price_run_nanoton": str(RUN_NANOTON_PER_1000[index])}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with three providers at three prices."""
    with market(tmp_path_factory.mktemp("market"), **asks(0)) as place:
        for index in (1, 2):
            cocoon.connect(place.place.provider(NAMES[index], **asks(index)).home).fund(10 * TON)
        until(lambda: len(place.buyer.offers()) == 3, "the offers of all three")
        yield place


def providers(here: Market) -> dict[str, Peer]:
    """The living providers, by peer id."""
    alive = [peer for peer in here.place.peers if peer.name in NAMES and peer.process.poll() is None]
    return {str(cocoon.connect(peer.home).status()["peer"]): peer for peer in alive}


def feeds(units: int) -> list[dict[str, np.ndarray]]:
    """As many different inputs of the affine model."""
    return [{name: np.roll(array, index) + index for name, array in affine_inputs().items()} for index in range(units)]


def directly(folder: Path, model: Path, inputs: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """What ONNX Runtime computes in a process of its own."""
    files = [(folder / f"in{index}.npz", folder / f"out{index}.npz") for index in range(len(inputs))]
    for (source, _), tensors in zip(files, inputs, strict=True):
        save(source, tensors)
    names = [str(path) for pair in files for path in pair]
    command = [sys.executable, "-m", "tests.loopback.run_directly", str(model), *names]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    return [load(target) for _, target in files]


def test_one_of_three_providers_is_killed_and_the_task_is_complete_in_order_and_paid_once(
    here: Market, tmp_path: Path
) -> None:
    model = tmp_path / "affine.onnx"
    model.write_bytes(affine_model())
    inputs, alive = feeds(UNITS), providers(here)
    by_provider: Counter[str] = Counter()
    events: list[dict[str, Any]] = []
    victim = next(who for who, peer in alive.items() if peer.name == "second")

    def hear(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "result":
            by_provider[event["provider"]] += 1
            if event["provider"] == victim and by_provider[victim] == 20:
                alive[victim].kill()

    results = here.buyer.run(model, inputs, spread=3, deadline_s=60, on_event=hear)

    assert [result.unit for result in results] == list(range(UNITS))
    for result, due in zip(results, directly(tmp_path, model, inputs), strict=True):
        assert {name: array.tobytes() for name, array in result.outputs.items()} == {
            name: array.tobytes() for name, array in due.items()
        }
    assert by_provider.keys() == alive.keys(), "a provider had nothing to do"
    assert victim not in {result.provider for result in results[-UNITS // 4:]}

    units = journals.accepted(here.requester.home)
    assert sorted(unit.unit for unit in units) == list(range(UNITS)), "a unit was accepted twice, or not at all"
    taken = accepted(here.requester)
    summary = next(event for event in events if event["event"] == "done")
    assert sum(taken.values()) == summary["price_nanoton"] == sum(result.price_nanoton for result in results)
    shares = {share["provider"]: share for share in summary["providers"]}
    assert {who: share["units"] for who, share in shares.items()} == dict(by_provider)
    for who, share in shares.items():
        assert share["price_nanoton"] == sum(one.price_nanoton for one in results if one.provider == who)
    assert summary["provider"] == max(by_provider, key=lambda who: by_provider[who])

    here.place.provider("second", **asks(1))
    until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the account of the lost lease")
    assert taken.items() <= covered(here.requester).items(), "an accepted unit is under no receipt"
    for home in (here.requester.home, *(peer.home for peer in providers(here).values())):
        assert cocoon.connect(home).audit()["clean"]


def test_a_second_task_begins_on_all_warm_leases(here: Market, tmp_path: Path) -> None:
    model = tmp_path / "affine.onnx"
    model.write_bytes(affine_model())
    here.buyer.run(model, feeds(60), spread=2, deadline_s=60)
    events: list[dict[str, Any]] = []
    here.buyer.run(model, feeds(60), spread=2, deadline_s=60, on_event=events.append)
    leases = [event for event in events if event["event"] == "lease"]
    assert len(leases) == 2 and all(event["warm"] for event in leases)
    assert not [event for event in events if event["event"] == "discovering"]


def test_the_ceiling_decides_how_far_a_task_is_spread(here: Market, tmp_path: Path) -> None:
    """Enough for the cheapest alone, to the nanoton, is enough; and then nobody else is asked to work."""
    model = here.model()
    quoted = here.buyer.quote(model, runs=60)["quotes"]
    cheapest = min(quoted, key=lambda one: int(one["expected_nanoton"]))
    events: list[dict[str, Any]] = []
    results = here.buyer.run(
        model, [{"x": np.arange(3, dtype=np.float32) + index} for index in range(60)], spread=3, deadline_s=60,
        max_price_nanoton=cheapest["expected_nanoton"], on_event=events.append,
    )
    assert {result.provider for result in results} == {cheapest["provider"]}
    assert sum(result.price_nanoton for result in results) == cheapest["expected_nanoton"] < NANOTON_PER_TON
