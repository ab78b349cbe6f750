"""Two peers with fixed keys, a lease between them, and the words they sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nacl.signing import SigningKey

from cocoon.core.ids import PeerKey
from cocoon.core.values import replace
from cocoon.ledger.escrow import EscrowBirth
from cocoon.ledger.events import (
    AskReceipt,
    Countersign,
    CountersignReceived,
    IssueReceipt,
    ReceiptReceived,
    RunAccepted,
    StatementMade,
    TrancheClosed,
)
from cocoon.ledger.receipt import ReceiptIssuer, ReceiptVerifier
from cocoon.ledger.record import Countersigned, ReceiptRecord
from cocoon.ledger.tab import Tab
from cocoon.ledger.terms import LeaseTerms, terms_of
from cocoon.wire.commitment import commit
from cocoon.wire.judged import Statement, sign_cell
from cocoon.wire.messages import Lease, LeaseAccept
from cocoon.wire.signing import Signed, sign

SALT = b"\x05" * 16
NETWORK = b"\x01" * 32


@dataclass(frozen=True)
class Peer:
    """A signer as ``identity`` offers it."""

    secret: SigningKey

    @property
    def key(self) -> PeerKey:
        return PeerKey(bytes(self.secret.verify_key))

    def sign(self, message: bytes) -> bytes:
        return bytes(self.secret.sign(message).signature)


REQUESTER, PROVIDER, LANE_OWNER, STRANGER = (Peer(SigningKey(bytes([n]) * 32)) for n in (1, 2, 3, 4))


#: The requester's escrow.
BIRTH = EscrowBirth(owner=b"\x0b" * 32, lane_key=LANE_OWNER.key, network_tag=0xC0FFEE01, index=0, close_delay_s=60)


def lease(**changes: Any) -> Signed[Lease]:
    """A price-0 lease; ``paid=True`` prices 1,000 runs at 1,500 nanoton with a set-up of 7, in tranches of 500."""
    body: dict[str, Any] = {
        "network": NETWORK, "nonce": b"\x02" * 16, "requester": REQUESTER.key, "provider": PROVIDER.key,
        "bid": b"\x03" * 32, "model": b"\x04" * 32, "private": True, "kind": "infer", "setup_nanoton": 0,
        "prices": ((1, 0),), "ceiling_nanoton": 0, "max_runs": 1_000, "duration_s": 3_600,
        "escrow": bytes(32), "lane": 0, "run_ms": 30_000, "tranche_nanoton": 0, "owner": bytes(32),
        "lane_key": bytes(32), "index": 0, "close_delay_s": 0, "network_tag": 0,
    }
    if changes.pop("paid", False):
        body |= {
            "setup_nanoton": 7, "prices": ((1, 1_500),), "ceiling_nanoton": 4_000, "tranche_nanoton": 2_000,
            "escrow": BIRTH.address(), "lane": 9, "owner": BIRTH.owner, "lane_key": BIRTH.lane_key,
            "index": BIRTH.index, "close_delay_s": BIRTH.close_delay_s, "network_tag": BIRTH.network_tag,
        }
    return sign(Lease(**(body | changes)), REQUESTER)


def terms(paid: bool = False, **changes: Any) -> LeaseTerms:
    return replace(terms_of(lease(paid=paid)), **changes)


def voucher_signer(agreed: LeaseTerms) -> Peer:
    return LANE_OWNER if agreed.lane else REQUESTER


def statement(agreed: LeaseTerms, run: int, due_nanoton: int = 0, /, **changes: Any) -> Statement:
    inputs, outputs = commit(SALT, b"in %d" % run), commit(SALT, b"out %d" % run)
    made = Statement(
        lease=agreed.lease, number=run, input_alg=inputs.alg, input=inputs.hash, output_alg=outputs.alg,
        output=outputs.hash, units=1, price_nanoton=due_nanoton, queued_us=10, ran_us=20,
    )
    return replace(made, **changes)


def next_statement(tab: Tab, run: int | None = None, /, **changes: Any) -> Statement:
    """The lawful statement of the next run on ``tab``."""
    return statement(tab.terms, run or tab.last_number + 1, tab.price_nanoton(1), **changes)


def issuer(paid: bool = False) -> ReceiptIssuer:
    return ReceiptIssuer(Tab(terms(paid)))


def verifier(paid: bool = False) -> ReceiptVerifier:
    return ReceiptVerifier(Tab(terms(paid)))


def signed(order: IssueReceipt, **changes: Any) -> ReceiptReceived:
    """The receipt as it arrives; ``changes`` are wrong fields under a good signature."""
    return ReceiptReceived(sign(replace(order.receipt, **changes), PROVIDER))


def countersigned(agreed: LeaseTerms, order: Countersign, **changes: Any) -> CountersignReceived:
    """The countersignature as it arrives; ``changes`` are wrong fields under a good signature."""
    voucher = replace(order.voucher, **changes)
    return CountersignReceived(voucher, sign_cell(voucher.hash(), voucher_signer(agreed)))


def record_of(
    statements: tuple[Statement, ...], order: Countersign, *, paid: bool = False, **changes: Any
) -> ReceiptRecord:
    """The record of a settled tranche; ``changes`` replace parts of its words."""
    agreed = lease(paid=paid)
    accept = LeaseAccept(lease=agreed.digest, keybox=b"\x07" * 32, nonce=b"\x08" * 32, resumed=False)
    signature = sign_cell(order.voucher.hash(), LANE_OWNER if paid else REQUESTER)
    words = Countersigned.of(
        agreed, sign(accept, PROVIDER), order.receipt, order.voucher.pack(), signature
    )
    return ReceiptRecord(replace(words, **changes), statements)


def deliver(seller: ReceiptIssuer, buyer: ReceiptVerifier, runs: int) -> list[Any]:
    """Make and accept ``runs`` more runs; return the seller's orders."""
    orders = []
    for _ in range(runs):
        made = next_statement(seller.tab)
        orders += seller.handle(0, StatementMade(made))
        buyer.handle(0, RunAccepted(made))
    return orders


def close(seller: ReceiptIssuer, buyer: ReceiptVerifier) -> IssueReceipt:
    (ask,) = buyer.handle(0, TrancheClosed(buyer.tab.last_number))
    assert isinstance(ask, AskReceipt)
    (order,) = seller.handle(0, TrancheClosed(ask.through))
    assert isinstance(order, IssueReceipt)
    return order


def settle(seller: ReceiptIssuer, buyer: ReceiptVerifier, order: IssueReceipt) -> Countersign:
    (promise,) = buyer.handle(0, signed(order))
    assert isinstance(promise, Countersign)
    seller.handle(0, countersigned(seller.tab.terms, promise))
    return promise


def second_tranche(paid: bool = False) -> tuple[ReceiptIssuer, ReceiptVerifier, IssueReceipt]:
    """One tranche of 3 settled, a receipt over 4 more issued and not delivered."""
    seller, buyer = issuer(paid), verifier(paid)
    deliver(seller, buyer, 3)
    settle(seller, buyer, close(seller, buyer))
    deliver(seller, buyer, 4)
    return seller, buyer, close(seller, buyer)
