"""A provider's peer believes nothing that its requesters say.

The provider is a real process; the requester lives in this one. Every lie is
refused with its own code; what the provider wrote down is the witness that
nothing else happened.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from cocoon.core.errors import StreamClosed
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LINK_RESUMES, RECEIPT_RESENDS
from cocoon.core.values import replace
from cocoon.identity.keys import Identity
from cocoon.ledger.record import unpack_record
from cocoon.ledger.tab import voucher_of
from cocoon.ledger.terms import terms_of
from cocoon.ledger.verify import verify_record
from cocoon.node import records
from cocoon.node.counter import OFFER_PROTOCOL
from cocoon.node.proposal import LEASE_PROTOCOL
from cocoon.p2p.blobs import BLOB_PROTOCOL
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.link import LinkKeys
from cocoon.store.reader import open_reader
from cocoon.store.service import JOURNAL_FILE
from cocoon.wire.judged import Statement, Voucher, sign_cell
from cocoon.wire.manifest import chunk_hash
from cocoon.wire.messages import (
    Chunk,
    ChunkHashes,
    Countersign,
    Lease,
    LeaseClose,
    ModelOffer,
    ModelReady,
    ModelWant,
    OfferRequest,
    Receipt,
    ReceiptIssued,
    Refusal,
    RunFailure,
    RunRequest,
    RunResult,
    TrancheClose,
)
from cocoon.wire.resume import LinkResume, LinkResumed
from cocoon.wire.schema import Message, pack, unpack
from cocoon.wire.signing import Signed, open_signed
from tests.attack.conftest import Seller
from tests.attack.hostile_requester import (
    ADDER,
    INPUTS,
    SALT,
    Customer,
    Deal,
    chunks_of,
    customer,
    id_of,
    manifest_of,
    opening_of,
    stranger,
)
from tests.attack.matrix import Lie, flipped, lies
from tests.loopback.town import PATIENCE_S
from tests.vectors.spelling import kind_of


def fresh_keys() -> LinkKeys:
    return LinkKeys.from_bytes(os.urandom(64))


async def opened(guest: Customer, **changes: Any) -> Deal:
    """A new lease of the adder."""
    quote = await guest.quote()
    return await guest.open(quote, guest.lease(quote, **changes))


# --- proposing ---------------------------------------------------------------


@pytest.mark.parametrize("lie", [lie for lie in lies("lease", "key_box") if lie.field != "model"], ids=str)
async def test_a_lie_in_the_proposal_is_refused(seller: Seller, lie: Lie) -> None:
    async with customer(seller.network) as guest:
        quote = await guest.quote()
        lease = guest.lease(quote)
        if lie.message == "lease":
            lease = guest.lying(lease, lie)
        keybox = guest.keybox(quote, lease, fresh_keys())
        if lie.message == "key_box":
            keybox = guest.lying(keybox, lie)
        before = seller.tally()
        assert await guest.refused(pack(opening_of(lease.pack(), keybox.pack()))) == lie.code
        assert seller.gained(before) == {}


async def test_a_model_other_than_the_leased_one_is_refused_when_it_is_named(seller: Seller) -> None:
    (lie,) = [lie for lie in lies("lease") if lie.field == "model"]
    async with customer(seller.network) as guest:
        quote = await guest.quote()
        deal = await guest.open(quote, guest.lying(guest.lease(quote), lie))
        before = seller.tally()
        await deal.say(ModelOffer(manifest=manifest_of(ADDER)))
        assert await deal.last_word() == lie.code
        assert seller.gained(before) == {}


async def test_the_proposal_of_another_is_refused(seller: Seller) -> None:
    """What somebody recorded is worth nothing under another peer key."""
    async with customer(seller.network) as victim, customer(seller.network) as thief:
        quote = await victim.quote()
        lease = victim.lease(quote)
        stolen = opening_of(lease.pack(), victim.keybox(quote, lease, fresh_keys()).pack())
        own_box = opening_of(lease.pack(), thief.keybox(quote, lease, fresh_keys()).pack())
        before = seller.tally()
        assert await thief.refused(pack(stolen)) == "wrong_requester"
        assert await thief.refused(pack(own_box)) == "wrong_requester"
        assert seller.gained(before) == {}


async def test_the_keys_of_another_lease_are_refused(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        quote = await guest.quote()
        first, second = guest.lease(quote), guest.lease(quote)
        keybox = guest.keybox(quote, first, fresh_keys())
        renamed = guest.lying(keybox, Lie("key_box", "lease", lambda _: second.digest, "bad_seal"))
        before = seller.tally()
        assert await guest.refused(pack(opening_of(second.pack(), keybox.pack()))) == "wrong_lease"
        assert await guest.refused(pack(opening_of(second.pack(), renamed.pack()))) == "bad_seal"
        assert seller.gained(before) == {}


async def test_a_proposal_that_is_none_is_refused(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        quote = await guest.quote()
        lease = guest.lease(quote)
        whole = pack(opening_of(lease.pack(), guest.keybox(quote, lease, fresh_keys()).pack()))
        before = seller.tally()
        assert await guest.refused(whole[:-1]) == "malformed"
        assert await guest.refused(pack(LeaseClose(code="x"))) == "unknown_kind"
        swapped = opening_of(guest.keybox(quote, lease, fresh_keys()).pack(), lease.pack())
        assert await guest.refused(pack(swapped)) == "unknown_kind"
        assert seller.gained(before) == {}


@pytest.mark.parametrize(("request_", "code"), [
    (OfferRequest(network=bytes(32), kind="infer"), "wrong_network_id"),
    (OfferRequest(network=b"", kind="other"), "kind_refused"),
    (LeaseClose(code="x"), "unknown_kind"),
], ids=["network", "kind", "message"])
async def test_a_question_for_another_offer_is_refused(seller: Seller, request_: Message, code: str) -> None:
    async with customer(seller.network) as guest:
        if isinstance(request_, OfferRequest) and not request_.network:
            request_ = OfferRequest(network=guest.network.id, kind=request_.kind)
        stream = await guest.mesh.open_stream(guest.provider, OFFER_PROTOCOL)
        await stream.send(pack(request_))
        assert unpack(await stream.receive(), Refusal).code == code


# --- replays -----------------------------------------------------------------


async def test_a_proposal_replayed_while_the_lease_is_open_changes_nothing(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        quote = await guest.quote()
        lease = guest.lease(quote)
        opening = pack(opening_of(lease.pack(), guest.keybox(quote, lease, fresh_keys()).pack()))
        deal = await guest.open(quote, lease)
        before = seller.tally()
        assert await guest.refused(opening) == "replayed"
        assert seller.gained(before) == {}
        await deal.deliver()                            # the open link goes on
        assert isinstance(await deal.run(1), RunResult)
        await deal.part()


async def test_a_proposal_replayed_after_the_end_executes_no_run_twice(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        quote = await guest.quote()
        lease = guest.lease(quote)
        deal = await guest.open(quote, lease)
        assert not deal.accept.resumed
        await deal.deliver()
        recorded = deal.writer.seal(pack(RunRequest(number=1, salt=SALT, inputs=INPUTS)))
        for frame in recorded:
            await deal.stream.send(frame)
        await deal.hear(RunResult)
        await deal.part()

        again = await guest.open(quote, lease)
        assert again.accept.resumed and again.accept.nonce != deal.accept.nonce
        await again.deliver()
        lost = await again.run(1)
        assert isinstance(lost, RunFailure) and lost.code == "run_lost"
        assert isinstance(await again.run(2), RunResult)
        assert reserved(seller, lease) == [1, 3]
        for frame in recorded:                          # sealed for the link before
            await again.stream.send(frame)
        assert await again.last_word() == "bad_seal"
        assert reserved(seller, lease) == [1, 3]


async def test_a_run_asked_again_is_neither_executed_nor_forgotten(seller: Seller) -> None:
    """Else a requester would take its results and make the provider withdraw its account of them."""
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        await deal.deliver()
        for number in (1, 2):
            assert isinstance(await deal.run(number), RunResult)
        before = seller.tally()
        again = await deal.run(1)
        assert isinstance(again, RunFailure) and again.code == "run_lost"
        assert seller.gained(before) == {}
        await deal.say(TrancheClose(through=2))
        receipt = open_signed((await deal.hear(ReceiptIssued)).receipt, Receipt).message
        assert (receipt.first_number, receipt.runs) == (1, 2)
        assert reserved(seller, deal.lease) == [1, 3]


async def test_numbers_outside_of_the_lease_are_refused_and_begun_by_nobody(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest, max_runs=2)
        early = await deal.run(1)
        assert isinstance(early, RunFailure) and early.code == "out_of_order"
        await deal.deliver()
        before = seller.tally()
        for number in (0, 3, (1 << 32) - 1):
            refused = await deal.run(number)
            assert isinstance(refused, RunFailure) and refused.code == "limit_exceeded", number
        assert seller.gained(before) == {}
        assert isinstance(await deal.run(1), RunResult)
        await deal.part()


# --- another stream ----------------------------------------------------------


async def refused_in_the_end(guest: Customer, words: LinkResume) -> str:
    """The code of the refusal, once the lease is over; while it ends the provider just hangs up."""
    with trio.fail_after(PATIENCE_S):
        while True:
            with suppress(StreamClosed):
                return await guest.refused(pack(words))


async def test_the_link_of_a_lease_goes_on_for_its_requester_and_for_nobody_else(seller: Seller) -> None:
    async with customer(seller.network) as guest, customer(seller.network) as other:
        deal = await opened(guest)
        await deal.deliver()
        words = LinkResume(lease=deal.lease.digest, received=deal.link._carrier._received)
        before = seller.tally()
        assert await other.refused(pack(words)) == "not_found"
        assert await guest.refused(pack(replace(words, lease=bytes(32)))) == "not_found"
        assert seller.gained(before) == {}
        assert isinstance(await deal.run(1), RunResult), "the open link goes on"
        await deal.part()
        assert await refused_in_the_end(guest, words) == "not_found"


async def test_a_link_goes_on_where_its_requester_says_it_stands(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        await deal.deliver()
        carrier = deal.link._carrier
        stream, answer = await guest.send(pack(LinkResume(lease=deal.lease.digest, received=carrier._received)))
        assert unpack(answer, LinkResumed).received == carrier._next
        carrier._stream = stream
        assert isinstance(await deal.run(1), RunResult)
        await deal.part()


async def test_who_says_that_it_received_what_was_never_sent_loses_the_lease(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        await deal.deliver()
        words = LinkResume(lease=deal.lease.digest, received=1 << 40)
        with pytest.raises(StreamClosed), trio.fail_after(PATIENCE_S):
            stream, answer = await guest.send(pack(words))      # the reset may overtake the answer
            unpack(answer, LinkResumed)
            await stream.receive()
        assert await refused_in_the_end(guest, words) == "not_found"


async def test_a_link_does_not_go_on_for_ever(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        await deal.deliver()
        words = LinkResume(lease=deal.lease.digest, received=deal.link._carrier._received)
        codes = [kind_of((await guest.send(pack(words)))[1]) for _ in range(LINK_RESUMES)]
        assert set(codes) == {LinkResumed.shape.kind}
        stream = await guest.mesh.open_stream(guest.provider, LEASE_PROTOCOL)
        await stream.send(pack(words))
        with pytest.raises(StreamClosed), trio.fail_after(PATIENCE_S):
            await stream.receive()


# --- inside the link ---------------------------------------------------------


def flip(frames: list[bytes]) -> list[bytes]:
    return [frames[0][:-1] + bytes([frames[0][-1] ^ 1]), *frames[1:]]


@pytest.mark.parametrize("tamper", [
    flip,
    lambda frames: [frames[0], frames[0]],
    lambda frames: [frames[1], frames[0]],
    lambda frames: [frames[1]],
    lambda frames: [frames[0][:-1]],
    lambda frames: [b""],
    lambda frames: [pack(TrancheClose(through=0))],
], ids=["flipped", "repeated", "swapped", "dropped", "cut", "empty", "unsealed"])
async def test_a_tampered_frame_ends_the_link_and_nothing_else(seller: Seller, tamper: Any) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        close = pack(TrancheClose(through=0))
        before = seller.tally()
        for frame in tamper([*deal.writer.seal(close), *deal.writer.seal(close)]):
            await deal.stream.send(frame)
        assert await deal.last_word() == "bad_seal"
        assert seller.gained(before) == {}


async def test_a_frame_above_the_limit_ends_the_stream(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        with trio.fail_after(PATIENCE_S), pytest.raises(StreamClosed):
            await deal.stream._raw.write(((1 << 31) - 1).to_bytes(4, "big") + bytes(64))
            await deal.stream.receive()


def _wrong_hashes() -> list[Message]:
    return [ChunkHashes(file=0, hashes=bytes(32))]


def _wrong_chunk() -> list[Message]:
    return [
        ChunkHashes(file=0, hashes=b"".join(map(chunk_hash, chunks_of(ADDER)))),
        Chunk(file=0, index=0, data=flipped(ADDER)),
    ]


@pytest.mark.parametrize(("words", "code"), [
    (_wrong_hashes, "bad_chunk"),
    (_wrong_chunk, "bad_chunk"),
    (lambda: [Chunk(file=0, index=0, data=ADDER)], "bad_chunk"),
    (lambda: [ChunkHashes(file=1, hashes=bytes(32))], "bad_chunk"),
    (lambda: [ModelReady(load_us=1)], "unknown_kind"),
    (lambda: [opening_of(b"", b"")], "unknown_kind"),
    (lambda: [Countersign(voucher=bytes(90), signature=bytes(64))], "malformed"),
    (lambda: [ModelOffer(manifest=b"\xc0")], "malformed"),
], ids=["hashes", "chunk", "unannounced", "no_such_file", "other_side", "other_protocol", "voucher", "manifest"])
async def test_what_may_not_be_said_ends_the_lease_with_its_code(seller: Seller, words: Any, code: str) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        if code == "bad_chunk":
            await deal.say(ModelOffer(manifest=manifest_of(ADDER)))
            await deal.hear(ModelWant)
        before = seller.tally()
        for message in words():
            await deal.say(message)
        assert await deal.last_word() == code
        assert seller.gained(before) == {}


async def test_chunks_that_nobody_asked_for_make_no_public_model(seller: Seller) -> None:
    """A hole in a model that is kept for everybody would be a wrong answer for everybody."""
    model = ADDER + bytes(1 << 20)                      # two chunks; only the first is sent, before anybody asked
    asked = trio.Event()

    async def stall(stream: PeerStream) -> None:
        asked.set()
        await stream.receive()
        await trio.sleep_forever()

    async with customer(seller.network, announces=True) as guest:
        guest.mesh.serve(BLOB_PROTOCOL, stall)
        await guest.mesh.provide(id_of(model))
        quote = await guest.quote(model=id_of(model))
        deal = await guest.open(quote, guest.lease(quote, model, private=False))
        await deal.say(ModelOffer(manifest=manifest_of(model)))
        with trio.fail_after(PATIENCE_S):
            await asked.wait()                          # the provider fetches the model from its announcer: from us
        await deal.say(ChunkHashes(file=0, hashes=b"".join(map(chunk_hash, chunks_of(model)))))
        await deal.say(Chunk(file=0, index=0, data=chunks_of(model)[0]))
        assert await deal.last_word() == "bad_chunk"
        assert not (seller.peer.home / "models" / id_of(model).hex() / "manifest").exists()


# --- receipts ----------------------------------------------------------------


@dataclass(frozen=True)
class Debt:
    """A lease whose only receipt waits for its countersignature."""

    identity: Identity
    lease: Signed[Lease]
    voucher: Voucher


@pytest.fixture(scope="module")
def debt(shop: Seller) -> Debt:
    """One run, one receipt, no countersignature; the link is given up."""

    async def incur() -> Debt:
        async with customer(shop.network, stranger()) as guest:
            deal = await opened(guest)
            await deal.deliver()
            await deal.run(1)
            await deal.say(TrancheClose(through=1))
            receipt = open_signed((await deal.hear(ReceiptIssued)).receipt, Receipt)
            await deal.part()
            due = voucher_of(terms_of(deal.lease), receipt.message, receipt.digest)     # type: ignore[arg-type]
            return Debt(guest.identity, deal.lease, due)

    return trio.run(incur)


@pytest.mark.parametrize("lie", [*lies("voucher"), None], ids=lambda lie: str(lie or "signature-bad_signature"))
async def test_a_lie_in_a_countersignature_settles_nothing(seller: Seller, debt: Debt, lie: Lie | None) -> None:
    voucher, signer = debt.voucher, debt.identity if lie else stranger()
    if lie is not None:
        voucher = replace(voucher, **{lie.field: lie.twist(getattr(voucher, lie.field))})
    async with customer(seller.network, debt.identity) as guest:
        deal = await guest.open(await guest.quote(), debt.lease)
        await deal.hear(ReceiptIssued)                  # sent again with every resumption
        before = seller.tally()
        await deal.say(Countersign(voucher=voucher.pack(), signature=sign_cell(voucher.hash(), signer)))
        assert await deal.last_word() == (lie.code if lie else "bad_signature")
        assert seller.gained(before) == {}


async def test_a_countersignature_replayed_settles_once(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        await deal.deliver()
        assert isinstance(await deal.run(1), RunResult)
        await deal.say(TrancheClose(through=1))
        receipt = open_signed((await deal.hear(ReceiptIssued)).receipt, Receipt)
        voucher = voucher_of(terms_of(deal.lease), receipt.message, receipt.digest)     # type: ignore[arg-type]
        words = Countersign(voucher=voucher.pack(), signature=sign_cell(voucher.hash(), guest.identity))
        await deal.say(words)
        assert isinstance(await deal.run(2), RunResult)  # by now the countersignature was taken
        before = seller.tally()
        for _ in range(3):
            await deal.say(words)
            await deal.say(TrancheClose(through=1))
        refused = await deal.run(0)                     # answered after everything before it was read
        assert isinstance(refused, RunFailure)
        assert seller.gained(before) == {}
        with open_reader(seller.peer.home / JOURNAL_FILE) as reader:
            (settled,) = [
                entry for entry in reader.entries(records.RECEIPT_SETTLED)
                if unpack_record(entry.body).statements[0].lease == deal.lease.digest
            ]
        assert verify_record(settled.body).runs == 1
        await deal.part()


def reserved(seller: Seller, lease: Signed[Lease]) -> list[int]:
    """Up to which numbers the provider has said that runs of ``lease`` may have been begun, in order."""
    with open_reader(seller.peer.home / JOURNAL_FILE) as reader:
        rows = [records.unpack_runs(entry.body) for entry in reader.entries(records.RUNS_RESERVED)]
    return [number for of, number in rows if of == LeaseId(lease.digest)]


async def test_after_all_of_it_an_honest_customer_is_served(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        await deal.deliver()
        result = await deal.run(1)
        assert isinstance(result, RunResult)
        assert Statement.unpack(result.statement).lease == deal.lease.digest
        await deal.part()


@pytest.mark.long
async def test_a_requester_that_never_countersigns_is_reminded_and_then_given_up(seller: Seller) -> None:
    async with customer(seller.network) as guest:
        deal = await opened(guest)
        await deal.deliver()
        assert isinstance(await deal.run(1), RunResult)
        await deal.say(TrancheClose(through=1))
        received = [await deal.hear(ReceiptIssued) for _ in range(1 + RECEIPT_RESENDS)]
        assert len({words.receipt for words in received}) == 1, "a receipt changed while it was sent again"
        assert await deal.last_word() == "receipt_unsettled"
