"""The verbs of the control socket, each a few lines between a local client and the peer.

Purity: shell. Spec: docs/spec/control.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from cocoon.core.errors import (
    CocoonError,
    Draining,
    LimitExceeded,
    LocalPeerLost,
    NotFound,
    PolicyRefusal,
    StorageFull,
    UsageError,
)
from cocoon.core.groups import single_error
from cocoon.core.ids import ModelId, peer_id
from cocoon.core.limits import OFFER_NS, PAYLOAD_BYTES, PROVIDERS_ASKED, TASKS_OPEN, UNITS_PER_TASK
from cocoon.core.units import SECOND_NS
from cocoon.ledger.verify import verify_record
from cocoon.node import records
from cocoon.node.accounts import Accounts, money_verbs
from cocoon.node.asking import gather_offers
from cocoon.node.bids import BidDesk
from cocoon.node.buying import Buyer
from cocoon.node.control import Args, Caller, Verb
from cocoon.node.means import Order, Purse
from cocoon.node.models import HeldModel, ModelShelf
from cocoon.node.tasks import Submission, TaskRun
from cocoon.node.telling import MOST, say_pages, told_auction, told_call, told_tally
from cocoon.p2p.blobs import fetch_manifest
from cocoon.scheduler.hindsight import tally
from cocoon.scheduler.reputation import Standing
from cocoon.scheduler.selection import (
    Demand,
    Quote,
    Ranked,
    expected_cost_nanoton,
    misfit,
    rank,
    usual_ceiling_nanoton,
    usual_spread,
)

KIND = "infer"
#: Items of a list in one reply; a frame holds at most ``CODEC_ITEMS`` values.
_PAGE = 1_024
#: More than any task can cost.
_ANY_NANOTON = 1 << 128
_LONGEST_MS = 30 * 24 * 3_600 * 1_000


@dataclass(slots=True)
class Desk:
    """Serves local clients."""

    purse: Purse
    buyer: Buyer
    shelf: ModelShelf
    status: Callable[[], dict[str, Any]]
    shutdown: trio.Event
    #: Whether this peer stores records in the DHT; one that only buys does not.
    announces: bool
    #: None on a network without a ledger.
    accounts: Accounts | None
    #: None on a peer that does not sell.
    bids: BidDesk | None
    tasks_open: int = 0

    def verbs(self) -> dict[str, Verb]:
        """What a client may ask."""
        return {
            "status": self._status, "offers": self._offers, "quote": self._quote, "market": self._market,
            "run": self._run,
            "receipts_ls": self._receipts, "receipts_show": self._receipt, "receipts_export": self._export,
            "models_add": self._add_model, "models_ls": self._models, "stop": self._stop, **money_verbs(self.accounts),
        }

    async def _status(self, caller: Caller, args: Args) -> dict[str, Any]:
        return {**self.status(), "tasks_open": self.tasks_open}

    async def _stop(self, caller: Caller, args: Args) -> dict[str, Any]:
        caller.afterwards = self.shutdown.set
        return {"stopping": True}

    async def _offers(self, caller: Caller, args: Args) -> dict[str, Any]:
        purse, regard = self.purse, self.purse.regard
        found = await gather_offers(purse.directory, purse.clock, Demand(KIND, 0, 1, 0), regard.reliability_ppm)
        return {"offers": [brief(quote, regard.standing(quote.provider)) for quote in found.quotes]}

    async def _quote(self, caller: Caller, args: Args) -> dict[str, Any]:
        """What a task would cost at each provider, the one that would be taken first; nobody hears of the task."""
        model, _ = await self._model(_text(args, "model"))
        runs = _count(args, "runs", 1, UNITS_PER_TASK)
        purse = self.purse
        demand = Demand(KIND, model.size_bytes, runs, _ANY_NANOTON)
        quotes = (await gather_offers(purse.directory, purse.clock, demand, purse.regard.reliability_ppm)).quotes
        verdict = rank(list(quotes), demand, purse.regard.reliability_ppm)
        ranked = verdict.quotes if isinstance(verdict, Ranked) else ()
        return {
            "model": model.id, "runs": runs,
            "ceiling_nanoton": usual_ceiling_nanoton([quote.offer for quote in quotes], runs),
            "quotes": [
                {
                    "expected_nanoton": min(MOST, expected_cost_nanoton(quote.offer, runs)),
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
        text = _text(args, "hash")
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

    # --- models ------------------------------------------------------------

    async def _add_model(self, caller: Caller, args: Args) -> dict[str, Any]:
        path, public = Path(_text(args, "path")), args.get("public") is True
        held = await trio.to_thread.run_sync(self.shelf.add_public if public else self.shelf.of_file, path)
        if public and self.announces:
            await self.purse.mesh.provide(held.id)
        announced = public and self.announces
        return {"model": held.id, "public": public, "announced": announced, "size_bytes": held.size_bytes}

    async def _models(self, caller: Caller, args: Args) -> dict[str, Any]:
        return {"models": [
            {"model": held.id, "public": True, "size_bytes": held.size_bytes} for held in self.shelf.public().values()
        ]}

    async def _model(self, text: str) -> tuple[HeldModel, bool]:
        """A file of the user (private), or a public model by id: here, or described by who announces it."""
        if "/" in text:
            return await trio.to_thread.run_sync(self.shelf.of_file, Path(text)), True
        model = _model_id(text)
        if (held := self.shelf.find(model)) is not None:
            return held, False
        mesh = self.purse.mesh
        for holder in await mesh.find_providers(model, 8):
            try:
                with trio.move_on_after(OFFER_NS / SECOND_NS):
                    # Described, not held: a provider fetches the bytes from those who announce them.
                    return HeldModel(model, await fetch_manifest(mesh, holder, model), (), ()), False
            except CocoonError as error:
                self.purse.log.info("manifest_fetch_failed", peer=holder, model=model, code=error.code)
        raise NotFound(f"nobody announces model {text[:64]}")

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
        model, private = await self._model(_text(args, "model"))
        units = _count(args, "units", 1, UNITS_PER_TASK)
        ceiling = None if args.get("max_price_nanoton") is None else _count(args, "max_price_nanoton", 0, MOST)
        order = Order(model, private, KIND, units, ceiling)
        spread = usual_spread(units) if args.get("spread") is None else _count(args, "spread", 1, PROVIDERS_ASKED)
        submission = Submission(order, units, _count(args, "deadline_ms", 1, _LONGEST_MS), spread)
        task = TaskRun(self.purse, self.buyer, submission, caller)
        with single_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_take_units, caller, task, submission.units)
                summary = await task.run()
                nursery.cancel_scope.cancel()
        return summary


async def _take_units(caller: Caller, task: TaskRun, units: int) -> None:
    """Hand the client's inputs to the task as they come, and notice when the client goes."""
    expected = 0
    try:
        while True:
            message = await caller.hear()
            inputs = message.get("inputs")
            if message.get("unit") != expected or expected >= units or not isinstance(inputs, bytes):
                raise UsageError(f"unit {expected} was due")
            if len(inputs) > PAYLOAD_BYTES:
                raise LimitExceeded(f"unit {expected} has {len(inputs)} bytes, above {PAYLOAD_BYTES}")
            await task.arrived(expected, inputs)
            expected += 1
    except LocalPeerLost as error:
        await task.fault("cancelled", error.text)
    except CocoonError as error:
        await task.fault(error.code, error.text)


def brief(quote: Quote, standing: Standing) -> dict[str, Any]:
    """An offer for people, with what this peer has seen of its provider."""
    offer = quote.offer
    return {
        "provider": peer_id(quote.provider), "setup_nanoton": offer.setup_nanoton,
        "run_nanoton_per_1000": dict(offer.prices).get(1, 0), "max_model_bytes": offer.max_model_bytes,
        "max_memory_bytes": offer.max_memory_bytes, "max_run_ms": offer.max_run_ms, "queue": offer.queue,
        "free_memory_bytes": offer.free_memory_bytes,
        "warm_models": [
            {"model": model, "batch": batch, "run_us": run_us} for model, batch, run_us in quote.warm_models
        ],
        "device": quote.profile.device, "engine": quote.profile.engine, "execution_provider": quote.profile.provider,
        "offer": quote.digest, "reliability_ppm": standing.reliability_ppm, "seen": standing.reason(),
    }


def _model_id(text: str) -> ModelId:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise UsageError(f"{text[:80]!r} is neither an absolute path nor a model id of 64 hex digits")
    return ModelId(digest)


def _text(args: Args, key: str) -> str:
    value = args.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 4_096:
        raise UsageError(f"{key!r} is missing or no text")
    return value


def _count(args: Args, key: str, low: int, high: int) -> int:
    value = args.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{key!r} is a whole number from {low} to {high}")
    return value


