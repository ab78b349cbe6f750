"""The accounts of a peer: what its wallet, its lanes and its anchor say, and what closes the books.

Every figure comes from proven chain state or from the journal, and says which.

Purity: shell. Spec: docs/spec/lanes.md, rule LAN-30; anchoring.md, rules BAT-10 to BAT-17; control.md, rules CTL-12 to
CTL-20.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import date
from itertools import islice
from typing import Any

import trio

from cocoon.config.network import MAINNET_GENESIS, NetworkFile
from cocoon.core.errors import LimitExceeded, NoLedger, NotFound, UsageError
from cocoon.core.ids import ReceiptHash, peer_id
from cocoon.core.limits import AUDIT_LOOKS, TRANSACTIONS_READ
from cocoon.core.units import DAY_NS, NANOTON_PER_TON
from cocoon.core.values import Value, asdict
from cocoon.ledger.acts import EscrowHistory, history_of
from cocoon.ledger.address import format_address
from cocoon.ledger.audit import LaneBooks, audit_account, audit_escrow, audit_lanes, flow_of
from cocoon.ledger.earnings import earnings_of
from cocoon.ledger.lanes import LaneStage
from cocoon.ledger.onchain import Transaction
from cocoon.ledger.sales import Sales
from cocoon.ledger.verify import ReceiptFacts, verify_record
from cocoon.node import records
from cocoon.node.anchors import Anchors
from cocoon.node.args import Args
from cocoon.node.bids import BidDesk
from cocoon.node.buying import Buyer
from cocoon.node.closing import Closing
from cocoon.node.control import Caller, Verb
from cocoon.node.money import Money
from cocoon.node.recovery import recover
from cocoon.node.telling import MOST, say_pages
from cocoon.node.till import Till
from cocoon.node.treasury import Treasury
from cocoon.scheduler.hindsight import what_if
from cocoon.store.service import Journal

_MOST_FUND_NANOTON = 1_000 * NANOTON_PER_TON
#: Days of the journal's wall time count from here.
_EPOCH = date(1970, 1, 1)
#: Receipts that an audit takes out of the journal at a time.
_RECEIPTS_READ = 64


class Accounts(Value):
    """All that this peer's money is in."""

    network: NetworkFile
    money: Money
    journal: Journal
    treasury: Treasury
    closing: Closing
    buyer: Buyer
    #: None on a peer that does not sell.
    till: Till | None
    anchors: Anchors | None
    #: None on a peer that does not sell.
    bids: BidDesk | None = None

    async def collect(self) -> None:
        """A provider's last work: claim what is worth its fee, and anchor what is not anchored."""
        if self.till is not None:
            await self.till.claim_all()
        if self.anchors is not None:
            await self.anchors.anchor_now()

    async def wallet(self) -> dict[str, Any]:
        """The wallet, and the escrow with its lanes, in proven state."""
        wallet = await self.money.ledger.account(self.money.ledger.address)
        seen = await self.treasury.look()
        lanes = [
            {
                "lane": lane.lane, "provider": peer_id(lane.provider), "stage": lane.stage.value,
                "cap_nanoton": lane.cap_nanoton, "promised_nanoton": self.treasury.promised_nanoton(lane.lane),
                "paid_nanoton": lane.paid_nanoton, "reserved_nanoton": lane.reserved_nanoton,
                "expires_s": lane.expires_s,
            }
            for lane in self.treasury.book.lanes.values()
        ]
        return {
            "address": wallet.address,
            "friendly_address": format_address(wallet.address, test_only=not self._is_mainnet),
            "balance_nanoton": wallet.balance_nanoton, "chain_time_s": wallet.at_s,
            "deployment_nanoton": 0 if wallet.deployed else await self.money.ledger.deployment_nanoton(),
            "escrow": self.treasury.address, "escrow_balance_nanoton": seen.balance_nanoton,
            "escrow_locked_nanoton": seen.state.locked_nanoton if seen.state is not None else 0,
            "escrow_unlocked_nanoton": seen.unlocked_nanoton, "anchor_balance_nanoton": await self._anchored(),
            "unsettled_leases": self.buyer.debts.open,
            "lanes": lanes,
        }

    @property
    def _is_mainnet(self) -> bool:
        return self.money.facts.genesis == MAINNET_GENESIS

    async def fund(self, amount_nanoton: int) -> dict[str, Any]:
        """Coins from the devnet's faucet."""
        await self.money.ledger.fund(amount_nanoton)
        return {"address": self.money.ledger.address, "balance_nanoton": await self.money.ledger.balance()}

    async def settle(self) -> dict[str, Any]:
        """Close the books: give leases back, settle debts, close lanes, claim, anchor."""
        await self.buyer.release_idle()
        await self.buyer.debts.settle_all()
        await self.closing.close_all(self.buyer.debts.leases)
        await self.collect()
        anchored = None if self.anchors is None else await self.anchors.newest()
        lanes = self.treasury.book.lanes.values()
        return {
            "balance_nanoton": await self.money.ledger.balance(),
            "lanes_open": sum(lane.stage is LaneStage.OPEN for lane in lanes),
            "lanes_waiting": self.closing.waiting, "unsettled_leases": self.buyer.debts.open,
            "anchor": b"" if self.anchors is None else self.anchors.birth.address(),
            "anchor_tx": b"" if anchored is None else anchored.transaction,
            "anchored_receipts": 0 if anchored is None else anchored.receipts,
            "anchored_roots": 0 if anchored is None else anchored.ordered.seq,
        }

    async def recover(self) -> dict[str, Any]:
        """Bring the escrow's coins back by the owner's own messages; what is locked after the close delay."""
        return await recover(self.money, self.treasury.orders)

    async def earnings(self) -> dict[str, Any]:
        """What the vouchers of our lanes promised, and what the chain paid of it."""
        till = self.till
        if till is None:
            return {"earned_nanoton": 0, "claimed_nanoton": 0, "pending_nanoton": 0, "lost_nanoton": 0,
                    "fees_nanoton": 0, "lanes": []}
        histories = await self._histories({lane.escrow for lane in till.lanes.lanes.values()})
        flow = flow_of(await self._transactions(self.money.ledger.address))
        found = earnings_of(till.lanes.lanes.values(), histories, flow.fees_nanoton)
        return {
            "earned_nanoton": found.earned_nanoton, "claimed_nanoton": found.claimed_nanoton,
            "pending_nanoton": found.pending_nanoton, "lost_nanoton": found.lost_nanoton,
            "fees_nanoton": found.fees_nanoton, "lanes": [asdict(lane) for lane in found.lanes],
        }

    async def sales(self, by: str) -> list[dict[str, Any]]:
        """What our receipts earned, by model or by day (UTC, of the journal's clock when each was settled)."""
        if by == "model":
            models = Sales[bytes]()
            async for _, facts in self._entries(records.RECEIPT_SETTLED):
                models.take(facts.model, facts)
            return [{"model": "others" if key is None else key, **asdict(sold)} for key, sold in models.by_earned()]
        days = Sales[str]()
        async for at_ns, facts in self._entries(records.RECEIPT_SETTLED):
            days.take(date.fromordinal(_EPOCH.toordinal() + at_ns // DAY_NS).isoformat(), facts)
        found = sorted(days.groups.items(), key=lambda item: item[0] or "")
        return [{"day": "others" if key is None else key, **asdict(sold)} for key, sold in found]

    def what_if(self, ask_nanoton: int) -> dict[str, Any]:
        """What another ask would have changed in the calls of late; nothing on a peer that does not sell."""
        found = what_if([], 0, ask_nanoton) if self.bids is None else self.bids.what_if(ask_nanoton)
        return {name: min(MOST, value) for name, value in asdict(found).items()}

    async def audit(self) -> dict[str, Any]:
        """The journal against the chain, to the nanoton.

        Account and transactions are read one after the other, so what moved between the two looks like a
        difference; one that is real is there at the next look too.
        """
        found = await self._audited()
        for _ in range(AUDIT_LOOKS - 1):
            if found["clean"]:
                break
            found = await self._audited()
        return found

    async def _audited(self) -> dict[str, Any]:
        found = []
        wallet = await self.money.ledger.account(self.money.ledger.address)
        flow = flow_of(await self._transactions(wallet.address))
        found += audit_account(wallet.address, flow, wallet.balance_nanoton)
        bought, sold = await self._bought(), await self._sold()
        histories = await self._histories({books.escrow for books in (*bought, *sold)} | {self.treasury.address})
        seen = await self.treasury.look()
        if seen.state is not None:
            found += audit_escrow(histories[self.treasury.address], seen.state, seen.balance_nanoton)
        found += audit_lanes([*bought, *sold], histories)
        return {
            "clean": not found, "differences": [asdict(one) for one in found],
            "lanes_bought": len(bought), "lanes_sold": len(sold), "wallet": asdict(flow),
            "balance_nanoton": wallet.balance_nanoton,
        }

    async def supply(self) -> dict[str, Any]:
        """The whole chain of a devnet added up, each block, transaction and balance read and proven."""
        found = await self.money.ledger.supply()
        return {
            "genesis_nanoton": found.genesis_nanoton, "balances_nanoton": found.balances_nanoton,
            "fees_nanoton": found.fees_nanoton, "under_way_nanoton": found.under_way_nanoton,
            "blocks": found.blocks, "transactions": found.transactions, "accounts": found.accounts,
            "conserved": found.conserved,
        }

    def export(self, digest: bytes, record: bytes) -> bytes:
        """A receipt record with its place under an anchored root; the record alone if it has none."""
        if self.anchors is None:
            return record
        try:
            return self.anchors.export(ReceiptHash(digest), record)
        except NotFound:                                # one that this peer bought, or that waits for its batch
            return record

    # --- journal and chain as the audit wants them -------------------------

    async def _bought(self) -> list[LaneBooks]:
        receipts = await self._receipts(records.RECEIPT_ACCEPTED)
        found = []
        for lane in self.treasury.book.lanes.values():
            mine = receipts.get((self.treasury.address, lane.lane), [])
            total = max((facts.total_nanoton for facts in mine), default=0)
            closed = lane.head.total_nanoton
            found.append(LaneBooks(self.treasury.address, lane.lane, mine, total, closed_nanoton=closed, sold=False))
        return found

    async def _sold(self) -> list[LaneBooks]:
        if self.till is None:
            return []
        receipts = await self._receipts(records.RECEIPT_SETTLED)
        found = []
        for (escrow, number), lane in self.till.lanes.lanes.items():
            mine, total = receipts.get((escrow, number), []), lane.head.total_nanoton
            found.append(LaneBooks(escrow, number, mine, total, closed_nanoton=lane.closing_nanoton))
        return found

    async def _receipts(self, kind: str) -> Mapping[tuple[bytes, int], list[ReceiptFacts]]:
        """Every receipt until now, by its lane; nothing happens between the last look into the journal and the end."""
        found: dict[tuple[bytes, int], list[ReceiptFacts]] = {}
        async for _, facts in self._entries(kind):
            if facts.lane:
                found.setdefault((facts.escrow, facts.lane), []).append(facts)
        return found

    async def _entries(self, kind: str) -> AsyncIterator[tuple[int, ReceiptFacts]]:
        """Every receipt until now with the wall time of its entry, checked."""
        after = 0
        while page := list(islice(self.journal.entries(kind, after), _RECEIPTS_READ)):
            for entry in page:
                await trio.lowlevel.checkpoint()        # each has several signatures, and links must beat meanwhile
                yield entry.at_ns, verify_record(entry.body)
            after = page[-1].seq

    async def _anchored(self) -> int:
        """What our anchor's account holds."""
        if self.anchors is None:
            return 0
        return (await self.money.ledger.account(self.anchors.birth.address())).balance_nanoton

    async def _histories(self, escrows: set[bytes]) -> Mapping[bytes, EscrowHistory]:
        return {address: history_of(await self._transactions(address)) for address in escrows}

    async def _transactions(self, address: bytes) -> list[Transaction]:
        """Every transaction of an account, oldest first.

        Raises:
            LimitExceeded: the account has more than an audit reads.
        """
        found = await self.money.ledger.transactions(address, 0, TRANSACTIONS_READ)
        if len(found) == TRANSACTIONS_READ:
            raise LimitExceeded(f"{address.hex()[:16]} has more transactions than the {TRANSACTIONS_READ} of an audit")
        return found


def money_verbs(accounts: Accounts | None) -> dict[str, Verb]:
    """The verbs of the control socket that speak of money; on a network without a ledger each says so."""

    def here() -> Accounts:
        if accounts is None:
            raise NoLedger("this network has no ledger: every price is 0, and there is no wallet")
        return accounts

    async def wallet(caller: Caller, args: Args) -> dict[str, Any]:
        return await here().wallet()

    async def fund(caller: Caller, args: Args) -> dict[str, Any]:
        amount = args.get("amount_nanoton")
        if type(amount) is not int or not 0 < amount <= _MOST_FUND_NANOTON:
            raise UsageError(f"'amount_nanoton' is a whole number from 1 to {_MOST_FUND_NANOTON}")
        return await here().fund(amount)

    async def settle(caller: Caller, args: Args) -> dict[str, Any]:
        return await here().settle()

    async def recovered(caller: Caller, args: Args) -> dict[str, Any]:
        return await here().recover()

    async def earnings(caller: Caller, args: Args) -> dict[str, Any]:
        books = here()
        by, ask = args.get("by"), args.get("ask_nanoton")
        if by not in (None, "model", "day"):
            raise UsageError("'by' is model or day")
        if ask is not None and (type(ask) is not int or not 0 <= ask <= MOST):
            raise UsageError(f"'ask_nanoton' is a whole number from 0 to {MOST}")
        if by is not None:
            await say_pages(caller, "groups", await books.sales(by))
        what_if = {} if ask is None else {"what_if": books.what_if(ask)}
        return {**await books.earnings(), **what_if}

    async def audit(caller: Caller, args: Args) -> dict[str, Any]:
        return await here().audit()

    async def supply(caller: Caller, args: Args) -> dict[str, Any]:
        return await here().supply()

    return {"wallet": wallet, "fund": fund, "settle": settle, "earnings": earnings, "audit": audit,
            "supply": supply, "recover": recovered}
