"""Checking a statement: the provider's account of one run against our own.

Times (``queued_us``, ``ran_us``) are the provider's word and are not checked;
nothing is paid by them.

Purity: pure. Spec: docs/spec/receipts.md, rules REC-1 to REC-4.
"""

from __future__ import annotations

from cocoon.core.errors import wrong
from cocoon.core.units import UnitKind
from cocoon.ledger.terms import LeaseTerms
from cocoon.wire.commitment import Commitment
from cocoon.wire.judged import Statement


def check_statement(
    statement: Statement,
    terms: LeaseTerms,
    *,
    number: int,
    inputs: Commitment,
    outputs: Commitment,
    units: int,
    price_nanoton: int,
) -> None:
    """Return if every figure is the one that this side computed itself.

    Args:
        number: Number under which the run was asked for.
        inputs: Commitment to the bytes that were sent.
        outputs: Commitment to the bytes that came back, computed here.
        units: As counted here; 1 where the lease prices runs.
        price_nanoton: ``Tab.price_nanoton(units)`` before this run.

    Raises:
        WrongField: ``wrong_lease``, ``wrong_number``, ``wrong_input``,
            ``wrong_output``, ``wrong_units`` or ``wrong_price``.
    """
    if statement.lease != terms.lease:
        raise wrong("lease", f"run {number} is stated for lease {statement.lease.hex()[:16]}")
    if statement.number != number:
        raise wrong("number", f"statement of run {statement.number} for run {number}")
    if Commitment(statement.input_alg, statement.input) != inputs:
        raise wrong("input", f"run {number} is stated for other inputs than were sent")
    if Commitment(statement.output_alg, statement.output) != outputs:
        raise wrong("output", f"run {number} is stated for other outputs than came back")
    check_units(statement, terms)
    if statement.units != units:
        raise wrong("units", f"run {number} is stated for {statement.units} units, counted {units}")
    if statement.price_nanoton != price_nanoton:
        raise wrong("price", f"run {number} at {statement.price_nanoton} nanoton, due {price_nanoton}")


def check_units(statement: Statement, terms: LeaseTerms) -> None:
    """Return if the units are possible for the kind that the lease prices; else ``wrong_units``."""
    if statement.units < 1 or (terms.unit_kind == UnitKind.RUN and statement.units != 1):
        raise wrong("units", f"run {statement.number} is stated for {statement.units} units")
