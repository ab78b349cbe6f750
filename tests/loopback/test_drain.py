"""Ending on purpose: SIGTERM finishes what is under way, takes nothing new, and exits 0."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import cocoon
from cocoon.core.errors import CocoonError, NoProvider
from tests.loopback.conftest import settle
from tests.loopback.town import Town
from tests.models import five_models

UNITS = 600


def model_file(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(five_models()[0][1])
    return path


def test_a_requester_that_is_told_to_end_finishes_its_task_first(empty_town: Town, tmp_path: Path) -> None:
    settled = settle(empty_town)
    client, inputs = cocoon.connect(settled.requester.home), five_models()[0][2]
    told = threading.Event()

    def tell(event: dict[str, object]) -> None:
        if event["event"] == "result" and not told.is_set():
            told.set()
            settled.requester.process.terminate()

    results = list(client.map(model_file(tmp_path), [inputs] * 100, on_event=tell))
    assert len(results) == 100 and all(result.receipt for result in results)
    assert settled.requester.wait_exit() == 0
    assert not (settled.requester.home / "control.json").exists()


def test_a_provider_that_is_told_to_end_answers_what_it_began(empty_town: Town, tmp_path: Path) -> None:
    settled = settle(empty_town)
    client, inputs = cocoon.connect(settled.requester.home), five_models()[0][2]
    answered: list[int] = []

    def tell(event: dict[str, object]) -> None:
        if event["event"] == "result":
            answered.append(int(str(event["unit"])))
            if len(answered) == 1:
                settled.provider.process.terminate()

    with pytest.raises(CocoonError) as caught:
        client.run(model_file(tmp_path), [inputs] * UNITS, on_event=tell)
    assert caught.value.code == NoProvider.code, "the rest was never begun, and nobody else sells"
    assert settled.provider.wait_exit() == 0
    assert answered == list(range(len(answered))) and 0 < len(answered) < UNITS


def test_a_stopped_peer_leaves_no_process_and_no_socket(empty_town: Town) -> None:
    peer = empty_town.bootstrap()
    seller = empty_town.provider()
    below = seller.tree()[1:]
    assert below, "a provider has a worker"
    stopped = empty_town.cocoon(seller, "stop", "--json")
    assert (stopped.code, stopped.objects[-1]["summary"]) == (0, {"stopping": True})
    assert seller.wait_exit() == 0
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    assert not (seller.home / "control.sock").exists()
    assert peer.process.poll() is None
