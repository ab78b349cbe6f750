"""Ending on purpose: SIGTERM finishes what is under way, takes nothing new, and exits 0."""

from __future__ import annotations

from pathlib import Path

import pytest

import cocoon
from cocoon.core import limits
from cocoon.core.errors import CocoonError, Draining, NoProvider, ProviderBusy, UsageError
from tests.loopback.conftest import settle
from tests.loopback.town import Town
from tests.models import five_models

#: Above the client's window: while a test has taken one result only, some of the units are still here, however
#: fast the peers are; and not many more, because a peer drains for 10 s.
UNITS = limits.CLIENT_WINDOW_UNITS + 64


def model_file(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(five_models()[0][1])
    return path


def test_a_requester_that_is_told_to_end_finishes_its_task_first(empty_town: Town, tmp_path: Path) -> None:
    settled = settle(empty_town)
    client, inputs = cocoon.connect(settled.requester.home), five_models()[0][2]
    results = []
    for result in client.map(model_file(tmp_path), [inputs] * UNITS):
        if not results:
            settled.requester.process.terminate()
        results.append(result)
    assert len(results) == UNITS and all(result.receipt for result in results)
    assert settled.requester.wait_exit() == 0
    assert not (settled.requester.home / "control.json").exists()


def test_a_provider_that_is_told_to_end_answers_what_it_began(empty_town: Town, tmp_path: Path) -> None:
    settled = settle(empty_town)
    client, inputs = cocoon.connect(settled.requester.home), five_models()[0][2]
    answered: list[int] = []
    with pytest.raises(CocoonError) as caught:
        for result in client.map(model_file(tmp_path), [inputs] * UNITS):
            if not answered:
                assert settled.provider.terminate() == 0
            answered.append(result.unit)
    # The rest was never begun, and nobody else sells; whether it is asked once more while it ends is chance.
    assert caught.value.code in {NoProvider.code, Draining.code}
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


def test_a_provider_that_is_paused_sells_nothing_new_and_what_is_open_goes_on(empty_town: Town, tmp_path: Path) -> None:
    settled = settle(empty_town)
    client, owner = cocoon.connect(settled.requester.home), cocoon.connect(settled.provider.home)
    inputs, warm = five_models()[0][2], model_file(tmp_path)
    client.run(warm, inputs)
    paused = empty_town.cocoon(settled.provider, "pause", "--json")
    assert (paused.code, paused.objects[-1]["summary"]) == (0, {"paused": True})
    assert owner.status()["rests"] == "this provider is paused by its owner"
    client.run(warm, inputs)                            # its lease is open
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "model.onnx"
    other.write_bytes(five_models()[1][1])
    with pytest.raises((ProviderBusy, NoProvider)):     # as its old offer is still known, or not
        client.run(other, five_models()[1][2])
    assert empty_town.cocoon(settled.provider, "resume", "--json").code == 0
    assert owner.status()["rests"] == ""
    client.run(other, five_models()[1][2])
    with pytest.raises(UsageError, match="sells nothing"):
        client.pause()
