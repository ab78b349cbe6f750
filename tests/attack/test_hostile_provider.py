"""A requester's peer believes nothing that its provider says.

The requester is a real process; the provider lives in this one and lies in one
field, or speaks out of turn. The requester's last word on the lease is the
code, the task ends typed, and no unit or receipt is accepted that should not be.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.core.errors import CocoonError
from cocoon.core.limits import CONTEXT_TOKENS, MODEL_FILES
from cocoon.core.values import replace
from cocoon.node import records
from cocoon.node.packing import write_package
from cocoon.sdk import Ask
from cocoon.wire.generation import said_tensors
from cocoon.wire.market import NO_MODEL, BidReply, Call
from cocoon.wire.messages import (
    LeaseClose,
    ModelOffer,
    ModelReady,
    ModelWant,
    Refusal,
    RunCancel,
    RunFailure,
    RunRequest,
    RunToken,
    TrancheClose,
)
from cocoon.wire.schema import Message, pack
from cocoon.wire.tensors import encode_tensors
from cocoon.wire.tokens import first_head, next_head
from tests.attack.conftest import gained, tally
from tests.attack.hostile_provider import HostileProvider, Talk
from tests.attack.matrix import Lie, lies
from tests.loopback.town import PATIENCE_S, Peer, town


@dataclass
class Market:
    """A hostile provider, and a requester that knows only that one."""

    provider: HostileProvider
    requester: Peer
    folder: Path

    def attempt(self, units: int = 1, **options: Any) -> tuple[str, list[dict[str, Any]]]:
        """Run a new model on it: the code of the error or ``done``, and the events."""
        model = self.folder / os.urandom(8).hex()
        model.write_bytes(os.urandom(64))           # a model of its own, so that no warm lease is found
        events: list[dict[str, Any]] = []
        inputs = [{"x": np.frombuffer(os.urandom(8), np.uint8)} for _ in range(units)]
        try:
            cocoon.connect(self.requester.home).run(model, inputs, deadline_s=30, on_event=events.append, **options)
        except CocoonError as error:
            return error.code, events
        return "done", events

    def last_word(self) -> str:
        """The code with which the requester ended the lease."""
        try:
            while (code := self.provider.heard.get(timeout=PATIENCE_S)) == "released":
                pass                                    # an idle lease of an earlier test was given back meanwhile
        except queue.Empty:
            raise AssertionError("the requester has nothing against what it got") from None
        return code


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    folder = tmp_path_factory.mktemp("market")
    with HostileProvider().running() as provider, town(folder) as place:
        place.link = provider.link
        yield Market(provider, place.requester(), folder)


@pytest.fixture
def market(stage: Market) -> Iterator[Market]:
    """With a provider that is honest until told otherwise; the requester must survive."""
    stage.provider.lie, stage.provider.bid = None, None
    stage.provider.turns.clear()
    for heard in (stage.provider.heard, stage.provider.countersigned):
        while not heard.empty():
            heard.get()
    yield stage
    assert stage.requester.process.poll() is None, stage.requester.last_words()


def test_without_a_lie_the_same_provider_is_believed(market: Market) -> None:
    before = tally(market.requester.home)
    assert market.attempt(units=2)[0] == "done"
    assert gained(market.requester.home, before) == {
        records.LEASE_BOUGHT: 1, records.UNIT_ACCEPTED: 2, records.RECEIPT_ACCEPTED: 1,
    }
    assert market.provider.countersigned.get(timeout=PATIENCE_S)


def test_a_call_tells_neither_the_ceiling_nor_a_private_model(market: Market) -> None:
    """Calls for two models of one size under two ceilings differ in nothing but their nonce and their time."""
    calls: list[Call] = []

    def listen(call: Call, honest: BidReply) -> BidReply:
        calls.append(call)
        return honest

    market.provider.bid = listen
    assert [market.attempt(max_price_nanoton=ceiling)[0] for ceiling in (1_000, 123_456_789)] == ["done", "done"]
    one, other = (replace(call, nonce=bytes(16), deadline_ms=1) for call in calls)
    assert one == other and one.model == NO_MODEL


OFFERS = lies("offer", "key_bundle", "bid")
PRICED = [lie for lie in lies("offer") if lie.code == "wrong_price"]


@pytest.mark.parametrize("lie", [lie for lie in OFFERS if lie not in PRICED], ids=str)
def test_a_lie_in_an_offer_or_a_bid_is_no_bid(market: Market, lie: Lie) -> None:
    market.provider.lie = lie
    before = tally(market.requester.home)
    code, events = market.attempt()
    assert code == "no_provider"
    if lie.code != code:
        (gathered,) = [event for event in events if event["event"] == "bids"]
        assert [item["code"] for item in gathered["missed"]] == [lie.code]
    assert gained(market.requester.home, before) == {}


@pytest.mark.parametrize("lie", PRICED, ids=str)
def test_a_price_on_a_network_without_a_ledger_is_never_agreed_to(market: Market, lie: Lie) -> None:
    market.provider.lie = lie
    before = tally(market.requester.home)
    assert market.attempt(max_price_nanoton=1_000)[0] == lie.code
    assert gained(market.requester.home, before) == {}


@pytest.mark.parametrize("lie", lies("lease_accept"), ids=str)
def test_a_lie_in_the_acceptance_ends_the_task_before_the_model_is_sent(market: Market, lie: Lie) -> None:
    market.provider.lie = lie
    seen: list[Message] = []

    async def note(talk: Talk, message: Message) -> None:
        seen.append(message)
        await talk.ready(message)

    market.provider.turns = {ModelOffer: note}
    before = tally(market.requester.home)
    assert market.attempt()[0] == lie.code
    assert not gained(market.requester.home, before).keys() - {records.LEASE_BOUGHT}
    if lie.field != "nonce":                        # without the right nonce nothing can be read on either side
        assert gained(market.requester.home, before) == {} and not seen


@pytest.mark.parametrize("lie", lies("statement"), ids=str)
def test_a_lie_in_a_statement_is_no_result(market: Market, lie: Lie) -> None:
    market.provider.lie = lie
    before = tally(market.requester.home)
    assert market.attempt()[0] == lie.code
    assert market.last_word() == lie.code
    assert gained(market.requester.home, before) == {records.LEASE_BOUGHT: 1}


@pytest.mark.parametrize("lie", lies("receipt"), ids=str)
def test_a_lie_in_a_receipt_is_no_receipt(market: Market, lie: Lie) -> None:
    market.provider.lie = lie
    before = tally(market.requester.home)
    assert market.attempt()[0] == "receipt_missing"
    assert market.last_word() == lie.code
    assert gained(market.requester.home, before) == {records.LEASE_BOUGHT: 1, records.UNIT_ACCEPTED: 1}
    assert market.provider.countersigned.empty()


# --- out of turn -------------------------------------------------------------


async def _other_outputs(talk: Talk, request: RunRequest) -> None:
    result = talk.result_of(request)
    other = encode_tensors({"x": np.zeros(8, np.uint8)})
    await talk.link.send(type(result)(number=result.number, outputs=other, statement=result.statement))


async def _result_of_another_run(talk: Talk, request: RunRequest) -> None:
    result = talk.result_of(request)
    await talk.link.send(type(result)(number=7, outputs=result.outputs, statement=result.statement))


async def _result_with_a_torn_statement(talk: Talk, request: RunRequest) -> None:
    result = talk.result_of(request)
    await talk.link.send(type(result)(number=1, outputs=result.outputs, statement=b"\0" + result.statement[1:]))


async def _a_frame_of_noise(talk: Talk, request: RunRequest) -> None:
    await talk.raw(os.urandom(1_041))


async def _a_flipped_frame(talk: Talk, request: RunRequest) -> None:
    (frame,) = talk.writer.seal(pack(talk.result_of(request)))
    await talk.raw(frame[:-1] + bytes([frame[-1] ^ 1]))


async def _a_lost_frame(talk: Talk, request: RunRequest) -> None:
    talk.writer.seal(pack(ModelReady(load_us=2)))   # its counter is used up, the frame never leaves
    await talk.answer(request)


async def _a_request_of_its_own(talk: Talk, request: RunRequest) -> None:
    await talk.link.send(request)


async def _a_token_of_no_decoder(talk: Talk, request: RunRequest) -> None:
    await talk.link.send(RunToken(number=request.number, place=1, token=1, head=bytes(32)))


async def _a_receipt_before_any_result(talk: Talk, request: RunRequest) -> None:
    talk.result_of(request)
    await talk.link.send(talk.receipt_of(request.number))


@pytest.mark.parametrize(("turn", "code"), [
    (_other_outputs, "wrong_output"),
    (_result_of_another_run, "out_of_order"),
    (_result_with_a_torn_statement, "malformed"),
    (_a_frame_of_noise, "bad_seal"),
    (_a_flipped_frame, "bad_seal"),
    (_a_lost_frame, "bad_seal"),
    (_a_request_of_its_own, "unknown_kind"),
    (_a_token_of_no_decoder, "out_of_order"),
    (_a_receipt_before_any_result, "wrong_runs"),
], ids=lambda value: getattr(value, "__name__", value))
def test_a_provider_that_answers_wrongly_loses_the_lease(market: Market, turn: Any, code: str) -> None:
    market.provider.turns = {RunRequest: turn}
    before = tally(market.requester.home)
    assert market.attempt()[0] == code
    assert market.last_word() == code
    assert gained(market.requester.home, before) == {records.LEASE_BOUGHT: 1}


# --- a decoder ---------------------------------------------------------------

ASK = Ask((1, 2, 3), most_tokens=2)
SAID = (7, 8)


def _heads(tokens: tuple[int, ...] = SAID) -> list[bytes]:
    heads = [first_head(ASK.prompt)]
    for token in tokens:
        heads.append(next_head(heads[-1], token))
    return heads


def _listen(market: Market, told: list[tuple[int, int]]) -> str:
    """Ask it as if it had a decoder: the code of the error or ``done``."""
    folder = market.folder / os.urandom(8).hex()
    folder.mkdir()
    for name in ("model.onnx", "tokens.bin"):
        (folder / name).write_bytes(os.urandom(64))
    write_package(folder, None, {"kind": "generate"})
    client = cocoon.connect(market.requester.home)
    try:
        client.generate(folder, [ASK], deadline_s=30, on_token=lambda _, place, token: told.append((place, token)))
    except CocoonError as error:
        return error.code
    return "done"


async def _say(talk: Talk, request: RunRequest, *places: int, last: tuple[int, ...] = SAID, head: bytes = b"") -> None:
    """Tell tokens at these places, then the whole answer."""
    for place in places:
        token = SAID[(place - 1) % len(SAID)]
        await talk.link.send(RunToken(number=request.number, place=place, token=token, head=bytes(32)))
    tensors = said_tensors(last, head or _heads(last)[-1], "length", len(last))
    await talk.link.send(talk.result_of(request, encode_tensors(tensors)))


def test_tokens_are_told_once_and_in_order_also_those_that_were_not_told_before_the_result(market: Market) -> None:
    told: list[tuple[int, int]] = []
    market.provider.turns = {RunRequest: lambda talk, request: _say(talk, request, 1)}
    assert _listen(market, told) == "done"
    assert told == [(1, 7), (2, 8)]


@pytest.mark.parametrize("places", [(2,), (1, 1), (0,), (1, 3)], ids=str)
def test_a_token_out_of_its_place_ends_the_lease(market: Market, places: tuple[int, ...]) -> None:
    market.provider.turns = {RunRequest: lambda talk, request: _say(talk, request, *places)}
    before = tally(market.requester.home)
    assert _listen(market, []) == "out_of_order"
    assert market.last_word() == "out_of_order"
    assert gained(market.requester.home, before) == {records.LEASE_BOUGHT: 1}


@pytest.mark.long
def test_a_provider_that_never_ends_its_answer_loses_the_lease(market: Market) -> None:
    async def babble(talk: Talk, request: RunRequest) -> None:
        for place in range(1, CONTEXT_TOKENS + 2):
            talk.link.post(RunToken(number=request.number, place=place, token=1, head=bytes(32)))
            if place % 1_000 == 0:
                await talk.link.flush()
        await talk.link.flush()

    market.provider.turns = {RunRequest: babble}
    assert _listen(market, []) == "limit_exceeded"
    assert market.last_word() == "limit_exceeded"


def test_a_token_behind_the_result_ends_the_lease(market: Market) -> None:
    async def late(talk: Talk, request: RunRequest) -> None:
        await _say(talk, request)
        await talk.link.send(RunToken(number=request.number, place=1, token=1, head=bytes(32)))

    market.provider.turns = {RunRequest: late, TrancheClose: _account_for_nobody}
    assert _listen(market, []) in ("receipt_missing", "out_of_order")
    assert market.last_word() == "out_of_order"


class EnoughHeard(Exception):
    """The reader wants no more."""


def test_what_a_client_wants_no_more_is_cancelled_by_its_number(market: Market) -> None:
    cancelled: queue.Queue[int] = queue.Queue()
    heard: list[int] = []

    async def begin(talk: Talk, request: RunRequest) -> None:
        await talk.link.send(RunToken(number=request.number, place=1, token=SAID[0], head=bytes(32)))

    async def note(talk: Talk, message: RunCancel) -> None:
        cancelled.put(message.number)
        await talk.link.send(LeaseClose(code="draining"))   # nothing of it is left for the next test

    def enough(place: int) -> None:
        raise EnoughHeard

    market.provider.turns = {RunRequest: begin, RunCancel: note}
    with pytest.raises(EnoughHeard):
        _listen(market, SimpleNamespace(append=enough))  # type: ignore[arg-type]
    with suppress(queue.Empty):
        heard.append(cancelled.get(timeout=PATIENCE_S / 2))
    assert heard == [1]
    market.last_word()


@pytest.mark.parametrize(("lie", "code"), [
    ({"head": bytes(31) + b"\1"}, "wrong_head"), ({"last": (7, 9), "head": _heads()[-1]}, "wrong_head"),
    ({"last": (5, 8)}, "provider_lost"), ({"last": ()}, "provider_lost"),
], ids=["hash", "token", "told otherwise", "told more"])
def test_a_client_believes_no_answer_that_is_not_what_its_hash_says_or_what_was_told(
    market: Market, lie: dict[str, Any], code: str
) -> None:
    async def lying(talk: Talk, request: RunRequest) -> None:
        await _say(talk, request, 1, 2, **lie)
        await talk.link.send(LeaseClose(code="draining"))   # nothing of it is left for the next test

    # A receipt would still be accepted behind the last word, in the midst of the next test.
    market.provider.turns = {RunRequest: lying, TrancheClose: _account_for_nobody}
    assert _listen(market, []) == code
    market.last_word()


async def _answer_twice(talk: Talk, request: RunRequest) -> None:
    result = talk.result_of(request)
    await talk.link.send(result)
    await talk.link.send(result)


async def _account_for_nobody(talk: Talk, close: TrancheClose) -> None:
    return


def test_a_result_sent_twice_is_accepted_once(market: Market) -> None:
    market.provider.turns = {RunRequest: _answer_twice, TrancheClose: _account_for_nobody}
    before = tally(market.requester.home)
    assert market.attempt()[0] in ("receipt_missing", "out_of_order")
    assert market.last_word() == "out_of_order"
    assert gained(market.requester.home, before) == {records.LEASE_BOUGHT: 1, records.UNIT_ACCEPTED: 1}


def test_a_sealed_frame_sent_twice_ends_the_link(market: Market) -> None:
    async def replay(talk: Talk, request: RunRequest) -> None:
        (frame,) = talk.writer.seal(pack(talk.result_of(request)))
        await talk.raw(frame, frame)

    market.provider.turns = {RunRequest: replay, TrancheClose: _account_for_nobody}
    before = tally(market.requester.home)
    assert market.attempt()[0] in ("receipt_missing", "bad_seal")
    assert market.last_word() == "bad_seal"
    assert gained(market.requester.home, before)[records.UNIT_ACCEPTED] <= 1


def test_a_receipt_sent_twice_is_countersigned_twice_with_the_same_words_and_kept_once(market: Market) -> None:
    async def twice(talk: Talk, close: TrancheClose) -> None:
        receipt = talk.receipt_of(close.through)
        await talk.link.send(receipt)
        await talk.link.send(receipt)

    market.provider.turns = {TrancheClose: twice}
    before = tally(market.requester.home)
    assert market.attempt()[0] == "done"
    first, second = (market.provider.countersigned.get(timeout=PATIENCE_S) for _ in range(2))
    assert first == second
    assert gained(market.requester.home, before)[records.RECEIPT_ACCEPTED] == 1


def test_chunks_that_do_not_exist_are_not_sent(market: Market) -> None:
    async def want(talk: Talk, message: ModelOffer) -> None:
        await talk.link.send(ModelWant(file=0, first=0, count=2))

    market.provider.turns = {ModelOffer: want}
    assert market.attempt()[0] == "not_found"
    assert market.last_word() == "not_found"


def test_a_model_is_not_sent_as_often_as_a_provider_likes(market: Market) -> None:
    async def want(talk: Talk, message: ModelOffer) -> None:
        for _ in range(MODEL_FILES + 1):
            await talk.link.send(ModelWant(file=0, first=0, count=1))

    market.provider.turns = {ModelOffer: want}
    assert market.attempt()[0] == "out_of_order"
    assert market.last_word() == "out_of_order"


@pytest.mark.parametrize("code", ["no_such_code", "corrupt", "insufficient_funds", "audit_failed"])
def test_a_failure_that_names_no_code_that_peers_exchange_is_the_providers_fault(market: Market, code: str) -> None:
    async def fail(talk: Talk, request: RunRequest) -> None:
        await talk.link.send(RunFailure(number=request.number, code=code, text="x"))

    market.provider.turns = {RunRequest: fail}
    assert market.attempt()[0] == "peer_fault"


@pytest.mark.parametrize("last", [Refusal(code="home_in_use", text="x"), LeaseClose(code="signer_lost")], ids=str)
def test_a_lease_that_ends_with_words_about_our_own_house_is_the_providers_fault(market: Market, last: Message) -> None:
    async def end(talk: Talk, request: RunRequest) -> None:
        await talk.link.send(last)

    market.provider.turns = {RunRequest: end}
    assert market.attempt()[0] == "peer_fault"
    assert market.last_word() == "peer_fault"
