"""Batches of receipts and their roots on chain (BAT-1 to BAT-9), and exports (BAT-18 to BAT-21)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed, NotFound, PeerFault, UnknownVersion, WrongField
from cocoon.core.ids import ReceiptHash
from cocoon.core.limits import ANCHOR_NS, ANCHOR_RECEIPTS
from cocoon.core.machine import DeadlinePassed
from cocoon.core.values import replace
from cocoon.ledger.anchor import AnchorBirth, AnchoredRoot, AnchorState
from cocoon.ledger.anchoring import (
    ANCHOR_FACTS,
    AnchorAsked,
    AnchorBatcher,
    AnchorLapsed,
    AnchorOrdered,
    AnchorSeen,
    LookAtAnchor,
    ReceiptKept,
    ReportAnchored,
    SendAnchor,
)
from cocoon.ledger.export import AnchoredRecord, unpack_export, verify_export
from cocoon.ledger.record import ReceiptRecord
from cocoon.ledger.verify import verify_record
from cocoon.wire import merkle
from tests.unit.ledger.parties import BIRTH, PROVIDER, STRANGER
from tests.unit.ledger.test_record import settled

ANCHOR = AnchorBirth(owner=b"\x31" * 32, peer=PROVIDER.key, network_tag=BIRTH.network_tag)


def digest(n: int) -> ReceiptHash:
    return ReceiptHash(n.to_bytes(32, "big"))


def on_chain(*ordered: AnchorOrdered) -> AnchorSeen:
    ring = tuple(AnchoredRoot(one.seq, one.root, one.count, 0) for one in ordered)
    return AnchorSeen(AnchorState(ANCHOR, ordered[-1].seq if ordered else 0, bytes(32), ring))


def keeping(count: int) -> AnchorBatcher:
    batcher = AnchorBatcher()
    for n in range(count):
        batcher.handle(0, ReceiptKept(digest(n)))
    return batcher


def ordered_by(batcher: AnchorBatcher, seen: AnchorSeen) -> AnchorOrdered:
    (send,) = batcher.handle(0, seen)
    assert isinstance(send, SendAnchor) and send.durable
    return send.ordered


def test_receipts_wait_until_there_are_enough() -> None:
    batcher = keeping(ANCHOR_RECEIPTS - 1)
    assert batcher.handle(0, ReceiptKept(digest(ANCHOR_RECEIPTS))) == [LookAtAnchor()]
    assert batcher.handle(0, ReceiptKept(digest(ANCHOR_RECEIPTS + 1))) == []


def test_few_receipts_are_anchored_after_ten_minutes_or_when_asked() -> None:
    batcher = keeping(1)
    assert batcher.deadline_ns() == ANCHOR_NS
    assert batcher.handle(ANCHOR_NS - 1, DeadlinePassed()) == []
    assert batcher.handle(ANCHOR_NS, DeadlinePassed()) == [LookAtAnchor()]
    assert keeping(1).handle(5, AnchorAsked()) == [LookAtAnchor()]
    nothing = keeping(0)
    assert nothing.handle(5, AnchorAsked()) == [] == nothing.handle(6, ReceiptKept(digest(1)))


def test_a_batch_is_the_root_over_all_that_waits_under_the_contracts_next_number() -> None:
    batcher = keeping(3)
    batcher.handle(0, AnchorAsked())
    first = ordered_by(batcher, AnchorSeen(None))
    assert first == AnchorOrdered(1, merkle.root([digest(n) for n in range(3)]), 0, 3)
    batcher.handle(0, ReceiptKept(digest(3)))
    assert batcher.pending == 1 and not batcher.settled
    assert batcher.asked
    assert batcher.handle(0, on_chain(first)) == [ReportAnchored(first)]
    assert not batcher.asked, "the receipt that came behind the batch is in none"
    batcher.handle(0, AnchorAsked())
    second = ordered_by(batcher, on_chain(first))
    assert (second.seq, second.first, second.count) == (2, 3, 1)
    batcher.handle(0, on_chain(first, second))
    assert batcher.settled and batcher.deadline_ns() is None


def test_a_receipt_is_in_one_batch_however_often_it_is_told() -> None:
    batcher = keeping(2)
    assert batcher.handle(0, ReceiptKept(digest(0))) == [] and batcher.pending == 2


def test_every_receipt_of_a_batch_on_chain_has_a_proof_and_no_other() -> None:
    batcher = keeping(7)
    batcher.handle(0, AnchorAsked())
    ordered = ordered_by(batcher, AnchorSeen(None))
    with pytest.raises(NotFound):
        batcher.proof(digest(0))
    batcher.handle(0, on_chain(ordered))
    for n in range(7):
        proof = batcher.proof(digest(n))
        assert proof.holds(digest(n)) and not proof.holds(digest(n + 1)) and proof.seq == 1
    with pytest.raises(NotFound):
        batcher.proof(digest(7))


# --- crashes ---------------------------------------------------------------


def restored(batcher: AnchorBatcher, *batches: AnchorOrdered) -> tuple[AnchorBatcher, list[Any]]:
    again = AnchorBatcher()
    facts = [ANCHOR_FACTS.unpack(ANCHOR_FACTS.pack(batch)) for batch in batches]
    return again, again.restore(0, batcher.receipts, facts)


def test_after_a_crash_the_same_root_is_sent_again_or_found_on_chain() -> None:
    batcher = keeping(3)
    batcher.handle(0, AnchorAsked())
    ordered = ordered_by(batcher, AnchorSeen(None))
    batcher.handle(0, ReceiptKept(digest(9)))

    lost, orders = restored(batcher, ordered)
    assert orders == [LookAtAnchor()]
    assert lost.handle(0, on_chain()) == [SendAnchor(ordered)]

    arrived, _ = restored(batcher, ordered)
    assert arrived.handle(0, on_chain(ordered)) == [ReportAnchored(ordered)]
    assert arrived.pending == 1 and arrived.proof(digest(2)).root == ordered.root


def test_a_crash_before_anything_was_ordered_begins_the_wait_anew() -> None:
    again, orders = restored(keeping(2))
    assert orders == [] and again.deadline_ns() == ANCHOR_NS


def test_a_message_that_never_ran_is_sent_again() -> None:
    batcher = keeping(1)
    batcher.handle(0, AnchorAsked())
    ordered = ordered_by(batcher, AnchorSeen(None))
    assert batcher.handle(1, AnchorLapsed(2)) == []
    assert batcher.handle(1, AnchorLapsed(1)) == [LookAtAnchor()]
    assert batcher.handle(1, on_chain()) == [SendAnchor(ordered)]


def test_a_number_that_another_copy_of_the_wallet_took_is_given_up() -> None:
    batcher = keeping(2)
    batcher.handle(0, AnchorAsked())
    ordered = ordered_by(batcher, AnchorSeen(None))
    other = replace(ordered, root=b"\x07" * 32)
    (send,) = batcher.handle(0, on_chain(other))
    assert isinstance(send, SendAnchor)
    assert send.ordered == replace(ordered, seq=2)
    batcher.handle(0, on_chain(other, send.ordered))
    assert batcher.proof(digest(1)).seq == 2


@given(fates=st.lists(st.booleans(), min_size=1, max_size=8))
def test_a_restart_knows_the_batches_that_the_life_before_it_knew(fates: list[bool]) -> None:
    """True: the batch lands; False: another copy of the wallet takes its number."""
    batcher = AnchorBatcher()
    journal: list[AnchorOrdered] = []
    chain: list[AnchorOrdered] = []

    def see() -> None:
        for effect in batcher.handle(0, on_chain(*chain)):
            if isinstance(effect, SendAnchor):
                journal.append(effect.ordered)

    for n, lands in enumerate(fates):
        batcher.handle(0, ReceiptKept(digest(n)))
        if batcher.outstanding is None:
            batcher.handle(0, AnchorAsked())
            see()
        chain.append(journal[-1] if lands else replace(journal[-1], root=b"\x07" * 32))
        see()
        again, _ = restored(batcher, *journal)
        assert again.batches == batcher.batches
        again.handle(0, on_chain(*chain))
        assert (again.outstanding, again.pending) == (batcher.outstanding, batcher.pending)


# --- exports ---------------------------------------------------------------


def exported(paid: bool = True) -> tuple[bytes, bytes]:
    """An export of one of three receipts, and the root."""
    record = settled(3, paid=paid)
    batcher = keeping(2)
    receipt = verify_record(record).receipt
    batcher.handle(0, ReceiptKept(receipt))
    batcher.handle(0, AnchorAsked())
    ordered = ordered_by(batcher, AnchorSeen(None))
    batcher.handle(0, on_chain(ordered))
    return AnchoredRecord(record.pack(), ANCHOR, batcher.proof(receipt)).pack(), ordered.root


@pytest.mark.parametrize("paid", [False, True])
def test_an_export_proves_receipt_and_place_to_somebody_who_has_only_the_root(paid: bool) -> None:
    data, root = exported(paid)
    facts = verify_export(data, root)
    assert facts == verify_export(data)
    assert (facts.anchor, facts.seq, facts.root) == (ANCHOR.address(), 1, root)
    assert facts.receipt.total_nanoton == (12 if paid else 0)
    assert unpack_export(data).pack() == data


def test_a_plain_record_is_checked_too_but_is_under_no_root() -> None:
    record = settled(2).pack()
    facts = verify_export(record)
    assert facts.anchor is None and facts.receipt.runs == 2
    with pytest.raises(WrongField) as refused:
        verify_export(record, bytes(32))
    assert refused.value.code == "wrong_root"


def test_an_export_under_another_root_peer_or_chain_is_refused() -> None:
    data, root = exported()
    export = unpack_export(data)
    cases = [
        (export, b"\x01" * 32, "wrong_root"),
        (replace(export, proof=replace(export.proof, root=b"\x01" * 32)), None, "wrong_root"),
        (replace(export, proof=replace(export.proof, index=1)), root, "wrong_root"),
        (replace(export, proof=replace(export.proof, count=4)), root, "wrong_root"),
        (replace(export, anchor=replace(ANCHOR, peer=STRANGER.key)), root, "wrong_provider"),
        (replace(export, anchor=replace(ANCHOR, network_tag=1)), root, "wrong_network_id"),
        (replace(export, record=settled(3).pack()), root, "wrong_root"),
    ]
    for wrong, due, code in cases:
        with pytest.raises(WrongField) as refused:
            verify_export(wrong.pack(), due)
        assert refused.value.code == code


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_of_an_export_is_refused_or_names_another_anchor(flip: int) -> None:
    data, root = exported()
    for index in range(len(data)):
        changed = data[:index] + bytes([data[index] ^ flip]) + data[index + 1 :]
        try:
            facts = verify_export(changed, root)
        except PeerFault:
            continue
        # Owner and number of the anchor are under no signature: they say where to look.
        assert (facts.anchor, facts.seq) != (ANCHOR.address(), 1)


@pytest.mark.parametrize("data", [b"", b"\x90", b"\x91\xa8anchored", b"\xc0", b"\x95\xa8anchored\x01\xc4\x00\x90\x90"])
def test_what_is_no_export_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        verify_export(data)


def test_an_export_of_another_version_is_named_as_such() -> None:
    data, _ = exported()
    at = data.index(b"\xa8anchored") + 9
    with pytest.raises(UnknownVersion):
        verify_export(data[:at] + b"\x02" + data[at + 1 :])
    assert isinstance(settled(1), ReceiptRecord)
