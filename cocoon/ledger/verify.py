"""Checking a receipt offline: no peer, no network, no secret, only the record.

What follows from a record that passes: both peers signed the lease, the
provider signed that it executed these runs with these commitments, and the
requester signed that it holds the same account. That the outputs are *right* is
not in it.

Purity: pure. Spec: docs/spec/receipts.md, rules REC-20 to REC-25.
"""

from __future__ import annotations

from collections.abc import Sequence

from cocoon.core.errors import wrong
from cocoon.core.ids import LeaseId, ModelId, NetworkId, PeerKey, ReceiptHash
from cocoon.core.limits import TRANCHE_RUNS
from cocoon.core.values import Value
from cocoon.ledger.record import Countersigned, ReceiptRecord, RunProof, unpack_proof, unpack_record
from cocoon.ledger.statement import check_units
from cocoon.ledger.tab import check_voucher, receipt_root, voucher_of
from cocoon.ledger.terms import LeaseTerms, terms_of
from cocoon.wire import merkle
from cocoon.wire.commitment import Commitment, commit
from cocoon.wire.judged import Statement, Voucher, verify_cell
from cocoon.wire.messages import Lease, LeaseAccept, Receipt
from cocoon.wire.signing import open_signed


class ReceiptFacts(Value):
    """What a checked record proves."""

    network: NetworkId
    lease: LeaseId
    provider: PeerKey
    requester: PeerKey
    model: ModelId
    receipt: ReceiptHash
    #: What pays it; zeros and 0 on price-0 leases.
    escrow: bytes
    lane: int
    #: Digest of the receipt before; zero for the first of a lane.
    previous: ReceiptHash
    seq: int
    #: Runs under the receipt; ``statements`` holds all of them, or the one that was proven.
    runs: int
    first_number: int
    #: Cumulative, up to and with this receipt.
    units: int
    total_nanoton: int
    statements: tuple[Statement, ...]

    @property
    def outputs(self) -> tuple[Commitment, ...]:
        """Output commitments of ``statements``, in order."""
        return tuple(Commitment(s.output_alg, s.output) for s in self.statements)


def verify_record(record: ReceiptRecord | bytes) -> ReceiptFacts:
    """Check a whole record.

    Args:
        record: Packed or unpacked.

    Raises:
        Malformed: bytes that are no record.
        BadSignature, WrongField: a signature or a field that does not hold.
    """
    if isinstance(record, bytes):
        record = unpack_record(record)
    terms, model, receipt, digest = _words(record.words)
    statements = record.statements
    if receipt.runs != len(statements):
        raise wrong("runs", f"a receipt over {receipt.runs} runs with {len(statements)} statements")
    if receipt.first_number != statements[0].number:
        raise wrong("number", f"the receipt begins at run {receipt.first_number}, not {statements[0].number}")
    _statements(statements, terms, receipt)
    if receipt.root != receipt_root(statements):
        raise wrong("root", "the statements are not those under the receipt's root")
    return _facts(terms, model, receipt, digest, statements)


def verify_run(proof: RunProof | bytes) -> ReceiptFacts:
    """Check the proof of a single run; ``statements`` of the facts holds it alone.

    Raises:
        As ``verify_record``.
    """
    if isinstance(proof, bytes):
        proof = unpack_proof(proof)
    terms, model, receipt, digest = _words(proof.words)
    _statement(proof.statement, terms)
    if not merkle.verify(receipt.root, proof.statement.hash(), proof.index, receipt.runs, list(proof.path)):
        raise wrong("root", f"run {proof.statement.number} is not under the receipt's root")
    if (proof.index == 0) != (proof.statement.number == receipt.first_number):
        raise wrong("number", f"run {proof.statement.number} cannot be number {proof.index} of the receipt")
    return _facts(terms, model, receipt, digest, (proof.statement,))


def check_payloads(statement: Statement, salt: bytes, inputs: bytes, outputs: bytes) -> None:
    """Return if these are the bytes that the run took and gave.

    Args:
        salt: 16 bytes, known to the two peers of the lease.

    Raises:
        WrongField: ``wrong_input`` or ``wrong_output``.
    """
    if commit(salt, inputs) != Commitment(statement.input_alg, statement.input):
        raise wrong("input", f"these are not the inputs of run {statement.number}")
    if commit(salt, outputs) != Commitment(statement.output_alg, statement.output):
        raise wrong("output", f"these are not the outputs of run {statement.number}")


def _words(words: Countersigned) -> tuple[LeaseTerms, ModelId, Receipt, ReceiptHash]:
    """Check all signatures, and every field that needs no statement."""
    lease = open_signed(words.lease, Lease)
    terms = terms_of(lease)
    accept = open_signed(words.accept, LeaseAccept, signer=terms.provider)
    if accept.message.lease != terms.lease:
        raise wrong("lease", "the provider accepted another lease")
    signed = open_signed(words.receipt, Receipt, signer=terms.provider)
    receipt, digest = signed.message, ReceiptHash(signed.digest)
    _receipt(receipt, terms)
    voucher = Voucher.unpack(words.voucher)
    verify_cell(voucher.hash(), terms.voucher_key, words.signature)
    check_voucher(voucher, voucher_of(terms, receipt, digest))
    return terms, ModelId(lease.message.model), receipt, digest


def _receipt(receipt: Receipt, terms: LeaseTerms) -> None:
    if receipt.network != terms.network:
        raise wrong("network_id", "the receipt is of another network than the lease")
    if receipt.lease != terms.lease:
        raise wrong("lease", "the receipt is of another lease")
    if receipt.lane != terms.lane:
        raise wrong("lane", f"the receipt is of lane {receipt.lane}, the lease of lane {terms.lane}")
    if receipt.seq < 1:
        raise wrong("seq", "receipts are numbered from 1")
    # A later receipt may be the first that was countersigned: those before it were voided (REC-13).
    if receipt.seq == 1 and receipt.previous != bytes(32):
        raise wrong("previous", f"receipt {receipt.seq} follows {receipt.previous.hex()[:16]}")
    if not 1 <= receipt.runs <= TRANCHE_RUNS:
        raise wrong("runs", f"a receipt over {receipt.runs} runs; 1 to {TRANCHE_RUNS} are possible")
    # On a lane shared with earlier leases the total also holds what those cost.
    bill = terms.bill_nanoton(receipt.units)
    if receipt.total_nanoton < bill or (_first(receipt) and receipt.total_nanoton != bill):
        raise wrong("total", f"a total of {receipt.total_nanoton} nanoton where the lease costs {bill}")
    if terms.lane == 0 and receipt.total_nanoton:
        raise wrong("total", f"a total of {receipt.total_nanoton} nanoton without a lane")


def _first(receipt: Receipt) -> bool:
    """Whether nothing was countersigned before it: neither on the lane, nor on a lease without one (REC-7)."""
    return receipt.previous == bytes(32)


def _statements(statements: Sequence[Statement], terms: LeaseTerms, receipt: Receipt) -> None:
    before = receipt.units - sum(s.units for s in statements)
    if before < 0 or (before and _first(receipt)):
        raise wrong("units", f"{receipt.units} units in all, {receipt.units - before} of them stated")
    last = 0
    for statement in statements:
        _statement(statement, terms)
        if statement.number <= last:
            raise wrong("number", f"run {statement.number} after run {last}")
        due = terms.bill_nanoton(before + statement.units) - terms.bill_nanoton(before)
        if statement.price_nanoton != due:
            raise wrong("price", f"run {statement.number} at {statement.price_nanoton} nanoton, due {due}")
        last, before = statement.number, before + statement.units


def _statement(statement: Statement, terms: LeaseTerms) -> None:
    if statement.lease != terms.lease:
        raise wrong("lease", f"run {statement.number} is of another lease")
    if not 1 <= statement.number <= terms.max_runs:
        raise wrong("number", f"run {statement.number} of a lease of {terms.max_runs} runs")
    check_units(statement, terms)


def _facts(
    terms: LeaseTerms, model: ModelId, receipt: Receipt, digest: ReceiptHash, statements: Sequence[Statement]
) -> ReceiptFacts:
    return ReceiptFacts(
        network=terms.network,
        lease=terms.lease,
        provider=terms.provider,
        requester=terms.requester,
        model=model,
        receipt=digest,
        escrow=terms.escrow,
        lane=terms.lane,
        previous=ReceiptHash(receipt.previous),
        seq=receipt.seq,
        runs=receipt.runs,
        first_number=receipt.first_number,
        units=receipt.units,
        total_nanoton=receipt.total_nanoton,
        statements=tuple(statements),
    )
