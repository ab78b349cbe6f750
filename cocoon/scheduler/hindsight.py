"""Hindsight: what a provider learns from the calls that it answered, and what another ask would have changed.

Of a lost bid a provider knows a band: how much dearer it was than the one that
was taken. So the taken one's cost lies between two amounts, and every answer
here is a count that cannot be too high (``at_least``) or too low (``at_most``).

Purity: pure. Spec: docs/spec/auction.md, rules AUC-16 and AUC-17.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cocoon.core.limits import CALLS_LOOKED_BACK_NS
from cocoon.core.units import UnitKind, bill_nanoton, unit_of
from cocoon.core.values import Value
from cocoon.scheduler.award import BANDS_PERCENT, DEARER_STILL_PERCENT, Verdict
from cocoon.scheduler.bidding import CallSeen
from cocoon.scheduler.selection import expected_cost_nanoton

#: The ends of the bands in which ``award.verdict`` speaks, in per cent; the last means any more than the one before.
_ENDS_PERCENT = (0, *BANDS_PERCENT, DEARER_STILL_PERCENT)


class Tally(Value):
    """What became of the calls that are remembered.

    Attributes:
        declined: How often each code was answered, the most frequent first.
        reason: What requesters said most often of lost bids, in words; empty if none did.
    """

    heard: int
    bid: int
    won: int
    lost: int
    declined: tuple[tuple[str, int], ...]
    reason: str


def tally(calls: Iterable[CallSeen]) -> Tally:
    """Add the calls up; equal counts are ordered by their text."""
    bid = won = 0
    declined, reasons = Counter[str](), Counter[str]()
    for call in calls:
        if call.answer != "bid":
            declined[call.answer] += 1
            continue
        bid += 1
        won += call.outcome == "won"
        if call.outcome == "lost":
            reasons[reason(call)] += 1
    by_count = _by_count(reasons)
    return Tally(
        bid + declined.total(), bid, won, reasons.total(), _by_count(declined), by_count[0][0] if by_count else ""
    )


def cost_nanoton(call: CallSeen) -> int:
    """What all runs of the call would have cost under our bid; of one by the token, the set-up alone is known."""
    return expected_cost_nanoton(call, call.units)


def reason(call: CallSeen) -> str:
    """Why a bid did not win, in words; empty if nobody said.

    A requester may have said any number of per cent: it counts as the band that it falls into.
    """
    said = call.bands
    if said is None:
        return ""
    return Verdict(_ENDS_PERCENT[_band(said.dearer_percent)], said.cold, said.slower, said.less_reliable).reason()


class WhatIf(Value):
    """What another price of runs would have changed, as far as bands tell. Money in nanoton.

    Attributes:
        ask_nanoton: Price of 1,000 runs that is tried; set-up prices stay as they were bid.
        bid: Calls that got a bid.
        lost_dearer: Bids that lost and were dearer than the taken one.
        lower_band_at_least: Of these, how many would have been dearer by a lower band, or not at all.
        no_dearer_at_least: Of these, how many would have been no dearer than the taken one.
        won_at_least: Of these, how many would have been cheaper than the taken one, while nothing else spoke against
            them: they would have won, but for auctions in which a newcomer is tried (AUC-6).
        gained_at_least_nanoton: What those would have cost.
        won: Bids that won.
        won_nanoton: What all units of these cost as they were bid.
        won_at_ask_nanoton: What they would have cost; no more than that, for a dearer bid might not have won.
    """

    ask_nanoton: int
    bid: int
    lost_dearer: int
    lower_band_at_least: int
    lower_band_at_most: int
    no_dearer_at_least: int
    no_dearer_at_most: int
    won_at_least: int
    gained_at_least_nanoton: int
    won: int
    won_nanoton: int
    won_at_ask_nanoton: int


def what_if(calls: Iterable[CallSeen], now_ns: int, ask_nanoton: int) -> WhatIf:
    """Bid ``ask_nanoton`` for 1,000 runs, in hindsight, in all calls for runs of the last ``CALLS_LOOKED_BACK_NS``.

    How many tokens the tasks of a decoder have, nobody tells its bidders.
    """
    recent = [call for call in calls if call.answer == "bid" and now_ns - call.at_ns < CALLS_LOOKED_BACK_NS]
    bids = [call for call in recent if unit_of(call.kind) == UnitKind.RUN]
    won = [call for call in bids if call.outcome == "won"]
    tried = [lost for call in bids if (lost := _tried(call, ask_nanoton)) is not None]
    return WhatIf(
        ask_nanoton, len(bids), len(tried),
        lower_band_at_least=sum(one.lower_band[0] for one in tried),
        lower_band_at_most=sum(one.lower_band[1] for one in tried),
        no_dearer_at_least=sum(one.no_dearer[0] for one in tried),
        no_dearer_at_most=sum(one.no_dearer[1] for one in tried),
        won_at_least=sum(one.wins for one in tried),
        gained_at_least_nanoton=sum(one.cost_nanoton for one in tried if one.wins),
        won=len(won),
        won_nanoton=sum(map(cost_nanoton, won)),
        won_at_ask_nanoton=sum(_at(call, ask_nanoton) for call in won),
    )


class _Tried(Value):
    """One bid that was lost for being dearer, at another ask: what surely holds, and what may."""

    cost_nanoton: int
    lower_band: tuple[bool, bool]
    no_dearer: tuple[bool, bool]
    wins: bool


def _tried(call: CallSeen, ask_nanoton: int) -> _Tried | None:
    """None if this bid was not lost for being dearer, or if what its requester said of it cannot be."""
    said = call.bands
    if call.outcome != "lost" or said is None or not said.dearer_percent:
        return None
    band = _band(said.dearer_percent)
    low, high = _taken_nanoton(cost_nanoton(call), band)
    if low > high:
        return None
    cost, below_percent = _at(call, ask_nanoton), 100 + _ENDS_PERCENT[band - 1]
    # A bidder that never measured the model counts as slow as the slowest of all, whom we do not know.
    unopposed = call.run_us > 0 and not (said.slower or said.less_reliable)
    return _Tried(
        cost,
        lower_band=(cost * 100 <= low * below_percent, cost * 100 <= high * below_percent),
        no_dearer=(cost <= low, cost <= high),
        wins=unopposed and cost < low,
    )


def _at(call: CallSeen, ask_nanoton: int) -> int:
    return call.setup_nanoton + bill_nanoton(call.units, ask_nanoton)


def _band(percent: int) -> int:
    """Number of the band that ``percent`` falls into; 0 is none."""
    return next((band for band, end in enumerate(_ENDS_PERCENT) if percent <= end), len(_ENDS_PERCENT) - 1)


def _taken_nanoton(cost: int, band: int) -> tuple[int, int]:
    """Least and most that the taken bid can have cost, if one of ``cost`` was dearer by ``band``."""
    last = len(_ENDS_PERCENT) - 1
    low = 0 if band == last else -(-cost * 100 // (100 + _ENDS_PERCENT[band]))
    return low, (cost * 100 - 1) // (100 + _ENDS_PERCENT[band - 1])


def _by_count(counter: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
