"""The verbs of the control socket, each a few lines between a local client and the peer.

Purity: shell. Spec: docs/spec/control.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import trio

from cocoon.core.errors import (
    CocoonError,
    Draining,
    LocalPeerLost,
    NotFound,
    PolicyRefusal,
    StorageFull,
    UsageError,
)
from cocoon.core.groups import single_error
from cocoon.core.ids import peer_id
from cocoon.core.limits import CONTEXT_TOKENS, PROVIDERS_ASKED, TASKS_OPEN, UNITS_PER_TASK
from cocoon.core.units import UNIT_OF, UnitKind
from cocoon.ledger.verify import verify_record
from cocoon.node import records
from cocoon.node.accounts import Accounts, money_verbs
from cocoon.node.args import Args, count_of, text_of
from cocoon.node.asking import gather_offers
from cocoon.node.bids import BidDesk
from cocoon.node.buying import Buyer
from cocoon.node.control import Caller, Verb
from cocoon.node.counter import Capacity
from cocoon.node.handover import Handover
from cocoon.node.library import Library
from cocoon.node.means import Order, Purse
from cocoon.node.tasks import Submission, TaskRun
from cocoon.node.telling import MOST, say_pages, told_auction, told_call, told_tally
from cocoon.runtime.service import Runtime
from cocoon.scheduler.hindsight import tally
from cocoon.scheduler.reputation import Standing
from cocoon.scheduler.selection import (
    RUNS,
    Demand,
    Measure,
    Quote,
    Ranked,
    expected_cost_nanoton,
    misfit,
    rank,
    usual_ceiling_nanoton,
    usual_spread,
)
from cocoon.wire.licence import NO_LICENCE
from cocoon.wire.manifest import Manifest

#: Items of a list in one reply; a frame holds at most ``CODEC_ITEMS`` values.
_PAGE = 1_024
#: More than any task can cost.
_ANY_NANOTON = 1 << 128
#: How prices of offers are told, per 1,000 of each unit.
_PRICES = {
    int(UnitKind.RUN): "run_nanoton_per_1000", int(UnitKind.PROMPT_TOKEN): "embed_token_nanoton_per_1000",
    int(UnitKind.OUTPUT_TOKEN): "token_nanoton_per_1000",
}
_LONGEST_MS = 30 * 24 * 3_600 * 1_000


@dataclass(slots=True)
class Desk:
    """Serves local clients."""

    purse: Purse
    buyer: Buyer
    library: Library
    status: Callable[[], dict[str, Any]]
    shutdown: trio.Event
    #: None on a network without a ledger.
    accounts: Accounts | None
    #: None on a peer that does not sell.
    bids: BidDesk | None
    #: The same.
    capacity: Capacity | None
    #: The same.
    runtime: Runtime | None = None
    tasks_open: int = 0

    def verbs(self) -> dict[str, Verb]:
        """What a client may ask."""
        return {
            "status": self._status, "offers": self._offers, "quote": self._quote, "market": self._market,
            "run": self._run,
            "receipts_ls": self._receipts, "receipts_show": self._receipt, "receipts_export": self._export,
            "pause": self._pause, "stop": self._stop, **self.library.verbs(), **money_verbs(self.accounts),
        }

    async def _status(self, caller: Caller, args: Args) -> dict[str, Any]:
        return {**self.status(), "tasks_open": self.tasks_open}

    async def _pause(self, caller: Caller, args: Args) -> dict[str, Any]:
        if self.capacity is None:
            raise UsageError("this peer sells nothing; start it with --provide")
        self.capacity.paused = args.get("paused") is True
        if self.capacity.paused and self.runtime is not None:
            await self.runtime.cool()
        return {"paused": self.capacity.paused}

    async def _stop(self, caller: Caller, args: Args) -> dict[str, Any]:
        caller.afterwards = self.shutdown.set
        return {"stopping": True}

    async def _offers(self, caller: Caller, args: Args) -> dict[str, Any]:
        purse, regard = self.purse, self.purse.regard
        found = await gather_offers(purse.directory, purse.clock, Demand("infer", 0, 1, 0), regard.reliability_ppm)
        return {"offers": [brief(quote, regard.standing(quote.provider)) for quote in found.quotes]}

    async def _quote(self, caller: Caller, args: Args) -> dict[str, Any]:
        """What a task would cost at each provider, the one that would be taken first; nobody hears of the task."""
        model, _ = await self.library.find(text_of(args, "model"))
        runs = count_of(args, "runs", 1, UNITS_PER_TASK)
        purse = self.purse
        manifest = model.manifest
        demand = Demand(manifest.sold_as, model.size_bytes, runs, _ANY_NANOTON, _measure(manifest, args))
        quotes = (await gather_offers(purse.directory, purse.clock, demand, purse.regard.reliability_ppm)).quotes
        verdict = rank(list(quotes), demand, purse.regard.reliability_ppm)
        ranked = verdict.quotes if isinstance(verdict, Ranked) else ()
        return {
            "model": model.id, "runs": runs,
            "ceiling_nanoton": usual_ceiling_nanoton([quote.terms for quote in quotes], runs),
            "quotes": [
                {
                    "expected_nanoton": min(MOST, expected_cost_nanoton(quote.terms, runs)),
                    "misfit": misfit(quote.offer, demand) or "", **brief(quote, purse.regard.standing(quote.provider)),
                }
                for quote in (*ranked, *(quote for quote in quotes if misfit(quote.offer, demand)))
            ],
        }

    async def _market(self, caller: Caller, args: Args) -> dict[str, Any]:
        """Offers now, the calls that this peer heard, the auctions that it held; in pages, the sums last."""
        await say_pages(caller, "offers", (await self._offers(caller, args))["offers"])
        now_ns, heard = self.purse.clock.now_ns(), [] if self.bids is None else self.bids.seen()
        held = tuple(self.purse.market.auctions)
        await say_pages(caller, "calls", (told_call(call, now_ns) for call in heard))
        await say_pages(caller, "auctions", (told_auction(sold, at_ns, now_ns) for at_ns, sold in held))
        return {"sums": told_tally(tally(heard))}

    # --- receipts ----------------------------------------------------------

    async def _receipts(self, caller: Caller, args: Args) -> dict[str, Any]:
        journal = self.purse.journal
        found: list[dict[str, Any]] = []
        for side, kind in (("bought", records.RECEIPT_ACCEPTED), ("sold", records.RECEIPT_SETTLED)):
            for entry in journal.entries(kind):
                facts = verify_record(entry.body)
                other = facts.provider if side == "bought" else facts.requester
                found.append({
                    "hash": facts.receipt, "side": side, "peer": peer_id(other), "seq": facts.seq, "runs": facts.runs,
                    "total_nanoton": facts.total_nanoton, "model": facts.model,
                })
                if len(found) == _PAGE:
                    await caller.say({"event": "page", "items": found})
                    found = []
                await trio.lowlevel.checkpoint()        # a long list must not hold up heartbeats
        return {"receipts": found}

    async def _receipt(self, caller: Caller, args: Args) -> dict[str, Any]:
        return {"record": self._record(args)[1]}

    async def _export(self, caller: Caller, args: Args) -> dict[str, Any]:
        digest, record = self._record(args)
        return {"export": record if self.accounts is None else self.accounts.export(digest, record)}

    def _record(self, args: Args) -> tuple[bytes, bytes]:
        """Digest and record of the receipt that ``hash`` names."""
        text = text_of(args, "hash")
        try:
            digest = bytes.fromhex(text)
        except ValueError:
            raise UsageError(f"{text[:64]!r} is no receipt hash") from None
        for key, kind in (
            (records.receipt_key(digest), records.RECEIPT_ACCEPTED),
            (records.settled_key(digest), records.RECEIPT_SETTLED),
        ):
            entry = self.purse.journal.find(key)
            if entry is not None and entry.kind == kind:
                return digest, entry.body
        raise NotFound(f"this peer holds no receipt {text[:64]}")

    # --- runs --------------------------------------------------------------

    async def _run(self, caller: Caller, args: Args) -> dict[str, Any]:
        if self.shutdown.is_set():
            raise Draining("this peer is shutting down")
        if self.tasks_open >= TASKS_OPEN:
            raise PolicyRefusal(f"{TASKS_OPEN} tasks are open already")
        if self.purse.journal.low and not await self.purse.journal.refill():
            raise StorageFull("the disk of COCOON_HOME is nearly full; new tasks are refused")
        self.tasks_open += 1
        try:
            return await self._serve_run(caller, args)
        finally:
            self.tasks_open -= 1

    async def _serve_run(self, caller: Caller, args: Args) -> dict[str, Any]:
        model, private = await self.library.find(text_of(args, "model"))
        units = count_of(args, "units", 1, UNITS_PER_TASK)
        ceiling = None if args.get("max_price_nanoton") is None else count_of(args, "max_price_nanoton", 0, MOST)
        manifest = model.manifest
        order = Order(model, private, manifest.sold_as, _measure(manifest, args), units, ceiling)
        spread = usual_spread(units) if args.get("spread") is None else count_of(args, "spread", 1, PROVIDERS_ASKED)
        submission = Submission(order, units, count_of(args, "deadline_ms", 1, _LONGEST_MS), spread)
        with closing(Handover()) as handover:
            return await self._serve_task(caller, submission, handover)

    async def _serve_task(self, caller: Caller, submission: Submission, handover: Handover) -> dict[str, Any]:
        model = submission.order.model
        licence = model.manifest.licence or NO_LICENCE
        await caller.say({"event": "licence", "model": model.id, "licence": licence, "shares": handover.possible})
        task = TaskRun(self.purse, self.buyer, submission, caller, handover)
        with single_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_take_units, caller, task, submission.units, handover)
                summary = await task.run()
                nursery.cancel_scope.cancel()
        return {**summary, "licence": licence}


def _measure(manifest: Manifest, args: Args) -> Measure:
    """How runs of this model are billed; ``run_units`` is the most that a user says that one of his has."""
    unit = UNIT_OF[manifest.sold_as]
    if unit == UnitKind.RUN:
        return RUNS
    most = CONTEXT_TOKENS if args.get("run_units") is None else count_of(args, "run_units", 1, CONTEXT_TOKENS)
    return Measure(int(unit), most)


async def _take_units(caller: Caller, task: TaskRun, units: int, handover: Handover) -> None:
    """Hand the client's inputs to the task as they come, and notice when the client goes."""
    expected = 0
    try:
        while True:
            message = await caller.hear()
            if message.get("end") is True:
                units = expected                        # whatever follows is one too many
                await task.end()
                continue
            if "shared_bytes" in message:
                handover.share(caller.take_descriptor(), message["shared_bytes"])
                continue
            if message.get("first") != expected:
                raise UsageError(f"unit {expected} was due")
            inputs = handover.inputs(expected, message.get("inputs"), message.get("rooms"), units - expected)
            await task.arrived(expected, inputs)
            expected += len(inputs)
    except LocalPeerLost as error:
        await task.fault("cancelled", error.text)
    except CocoonError as error:
        await task.fault(error.code, error.text)


def brief(quote: Quote, standing: Standing) -> dict[str, Any]:
    """An offer for people, with what this peer has seen of its provider."""
    offer = quote.offer
    return {
        "provider": peer_id(quote.provider), "setup_nanoton": offer.setup_nanoton,
        "run_nanoton_per_1000": 0, **{_PRICES[unit]: price for unit, price in offer.prices if unit in _PRICES},
        "max_model_bytes": offer.max_model_bytes,
        "max_memory_bytes": offer.max_memory_bytes, "max_run_ms": offer.max_run_ms, "queue": offer.queue,
        "free_memory_bytes": offer.free_memory_bytes,
        "warm_models": [
            {"model": model, "batch": batch, "run_us": run_us} for model, batch, run_us in quote.warm_models
        ],
        "device": quote.profile.device, "engine": quote.profile.engine, "execution_provider": quote.profile.provider,
        "offer": quote.digest, "reliability_ppm": standing.reliability_ppm, "seen": standing.reason(),
    }
