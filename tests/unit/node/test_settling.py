"""Debts (LEA-16): providers that come back, and providers that only pretend to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from cocoon.core.errors import Unreachable
from cocoon.core.ids import LeaseId
from cocoon.core.limits import OFFER_NS, RECEIPT_REPLY_NS, SETTLE_NS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import replace
from cocoon.ledger.events import RunAccepted
from cocoon.ledger.journal import pack_event
from cocoon.ledger.tab import Tab
from cocoon.ledger.terms import terms_of
from cocoon.node import records
from cocoon.node.asking import ask_offer
from cocoon.node.buying import Buyer
from cocoon.node.link import WorkLink
from cocoon.node.means import Order, Purse
from cocoon.node.models import hash_file
from cocoon.p2p.streams import PeerStream
from cocoon.scheduler.selection import RUNS
from cocoon.wire.messages import LeaseClose, ModelOffer, ModelReady, Refusal
from cocoon.wire.signing import sign
from tests.unit.ledger import parties
from tests.unit.node.scripted import Provider, Streets, identity, purse_of, reserve
from tests.unit.scheduler.builders import NETWORK

REQUESTER, SILENT, HONEST = (identity(number) for number in (1, 2, 3))
#: Just soon enough to be no silence.
_WORD_S = RECEIPT_REPLY_NS / SECOND_NS - 0.1


async def refuse_for_ever(link: WorkLink) -> None:
    """Something is said all the time, and nothing is settled."""
    while True:
        await link.send(Refusal(code="draining", text="in a moment"))
        await trio.sleep(_WORD_S)


async def sell(link: WorkLink) -> None:
    """The model is loaded as soon as it is named; then nothing more."""
    await link.receive(ModelOffer)
    await link.send(ModelReady(load_us=1))
    await link.receive(LeaseClose)
    await link.send(LeaseClose(code="released"))


async def owe(purse: Purse, buyer: Buyer, provider: Provider, lane: int) -> LeaseId:
    """One run of ``provider`` was accepted, and its lease broke off before the receipt."""
    assert purse.treasury is not None
    body = replace(
        parties.lease(paid=True).message, requester=REQUESTER.key, provider=provider.keys.key, network=NETWORK,
        lane=lane,
    )
    lease = sign(body, REQUESTER)
    fact = pack_event(RunAccepted(parties.next_statement(Tab(terms_of(lease)))))
    lease_id = LeaseId(lease.digest)
    body, key = records.pack_facts(lease_id, [fact]), records.fact_key(lease_id, 1)
    await purse.journal.append(records.RECEIPT_FACT, body, key)
    reserve(purse.treasury, lane, provider.keys.key, lease)
    buyer.debts.owe(lease)
    return lease_id


async def in_town(scene: Callable[[Purse, Buyer, Provider, Provider], Awaitable[None]]) -> None:
    """``scene`` with a buyer, a provider that settles nothing, and one that sells at price 0."""
    async with trio.open_nursery() as nursery:
        streets = Streets(REQUESTER.key, nursery)
        purse = purse_of(REQUESTER, streets, nursery)
        silent, honest = Provider(SILENT, refuse_for_ever), Provider(HONEST, sell)
        for provider in (silent, honest):
            provider.settle_in(streets)
        await scene(purse, Buyer(purse, nursery), silent, honest)
        nursery.cancel_scope.cancel()


async def test_a_provider_that_only_talks_is_given_up_in_time_and_is_owed_as_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def scene(purse: Purse, buyer: Buyer, silent: Provider, honest: Provider) -> None:
        lease = await owe(purse, buyer, silent, 1)
        with trio.fail_after(2 * SETTLE_NS / SECOND_NS):
            await buyer.debts.settle_with(silent.keys.key)
        assert buyer.debts.leases == {lease}
        (line,) = purse.log.named("lease_unsettled")  # type: ignore[attr-defined]
        assert line["code"] == "provider_lost" and "did not settle" in line["text"]

    await in_town(scene)


async def test_a_provider_that_settles_nothing_does_not_keep_leases_of_others_from_opening(
    autojump_clock: trio.testing.MockClock, tmp_path: Path,
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"a model")
    order = Order(hash_file(tmp_path / "model.onnx"), False, "infer", RUNS, 1, None)

    async def scene(purse: Purse, buyer: Buyer, silent: Provider, honest: Provider) -> None:
        async def progress(event: dict[str, object]) -> None:
            pass

        await owe(purse, buyer, silent, 1)
        settled = []

        async def settle() -> None:
            await buyer.debts.settle_with(silent.keys.key)
            settled.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(settle)
            await trio.testing.wait_all_tasks_blocked()
            quote = await ask_offer(purse.mesh, NETWORK, "infer", honest.keys.key)
            purchase = await buyer.open(quote, order, progress)
            assert purchase.usable and not settled
            nursery.cancel_scope.cancel()

    await in_town(scene)


async def test_debts_to_several_providers_are_settled_side_by_side(autojump_clock: trio.testing.MockClock) -> None:
    async def scene(purse: Purse, buyer: Buyer, silent: Provider, honest: Provider) -> None:
        honest._talk = refuse_for_ever
        await owe(purse, buyer, silent, 1)
        await owe(purse, buyer, honest, 2)
        with trio.fail_after(1.5 * SETTLE_NS / SECOND_NS):
            await buyer.debts.settle_all()
        assert len(purse.log.named("lease_unsettled")) == 2  # type: ignore[attr-defined]

    await in_town(scene)


async def test_a_seller_that_takes_the_question_and_gives_no_offer_is_unreachable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def mute(stream: PeerStream) -> None:
        await trio.sleep_forever()

    async def scene(purse: Purse, buyer: Buyer, silent: Provider, honest: Provider) -> None:
        purse.mesh.handlers[SILENT.key, "/cocoon/offer/1"] = mute  # type: ignore[attr-defined]
        with trio.fail_after(2 * OFFER_NS / SECOND_NS), pytest.raises(Unreachable, match="no offer"):
            await ask_offer(purse.mesh, NETWORK, "infer", SILENT.key)

    await in_town(scene)
