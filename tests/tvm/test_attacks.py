"""What an escrow refuses, on the real TVM: each attack by name, with its code, and money conserved."""

from __future__ import annotations

import pytest

from cocoon.core.limits import LANE_GAP
from cocoon.core.values import replace
from cocoon.ledger import escrow
from cocoon.wire import orders
from cocoon.wire.cells import Cell, CellBuilder
from cocoon.wire.orders import TopUp
from tests.tvm.chain import TON, Chain, Prices
from tests.tvm.parties import (
    CAP,
    CARRIER,
    DAY_S,
    EMPTY,
    NETWORK,
    OWNER,
    Escrow,
    address,
    key,
    payout,
    provider,
    public,
)
from tests.tvm.refusals import (
    ABOVE_CAP,
    BELOW_PAID,
    EXPIRED,
    EXPIRY,
    FORM,
    FULL,
    FUNDS,
    LANE_CAP,
    LANE_ID,
    NO_LANE,
    NOT_EXPIRED,
    NOT_OWNER,
    NOTHING_DUE,
    NUMBER,
    OTHER_ESCROW,
    OTHER_NETWORK,
    PAYOUT,
    PROVIDER,
    SIGNATURE,
    SMALL,
    UNKNOWN,
    VALIDITY,
    VALUE,
    refused,
    refused_outside,
)

# --- vouchers --------------------------------------------------------------


def test_a_replayed_voucher_pays_nothing(one: Escrow) -> None:
    """From outside too: the amount would do for a first claim, what is left of it pays for nothing."""
    assert one.claim(0, 5 * 10**7).delta == -5 * 10**7
    refused(one, one.claim(0, 5 * 10**7), NOTHING_DUE)
    refused_outside(one.external_claim(0, 5 * 10**7), SMALL)
    assert one.external_claim(0, 10**8).ok


def test_a_lower_voucher_pays_nothing(one: Escrow) -> None:
    one.claim(0, 5 * 10**7)
    refused(one, one.claim(0, 4 * 10**7), NOTHING_DUE)


def test_a_later_voucher_pays_the_difference_only(one: Escrow) -> None:
    one.claim(0, 10**7)
    assert one.claim(0, 3 * 10**7).delta == -2 * 10**7
    assert one.state.lanes[0].paid_nanoton == 3 * 10**7


def test_a_voucher_of_another_lane_pays_nothing_to_this_one(one: Escrow) -> None:
    one.open(one.new([1]))
    result = one.claim(1, 10**7, source=payout(0))
    assert [out.dest for out in result.outs] == [payout(1), payout(0)]
    assert one.state.lanes[0].paid_nanoton == 0
    refused(one, one.claim(2, 10**7), NO_LANE)


def test_a_voucher_of_another_escrow_is_refused(one: Escrow) -> None:
    refused(one, one.claim(0, 10**7, escrow=OWNER), OTHER_ESCROW)
    refused_outside(one.external_claim(0, 5 * 10**7, escrow=OWNER), OTHER_ESCROW)


def test_a_voucher_of_another_network_is_refused(one: Escrow) -> None:
    refused(one, one.claim(0, 10**7, network_tag=NETWORK + 1), OTHER_NETWORK)
    refused_outside(one.external_claim(0, 5 * 10**7, network_tag=NETWORK + 1), OTHER_NETWORK)


def test_a_voucher_from_before_a_reset_is_worth_nothing_after_it(one: Escrow) -> None:
    """A new genesis is another network: another escrow, and vouchers that name the old one."""
    old = one.voucher(0, 5 * 10**7)
    again = Escrow(Chain(), replace(one.birth, network_tag=NETWORK + 1))
    again.deploy()
    assert again.address != one.address
    result = again.chain.internal(again.address, TON // 20, one.claim_body(old), source=payout(0))
    refused(again, result, OTHER_NETWORK)


def test_a_voucher_signed_by_anybody_else_is_refused(one: Escrow) -> None:
    refused(one, one.claim(0, 10**7, signer=provider(0)), SIGNATURE)


def test_a_voucher_above_the_cap_is_refused(one: Escrow) -> None:
    refused(one, one.claim(0, CAP + 1), ABOVE_CAP)
    assert one.claim(0, CAP).delta == -CAP


def test_a_voucher_with_another_tag_or_more_bits_is_refused(one: Escrow) -> None:
    cell = one.voucher(0, 10**7).cell()
    for other, code in (
        (Cell(cell.value ^ 1 << 683, cell.bits), FORM),
        (Cell(cell.value << 1, cell.bits + 1), 9),
        (Cell(cell.value, cell.bits, (EMPTY,)), 9),
    ):
        body = escrow.claim_body(1, one.lane_key.sign(other.hash()).signature, other)
        refused(one, one.chain.internal(one.address, TON // 20, body, source=payout(0)), code)


# --- claims and time -------------------------------------------------------


def test_a_claim_passes_in_the_last_second_and_not_at_expiry(one: Escrow) -> None:
    until = one.state.lanes[0].expires_s
    one.chain.now_s = until - 1
    assert one.claim(0, 10**7).ok
    assert one.prune([0]).exit_code == NOT_EXPIRED
    one.chain.now_s = until
    assert one.claim(0, 2 * 10**7).exit_code == EXPIRED
    refused_outside(one.external_claim(0, 6 * 10**7), EXPIRED)
    assert one.prune([0]).ok
    refused(one, one.claim(0, 2 * 10**7), NO_LANE)


def test_a_short_balance_is_paid_out_and_counted(one: Escrow) -> None:
    """Ten years without anybody: storage took from what was locked. What is there is paid, the rest stays owed."""
    thin = Escrow(Chain(), replace(one.birth, index=1))
    # Locked money and reserve exactly, and a lane as long as it may be.
    thin.deploy(deposit=CAP + escrow.reserve_nanoton(1), life_s=escrow.LANE_LIFE_S)
    _set_balance(thin, CAP // 2)
    result = thin.claim(0, CAP)
    assert result.ok and result.delta == -CAP // 2
    assert thin.state.lanes[0].paid_nanoton == CAP // 2
    refused(thin, thin.claim(0, CAP), FUNDS)
    thin.deposit(TON)
    assert thin.claim(0, CAP).delta == -CAP // 2


def _set_balance(one: Escrow, balance: int) -> None:
    """Take coins away from the account, as storage does over years."""
    one.chain.set_balance(one.address, balance)


def test_a_close_that_the_balance_does_not_cover_is_refused_whole(one: Escrow) -> None:
    _set_balance(one, CAP // 2)
    order = orders.close_order(one.head(), 0, CAP)
    refused(one, one.send(order, provider_key=provider(0)), FUNDS)
    one.deposit(TON)
    assert one.send(order, provider_key=provider(0)).ok, "a failed order stays executable"


def test_a_payout_to_an_account_that_is_not_deployed_arrives(one: Escrow) -> None:
    result = one.external_claim(0, 5 * 10**7)
    (sent,) = result.outs
    arrived = one.chain.deliver(sent)
    assert (arrived.exit_code, arrived.outs) == (None, ())
    assert one.chain.status(payout(0)) == "uninit"
    assert one.chain.balance(payout(0)) == sent.value
    one.chain.check_supply()


def test_a_payout_outside_workchain_0_is_refused(one: Escrow) -> None:
    entry = CellBuilder().uint(1, 32).uint(CAP, 64).uint(one.chain.now_s + DAY_S, 32)
    entry.uint(0b100, 3).uint(0xFF, 8).blob(payout(1), 32).blob(public(provider(1)), 32)
    head = orders.cancel_order(one.head())
    order = CellBuilder().uint(head.value >> 8, head.bits - 8).uint(1, 8).uint(1, 8).ref(entry.end()).end()
    refused(one, one.send(order), PAYOUT)


# --- orders ----------------------------------------------------------------


def test_a_stale_order_is_refused(one: Escrow) -> None:
    order = orders.withdraw_order(one.head(), 0)
    assert one.send(order).ok
    refused(one, one.send(order), NUMBER)


def test_an_order_out_of_sequence_is_refused(one: Escrow) -> None:
    number = one.state.order_number
    refused(one, one.send(orders.cancel_order(one.head(number=number + 1))), NUMBER)


def test_an_order_past_its_valid_until_is_refused(one: Escrow) -> None:
    order = orders.cancel_order(one.head())
    one.chain.now_s += 3_600
    refused(one, one.send(order), VALIDITY)


def test_an_order_valid_for_more_than_a_day_is_refused(one: Escrow) -> None:
    day = one.chain.now_s + escrow.ORDER_LIFE_S
    refused(one, one.send(orders.cancel_order(one.head(valid_until_s=day + 1))), VALIDITY)
    assert one.send(orders.cancel_order(one.head(valid_until_s=day))).ok


def test_an_order_of_another_network_escrow_or_key_is_refused(one: Escrow) -> None:
    refused(one, one.send(orders.cancel_order(one.head(network_tag=1))), OTHER_NETWORK)
    refused(one, one.send(orders.cancel_order(one.head(escrow=OWNER))), OTHER_ESCROW)
    refused(one, one.send(orders.cancel_order(one.head()), signer=key("somebody")), SIGNATURE)


def test_one_of_two_orders_with_one_number_runs(one: Escrow) -> None:
    withdraw, opening = orders.withdraw_order(one.head(), 0), orders.open_order(one.head(), one.new([1], TON))
    assert one.send(withdraw).ok
    refused(one, one.send(opening), NUMBER)


def test_a_cancelled_order_never_runs(one: Escrow) -> None:
    order = orders.withdraw_order(one.head(), 0)
    assert one.send(orders.cancel_order(one.head())).ok
    refused(one, one.send(order), NUMBER)


def test_a_failed_order_runs_later_if_the_money_came_and_its_time_did_not_pass(one: Escrow) -> None:
    order = orders.open_order(one.head(), one.new([1], 10 * TON))
    refused(one, one.send(order), FUNDS)
    one.deposit(10 * TON)
    assert one.send(order, source=address("another carrier")).ok


def test_a_message_of_the_owner_uses_the_orders_number(one: Escrow) -> None:
    for body in (escrow.expire_all_body(1), escrow.owner_withdraw_body(1)):
        order = orders.cancel_order(one.head())
        assert one.owner(body).ok
        refused(one, one.send(order), NUMBER)


def test_an_order_of_no_known_kind_or_with_more_in_it_is_refused(one: Escrow) -> None:
    head = orders.cancel_order(one.head())
    for kind, rest, code in ((0, 8, FORM), (6, 0, FORM), (255, 0, FORM), (5, 1, FORM), (3, 97, FORM)):
        order = CellBuilder().uint(head.value >> 8, head.bits - 8).uint(kind, 8).uint(0, rest).end()
        refused(one, one.send(order, provider_key=provider(0)), code)


def test_of_an_opening_order_all_lanes_open_or_none(one: Escrow) -> None:
    lanes = [*one.new([1, 2]), *one.new([3], escrow.LANE_FLOOR_NANOTON - 1)]
    refused(one, one.send(orders.open_order(one.head(), lanes)), LANE_CAP)
    assert list(one.state.lanes) == [0]


def test_more_money_than_is_unlocked_is_neither_locked_nor_withdrawn(one: Escrow) -> None:
    unlocked = escrow.unlocked_nanoton(one.state, one.balance)
    most = unlocked - escrow.RESERVE_LANE_NANOTON
    refused(one, one.open(one.new([1], most + 1)), FUNDS)
    refused(one, one.withdraw(unlocked + 1), FUNDS)
    refused(one, one.owner(escrow.owner_withdraw_body(1, unlocked + 1)), FUNDS)
    refused(one, one.top_up(0, CAP + unlocked + 1), FUNDS)
    assert one.open(one.new([1], most)).ok
    refused(one, one.withdraw(), FUNDS)


def test_what_a_carrier_brings_counts_only_as_far_as_it_is_named_deposit(one: Escrow) -> None:
    lanes = one.new([1], 2 * TON)
    refused(one, one.open(lanes, value=3 * TON), FUNDS)
    result = one.open(lanes, value=3 * TON, keep=2 * TON)
    assert result.delta == 2 * TON
    (back,) = result.outs
    assert back.dest == CARRIER and TON - 10**7 < back.value < TON


def test_a_deposit_above_the_value_is_refused(one: Escrow) -> None:
    refused(one, one.send(orders.cancel_order(one.head()), value=TON, keep=TON), VALUE)
    refused(one, one.open(one.new([1], 2 * TON), value=TON, keep=3 * TON), VALUE)


# --- lanes -----------------------------------------------------------------


def test_a_lane_id_is_never_used_twice(one: Escrow) -> None:
    refused(one, one.open(one.new([0])), LANE_ID)
    one.close(0, 0)
    refused(one, one.open(one.new([0])), LANE_ID)
    refused(one, one.open(one.new([1, 1])), LANE_ID)


def test_lane_ids_skip_at_most_64(one: Escrow) -> None:
    refused(one, one.open(one.new([1 + LANE_GAP + 1])), LANE_ID)
    assert one.open(one.new([1 + LANE_GAP])).ok
    refused(one, one.open(one.new([5])), LANE_ID)


def test_a_lane_lives_at_most_400_days_and_not_in_the_past(one: Escrow) -> None:
    refused(one, one.open(one.new([1], life_s=escrow.LANE_LIFE_S + 1)), EXPIRY)
    refused(one, one.open(one.new([1], life_s=0)), EXPIRY)
    assert one.open(one.new([1], life_s=escrow.LANE_LIFE_S)).ok


def test_a_top_up_lowers_nothing_and_knows_its_lane(one: Escrow) -> None:
    refused(one, one.top_up(0, CAP - 1), LANE_CAP)
    refused(one, one.top_up(0, CAP, life_s=30 * DAY_S - 1), EXPIRY)
    refused(one, one.top_up(7, CAP), NO_LANE)
    assert one.top_up(0, CAP + 1).ok
    assert one.state.lanes[0].cap_nanoton == CAP + 1


def test_an_expired_lane_is_not_revived_without_a_new_expiry(one: Escrow) -> None:
    until = one.state.lanes[0].expires_s
    one.chain.now_s = until
    refused(one, one.open([TopUp(0, 2 * CAP, until)]), EXPIRY)


def test_a_lane_needs_the_floor(one: Escrow) -> None:
    refused(one, one.open(one.new([1], escrow.LANE_FLOOR_NANOTON - 1)), LANE_CAP)
    assert one.open(one.new([1], escrow.LANE_FLOOR_NANOTON)).ok


def test_no_more_than_64_lanes_live(one: Escrow) -> None:
    one.deposit(20 * TON)
    assert one.open(one.new(range(1, 64)), value=TON).ok
    refused(one, one.open(one.new([64])), FULL)
    one.close(5, 0)
    assert one.open(one.new([64])).ok


def test_a_lane_cannot_be_pruned_before_its_expiry_nor_twice(one: Escrow) -> None:
    refused(one, one.prune([0]), NOT_EXPIRED)
    one.chain.now_s += 30 * DAY_S
    refused(one, one.prune([0, 0]), NO_LANE)
    assert one.prune([0]).ok
    refused(one, one.prune([0]), NO_LANE)
    assert one.state.locked_nanoton == 0


def test_an_expiry_comes_forward_by_the_close_delay_and_never_back(one: Escrow) -> None:
    one.expire([0])
    soon = one.chain.now_s + one.birth.close_delay_s
    assert one.state.lanes[0].expires_s == soon
    one.chain.now_s += 100
    one.expire([0])
    assert one.state.lanes[0].expires_s == soon
    refused(one, one.expire([0, 9]), NO_LANE)


# --- closes ----------------------------------------------------------------


def test_a_close_pays_the_total_of_the_order_and_ends_the_lane(one: Escrow) -> None:
    one.claim(0, 10**7)
    result = one.close(0, 6 * 10**7)
    assert result.ok and result.delta == -5 * 10**7
    assert result.outs[0].dest == payout(0) and result.outs[0].value == 5 * 10**7
    refused(one, one.claim(0, 7 * 10**7), NO_LANE)
    assert one.state.locked_nanoton == 0


def test_a_close_below_what_was_paid_is_refused(one: Escrow) -> None:
    one.claim(0, 3 * 10**7)
    refused(one, one.close(0, 3 * 10**7 - 1), BELOW_PAID)
    assert one.close(0, 3 * 10**7).delta == 0


def test_a_close_below_the_promised_total_needs_the_providers_signature(one: Escrow) -> None:
    """The contract does not know the promise; the provider does, and signs only its newest total."""
    order = orders.close_order(one.head(), 0, 0)
    refused(one, one.send(order), PROVIDER)
    refused(one, one.send(order, provider_key=provider(1)), PROVIDER)
    refused(one, one.send(order, provider_key=one.lane_key), PROVIDER)
    assert one.claim(0, 6 * 10**7).delta == -6 * 10**7


def test_a_close_above_the_cap_is_refused(one: Escrow) -> None:
    refused(one, one.close(0, CAP + 1), ABOVE_CAP)
    assert one.close(0, CAP).delta == -CAP


def test_a_close_needs_both_keys_over_one_cell(one: Escrow) -> None:
    low, high = orders.close_order(one.head(), 0, 0), orders.close_order(one.head(), 0, CAP)
    body = escrow.order_body(
        1, 0, one.lane_key.sign(low.hash()).signature, low, provider(0).sign(high.hash()).signature
    )
    refused(one, one.chain.internal(one.address, TON // 5, body, source=CARRIER), PROVIDER)
    refused(one, one.send(low, signer=provider(0), provider_key=provider(0)), SIGNATURE)


# --- who may, and what it must bring ---------------------------------------


def test_only_the_owner_expires_all_and_withdraws_by_message(one: Escrow) -> None:
    for body in (escrow.expire_all_body(1), escrow.owner_withdraw_body(1)):
        refused(one, one.owner(body, source=CARRIER), NOT_OWNER)


def test_an_unknown_operation_is_refused(one: Escrow) -> None:
    body = CellBuilder().uint(0x0C0C1009, 32).uint(1, 64).end()
    refused(one, one.owner(body), UNKNOWN)
    refused(one, one.owner(body, source=CARRIER), NOT_OWNER)
    refused(one, one.owner(CellBuilder().uint(1, 7).end()), 9)


@pytest.mark.parametrize("source", [payout(0), CARRIER])
def test_a_value_below_the_cost_is_refused_before_any_change(one: Escrow, source: bytes) -> None:
    """From the cost on it runs whole: no value between leaves a claim counted and not paid."""
    before = dict(one.chain.accounts)
    low, high = 10**6, TON // 10
    while high - low > 1:
        one.chain.accounts = dict(before)
        value = (low + high) // 2
        result = one.claim(0, 10**7, value=value, source=source)
        assert result.ok or result.exit_code in (VALUE, -14)
        if result.ok:
            high = value
            assert result.delta == -(10**7)
        else:
            low = value
            assert result.delta == 0
            assert one.state.lanes[0].paid_nanoton == 0
    assert high <= escrow.value_nanoton(Prices(), escrow.claim_gas(one.state.depth))


def test_a_deposit_is_an_empty_message_a_comment_or_a_top_up(one: Escrow) -> None:
    comment = CellBuilder().uint(0, 32).blob(b"for the lanes", 13).end()
    bounced = CellBuilder().uint(0xFFFFFFFF, 32).uint(0, 64).end()
    for body in (EMPTY, comment, escrow.top_up_body(1), CellBuilder().uint(0, 32).end()):
        result = one.deposit(TON, body)
        assert result.ok and result.outs == ()
        assert result.delta == TON - result.fees
    refused(one, one.deposit(TON, bounced), UNKNOWN)


def test_a_withdrawal_goes_to_the_owner_and_carries_its_payload(one: Escrow) -> None:
    payload = Cell((1 << orders.PAYLOAD_BITS) - 5, orders.PAYLOAD_BITS)
    result = one.withdraw(TON, payload)
    to_owner, to_carrier = result.outs
    assert (to_owner.dest, to_owner.value, to_owner.body) == (OWNER, TON, payload)
    assert (to_carrier.dest, to_carrier.body) == (CARRIER, EMPTY)
    assert one.withdraw().ok
    assert escrow.unlocked_nanoton(one.state, one.balance) == 0
    assert one.balance == CAP + escrow.reserve_nanoton(1)
