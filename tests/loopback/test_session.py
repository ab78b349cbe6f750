"""Sessions with real peers: runs that come one by one, with pauses in which the lease is given back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import cocoon
from bench.packaged import relu
from cocoon.core.errors import InputsMismatch
from tests.loopback.paid import Market, bill, market, until
from tests.loopback.town import PATIENCE_S, Town


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with one provider."""
    with market(tmp_path_factory.mktemp("market")) as place:
        yield place


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = relu(x)."""
    path = tmp_path / "model.onnx"
    path.write_bytes(relu())
    return path


def row(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 4), value, "f4")}


def test_runs_of_a_session_share_a_task_are_each_paid_and_receipted_when_it_ends(here: Market, model: Path) -> None:
    events: list[str] = []
    with here.buyer.session(model, runs=500, on_event=lambda event: events.append(event["event"])) as session:
        results = [session.run(row(value)) for value in range(40)]
        with pytest.raises(InputsMismatch):
            session.run({"z": np.zeros(3, "f4")})
        results += [one for one in session.map(row(value) for value in range(40, 90)) if isinstance(one, cocoon.Result)]
    assert [result.outputs["y"].max() for result in results] == list(range(90))
    assert all(result.receipt for result in results)
    assert events.count("bids") == 1 and events.count("lease") == 1
    assert sum(result.price_nanoton for result in results) == bill(90)


def test_threads_that_share_a_session_are_each_answered_on_one_lease_and_all_is_paid_once(
    here: Market, model: Path
) -> None:
    events: list[str] = []
    results: dict[int, cocoon.Result] = {}
    refused: list[int] = []

    def use(first: int) -> None:
        for value in range(first, first + 25):
            results[value] = session.run(row(value))
        try:
            session.run({"z": np.zeros(3, "f4")})
        except InputsMismatch:
            refused.append(first)

    with here.buyer.session(model, runs=700, on_event=lambda event: events.append(event["event"])) as session:
        with ThreadPoolExecutor(24) as threads:
            for done in [threads.submit(use, 100 * thread) for thread in range(24)]:
                done.result()
    assert len(refused) == 24 and len(results) == 24 * 25
    assert all(result.outputs["y"].max() == value and result.receipt for value, result in results.items())
    assert len({result.number for result in results.values()}) == len(results), "no run is answered twice"
    assert events.count("bids") == 1 and events.count("lease") == 1
    assert sum(result.price_nanoton for result in results.values()) == bill(len(results))


@pytest.mark.skipif(sys.platform != "linux", reason="seals are Linux's")
def test_large_tensors_go_to_the_own_peer_in_memory_that_both_see(here: Market, model: Path) -> None:
    def shared() -> int:
        return Path(f"/proc/{here.requester.process.pid}/maps").read_text().count("memfd:cocoon")

    with here.buyer.session(model, runs=60) as session:
        session.run(row(1))
        assert shared() == 0
        inputs = [{"x": np.full((1, 1 << 18), value, "f4")} for value in range(-25, 25)]
        results = list(session.map(inputs))
        assert shared() == 1
    for value, result in zip(range(-25, 25), results, strict=True):
        assert isinstance(result, cocoon.Result) and result.receipt
        assert (result.outputs["y"] == max(value, 0)).all() and result.outputs["y"].shape == (1, 1 << 18)
    until(lambda: shared() == 0, "the end of the memory")


def test_a_pause_gives_the_lease_back_and_the_next_run_finds_another(empty_town: Town, model: Path) -> None:
    empty_town.bootstrap()
    provider = empty_town.provider()
    client = cocoon.connect(empty_town.requester(lease_idle_ms="600").home)
    leases: list[str] = []

    def hear(event: dict[str, object]) -> None:
        if event["event"] == "lease":
            leases.append(str(event["lease"]))

    with client.session(model, on_event=hear) as session:
        for value in (1, 2, 3):
            assert session.run(row(value)).outputs["y"].max() == value
            until(lambda value=value: provider.log().count('"lease_ended"') == value, "the end of the lease")
    assert len(set(leases)) == 3


def test_threads_that_share_a_session_are_answered_though_its_provider_dies(empty_town: Town, model: Path) -> None:
    empty_town.bootstrap()
    providers = [empty_town.provider(name) for name in ("one", "other")]
    by_id = {cocoon.connect(provider.home).status()["peer"]: provider for provider in providers}
    client = cocoon.connect(empty_town.requester().home)
    sellers: list[str] = []
    is_warm, is_dead = threading.Barrier(9), threading.Event()

    def hear(event: dict[str, object]) -> None:
        if event["event"] == "lease":
            sellers.append(str(event["provider"]))

    def use(first: int) -> None:
        for value in range(first, first + 60):
            if value == first + 20:
                is_warm.wait(PATIENCE_S)
            assert session.run(row(value)).outputs["y"].max() == value
            if value == first + 40:
                assert is_dead.wait(PATIENCE_S)

    with client.session(model, runs=600, deadline_s=PATIENCE_S, on_event=hear) as session:
        with ThreadPoolExecutor(8) as threads:
            done = [threads.submit(use, 100 * thread) for thread in range(8)]
            is_warm.wait(PATIENCE_S)
            by_id[sellers[0]].kill_tree()
            is_dead.set()
            for one in done:
                one.result()
    assert len(set(sellers)) == 2
