"""The tab of one lease: statements without a countersignature, and the figures over all.

Provider and requester each keep one. Equal statements in equal order give equal
receipts, so checking a receipt is computing it and comparing the fields.

Invariants
    Numbers rise; the bill never exceeds the ceiling.
    ``billed_nanoton`` is the terms' bill of ``units``, and ``open_nanoton`` the value of ``open``.
    A statement leaves the tab once, with the receipt that covers it.

Purity: pure. Spec: docs/spec/receipts.md, rules REC-5 to REC-10; money.md, MON-4 to MON-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cocoon.core.errors import Replayed, wrong
from cocoon.core.ids import ReceiptHash
from cocoon.core.limits import TRANCHE_RUNS
from cocoon.core.values import Value, replace
from cocoon.ledger.statement import check_units
from cocoon.ledger.terms import LeaseTerms
from cocoon.wire import merkle
from cocoon.wire.judged import Statement, Voucher, verify_cell
from cocoon.wire.messages import Receipt


class Head(Value):
    """The newest countersigned receipt of a lane; all zero before the first.

    ``skipped`` numbers above ``seq`` may have been given to receipts that were
    voided: their results never reached the requester (REC-13).
    """

    seq: int = 0
    digest: ReceiptHash = ReceiptHash(bytes(32))
    total_nanoton: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Tab:
    """What one side knows of a lease's account.

    ``opening`` is where the lane stood when the lease began; a price-0 lease
    begins at zero.
    """

    terms: LeaseTerms
    opening: Head = field(default_factory=Head)
    head: Head = field(init=False)
    #: Checked and not yet under a countersigned receipt, by rising number.
    open: list[Statement] = field(default_factory=list, init=False)
    #: Units of all statements of this lease so far, and what they cost together: the terms' bill of them.
    units: int = field(default=0, init=False)
    billed_nanoton: int = field(default=0, init=False)
    #: The part of it that is ``open``.
    open_nanoton: int = field(default=0, init=False)
    #: Units under countersigned receipts of this lease.
    units_settled: int = field(default=0, init=False)
    last_number: int = field(default=0, init=False)
    #: Price of results that left and, as the requester says, never arrived.
    withdrawn_nanoton: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.head = self.opening

    def holds(self, statement: Statement) -> bool:
        """Whether this very statement is on the tab, under no countersigned receipt."""
        return statement.number <= self.last_number and statement in self.open

    def price_nanoton(self, units: int, pending: int = 0) -> int:
        """Price of the next run if it has ``units`` units: the difference of two bills (MON-2).

        Args:
            pending: Units of statements before it that are not on the tab yet.
        """
        before = self.units + pending
        billed_nanoton = self.terms.bill_nanoton(before) if pending else self.billed_nanoton
        return self.terms.bill_nanoton(before + units) - billed_nanoton

    def add(self, statement: Statement) -> None:
        """Take the statement of the next run, which ``check_next`` let pass."""
        self.open.append(statement)
        self.units += statement.units
        self.billed_nanoton += statement.price_nanoton
        self.open_nanoton += statement.price_nanoton
        self.last_number = statement.number

    def check_next(self, statement: Statement) -> None:
        """Return if ``statement`` may follow those on the tab.

        Raises:
            Replayed: the run was settled before, or withdrawn.
            WrongField: ``wrong_lease``, ``wrong_number``, ``wrong_units``,
                ``wrong_price`` or ``wrong_ceiling``.
        """
        number = statement.number
        if statement.lease != self.terms.lease:
            raise wrong("lease", f"statement for lease {statement.lease.hex()[:16]}")
        if 1 <= number <= self.last_number:
            if any(number == known.number for known in self.open):
                raise wrong("statement", f"a second, different statement of run {number}")
            raise Replayed(f"run {number} after run {self.last_number}")
        if not 1 <= number <= self.terms.max_runs:
            raise wrong("number", f"run {number} of a lease of {self.terms.max_runs} runs")
        check_units(statement, self.terms)
        bill = self.terms.bill_nanoton(self.units + statement.units)
        if statement.price_nanoton != (due := bill - self.billed_nanoton):
            raise wrong("price", f"run {number} is stated at {statement.price_nanoton} nanoton, due {due}")
        if bill > self.terms.ceiling_nanoton:
            raise wrong("ceiling", f"a bill of {bill} nanoton; the ceiling is {self.terms.ceiling_nanoton}")

    def withdraw(self, after: int) -> None:
        """Forget open statements with a number above ``after``."""
        lost = [statement for statement in self.open if statement.number > after]
        lost_nanoton = _value_nanoton(lost)
        self.withdrawn_nanoton += lost_nanoton
        self.open_nanoton -= lost_nanoton
        self.billed_nanoton -= lost_nanoton
        self.units -= sum([statement.units for statement in lost])
        del self.open[len(self.open) - len(lost) :]

    def skip(self) -> None:
        """One more number above the head's stands, or may stand, for a voided receipt (REC-13)."""
        self.head = replace(self.head, skipped=self.head.skipped + 1)

    def receipt(self, runs: int) -> Receipt:
        """The one receipt that follows the head and covers the first ``runs`` open statements."""
        tranche = self.open[:runs]
        units = self.units_settled + sum([statement.units for statement in tranche])
        return Receipt(
            network=self.terms.network,
            lease=self.terms.lease,
            lane=self.terms.lane,
            seq=self.head.seq + self.head.skipped + 1,
            previous=self.head.digest,
            root=receipt_root(tranche),
            first_number=tranche[0].number,
            runs=len(tranche),
            units=units,
            total_nanoton=self.opening.total_nanoton + self.terms.bill_nanoton(units),
        )

    def check(self, receipt: Receipt) -> None:
        """Return if ``receipt`` is the next one, field by field.

        Raises:
            WrongField: with the code of the first field that differs.
        """
        most = min(len(self.open), TRANCHE_RUNS)
        # Compared with any possible tranche first, so that a wrong lease is not called a wrong count.
        for name, code in (("network", "network_id"), ("lease", "lease"), ("lane", "lane")):
            _same(getattr(receipt, name), getattr(self.terms, name), name, code)
        last = self.head.seq + self.head.skipped + 1
        if not self.head.seq < receipt.seq <= last:
            raise wrong("seq", f"seq is {receipt.seq}, due is {last}")
        _same(receipt.previous, self.head.digest, "previous", "previous")
        if not 1 <= receipt.runs <= most:
            raise wrong("runs", f"a receipt over {receipt.runs} runs, where 1 to {most} can be due")
        due = self.receipt(receipt.runs)
        for name, code in (
            ("first_number", "number"), ("units", "units"), ("total_nanoton", "total"), ("root", "root"),
        ):
            _same(getattr(receipt, name), getattr(due, name), name, code)

    def settle(self, receipt: Receipt, digest: ReceiptHash) -> tuple[Statement, ...]:
        """Make ``receipt``, which was checked, the head; return the statements it covers."""
        tranche = tuple(self.open[: receipt.runs])
        del self.open[: receipt.runs]
        self.open_nanoton -= _value_nanoton(tranche)
        self.units_settled = receipt.units
        self.head = Head(receipt.seq, digest, receipt.total_nanoton)
        return tranche


def _value_nanoton(statements: Sequence[Statement]) -> int:
    return sum([statement.price_nanoton for statement in statements])


def receipt_root(statements: Sequence[Statement]) -> bytes:
    """Merkle root over the statements' cell hashes, in order (REC-6)."""
    return merkle.root([statement.hash() for statement in statements])


def voucher_of(terms: LeaseTerms, receipt: Receipt, digest: ReceiptHash) -> Voucher:
    """The voucher whose signature countersigns ``receipt``."""
    return Voucher(
        network_tag=terms.network_tag,
        escrow=terms.escrow,
        lane=terms.lane,
        seq=receipt.seq,
        total_nanoton=receipt.total_nanoton,
        head=digest,
    )


def check_voucher(voucher: Voucher, due: Voucher) -> None:
    """Return if ``voucher`` is the one that is due; else ``WrongField`` of the first field that differs."""
    for name, code in (
        ("network_tag", "network_id"), ("escrow", "escrow"), ("lane", "lane"),
        ("seq", "seq"), ("total_nanoton", "total"), ("head", "head"),
    ):
        _same(getattr(voucher, name), getattr(due, name), name, code)


def shown_voucher(terms: LeaseTerms, voucher: bytes, signature: bytes) -> Voucher | None:
    """The voucher that a lease shows for its lane, checked for lane and signer; None if it shows none (LAN-8).

    Raises:
        Malformed, BadSignature: no voucher, or not the lane key's.
        WrongField: of another lane (``wrong_network_id``, ``wrong_escrow``, ``wrong_lane``).
    """
    if not voucher:
        return None
    shown = Voucher.unpack(voucher)
    for name, code in (("network_tag", "network_id"), ("escrow", "escrow"), ("lane", "lane")):
        _same(getattr(shown, name), getattr(terms, name), name, code)
    verify_cell(shown.hash(), terms.voucher_key, signature)
    return shown


def _same(found: int | bytes, due: int | bytes, name: str, code: str) -> None:
    if found != due:
        shown = [value.hex()[:16] if isinstance(value, bytes) else str(value) for value in (found, due)]
        raise wrong(code, f"{name} is {shown[0]}, due is {shown[1]}")
