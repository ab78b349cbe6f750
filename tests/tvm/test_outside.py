"""Claims from outside the chain, what peers recognise, and what years do to an escrow, on the real TVM."""

from __future__ import annotations

import pytest

from cocoon.core.errors import Malformed, PeerFault
from cocoon.core.values import replace
from cocoon.ledger import escrow
from cocoon.wire.cells import Cell, CellBuilder, state_init
from cocoon.wire.orders import NewLane
from tests.tvm.chain import OUT_OF_GAS, TON, Chain, Prices
from tests.tvm.parties import (
    CAP,
    DAY_S,
    EMPTY,
    OWNER,
    Escrow,
    key,
    payout,
)
from tests.tvm.refusals import (
    CELL,
    FORM,
    LANE_ID,
    NO_LANE,
    OTHER_ESCROW,
    PROVIDER,
    SIGNATURE,
    SIZE,
    SMALL,
    TYPE,
    refused,
    refused_outside,
)

# --- external claims -------------------------------------------------------


def test_an_external_claim_costs_the_escrow_no_more_than_the_due(one: Escrow) -> None:
    before = one.balance
    result = one.external_claim(0, 5 * 10**7)
    (sent,) = result.outs
    assert result.ok and sent.dest == payout(0)
    assert 0 <= 5 * 10**7 - (before - one.balance) < 10**6
    assert 5 * 10**7 - sent.value < 8 * 10**6
    assert one.state.lanes[0].paid_nanoton == 5 * 10**7


def test_a_padded_external_message_is_refused(one: Escrow) -> None:
    body = one.external_body(one.voucher(0, 5 * 10**7))
    junk = Cell((1 << 1_000) - 1, 1_000)
    padded = Cell(body.value, body.bits, (*body.refs, junk))
    refused_outside(one.chain.external(one.address, padded), TYPE)  # a cell too many; the size is not even known then
    refused_outside(one.chain.external(one.address, body, one.birth.state_init()), TYPE)
    refused_outside(one.chain.external(one.address, widened(body, 400)), CELL)
    voucher, signature = body.refs
    wide = Cell(body.value, body.bits, (voucher, widened(signature, 511)))
    refused_outside(one.chain.external(one.address, widened(wide, 479)), SIZE)
    refused_outside(one.chain.external(one.address, Cell(body.value ^ 1 << 543, body.bits, body.refs)), FORM)
    no_state = CellBuilder().uint(0, 5).ref(Cell(1, 1)).end()
    refused_outside(one.chain.external(one.address, body, no_state), None)
    assert one.chain.external(one.address, body).ok


def widened(cell: Cell, bits: int) -> Cell:
    """The cell with so many bits more."""
    return Cell(cell.value << bits, cell.bits + bits, cell.refs)


def test_an_external_claim_needs_the_providers_signature(one: Escrow) -> None:
    """Else anybody who saw vouchers could burn the provider's due, step by step."""
    body = one.external_body(one.voucher(0, 5 * 10**7), provider_key=key("somebody"))
    refused_outside(one.chain.external(one.address, body), PROVIDER)
    body = one.external_body(one.voucher(0, 5 * 10**7), signer=key("somebody"))
    refused_outside(one.chain.external(one.address, body), SIGNATURE)


def test_an_external_claim_below_twice_its_cost_is_refused(one: Escrow) -> None:
    least = escrow.external_due_nanoton(Prices(), one.state.depth)
    refused_outside(one.external_claim(0, least // 2), SMALL)
    assert one.external_claim(0, least).ok


def test_bad_external_messages_cost_the_escrow_nothing(one: Escrow) -> None:
    one.claim(0, 3 * 10**7)
    before = one.balance
    for number in range(200):
        lane = number % 3  # of which there is one
        for escrow_named, signer, code in (
            (OWNER, one.lane_key, OTHER_ESCROW), (one.address, key(f"spam {number}"), SIGNATURE),
            (one.address, one.lane_key, NO_LANE if lane else PROVIDER),
        ):
            voucher = one.voucher(lane, 10**8, escrow=escrow_named, seq=number)
            body = one.external_body(voucher, signer, key("spam"))
            refused_outside(one.chain.external(one.address, body), code)
    assert one.balance == before


def test_an_escrow_that_cannot_pay_for_the_gas_is_not_even_asked(one: Escrow) -> None:
    assert one.close(0, 0).ok and one.withdraw().ok
    before = one.balance
    refused_outside(one.external_claim(0, 10**8), OUT_OF_GAS)
    assert one.balance == before < Prices().gas_fee_nanoton(escrow.GAS_EXTERNAL)


def test_an_external_claim_is_checked_within_the_credit_also_among_64_scattered_lanes(one: Escrow) -> None:
    """Ids 65 apart make the deepest dictionary that the gaps allow in one order."""
    one.deposit(20 * TON)
    assert one.open(one.new([1 + 65 * number for number in range(63)]), value=2 * TON).ok
    before = one.balance
    result = one.external_claim(66, 6 * 10**7)
    assert result.ok and 0 <= 6 * 10**7 - (before - one.balance) < 2 * 10**6


# --- recognition, years ----------------------------------------------------


def test_forged_initial_data_are_not_recognised(one: Escrow) -> None:
    """Known code whose data show a lane that nothing covers: it lives at another address."""
    honest = one.chain.data(one.address)
    forged = Cell(honest.value, honest.bits, honest.refs)
    init = state_init(escrow.bytecode.escrow_code(), forged)
    one.chain.internal(init.hash(), TON, EMPTY, source=OWNER, state_init=init)
    code = one.chain.code(init.hash())
    assert code is not None and code.hash() == escrow.CODE_HASH
    assert escrow.recognise(one.address, one.birth, code.hash(), honest) == one.state
    for wrong in (
        (init.hash(), one.birth, code.hash(), forged),
        (one.address, replace(one.birth, close_delay_s=1), code.hash(), honest),
        (one.address, one.birth, bytes(32), honest),
        (one.address, one.birth, code.hash(), replace(one.birth, index=1).data()),
    ):
        with pytest.raises(PeerFault) as caught:
            escrow.recognise(*wrong)
        assert caught.value.code == "wrong_escrow"


def test_data_whose_sums_do_not_fit_are_malformed(one: Escrow) -> None:
    honest = one.chain.data(one.address)
    for flipped in (1, 8, 37):  # locked money, and the number of lanes
        with pytest.raises(Malformed):
            escrow.read_state(Cell(honest.value ^ 1 << flipped, honest.bits, honest.refs))
    with pytest.raises(Malformed):
        escrow.read_state(Cell(honest.value ^ 1, honest.bits))


def test_ten_years_of_storage_are_borne_by_the_requesters_money(one: Escrow) -> None:
    one.chain.now_s += 3_652 * DAY_S
    result = one.prune([0])
    assert result.ok and 10**8 < result.storage < 3 * 10**8
    assert result.delta == -result.storage
    assert one.owner(escrow.owner_withdraw_body(1)).ok
    assert one.balance == escrow.reserve_nanoton(0)
    one.chain.check_supply()


def test_a_lane_of_400_days_is_paid_whole_at_its_end(one: Escrow) -> None:
    """Locked money and reserve to the last nanoton: storage of the longest life fits the reserve, for 1 lane and 64."""
    for number, count in ((1, 1), (2, 64)):
        full = Escrow(Chain(), replace(one.birth, index=number))
        full.deploy(range(count), deposit=count * CAP + escrow.reserve_nanoton(count), life_s=escrow.LANE_LIFE_S)
        full.chain.now_s += escrow.LANE_LIFE_S - 1
        for lane in range(count):
            result = full.claim(lane, CAP)
            assert result.ok and result.delta + result.storage == -CAP, lane
        full.chain.check_supply()


def test_an_escrow_is_never_destroyed_by_what_it_does(one: Escrow) -> None:
    """Emptied to the reserve it stays, with its counters; deploying it again changes nothing."""
    one.close(0, CAP)
    one.withdraw()
    numbers = one.state.order_number, one.state.next_lane
    one.chain.internal(one.address, TON, EMPTY, source=OWNER, state_init=one.birth.state_init())
    assert (one.state.order_number, one.state.next_lane) == numbers
    refused(one, one.open([NewLane(0, CAP, one.chain.now_s + DAY_S, payout(0), bytes(32))]), LANE_ID)
