"""Codes of the escrow, and what holds of every refusal."""

from __future__ import annotations

from tests.tvm.chain import TON, Result
from tests.tvm.parties import Escrow

VALUE, NOT_OWNER, SIGNATURE, PROVIDER, NO_LANE, NOTHING_DUE = 100, 101, 102, 103, 104, 105
ABOVE_CAP, NUMBER, VALIDITY, FUNDS, FORM, OTHER_NETWORK = 106, 107, 108, 109, 110, 111
OTHER_ESCROW, EXPIRED, NOT_EXPIRED, LANE_ID, EXPIRY, LANE_CAP = 112, 113, 114, 115, 116, 117
FULL, PAYOUT, SMALL, SIZE, BELOW_PAID, UNKNOWN = 118, 119, 120, 121, 122, 0xFFFF
#: What the machine itself ends with: a value of another type, a cell that holds more or less than is read.
TYPE, CELL = 7, 9
#: What a refusal may cost the carrier: its gas and the way back.
REFUSAL = 6 * TON // 1_000


def refused(one: Escrow, result: Result, code: int) -> None:
    """It was refused with ``code``, nothing of the escrow changed, and its sender got the rest back."""
    assert (result.exit_code, result.delta) == (code, -result.storage), result
    (back,) = result.outs
    assert back.bounced and back.value >= result.brought - REFUSAL
    one.chain.check_supply()


def refused_outside(result: Result, code: int | None) -> None:
    """An external message was refused with ``code`` before it cost anything; None if no code was asked."""
    assert (result.accepted, result.exit_code) == (False, code), result
