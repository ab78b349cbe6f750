"""Records that a third party checks offline (REC-20 to REC-25)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import (
    BadSignature,
    Malformed,
    NotFound,
    PeerFault,
    UnknownVersion,
    UsageError,
    WrongField,
)
from cocoon.core.limits import RECORD_BYTES, TRANCHE_RUNS
from cocoon.core.values import replace
from cocoon.ledger.events import Countersign, IssueReceipt, RunAccepted, StatementMade, TrancheClosed
from cocoon.ledger.receipt import ReceiptIssuer, ReceiptVerifier
from cocoon.ledger.record import ReceiptRecord, unpack_proof, unpack_record
from cocoon.ledger.tab import Head, Tab, voucher_of
from cocoon.ledger.verify import check_payloads, verify_record, verify_run
from cocoon.wire.commitment import commit
from cocoon.wire.judged import Voucher, sign_cell
from cocoon.wire.messages import LeaseAccept, Receipt
from cocoon.wire.signing import open_signed, sign
from tests.unit.ledger.chainside import head_at
from tests.unit.ledger.parties import (
    LANE_OWNER,
    PROVIDER,
    REQUESTER,
    SALT,
    STRANGER,
    lease,
    next_statement,
    record_of,
    second_tranche,
    settle,
    signed,
    statement,
    terms,
)


def settled(runs: int, *, paid: bool = False, opening: Head | None = None) -> ReceiptRecord:
    """The record of a lease's first receipt, over ``runs`` runs; its lane stood at ``opening`` before."""
    tabs = [Tab(terms(paid), opening or Head()) for _ in range(2)]
    seller, buyer = ReceiptIssuer(tabs[0]), ReceiptVerifier(tabs[1])
    orders: list[Any] = []
    for _ in range(runs):
        made = next_statement(seller.tab)
        orders += seller.handle(0, StatementMade(made))
        buyer.handle(0, RunAccepted(made))
    orders += seller.handle(0, TrancheClosed(runs))
    assert isinstance(orders[0], IssueReceipt)
    (promise,) = buyer.handle(0, signed(orders[0]))
    assert isinstance(promise, Countersign)
    return record_of(promise.statements, promise, paid=paid)


def resigned(record: ReceiptRecord, *, paid: bool = False, **changes: Any) -> ReceiptRecord:
    """The record with wrong receipt fields under good signatures of both sides."""
    receipt = replace(open_signed(record.words.receipt, Receipt).message, **changes)
    again = sign(receipt, PROVIDER)
    voucher = voucher_of(terms(paid), receipt, again.digest)
    signature = sign_cell(voucher.hash(), LANE_OWNER if paid else REQUESTER)
    words = replace(record.words, receipt=again.pack(), voucher=voucher.pack(), signature=signature)
    return replace(record, words=words)


@pytest.mark.parametrize("runs", [1, 2, 3, 7, 64])
def test_a_true_record_proves_its_runs_to_anybody(runs: int) -> None:
    record = settled(runs)
    packed = record.pack()
    assert unpack_record(packed) == record and len(packed) < RECORD_BYTES
    facts = verify_record(packed)
    assert (facts.provider, facts.requester) == (PROVIDER.key, REQUESTER.key)
    assert (facts.network, facts.lease, facts.model) == (b"\x01" * 32, lease().digest, b"\x04" * 32)
    assert (facts.seq, facts.first_number, facts.runs) == (1, 1, runs)
    assert (facts.units, facts.total_nanoton) == (runs, 0)
    assert facts.outputs == tuple(commit(SALT, b"out %d" % n) for n in range(1, runs + 1))
    assert facts.receipt == open_signed(record.words.receipt, Receipt).digest


def test_a_paid_record_is_checked_with_the_key_of_its_lane() -> None:
    record = settled(5, paid=True)
    assert verify_record(record).total_nanoton == 7 + 8
    voucher = Voucher.unpack(record.words.voucher)
    for signer in (STRANGER, REQUESTER, PROVIDER):
        words = replace(record.words, signature=sign_cell(voucher.hash(), signer))
        with pytest.raises(BadSignature):
            verify_record(replace(record, words=words))
    assert verify_record(replace(record, words=replace(record.words, signature=sign_cell(voucher.hash(), LANE_OWNER))))


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_of_a_record_is_refused(flip: int) -> None:
    packed = settled(3).pack()
    verify_record(packed)
    for index in range(len(packed)):
        changed = bytearray(packed)
        changed[index] ^= flip
        with pytest.raises(PeerFault):
            verify_record(bytes(changed))


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_of_a_run_proof_is_refused(flip: int) -> None:
    packed = settled(5).proof(3).pack()
    verify_run(packed)
    for index in range(len(packed)):
        changed = bytearray(packed)
        changed[index] ^= flip
        with pytest.raises(PeerFault):
            verify_run(bytes(changed))


def test_a_record_cut_or_extended_is_refused() -> None:
    packed = settled(2).pack()
    for length in range(len(packed)):
        with pytest.raises(Malformed):
            verify_record(packed[:length])
    with pytest.raises(Malformed):
        verify_record(packed + b"\0")
    with pytest.raises(Malformed):
        verify_record(bytes(RECORD_BYTES + 1))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"network": b"\x09" * 32}, "wrong_network_id"), ({"lease": b"\x09" * 32}, "wrong_lease"),
        ({"lane": 1}, "wrong_lane"), ({"seq": 0}, "wrong_seq"),
        ({"previous": b"\x09" * 32}, "wrong_previous"), ({"root": bytes(32)}, "wrong_root"),
        ({"first_number": 2}, "wrong_number"), ({"runs": 0}, "wrong_runs"), ({"runs": 65}, "wrong_runs"),
        ({"runs": 2}, "wrong_runs"), ({"runs": 4}, "wrong_runs"), ({"units": 2}, "wrong_units"),
        ({"units": 4}, "wrong_units"), ({"total_nanoton": 1}, "wrong_total"),
    ],
)
def test_each_wrong_field_of_a_recorded_receipt_has_its_own_code(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(WrongField) as refused:
        verify_record(resigned(settled(3), **changes))
    assert refused.value.code == code


def test_a_resigned_record_without_a_change_passes() -> None:
    assert verify_record(resigned(settled(3))).runs == 3


@pytest.mark.parametrize("paid", [False, True])
def test_the_first_countersigned_receipt_may_follow_voided_ones(paid: bool) -> None:
    facts = verify_record(settled(3, paid=paid, opening=Head(skipped=2)))
    assert (facts.seq, facts.previous, facts.total_nanoton) == (3, bytes(32), terms(paid).bill_nanoton(3))


def test_a_receipt_that_follows_another_also_holds_what_earlier_leases_cost() -> None:
    record = settled(3, paid=True, opening=head_at(4, 100))
    assert verify_record(record).total_nanoton == verify_run(record.proof(2)).total_nanoton == 100 + 7 + 5


def test_the_first_receipt_of_a_lane_costs_exactly_the_sum_of_its_lines() -> None:
    record = resigned(settled(3, paid=True), paid=True, total_nanoton=7 + 5 + 1)
    for check in (lambda: verify_record(record), lambda: verify_run(record.proof(2))):
        with pytest.raises(WrongField) as refused:
            check()
        assert refused.value.code == "wrong_total"


@pytest.mark.parametrize("paid", [False, True])
def test_the_first_receipt_of_a_lane_has_no_units_before_its_own(paid: bool) -> None:
    seller, buyer, order = second_tranche(paid)
    promise = settle(seller, buyer, order)
    record = record_of(promise.statements, promise, paid=paid)
    assert verify_record(record).units == 7
    with pytest.raises(WrongField) as refused:
        verify_record(resigned(record, paid=paid, previous=bytes(32)))
    assert refused.value.code == "wrong_units"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"lease": bytes(32)}, "wrong_lease"), ({"number": 1001}, "wrong_number"),
        ({"number": 0}, "wrong_number"),
        ({"number": 2}, "wrong_number"), ({"units": 2}, "wrong_units"), ({"price_nanoton": 1}, "wrong_price"),
        ({"output": bytes(32)}, "wrong_root"), ({"ran_us": 0}, "wrong_root"),
    ],
)
def test_each_wrong_field_of_a_recorded_statement_has_its_own_code(change: dict[str, Any], code: str) -> None:
    record = settled(3)
    statements = (*record.statements[:2], replace(record.statements[2], **change))
    with pytest.raises(WrongField) as refused:
        verify_record(replace(record, statements=statements))
    assert refused.value.code == code


def test_statements_in_another_order_are_refused() -> None:
    record = settled(3)
    first, second, third = record.statements
    with pytest.raises(WrongField):
        verify_record(replace(record, statements=(first, third, second)))


def test_words_of_other_signers_or_other_leases_are_refused() -> None:
    record = settled(2)
    accept = LeaseAccept(lease=lease().digest, keybox=b"\x07" * 32, nonce=b"\x08" * 32, resumed=False)
    elsewhere = replace(accept, lease=b"\x09" * 32)
    receipt = open_signed(record.words.receipt, Receipt).message
    cases: list[tuple[dict[str, bytes], str]] = [
        ({"accept": sign(accept, STRANGER).pack()}, "wrong_provider"),
        ({"accept": sign(elsewhere, PROVIDER).pack()}, "wrong_lease"),
        ({"receipt": sign(receipt, STRANGER).pack()}, "wrong_provider"),
        ({"lease": sign(lease().message, STRANGER).pack()}, "wrong_requester"),
        ({"signature": bytes(64)}, "bad_signature"),
        ({"lease": lease(nonce=b"\x0a" * 16).pack()}, "wrong_lease"),
        ({"lease": lease(lane=1).pack()}, "wrong_escrow"),
        ({"accept": record.words.receipt}, "unknown_kind"),
    ]
    for changes, code in cases:
        with pytest.raises(PeerFault) as refused:
            verify_record(replace(record, words=replace(record.words, **changes)))
        assert refused.value.code == code, changes


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"network_tag": 9}, "wrong_network_id"), ({"escrow": b"\x06" * 32}, "wrong_escrow"),
        ({"lane": 1}, "wrong_lane"), ({"seq": 2}, "wrong_seq"), ({"total_nanoton": 1}, "wrong_total"),
        ({"head": bytes(32)}, "wrong_head"),
    ],
)
def test_a_voucher_for_anything_else_is_no_countersignature(changes: dict[str, Any], code: str) -> None:
    record = settled(2)
    signed_receipt = open_signed(record.words.receipt, Receipt)
    voucher = replace(voucher_of(terms(), signed_receipt.message, signed_receipt.digest), **changes)
    words = replace(record.words, voucher=voucher.pack(), signature=sign_cell(voucher.hash(), REQUESTER))
    with pytest.raises(WrongField) as refused:
        verify_record(replace(record, words=words))
    assert refused.value.code == code


def test_a_voucher_signed_by_the_provider_is_no_countersignature() -> None:
    record = settled(2)
    signed_receipt = open_signed(record.words.receipt, Receipt)
    voucher = voucher_of(terms(), signed_receipt.message, signed_receipt.digest)
    words = replace(record.words, signature=sign_cell(voucher.hash(), PROVIDER))
    with pytest.raises(BadSignature):
        verify_record(replace(record, words=words))


# --- one run ---------------------------------------------------------------


@pytest.mark.parametrize("runs", [1, 2, 5, 64])
def test_any_single_run_can_be_proven_without_the_others(runs: int) -> None:
    record = settled(runs)
    for number in range(1, runs + 1):
        proof = record.proof(number)
        packed = proof.pack()
        assert unpack_proof(packed) == proof and len(packed) < 2_048
        facts = verify_run(packed)
        assert facts.statements == (record.statements[number - 1],) and facts.runs == runs
        assert len(proof.path) <= (TRANCHE_RUNS - 1).bit_length()


def test_a_run_that_the_receipt_does_not_cover_has_no_proof() -> None:
    with pytest.raises(NotFound):
        settled(3).proof(4)


def test_a_proof_moved_to_another_place_or_statement_is_refused() -> None:
    record = settled(5)
    proof = record.proof(3)
    wrong = [
        replace(proof, index=1), replace(proof, index=5), replace(proof, path=proof.path[:-1]),
        replace(proof, path=(*proof.path, bytes(32))), replace(proof, statement=record.statements[3]),
        replace(proof, statement=statement(terms(), 3, output=bytes(32))),
    ]
    for moved in wrong:
        with pytest.raises(WrongField) as refused:
            verify_run(moved)
        assert refused.value.code == "wrong_root"


def test_payloads_are_checked_against_their_statement() -> None:
    made = settled(2).statements[1]
    check_payloads(made, SALT, b"in 2", b"out 2")
    for salt, inputs, outputs, code in (
        (SALT, b"in 1", b"out 2", "wrong_input"), (SALT, b"in 2", b"out 1", "wrong_output"),
        (bytes(16), b"in 2", b"out 2", "wrong_input"),
    ):
        with pytest.raises(WrongField) as refused:
            check_payloads(made, salt, inputs, outputs)
        assert refused.value.code == code


# --- form ------------------------------------------------------------------


def test_records_and_proofs_are_not_taken_for_each_other() -> None:
    record = settled(2)
    with pytest.raises(Malformed):
        unpack_proof(record.pack())
    with pytest.raises(Malformed):
        unpack_record(record.proof(1).pack())


def test_another_version_is_named_as_such() -> None:
    packed = settled(1).pack()
    at = packed.index(b"\xa7receipt") + 8
    assert packed[at] == 1
    with pytest.raises(UnknownVersion):
        unpack_record(packed[:at] + b"\x02" + packed[at + 1 :])


@pytest.mark.parametrize("count", [0, TRANCHE_RUNS + 1])
def test_a_record_holds_one_tranche(count: int) -> None:
    agreed = Tab(terms()).terms
    record = replace(settled(1), statements=tuple(statement(agreed, n + 1) for n in range(count)))
    with pytest.raises(UsageError):
        record.pack()
