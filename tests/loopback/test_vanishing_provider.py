"""A provider that dies or freezes at any moment costs its buyer a typed error, never a hang."""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import cocoon
from cocoon.core.errors import CocoonError, NoProvider, ProviderLost, ReceiptMissing, RunTimeout, Unavailable
from tests.loopback.conftest import Settled, settle
from tests.loopback.town import Town, wait_s
from tests.loopback.verdict import all_up
from tests.models import endless_inputs, endless_model, five_models

#: What the product promises: heartbeats every 2 s, three missed, and one look-up with offers after them.
NOTICED_S = 10.0
#: Moments are drawn from this span after submission; a task of UNITS units takes about that long.
SPAN_S = 3.0
UNITS = 1_000
#: Half of a minute of frozen peers, in two minutes.
FREEZES = 30


def signal_later(settled: Settled, number: signal.Signals, moment_s: float) -> tuple[threading.Thread, list[float]]:
    """Send ``number`` to the provider ``moment_s`` from now; the list then holds when."""
    sent: list[float] = []

    def send() -> None:
        wait_s(moment_s)
        settled.provider.signal(number)
        sent.append(time.monotonic())

    thread = threading.Thread(target=send)
    thread.start()
    return thread, sent


def vanish_and_return(settled: Settled, model: Path, number: signal.Signals, moment_s: float) -> str:
    """One trial; returns how the task ended, ``done`` or the code of its error."""
    client = cocoon.connect(settled.requester.home)
    _, _, inputs = five_models()[0]
    thread, sent = signal_later(settled, number, moment_s)
    try:
        client.run(model, [inputs] * UNITS, deadline_s=60)
        ended = "done"
    except CocoonError as error:
        ended = error.code
    ended_at = time.monotonic()
    thread.join()
    # The last of them: every output came, and the provider died before it could sign for them.
    assert ended in ("done", ProviderLost.code, NoProvider.code, ReceiptMissing.code)
    assert ended_at - sent[0] <= NOTICED_S, f"{ended} only {ended_at - sent[0]:.1f} s after {number.name}"
    assert settled.requester.process.poll() is None
    assert client.status()["peer"].startswith("12D3KooW")
    return ended


def revive(settled: Settled, number: signal.Signals) -> Settled:
    """The provider back at work: thawed, or started anew on the same home."""
    if number is signal.SIGSTOP:
        settled.provider.signal(signal.SIGCONT)
        return settled
    settled.provider.process.wait()
    again = settled.town.provider()
    return Settled(settled.town, settled.bootstrap, again, settled.requester)


def next_task_runs(settled: Settled, model: Path) -> None:
    """A new task succeeds; it may have to wait until the revived provider is found again."""
    client = cocoon.connect(settled.requester.home)
    _, _, inputs = five_models()[0]
    deadline = time.monotonic() + 60
    while True:
        try:
            assert client.run(model, inputs, deadline_s=60).receipt is not None
            return
        except Unavailable:
            if time.monotonic() > deadline:
                raise


def trials(place: Town, tmp_path: Path, number: signal.Signals, count: int, seed: int) -> list[str]:
    """``count`` random moments; the seed is printed so that a failure can be had again."""
    print(f"{number.name}: seed {seed}, {count} moments")
    (tmp_path / "model.onnx").write_bytes(five_models()[0][1])
    moments = random.Random(seed)
    settled = settle(place)
    next_task_runs(settled, tmp_path / "model.onnx")
    ends = []
    for _ in range(count):
        ends.append(vanish_and_return(settled, tmp_path / "model.onnx", number, moments.uniform(0, SPAN_S)))
        settled = revive(settled, number)
        next_task_runs(settled, tmp_path / "model.onnx")
    print(f"{number.name}: {sorted((end, ends.count(end)) for end in set(ends))}")
    return ends


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_a_provider_that_vanishes_at_a_random_moment_costs_a_typed_error(
    empty_town: Town, tmp_path: Path, number: signal.Signals
) -> None:
    assert len(trials(empty_town, tmp_path, number, count=2, seed=20261123)) == 2


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_fifty_random_moments(empty_town: Town, tmp_path: Path, number: signal.Signals) -> None:
    ends = trials(empty_town, tmp_path, number, count=50, seed=random.SystemRandom().randrange(1 << 32))
    assert ends.count("done") < 50, "no moment fell into a task, so nothing was tried"


@pytest.mark.long
def test_peers_that_freeze_again_and_again_make_no_mistake(empty_town: Town, tmp_path: Path) -> None:
    """Tasks end well and badly meanwhile, at whatever moment; no lease is cut short by a defect of ours."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    moments, thawed = random.Random(seed), threading.Event()
    settled = Settled(
        empty_town, empty_town.bootstrap(), empty_town.provider(run_limit_ms="300"), empty_town.requester()
    )
    (tmp_path / "good.onnx").write_bytes(five_models()[0][1])
    (tmp_path / "endless.onnx").write_bytes(endless_model())
    given = [(tmp_path / "good.onnx", five_models()[0][2]), (tmp_path / "endless.onnx", endless_inputs())]
    ends: list[str] = []

    def ask(turn: int) -> None:
        while not thawed.is_set():
            try:
                cocoon.connect(settled.requester.home).run(*given[turn % 3 == 0], deadline_s=60)
                ends.append("done")
            except CocoonError as error:
                ends.append(error.code)
            turn += 1

    with ThreadPoolExecutor(3) as pool:
        buyers = [pool.submit(ask, turn) for turn in range(3)]
        try:
            for _ in range(FREEZES):
                moments.choice(settled.town.peers).freeze(moments.uniform(0, 1) * moments.choice([0.1, 1, 10]))
                wait_s(moments.uniform(0, SPAN_S))
        finally:
            thawed.set()
    for buyer in buyers:
        buyer.result()
    print(sorted((end, ends.count(end)) for end in set(ends)))
    assert {"done", RunTimeout.code} <= set(ends)
    next_task_runs(settled, given[0][0])
    all_up(settled.town)


def test_without_any_provider_the_same_command_says_so(empty_town: Town, tmp_path: Path) -> None:
    from cocoon.sdk.npz import save

    _, model, inputs = five_models()[0]
    (tmp_path / "model.onnx").write_bytes(model)
    save(tmp_path / "in.npz", {key: np.asarray(value) for key, value in inputs.items()})
    empty_town.bootstrap()
    requester = empty_town.requester()
    command = ("run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "in.npz"), "--json")
    done = empty_town.cocoon(requester, *command)
    assert (done.code, done.error["code"]) == (NoProvider.exit_code, NoProvider.code)
    assert "cocoon up --provide" in done.error["remedy"]
