"""RUN-34 between real peers: several buyers of one public model, one worker, and each gets and pays for its own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import cocoon
from bench.packaged import relu
from cocoon.convert import tiny
from cocoon.node.packing import make_package
from cocoon.sdk import Ask
from cocoon.wire.tokens import pack_pieces
from tests.loopback.test_generation import PIECES, PROMPTS, by_formulas
from tests.loopback.test_pull import hold
from tests.loopback.town import Town

BUYERS, RUNS, MOST = 3, 200, 5


def workers(town: Town) -> int:
    """Worker processes of the provider that hold a model or wait for one."""
    provider = next(peer for peer in town.peers if peer.name == "provider")
    commands = (Path(f"/proc/{pid}/cmdline").read_bytes() for pid in provider.tree())
    return sum(b"cocoon.runtime.worker" in command for command in commands)


def open_town(town: Town) -> list[cocoon.Client]:
    """A provider whose worker takes all cores, and its buyers."""
    town.bootstrap()
    town.provider(threads=str(os.cpu_count()))
    return [cocoon.connect(town.requester(f"buyer{number}").home) for number in range(BUYERS)]


def test_buyers_of_one_public_model_share_a_worker_and_none_gets_what_another_asked(
    empty_town: Town, tmp_path: Path
) -> None:
    buyers = open_town(empty_town)
    (tmp_path / "model.onnx").write_bytes(relu())
    model = hold(empty_town, empty_town.peers[1], tmp_path / "model.onnx")

    def buy(buyer: int) -> list[cocoon.Result]:
        asked = [{"x": np.full((1, 4), buyer * RUNS + number, "f4")} for number in range(RUNS)]
        return buyers[buyer].run(model, asked)

    with ThreadPoolExecutor(BUYERS) as threads:
        bought = list(threads.map(buy, range(BUYERS)))
    for buyer, results in enumerate(bought):
        assert [result.outputs["y"].max() for result in results] == [buyer * RUNS + number for number in range(RUNS)]
        assert all(result.receipt for result in results)
    assert len({result.lease for results in bought for result in results}) == BUYERS
    assert workers(empty_town) == 2, "the one that they share, and the spare one"


def test_prompts_of_several_buyers_are_continued_by_one_decoder(empty_town: Town, tmp_path: Path) -> None:
    buyers = open_town(empty_town)
    package = tmp_path / "package"
    package.mkdir()
    (package / "model.onnx").write_bytes(tiny.tiny_decoder())
    (package / "tokens.bin").write_bytes(pack_pieces(PIECES))
    make_package(package, None, {"name": "tiny", "kind": "generate", "unit": "output_token", "joinable": [100, 1_000]})
    model = hold(empty_town, empty_town.peers[1], package)

    def ask(buyer: int) -> list[tuple[int, ...]]:
        return [answer.tokens for answer in buyers[buyer].generate(model, [Ask(prompt, MOST) for prompt in PROMPTS])]

    with ThreadPoolExecutor(BUYERS) as threads:
        told = list(threads.map(ask, range(BUYERS)))
    assert told == [[by_formulas(prompt, MOST) for prompt in PROMPTS]] * BUYERS
    assert workers(empty_town) == 2
