"""The machines' facts as journal bodies, and back: how a lease's account survives a restart.

Purity: pure. Spec: docs/spec/receipts.md, rules REC-18 and REC-19.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cocoon.core.errors import CocoonError, Corrupt, PeerFault, UsageError
from cocoon.core.limits import RECORD_BYTES
from cocoon.core.machine import Effect, Event
from cocoon.ledger.events import (
    CountersignReceived,
    LeaseResumed,
    ReceiptReceived,
    RunAccepted,
    RunsForgotten,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.receipt import ReceiptIssuer, ReceiptVerifier
from cocoon.wire.codec import decode, pack_plain
from cocoon.wire.judged import Statement, Voucher
from cocoon.wire.messages import Receipt
from cocoon.wire.signing import open_signed

#: Facts that a shell appends, in the order in which the machine took them; timers and links are none.
JOURNALLED = (
    StatementMade, StatementsWithdrawn, CountersignReceived, RunAccepted, ReceiptReceived, LeaseResumed, RunsForgotten,
    TrancheClosed,
)


def pack_event(event: Event) -> bytes:
    """The journal body of one of the ``JOURNALLED`` facts."""
    match event:
        case StatementMade(statement):
            return pack_plain(["made", statement.pack()])
        case StatementsWithdrawn(after):
            return pack_plain(["withdrawn", after])
        case CountersignReceived(voucher, signature):
            return pack_plain(["countersigned", voucher.pack(), signature])
        case RunAccepted(statement):
            return pack_plain(["accepted", statement.pack()])
        case ReceiptReceived(receipt):
            return pack_plain(["received", receipt.pack()])
        case LeaseResumed():
            return pack_plain(["resumed"])
        case RunsForgotten(after):
            return pack_plain(["forgotten", after])
        case TrancheClosed(through):
            return pack_plain(["closed", through])
    raise UsageError(f"{type(event).__name__} is not a fact of record")


def unpack_event(body: bytes) -> Event:
    """The fact inside a journal body.

    Raises:
        Corrupt: not written by ``pack_event``.
    """
    try:
        return _read(decode(body, max_bytes=RECORD_BYTES))
    except PeerFault as error:
        raise Corrupt(f"a journalled fact of {len(body)} bytes cannot be read: {error.text}") from error


def _read(value: Any) -> Event:
    match value:
        case ["made", bytes(statement)]:
            return StatementMade(Statement.unpack(statement))
        case ["withdrawn", int(after)]:
            return StatementsWithdrawn(after)
        case ["countersigned", bytes(voucher), bytes(signature)]:
            return CountersignReceived(Voucher.unpack(voucher), signature)
        case ["accepted", bytes(statement)]:
            return RunAccepted(Statement.unpack(statement))
        case ["received", bytes(receipt)]:
            return ReceiptReceived(open_signed(receipt, Receipt))
        case ["resumed"]:
            return LeaseResumed()
        case ["forgotten", int(after)]:
            return RunsForgotten(after)
        case ["closed", int(through)]:
            return TrancheClosed(through)
    raise Corrupt("a journalled fact of no known kind")


def replay(machine: ReceiptIssuer | ReceiptVerifier, now_ns: int, bodies: Iterable[bytes]) -> list[Effect]:
    """Feed a fresh machine what its predecessor journalled.

    Returns:
        The durable orders that followed, in order. All are idempotent: the shell
        performs again those whose trace (a stored record) is missing.

    Raises:
        Corrupt: a fact that the machine refuses, which it did not before.
    """
    orders: list[Effect] = []
    for body in bodies:
        event: Any = unpack_event(body)
        try:
            orders += machine.handle(now_ns, event)
        except CocoonError as error:
            raise Corrupt(f"the journal breaks off at {type(event).__name__}: {error.text}") from error
    return [order for order in orders if order.durable]
