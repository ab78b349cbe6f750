"""The auction under attack: stolen, doubled and replayed bids, floods, lies about prices, sellers that take nothing.

First a real provider and requesters of this process that abuse its bids, then a
real requester among providers of this process that abuse its calls.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import cocoon
from cocoon.config.network import parse_link
from cocoon.core.errors import CocoonError
from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import CALL_BURST
from cocoon.node import records
from cocoon.node.bids import CALL_PROTOCOL
from cocoon.privacy.link import LinkKeys
from cocoon.scheduler.selection import Quote
from cocoon.wire.market import BidReply, Call, Decline
from cocoon.wire.messages import Lease, LeaseAccept, Refusal
from cocoon.wire.schema import digest, pack, unpack
from cocoon.wire.signing import Signed, open_signed
from tests.attack.conftest import Choice, Seller, gained, open_shop, tally
from tests.attack.hostile_provider import HostileProvider, says
from tests.attack.hostile_requester import Customer, customer, opening_of
from tests.attack.matrix import Lie, more
from tests.loopback.paid import until
from tests.loopback.town import PATIENCE_S, Peer, town
from tests.models import adder_model

# --- a provider, and requesters that abuse its bids --------------------------


def opening(guest: Customer, quote: Quote, lease: Signed[Lease]) -> bytes:
    """The first frame of a lease stream."""
    return pack(opening_of(lease.pack(), guest.keybox(quote, lease, LinkKeys.from_bytes(os.urandom(64))).pack()))


async def test_a_bid_that_another_requester_got_is_worth_nothing(seller: Seller) -> None:
    async with customer(seller.network) as victim, customer(seller.network) as thief:
        quote = await victim.quote()
        before = seller.tally()
        assert await thief.refused(opening(thief, quote, thief.lease(quote))) == "bid_expired"
        assert seller.gained(before) == {}
        deal = await victim.open(quote, victim.lease(quote))
        assert seller.gained(before) == {records.LEASE_SOLD: 1}, "the theft cost its owner nothing"
        await deal.part()


async def test_a_bid_is_good_for_one_lease(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        quote = await guest.quote()
        deal = await guest.open(quote, guest.lease(quote))
        before = seller.tally()
        assert await guest.refused(opening(guest, quote, guest.lease(quote))) == "bid_expired"
        await deal.part()
        assert await guest.refused(opening(guest, quote, guest.lease(quote))) == "bid_expired"
        assert records.LEASE_SOLD not in seller.gained(before)


async def test_of_many_leases_under_one_bid_at_the_same_time_one_is_made(seller: Seller) -> None:
    answers: list[str] = []
    async with customer(seller.network) as guest:
        quote = await guest.quote()
        before = seller.tally()

        async def propose() -> None:
            stream, answer = await guest.send(opening(guest, quote, guest.lease(quote)))
            try:
                answers.append(unpack(answer, Refusal).code)
            except CocoonError:
                answers.append(open_signed(answer, LeaseAccept, signer=guest.provider).message.shape.name)
            await stream.close()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(propose)
    assert sorted(answers) == ["bid_expired"] * 3 + ["lease_accept"]
    assert seller.gained(before)[records.LEASE_SOLD] == 1


async def test_a_lease_under_a_bid_for_another_kind_of_model_is_refused(seller: Seller) -> None:
    """A bid for a private model knows nothing of it, and one for a public model is good for that model."""
    async with customer(seller.network) as guest:
        before = seller.tally()
        private, public = await guest.quote(), await guest.quote(model=os.urandom(32))
        assert await guest.refused(opening(guest, private, guest.lease(private, private=False))) == "wrong_model"
        assert await guest.refused(opening(guest, public, guest.lease(public, private=False))) == "wrong_model"
        assert seller.gained(before) == {}


async def test_a_caller_that_floods_is_told_busy_and_slows_nobody_else(seller: Seller) -> None:
    said: Counter[str] = Counter()
    async with customer(seller.network) as flooder, customer(seller.network) as other:
        before = seller.tally()
        stream = await flooder.mesh.open_stream(flooder.provider, CALL_PROTOCOL)

        async def flood() -> None:
            for _ in range(8 * CALL_BURST):
                await stream.send(pack(flooder.call()))

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood)
                while not said["busy"]:
                    answer = unpack(await stream.receive(), BidReply, Decline)
                    said[answer.code if isinstance(answer, Decline) else "bid"] += 1
                assert isinstance(await other.answer(other.call()), BidReply), "another pays for the flood"
                nursery.cancel_scope.cancel()
        await stream.close()
        assert said["bid"] >= CALL_BURST
        assert seller.gained(before) == {}, "calls write nothing"


async def test_a_call_that_is_made_twice_gets_one_bid(seller: Seller) -> None:
    async with customer(seller.network) as guest, customer(seller.network) as other:
        call = guest.call()
        assert isinstance(await guest.answer(call), BidReply)
        for again in (await guest.answer(call), await other.answer(call)):
            assert isinstance(again, Decline) and again.code == "replayed"


# --- a requester between a provider that lies and one that does not -----------


def test_a_bid_for_an_earlier_call_is_a_lie(choice: Choice) -> None:
    earlier: list[BidReply] = []

    def replay(call: Call, honest: BidReply) -> BidReply:
        """The first call gets its bid, every later one the same bid under its own digest."""
        earlier.append(honest)
        return BidReply(
            call=digest(call), bid=earlier[0].bid, offer=honest.offer, keys=honest.keys, profile=honest.profile
        )

    choice.hostile.bid, choice.hostile.greet = replay, says(Refusal(code="busy", text="full"))
    choice.run()
    before = tally(choice.requester.home)
    ran, (auction,) = choice.task()
    assert ran == auction["chosen"] == choice.honest
    assert auction["missed"] == [{"provider": choice.lower, "code": "wrong_call"}]
    assert gained(choice.requester.home, before)[records.LEASE_BOUGHT] == 1
    assert "1 lied" in seen(choice.requester)[choice.lower]


def test_a_bid_above_its_own_offer_is_a_lie_and_its_bidder_comes_second_afterwards(choice: Choice) -> None:
    choice.hostile.lie = Lie("bid", "setup_nanoton", more, "wrong_price")
    ran, (auction,) = choice.task()
    assert ran == auction["chosen"] == choice.honest
    assert auction["missed"] == [{"provider": choice.lower, "code": "wrong_price"}]
    choice.hostile.lie = None
    ran, (auction,) = choice.task()
    assert ran == auction["chosen"] == choice.honest, "it would have come first by its peer id"
    reliable = {bid["provider"]: bid["reliability_ppm"] for bid in auction["bids"]}
    assert reliable[choice.lower] < reliable[choice.honest]
    assert [bid["lost"] for bid in auction["bids"] if bid["provider"] == choice.lower] == ["less reliable"]


def test_a_provider_that_bids_and_has_no_place_then_is_no_liar_and_the_next_one_runs(choice: Choice) -> None:
    choice.hostile.greet = says(Refusal(code="busy", text="4 of 4 leases are open, 0 of 4 yours"))
    choice.run()
    words = seen(choice.requester)[choice.lower]
    assert "1 bids refused" in words and not any(word in words for word in ("lied", "lost"))
    ran, (auction,) = choice.task()
    assert ran == auction["chosen"] == choice.honest, "a bid that was not kept is remembered for a while"


def seen(requester: Peer) -> dict[str, str]:
    """What a requester remembers of each provider."""
    return {offer["provider"]: offer["seen"] for offer in cocoon.connect(requester.home).offers()}


# --- a requester to whom nobody sells ----------------------------------------


@contextmanager
def sellers(*providers: HostileProvider) -> Iterator[Sequence[HostileProvider]]:
    """Each on the network of the first one."""
    first, *others = providers
    with first.running():
        for other in others:
            other.network = parse_link(first.link)
        if not others:
            yield providers
            return
        with others[0].running():
            yield providers


def attempt(requester: Peer, folder: Path, units: int, **options: Any) -> tuple[CocoonError, list[dict[str, Any]]]:
    """A task that nobody takes: how it ended, and what was said."""
    model = folder / "model.onnx"
    model.write_bytes(adder_model())
    events: list[dict[str, Any]] = []
    inputs = [{"x": np.arange(3, dtype=np.float32)}] * units
    with pytest.raises(CocoonError) as ended:
        cocoon.connect(requester.home).run(model, inputs, deadline_s=30, on_event=events.append, **options)
    return ended.value, events


def test_if_all_ask_more_than_the_ceiling_the_text_names_the_lowest(tmp_path: Path) -> None:
    cheap, dear = HostileProvider(setup_nanoton=100, run_nanoton=700), HostileProvider(run_nanoton=900)
    with sellers(cheap, dear), town(tmp_path) as place:
        place.link = cheap.link
        requester = place.requester()
        until(lambda: len(cocoon.connect(requester.home).offers()) == 2, "both offers")
        before = tally(requester.home)
        error, events = attempt(requester, tmp_path, 10, max_price_nanoton=7_099)
        assert error.code == "ceiling_exceeded"
        assert "7100" in error.text and "7099" in error.text and "9000" not in error.text, error.text
        (auction,) = [event for event in events if event["event"] == "bids"]
        assert (len(auction["bids"]), auction["chosen"]) == (2, "")
        assert gained(requester.home, before) == {}
        assert cheap.heard.empty() and dear.heard.empty(), "nobody was offered a lease"


def test_if_everybody_is_busy_the_task_says_so_and_later_runs(tmp_path: Path) -> None:
    """A real provider whose only lease another requester holds, until that one is done."""
    with town(tmp_path) as place:
        seller = open_shop(place, max_leases="1")
        place.link = seller.peer.wait_line("cocoon://join/")
        requester = place.requester()

        async def hold() -> None:
            async with customer(seller.network) as guest:
                quote = await guest.quote()
                deal = await guest.open(quote, guest.lease(quote))
                error, events = await trio.to_thread.run_sync(attempt, requester, tmp_path, 1)
                (auction,) = [event for event in events if event["event"] == "bids"]
                assert error.code == "busy" and "1 of 1 leases are open" in error.text
                assert auction["missed"] == [{"provider": peer_id(PeerKey(guest.provider)), "code": "busy"}]
                await deal.part()

        trio.run(hold)
        results = until(lambda: cocoon.connect(requester.home).run(
            tmp_path / "model.onnx", [{"x": np.arange(3, dtype=np.float32)}], deadline_s=30
        ), "a place")
        assert [result.provider for result in results] == [str(cocoon.connect(seller.peer.home).status()["peer"])]
