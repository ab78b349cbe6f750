"""What the owner is told of the market (CTL-22), and of earnings (CTL-17)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cocoon.core.errors import NoLedger, UsageError
from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import AUCTIONS_REMEMBERED, CALLS_REMEMBERED, CODEC_ITEMS, PROVIDERS_ASKED
from cocoon.core.units import DAY_NS, PPM, SECOND_NS
from cocoon.core.values import replace
from cocoon.node import records
from cocoon.node.accounts import Accounts, money_verbs
from cocoon.node.telling import MOST, say_pages, told_auction, told_call
from cocoon.scheduler.award import Sold, verdict
from cocoon.scheduler.bidding import CallSeen
from cocoon.scheduler.selection import AllAboveCeiling, Missed, NoneFits, Quote, Ranked
from cocoon.wire.codec import decode, encode
from cocoon.wire.market import NO_MODEL
from tests.unit.ledger.test_record import settled
from tests.unit.node.scripted import Memory
from tests.unit.scheduler.builders import tender

ONE, TWO, THREE = (PeerKey(bytes([n]) * 32) for n in (1, 2, 3))
#: 2026-11-28, one second after midnight.
SATURDAY_NS = 20_785 * DAY_NS + SECOND_NS


class Listener:
    """A local client that keeps every frame, decoded as it would arrive."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    async def say(self, message: dict[str, Any]) -> None:
        self.said.append(decode(encode(message, keys="str"), max_bytes=1 << 24, keys="str"))


def sold(*quotes: Quote, taken: int | None = 0, ceiling: int = 1_000, **changes: Any) -> Sold:
    """An auction over these bids; ``taken`` ranks from there on, None takes nobody."""
    found = Ranked(quotes[taken:]) if taken is not None else AllAboveCeiling(1_001, ceiling)
    lost = {} if taken is None else {
        quote.provider: verdict(quote, quotes[taken], 10, lambda _: PPM) for quote in quotes if quote != quotes[taken]
    }
    usual = {
        "verdict": found, "quotes": quotes, "missed": (), "ceiling_nanoton": ceiling, "units": 10, "lost": lost,
    }
    return Sold(**{**usual, **changes})


# --- calls -------------------------------------------------------------------


def test_a_call_is_told_with_all_but_its_caller() -> None:
    call = CallSeen(SECOND_NS, "infer", NO_MODEL, 2_000, 5, ((1, 100),), outcome="won")
    assert told_call(call, 4 * SECOND_NS) == {
        "age_ms": 3_000, "kind": "infer", "model": "private", "units": 2_000, "bid_nanoton": 205,
        "nanoton_per_1000": 100, "answer": "bid", "outcome": "won", "reason": "",
    }


def test_a_bid_for_tokens_is_told_by_its_price_because_nobody_knows_how_many() -> None:
    told = told_call(CallSeen(0, "generate", NO_MODEL, 4, 7, ((5, 900),)), 0)
    assert (told["bid_nanoton"], told["nanoton_per_1000"]) == (7, 900)


def test_a_public_model_is_named_and_a_refusal_costs_nothing() -> None:
    told = told_call(CallSeen(0, "infer", b"\x44" * 32, 3, answer="busy"), 0)
    assert (told["model"], told["bid_nanoton"], told["answer"]) == (b"\x44" * 32, 0, "busy")


def test_a_bid_for_more_than_can_be_told_is_told_as_the_most() -> None:
    call = CallSeen(0, "infer", NO_MODEL, (1 << 32) - 1, MOST, ((1, MOST),))
    assert told_call(call, 0)["bid_nanoton"] == MOST


# --- auctions ----------------------------------------------------------------


def test_an_auction_is_told_with_every_bid_and_every_silence() -> None:
    cheap = tender(ONE, 5, 1_000, start_ms=2, run_us=1_000)
    dear = tender(TWO, 5, 1_200, start_ms=3, run_us=2_000, warm=True)
    assert told_auction(sold(cheap, dear, missed=(Missed(THREE, "unreachable"),)), SECOND_NS, 2 * SECOND_NS) == {
        "age_ms": 1_000, "units": 10, "ceiling_nanoton": 1_000,
        "bids": [
            {"provider": peer_id(ONE), "expected_nanoton": 15, "completion_ms": 12, "warm": False, "taken": True,
             "reason": ""},
            {"provider": peer_id(TWO), "expected_nanoton": 17, "completion_ms": 23, "warm": True, "taken": False,
             "reason": "up to 25 % dearer, slower"},
        ],
        "missed": [{"provider": peer_id(THREE), "code": "unreachable"}],
    }


def test_the_taken_bid_is_first_whoever_answered_first() -> None:
    told = told_auction(sold(tender(TWO, 5_000), tender(ONE), taken=1), 0, 0)
    assert [(bid["provider"], bid["reason"]) for bid in told["bids"]] == [
        (peer_id(ONE), ""), (peer_id(TWO), "above the ceiling")
    ]


def test_where_nobody_was_taken_each_bid_says_why() -> None:
    above = told_auction(sold(tender(ONE, 1_001), taken=None), 0, 0)
    unfit = told_auction(sold(tender(ONE), verdict=NoneFits(("x",)), lost={}), 0, 0)
    assert [bid["reason"] for bid in above["bids"] + unfit["bids"]] == ["above the ceiling", "does not take this model"]
    assert not any(bid["taken"] for bid in above["bids"] + unfit["bids"])


# --- pages -------------------------------------------------------------------


async def test_a_full_memory_fits_the_frames_that_a_client_reads() -> None:
    """The worst of both lists: every field at its longest, as many as are remembered."""
    most, here = (1 << 64) - 1, Listener()
    call = told_call(CallSeen(0, "k" * 32, b"\x44" * 32, (1 << 32) - 1, most, ((1, most),)), most)
    bids = tuple(tender(PeerKey(bytes([n]) * 32), most, most, start_ms=1, run_us=most) for n in range(PROVIDERS_ASKED))
    auction = told_auction(sold(*bids, ceiling=most), 0, most)
    await say_pages(here, "calls", [call] * CALLS_REMEMBERED)  # type: ignore[arg-type]
    await say_pages(here, "auctions", [auction] * AUCTIONS_REMEMBERED)  # type: ignore[arg-type]
    parts = [page["part"] for page in here.said for _ in page["items"]]
    assert Counter(parts) == {"calls": CALLS_REMEMBERED, "auctions": AUCTIONS_REMEMBERED}
    assert all(len(page["items"]) * 100 < CODEC_ITEMS for page in here.said)


async def test_an_empty_part_takes_no_page() -> None:
    here = Listener()
    await say_pages(here, "calls", [])  # type: ignore[arg-type]
    assert here.said == []


# --- earnings ----------------------------------------------------------------


class Dated(Memory):
    """A journal whose entries were written at these times, one after the other."""

    def __init__(self, *at_ns: int) -> None:
        super().__init__()
        self.at_ns = at_ns

    def entries(self, kind: str | None = None, after: int = 0) -> Any:
        for entry in super().entries(kind, after):
            yield replace(entry, at_ns=self.at_ns[entry.seq - 1])


async def books(*at_ns: int) -> Accounts:
    """The accounts of a provider that settled a receipt of two runs at each of these times."""
    journal = Dated(*at_ns)
    for number in range(len(at_ns)):
        await journal.append(records.RECEIPT_SETTLED, settled(2, paid=True).pack(), b"%d" % number)
    return Accounts(*[None] * 2, journal, *[None] * 5)  # type: ignore[arg-type]


async def test_days_are_those_of_utc_in_order() -> None:
    accounts = await books(SATURDAY_NS - 2 * SECOND_NS, SATURDAY_NS, SATURDAY_NS + SECOND_NS)
    days = await accounts.sales("day")
    assert [(day["day"], day["receipts"], day["units"]) for day in days] == [("2026-11-27", 1, 2), ("2026-11-28", 2, 4)]
    assert days[0]["earned_nanoton"] > 0 == days[1]["earned_nanoton"], "the same receipt again raises no lane"


async def test_models_are_named_by_their_id() -> None:
    (model,) = await (await books(0)).sales("model")
    assert len(model["model"]) == 32 and (model["receipts"], model["units"]) == (1, 2)


async def test_a_peer_that_sells_nothing_has_nothing_to_look_back_at() -> None:
    found = (await books()).what_if(5)
    assert found.pop("ask_nanoton") == 5 and set(found.values()) == {0}


@pytest.mark.parametrize("args", [
    {"by": "buyer"}, {"by": 1}, {"ask_nanoton": -1}, {"ask_nanoton": 1 << 64}, {"ask_nanoton": True},
    {"ask_nanoton": "5"},
])
async def test_a_wrong_argument_is_the_clients_fault(args: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        await money_verbs(await books())["earnings"](Listener(), args)  # type: ignore[arg-type]


async def test_without_a_ledger_there_are_no_earnings_of_any_kind() -> None:
    with pytest.raises(NoLedger):
        await money_verbs(None)["earnings"](Listener(), {"by": "day"})  # type: ignore[arg-type]
