"""A provider's till believes nothing that a requester says of money.

The liar holds everything that an honest buyer held: its peer key, its lane key,
a lane on a real chain, and the vouchers that it gave. Every word of it is
refused with its own code; the provider's journal and the chain stay as they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

import cocoon
from cocoon.config.network import parse_link
from cocoon.core.ids import LeaseId, ReceiptHash
from cocoon.core.values import replace
from cocoon.identity.keys import Identity, KeyPair, key_pair
from cocoon.identity.service import load_or_create
from cocoon.ledger.escrow import EscrowBirth
from cocoon.ledger.mnemonic import lane_seed, wallet_seed
from cocoon.ledger.record import unpack_record
from cocoon.ledger.signer.files import read_words
from cocoon.ledger.tab import voucher_of
from cocoon.ledger.terms import terms_of
from cocoon.ledger.till import TILL_FACTS, VoucherKept, proof_of_lane
from cocoon.node import records
from cocoon.node.closing import CLOSE_PROTOCOL
from cocoon.node.link import WorkLink
from cocoon.privacy.link import LinkKeys, SealedReader, SealedWriter, session_keys
from cocoon.store.reader import open_reader
from cocoon.store.service import JOURNAL_FILE
from cocoon.wire.judged import Voucher, sign_cell
from cocoon.wire.messages import (
    CloseAgree,
    CloseAsk,
    Countersign,
    Lease,
    LeaseAccept,
    Receipt,
    ReceiptIssued,
    Refusal,
    RunResult,
    TrancheClose,
)
from cocoon.wire.orders import CloseOrder, OrderHead
from cocoon.wire.schema import pack, unpack
from cocoon.wire.signing import Signed, open_signed
from tests.attack.conftest import Seller
from tests.attack.hostile_requester import Customer, Deal, customer, opening_of, stranger
from tests.attack.matrix import Lie, flipped, lies, more
from tests.loopback.paid import ASKS, BLOCK_MS, TON, inputs, until
from tests.loopback.town import PATIENCE_S, Peer, town
from tests.models import adder_model
from tests.vectors.spelling import kind_of


@dataclass(frozen=True)
class Heir:
    """What an honest buyer left: its keys, and its only lane with two receipts on it."""

    seller: Seller
    identity: Identity
    lane_key: KeyPair
    #: A lease of the buyer, whose terms name escrow and lane.
    lease: Lease
    #: Vouchers of the lane in their order, with signatures.
    vouchers: tuple[tuple[Voucher, bytes], ...]
    order_number: int

    @property
    def newest(self) -> tuple[bytes, bytes]:
        """What the next lease must show."""
        return kept(self.seller.peer)[-1]

    def terms(self, **changes: Any) -> dict[str, Any]:
        """The money fields of a lawful lease."""
        names = ("escrow", "lane", "tranche_nanoton", "owner", "lane_key", "index", "close_delay_s", "network_tag")
        lawful = {name: getattr(self.lease, name) for name in names}
        return {**lawful, "ceiling_nanoton": 10_000_000, "max_runs": 20, **changes}


def kept(peer: Peer) -> list[tuple[bytes, bytes]]:
    """Vouchers in the provider's till, in their order."""
    with open_reader(peer.home / JOURNAL_FILE) as reader:
        facts = [TILL_FACTS.unpack(entry.body) for entry in reader.entries(records.TILL_FACT)]
    return [(fact.voucher, fact.signature) for fact in facts if isinstance(fact, VoucherKept)]


@pytest.fixture(scope="module")
def heir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heir]:
    """The buyer bought lawfully and is gone; its home is in other hands."""
    folder = tmp_path_factory.mktemp("heir")
    with town(folder, ledger="ton") as place:
        provider = place.up("provider", "--provide", devnet_block_ms=BLOCK_MS, **ASKS)
        place.link = provider.wait_line("cocoon://join/")
        provider.wait_line("ready")
        buyer = place.requester()
        client = cocoon.connect(buyer.home)
        client.fund(10 * TON)
        (folder / "model.onnx").write_bytes(adder_model())
        client.run(folder / "model.onnx", inputs(4))
        assert buyer.terminate() == 0
        yield _inherit(Seller(provider, place, parse_link(place.link)), buyer.home)


def _inherit(seller: Seller, home: Path) -> Heir:
    with open_reader(home / JOURNAL_FILE) as reader:
        words = [unpack_record(entry.body).words for entry in reader.entries(records.RECEIPT_ACCEPTED)]
    vouchers = tuple((Voucher.unpack(word.voucher), word.signature) for word in words)
    until(lambda: len(kept(seller.peer)) == len(vouchers) >= 2, "the vouchers of the buyer")
    mnemonic, network = read_words(home), seller.network
    assert mnemonic is not None and network.chain is not None
    key = key_pair(lane_seed(wallet_seed(mnemonic), network.chain.genesis, 0))
    lease = open_signed(words[0].lease, Lease).message
    assert lease.lane_key == key.key
    return Heir(seller, load_or_create(home), key, lease, vouchers, 1)


@dataclass
class Witness:
    """What must not change: the provider's journal, and what the chain paid it."""

    heir: Heir

    def __post_init__(self) -> None:
        self.before = self.heir.seller.tally()
        self.earned = cocoon.connect(self.heir.seller.peer.home).earnings()

    def nothing_changed(self, *allowed: str) -> None:
        """Compare; rows of the kinds ``allowed`` may have come."""
        assert not self.heir.seller.gained(self.before).keys() - set(allowed)
        assert cocoon.connect(self.heir.seller.peer.home).earnings() == self.earned


def fresh_keys() -> LinkKeys:
    return LinkKeys.from_bytes(os.urandom(64))


@asynccontextmanager
async def guest_of(heir: Heir, identity: Identity | None = None) -> AsyncIterator[Customer]:
    async with customer(heir.seller.network, identity or heir.identity) as guest:
        yield guest


async def proposed(guest: Customer, lease: Signed[Lease], shown: tuple[bytes, bytes]) -> str:
    """The code with which a paid lease is refused."""
    keybox = guest.keybox(await guest.quote(), lease, fresh_keys())
    return await guest.refused(pack(opening_of(lease.pack(), keybox.pack(), *shown)))


async def opened(heir: Heir, guest: Customer, lease: Signed[Lease]) -> Deal:
    """``lease`` on its lane, opened for the first time or again."""
    keys = fresh_keys()
    keybox = guest.keybox(await guest.quote(), lease, keys)
    opening = pack(opening_of(lease.pack(), keybox.pack(), *heir.newest))
    with trio.fail_after(PATIENCE_S):
        while True:
            stream, answer = await guest.send(opening)
            if kind_of(answer) != Refusal.shape.kind:
                break
            # The link before may still be closing on the other side.
            assert unpack(answer, Refusal).code in ("replayed", "lane_busy"), unpack(answer, Refusal)
    accept = open_signed(answer, LeaseAccept, signer=guest.provider).message
    session = session_keys(keys, accept.nonce, LeaseId(lease.digest))
    writer = SealedWriter(session.to_provider)
    return Deal(stream, writer, WorkLink(stream, writer, SealedReader(session.to_requester)), lease, accept)


# --- the lease ---------------------------------------------------------------

MONEY = ("escrow", "owner", "lane_key", "index", "close_delay_s", "network_tag", "tranche_nanoton")
LEASES = [
    *(lie for lie in lies("lease2") if lie.field in MONEY),
    Lie("lease2", "lane", more, "wrong_lane"),
    Lie("lease2", "lane", lambda _: 0, "wrong_lane"),
    Lie("lease2", "ceiling_nanoton", lambda _: 10**12, "wrong_cap"),
    Lie("lease2", "setup_nanoton", more, "wrong_price"),
]


@pytest.mark.parametrize("lie", LEASES, ids=str)
async def test_a_lie_about_the_lane_in_a_lease_is_refused(heir: Heir, lie: Lie) -> None:
    async with guest_of(heir) as guest:
        lease = guest.lying(guest.lease(await guest.quote(), **heir.terms()), lie)
        seen = Witness(heir)
        assert await proposed(guest, lease, heir.newest) == lie.code
        seen.nothing_changed()


async def test_the_lane_of_another_is_refused(heir: Heir) -> None:
    """A stranger with its own peer key, and even with the lane's newest voucher."""
    async with guest_of(heir, stranger()) as guest:
        lease = guest.lease(await guest.quote(), **heir.terms())
        seen = Witness(heir)
        assert await proposed(guest, lease, heir.newest) == "wrong_requester"
        seen.nothing_changed()


UNUSED_LANE = 7


@pytest.mark.parametrize("word", ["none", "another lease's", "another key's"])
async def test_a_strangers_escrow_gives_no_credit_without_its_lane_key(heir: Heir, word: str) -> None:
    """All that a birth holds is public; its unlocked coins are the owner's, and so is the lane's id."""
    async with guest_of(heir, stranger()) as guest:
        lease = guest.lease(await guest.quote(), **heir.terms(lane=UNUSED_LANE))
        proof = first_word(lease)
        shown = {
            "none": (b"", b""), "another lease's": signed(replace(proof, head=bytes(32)), heir.lane_key),
            "another key's": signed(proof, key_pair(bytes(32))),
        }[word]
        seen = Witness(heir)
        assert await proposed(guest, lease, shown) == ("bad_signature" if word == "another key's" else "wrong_lane_key")
        seen.nothing_changed()


def first_word(lease: Signed[Lease]) -> Voucher:
    """What the lane key signs for the first lease of a lane."""
    terms = lease.message
    return proof_of_lane(terms.network_tag, terms.escrow, terms.lane, LeaseId(lease.digest))


async def test_an_escrow_that_is_not_on_chain_gets_no_credit(heir: Heir) -> None:
    """Its address is true to a birth, and nothing is there."""
    birth = EscrowBirth(os.urandom(32), heir.lane_key.key, heir.lease.network_tag, 0, heir.lease.close_delay_s)
    async with guest_of(heir, stranger()) as guest:
        terms = heir.terms(escrow=birth.address(), owner=birth.owner)
        lease = guest.lease(await guest.quote(), **terms)
        seen = Witness(heir)
        assert await proposed(guest, lease, signed(first_word(lease), heir.lane_key)) == "credit_refused"
        seen.nothing_changed()


# --- the voucher that is shown with it ---------------------------------------


def signed(voucher: Voucher, key: KeyPair) -> tuple[bytes, bytes]:
    return voucher.pack(), sign_cell(voucher.hash(), key)


SHOWN: dict[str, tuple[Callable[[Heir], tuple[bytes, bytes]], str]] = {
    "none": (lambda heir: (b"", b""), "wrong_head"),
    "less": (lambda heir: signed(_newest(heir, seq=1, total_nanoton=-1), heir.lane_key), "wrong_total"),
    "older": (lambda heir: (heir.vouchers[0][0].pack(), heir.vouchers[0][1]), "wrong_head"),
    "contradiction": (lambda heir: signed(_newest(heir, total_nanoton=-1), heir.lane_key), "wrong_head"),
    "other_lane": (lambda heir: signed(_newest(heir, lane=1), heir.lane_key), "wrong_lane"),
    "other_escrow": (lambda heir: signed(replace(_newest(heir), escrow=bytes(32)), heir.lane_key), "wrong_escrow"),
    "other_network": (lambda heir: signed(_newest(heir, network_tag=1), heir.lane_key), "wrong_network_id"),
    "forged": (lambda heir: signed(_newest(heir, seq=1, total_nanoton=10**6), key_pair(bytes(32))), "bad_signature"),
    "peer_key": (lambda heir: signed(_newest(heir), heir.identity), "bad_signature"),  # type: ignore[arg-type]
    "torn": (lambda heir: (b"\0" + heir.newest[0][1:], heir.newest[1]), "malformed"),
}


def _newest(heir: Heir, **steps: int) -> Voucher:
    """The newest voucher with some of its numbers moved."""
    voucher = Voucher.unpack(heir.newest[0])
    return replace(voucher, **{name: getattr(voucher, name) + step for name, step in steps.items()})


@pytest.mark.parametrize(("show", "code"), SHOWN.values(), ids=SHOWN)
async def test_a_lease_begins_at_the_newest_voucher_of_its_lane_or_not_at_all(heir: Heir, show: Any, code: str) -> None:
    async with guest_of(heir) as guest:
        lease = guest.lease(await guest.quote(), **heir.terms())
        seen = Witness(heir)
        assert await proposed(guest, lease, show(heir)) == code
        seen.nothing_changed()


# --- the countersignature ----------------------------------------------------


@dataclass(frozen=True)
class Debt:
    """A lease on the lane whose only receipt waits for its countersignature."""

    lease: Signed[Lease]
    voucher: Voucher


@pytest.fixture(scope="module")
def debt(heir: Heir) -> Debt:
    """One run, one receipt, no countersignature; the link is given up."""

    async def incur() -> Debt:
        async with guest_of(heir) as guest:
            lease = guest.lease(await guest.quote(), **heir.terms())
            deal = await opened(heir, guest, lease)
            await deal.deliver()
            assert isinstance(await deal.run(1), RunResult)
            await deal.say(TrancheClose(through=1))
            receipt = open_signed((await deal.hear(ReceiptIssued)).receipt, Receipt)
            await deal.stream.close()
            return Debt(lease, voucher_of(terms_of(lease), receipt.message, ReceiptHash(receipt.digest)))

    return trio.run(incur)


VOUCHERS = [*lies("voucher"), Lie("voucher", "total_nanoton", lambda total: total - 1, "wrong_total")]


@pytest.mark.parametrize("lie", [*VOUCHERS, None], ids=lambda lie: str(lie or "peer_key-bad_signature"))
async def test_a_lie_in_a_voucher_settles_nothing(heir: Heir, debt: Debt, lie: Lie | None) -> None:
    voucher = debt.voucher if lie is None else replace(debt.voucher, **{lie.field: lie.twist(_of(debt, lie.field))})
    signer = heir.identity if lie is None else heir.lane_key
    async with guest_of(heir) as guest:
        deal = await opened(heir, guest, debt.lease)
        await deal.say(TrancheClose(through=1))         # the first word on a lease that is to be settled
        await deal.hear(ReceiptIssued)
        seen = Witness(heir)
        await deal.say(Countersign(voucher=voucher.pack(), signature=sign_cell(voucher.hash(), signer)))
        assert await deal.last_word() == (lie.code if lie else "bad_signature")
        # That the lease is left once more, and that its work is still unpaid.
        seen.nothing_changed(records.TILL_FACT, records.CREDIT_FACT)
        assert len(kept(heir.seller.peer)) == len(heir.vouchers)


def _of(debt: Debt, name: str) -> Any:
    return getattr(debt.voucher, name)


# --- the close ---------------------------------------------------------------


async def asked(heir: Heir, order: CloseOrder, key: KeyPair, identity: Identity | None = None) -> str:
    """The code with which a close is refused, or ``agreed``."""
    ask = CloseAsk(order=order.pack(), signature=sign_cell(order.hash(), key))
    async with guest_of(heir, identity) as guest:
        stream = await guest.mesh.open_stream(guest.provider, CLOSE_PROTOCOL)
        with trio.fail_after(PATIENCE_S):
            await stream.send(pack(ask))
            answer = await stream.receive()
        await stream.close()
        return "agreed" if kind_of(answer) == CloseAgree.shape.kind else unpack(answer, Refusal).code


async def lawful(heir: Heir) -> CloseOrder:
    """The close that the provider would sign now."""
    newest = Voucher.unpack(heir.newest[0])
    head = OrderHead(heir.lease.network_tag, heir.lease.escrow, heir.order_number, int(time.time()) + 600)
    return CloseOrder(head, heir.lease.lane, newest.total_nanoton)


async def test_a_lane_with_an_unsettled_lease_is_not_closed(heir: Heir, debt: Debt) -> None:
    seen = Witness(heir)
    assert await asked(heir, await lawful(heir), heir.lane_key) == "lane_busy"
    seen.nothing_changed()


async def test_the_debt_is_settled_by_the_very_voucher(heir: Heir, debt: Debt) -> None:
    async with guest_of(heir) as guest:
        deal = await opened(heir, guest, debt.lease)
        await deal.say(TrancheClose(through=1))
        await deal.hear(ReceiptIssued)
        voucher = debt.voucher
        await deal.say(Countersign(voucher=voucher.pack(), signature=sign_cell(voucher.hash(), heir.lane_key)))
        await deal.part()
    until(lambda: heir.newest[0] == voucher.pack(), "the settled voucher")


def _head(**changes: Callable[[Any], Any]) -> Callable[[CloseOrder], CloseOrder]:
    return lambda order: replace(order, head=replace(
        order.head, **{name: twist(getattr(order.head, name)) for name, twist in changes.items()}
    ))


CLOSES: dict[str, tuple[Callable[[CloseOrder], CloseOrder], str]] = {
    "network": (_head(network_tag=lambda tag: tag ^ 1), "wrong_network_id"),
    "escrow": (_head(escrow=flipped), "wrong_lane"),
    "number_ahead": (_head(number=more), "wrong_order"),
    "number_behind": (_head(number=lambda number: number - 1), "wrong_order"),
    "expired": (_head(valid_until_s=lambda until_s: until_s - 86_400), "wrong_expiry"),
    "too_long": (_head(valid_until_s=lambda until_s: until_s + 2 * 86_400), "wrong_expiry"),
    "lane": (lambda order: replace(order, lane=order.lane + 1), "wrong_lane"),
    "less": (lambda order: replace(order, total_nanoton=order.total_nanoton - 1), "wrong_total"),
    "nothing": (lambda order: replace(order, total_nanoton=0), "wrong_total"),
    "more": (lambda order: replace(order, total_nanoton=order.total_nanoton + 1), "wrong_total"),
}


@pytest.mark.parametrize(("twist", "code"), CLOSES.values(), ids=CLOSES)
async def test_a_lie_in_a_close_is_not_signed(heir: Heir, debt: Debt, twist: Any, code: str) -> None:
    seen = Witness(heir)
    assert await asked(heir, twist(await lawful(heir)), heir.lane_key) == code
    seen.nothing_changed()


async def test_a_close_of_others_is_not_signed(heir: Heir, debt: Debt) -> None:
    seen, order = Witness(heir), await lawful(heir)
    assert await asked(heir, order, key_pair(os.urandom(32))) == "bad_signature"
    assert await asked(heir, order, heir.lane_key, stranger()) == "wrong_lane"
    seen.nothing_changed()


async def test_after_all_of_it_the_honest_close_is_signed_and_ends_the_lane(heir: Heir, debt: Debt) -> None:
    """Last in the file."""
    assert await asked(heir, await lawful(heir), heir.lane_key) == "agreed"
    async with guest_of(heir) as guest:
        lease = guest.lease(await guest.quote(), **heir.terms())
        seen = Witness(heir)
        assert await proposed(guest, lease, heir.newest) == "lane_closing"
        seen.nothing_changed()
    assert heir.seller.peer.process.poll() is None
