"""What the owner of a peer is told of the market: the calls that it heard, and the auctions that it held.

Of a call nobody is told who made it: this peer does not keep that beside what was called for.

Purity: shell. Spec: docs/spec/control.md, rules CTL-11 and CTL-22.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cocoon.core.ids import peer_id
from cocoon.core.units import MILLISECOND_NS, unit_of
from cocoon.core.values import asdict
from cocoon.node.control import Caller
from cocoon.scheduler.award import Sold
from cocoon.scheduler.bidding import CallSeen
from cocoon.scheduler.hindsight import Tally, cost_nanoton, reason
from cocoon.scheduler.selection import (
    Quote,
    Ranked,
    expected_completion_ns,
    expected_cost_nanoton,
    slowest_run_us,
)
from cocoon.wire.market import NO_MODEL

#: The largest number that can be told; what strangers bid may come to more.
MOST = (1 << 64) - 1
#: Items of a page; an auction has up to eight bids of eight fields, and a frame holds at most ``CODEC_ITEMS`` values.
_PAGE = 128


async def say_pages(caller: Caller, part: str, items: Iterable[dict[str, Any]]) -> None:
    """One part of an answer, in pages that name it."""
    page: list[dict[str, Any]] = []
    for item in items:
        page.append(item)
        if len(page) == _PAGE:
            await caller.say({"event": "page", "part": part, "items": page})
            page = []
    if page:
        await caller.say({"event": "page", "part": part, "items": page})


def told_call(call: CallSeen, now_ns: int) -> dict[str, Any]:
    """One call that this provider heard, without its caller."""
    is_bid = call.answer == "bid"
    return {
        "age_ms": _age_ms(now_ns, call.at_ns), "kind": call.kind,
        "model": "private" if call.model == NO_MODEL else call.model, "units": call.units,
        "bid_nanoton": min(MOST, cost_nanoton(call)) if is_bid else 0,
        "nanoton_per_1000": dict(call.prices).get(unit_of(call.kind), 0), "answer": call.answer,
        "outcome": call.outcome, "reason": reason(call),
    }


def told_tally(found: Tally) -> dict[str, Any]:
    """The sums of all calls."""
    return {**asdict(found), "declined": dict(found.declined)}


def told_auction(sold: Sold, at_ns: int, now_ns: int) -> dict[str, Any]:
    """One auction that this requester held: every bid, the taken one first, and who gave none."""
    ranked = sold.verdict.quotes if isinstance(sold.verdict, Ranked) else ()
    slowest_us = slowest_run_us(sold.quotes)
    return {
        "age_ms": _age_ms(now_ns, at_ns), "units": sold.units, "ceiling_nanoton": min(MOST, sold.ceiling_nanoton),
        "bids": [
            {
                "provider": peer_id(quote.provider),
                "expected_nanoton": min(MOST, expected_cost_nanoton(quote.terms, sold.units)),
                "completion_ms": min(MOST, expected_completion_ns(quote, sold.units, slowest_us) // MILLISECOND_NS),
                "warm": quote.warm, "taken": quote in ranked[:1], "reason": _passed_over(quote, ranked, sold),
            }
            for quote in (*ranked, *(quote for quote in sold.quotes if quote not in ranked))
        ],
        "missed": [{"provider": peer_id(one.peer), "code": one.code} for one in sold.missed],
    }


def _passed_over(quote: Quote, ranked: Sequence[Quote], sold: Sold) -> str:
    """Why a bid was not taken, in words; empty for the one that was."""
    if quote in ranked[:1]:
        return ""
    if quote in ranked:
        return sold.lost[quote.provider].reason()
    if expected_cost_nanoton(quote.terms, sold.units) > sold.ceiling_nanoton:
        return "above the ceiling"
    return "does not take this model"


def _age_ms(now_ns: int, at_ns: int) -> int:
    return max(0, now_ns - at_ns) // MILLISECOND_NS
