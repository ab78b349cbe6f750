"""A decoder of a stranger: tokens as they are made, paid for by the run, cancelled, and taken over by another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cocoon
from cocoon.convert import tiny
from cocoon.core.errors import CeilingExceeded, NotFound
from cocoon.node.packing import make_package
from cocoon.sdk import Answer, Ask
from cocoon.wire.tokens import pack_pieces
from tests import decoders
from tests.loopback.paid import ASKS, SETUP_NANOTON, TOKEN_NANOTON, TON, Market, accepted, market, until
from tests.loopback.town import Peer

PIECES = tuple(bytes([97 + token % 26]) for token in range(tiny.SIZES.vocabulary))
PROMPTS = [tuple(np.random.default_rng(length).integers(0, 512, length).tolist()) for length in range(1, 9)]
MOST = 5
#: The tiny decoder has room for 128 tokens.
LONG = 100


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with two providers that ask the same. The last test kills one of them."""
    with market(tmp_path_factory.mktemp("market")) as place:
        second = place.place.provider("second", **ASKS)
        cocoon.connect(second.home).fund(10 * TON)
        until(lambda: len(place.buyer.offers()) == 2, "the offer of the second provider")
        yield place


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny decoder."""
    return tiny_package(tmp_path_factory.mktemp("package"))


def tiny_package(folder: Path) -> Path:
    """The same, in this folder."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(tiny.tiny_decoder())
    (folder / "tokens.bin").write_bytes(pack_pieces(PIECES))
    make_package(folder, None, {"name": "tiny", "kind": "generate", "unit": "output_token"})
    return folder


def by_formulas(prompt: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The most likely tokens, computed without a cache and without ONNX Runtime."""
    tokens = list(prompt)
    for _ in range(most):
        tokens.append(int(decoders.logits(tiny.SIZES, tiny.weights(), tokens).argmax()))
    return tuple(tokens[len(prompt) :])


def right(answer: Answer, prompt: tuple[int, ...], most: int) -> bool:
    return (answer.tokens, answer.reason, answer.text_bytes) == (by_formulas(prompt, most), "length", most)


def test_eight_prompts_are_continued_together_each_token_told_once_and_each_answer_paid(
    here: Market, package: Path
) -> None:
    told: dict[int, list[int]] = {}

    def hear(ask: int, place: int, token: int) -> None:
        assert place == len(told.setdefault(ask, [])) + 1
        told[ask].append(token)

    answers = here.buyer.generate(package, [Ask(prompt, MOST) for prompt in PROMPTS], on_token=hear)
    for number, (answer, prompt) in enumerate(zip(answers, PROMPTS, strict=True)):
        assert right(answer, prompt, MOST) and tuple(told[number]) == answer.tokens
        assert answer.result.receipt is not None
    # Each token of an answer, and one for four of its prompt.
    assert [answer.result.units for answer in answers] == [MOST + -(-len(prompt) // 4) for prompt in PROMPTS]
    tokens = sum(answer.result.units for answer in answers)
    assert sum(answer.result.price_nanoton for answer in answers) == SETUP_NANOTON + tokens * TOKEN_NANOTON


def test_a_decoder_is_not_sold_where_only_runs_have_a_price(here: Market, package: Path) -> None:
    quote = here.buyer.quote(package, runs=2, run_units=30)
    assert [one["token_nanoton_per_1000"] for one in quote["quotes"]] == [1_000 * TOKEN_NANOTON] * 2
    (expected,) = {one["expected_nanoton"] for one in quote["quotes"]}
    assert expected == SETUP_NANOTON + 2 * 30 * TOKEN_NANOTON
    here.place.provider("runs", price_run_nanoton="1", price_setup_nanoton="0")
    until(lambda: len(here.buyer.offers()) == 3, "the offer of the third provider")
    assert sum("token_nanoton_per_1000" in offer for offer in here.buyer.offers()) == 2
    assert len(here.buyer.quote(package, runs=2)["quotes"]) == 2


def test_an_answer_that_may_be_dearer_than_a_tranche_does_not_wait_for_ever_behind_a_cheap_one(
    here: Market, package: Path
) -> None:
    asks = [Ask(PROMPTS[0], MOST), Ask(PROMPTS[1], LONG, stop_tokens=by_formulas(PROMPTS[1], 1))]
    cheap, dear = here.buyer.generate(package, asks)
    assert right(cheap, PROMPTS[0], MOST) and len(dear.tokens) == 1
    assert dear.result.receipt is not None and dear.result.lease == cheap.result.lease


def test_a_task_that_could_cost_more_than_its_user_pays_is_not_begun(here: Market, package: Path) -> None:
    most = SETUP_NANOTON + (MOST + 1) * TOKEN_NANOTON
    with pytest.raises(CeilingExceeded):
        here.buyer.generate(package, [Ask(PROMPTS[0], LONG)], max_price_nanoton=most)
    (answer,) = here.buyer.generate(package, [Ask(PROMPTS[0], MOST)], max_price_nanoton=most)
    assert right(answer, PROMPTS[0], MOST)


def test_files_of_a_package_are_read_through_the_peer(here: Market, package: Path) -> None:
    assert here.buyer.model_file(package, "tokens.bin") == pack_pieces(PIECES)
    assert here.buyer.model_file(package, "model.onnx") == tiny.tiny_decoder()
    with pytest.raises(NotFound):
        here.buyer.model_file(package, "../secret")


class EnoughHeard(Exception):
    """The reader wants no more."""


def test_who_stops_listening_has_it_cancelled_and_the_lease_goes_on(here: Market, package: Path) -> None:
    def hear(ask: int, place: int, token: int) -> None:
        if place == 3:
            raise EnoughHeard

    with pytest.raises(EnoughHeard):
        here.buyer.generate(package, [Ask(PROMPTS[0], LONG)], on_token=hear)
    leases = []
    (answer,) = here.buyer.generate(
        package, [Ask(PROMPTS[3], MOST)],
        on_event=lambda event: leases.append(event["warm"]) if event["event"] == "lease" else None,
    )
    assert right(answer, PROMPTS[3], MOST) and leases == [True]


def test_an_answer_that_a_killed_provider_began_is_given_by_the_other_and_no_token_is_told_twice(
    here: Market, package: Path
) -> None:
    told: list[int] = []
    providers: list[str] = []

    def hear(ask: int, place: int, token: int) -> None:
        assert place == len(told) + 1
        told.append(token)
        if place == 3:
            named(here, providers[0]).kill()

    def event(event: dict[str, object]) -> None:
        if event["event"] == "lease":
            providers.append(str(event["provider"]))

    (answer,) = here.buyer.generate(package, [Ask(PROMPTS[5], LONG)], on_token=hear, on_event=event)
    assert right(answer, PROMPTS[5], LONG) and tuple(told) == answer.tokens
    assert len(providers) == 2 and answer.result.provider == providers[1] != providers[0]
    assert (bytes.fromhex(answer.result.lease), answer.result.number) in accepted(here.requester)


def named(here: Market, provider: str) -> Peer:
    """The seller of this id."""
    sellers = [peer for peer in here.place.peers if peer.name in ("provider", "second")]
    return next(peer for peer in sellers if cocoon.connect(peer.home).status()["peer"] == provider)
