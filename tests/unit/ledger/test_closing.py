"""Closing a lane, both sides, and the numbers of orders (LAN-22 to LAN-29)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import BadSignature, LaneBusy, Malformed, WrongField
from cocoon.core.ids import LeaseId
from cocoon.core.limits import CLOSE_REPLY_NS, ORDER_WAIT_S, RETRY_FIRST_NS
from cocoon.core.machine import DeadlinePassed
from cocoon.core.values import replace
from cocoon.ledger.closing import (
    AskClose,
    CloseAgreed,
    CloseAskSent,
    CloseDenied,
    CloseStage,
    CloseWanted,
    LaneCloser,
    LaneLooked,
    OrderDesk,
    OrderLapsed,
    ReportClosed,
    SendClose,
    SendExpire,
    SendPrune,
    check_close,
)
from cocoon.ledger.escrow import carried_order, order_body, prune_body
from cocoon.ledger.till import CloseSigned, SoldLane
from cocoon.wire.judged import sign_cell
from cocoon.wire.orders import CloseOrder, OrderHead, cancel_order
from tests.unit.ledger.chainside import escrow_state, head_at, lane_state
from tests.unit.ledger.parties import BIRTH, LANE_OWNER, REQUESTER, STRANGER

STATE = escrow_state({9: lane_state()}, order_number=4)


def sold(**changes: Any) -> SoldLane:
    return SoldLane(BIRTH.address(), 9, REQUESTER.key, **{"head": head_at(3, 300), **changes})


def order(**changes: Any) -> CloseOrder:
    head = {"network_tag": BIRTH.network_tag, "escrow": BIRTH.address(), "number": 4, "valid_until_s": 600}
    body = {"lane": 9, "total_nanoton": 300}
    for name, value in changes.items():
        (head if name in head else body)[name] = value
    return CloseOrder(OrderHead(**head), **body)        # type: ignore[arg-type]


def checked(asked: CloseOrder, lane: SoldLane | None = None, signer: Any = LANE_OWNER, now_s: int = 0) -> CloseSigned:
    return check_close(asked, sign_cell(asked.hash(), signer), lane or sold(), STATE, now_s=now_s)


def test_a_provider_agrees_to_close_at_its_newest_settled_total() -> None:
    assert checked(order()) == CloseSigned(BIRTH.address(), 9, 300, 600)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"network_tag": 1}, "wrong_network_id"), ({"escrow": b"\x01" * 32}, "wrong_escrow"),
        ({"lane": 8}, "wrong_lane"), ({"total_nanoton": 299}, "wrong_total"), ({"total_nanoton": 301}, "wrong_total"),
        ({"number": 3}, "wrong_order"), ({"number": 5}, "wrong_order"), ({"valid_until_s": 0}, "wrong_expiry"),
        ({"valid_until_s": 86_401}, "wrong_expiry"),
    ],
)
def test_each_wrong_field_of_a_signed_close_has_its_own_code(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(WrongField) as refused:
        checked(order(**changes))
    assert refused.value.code == code


def test_a_close_that_the_lane_key_did_not_sign_is_refused() -> None:
    with pytest.raises(BadSignature):
        checked(order(), signer=STRANGER)


@pytest.mark.parametrize("over", [False, True])
def test_a_lane_with_a_lease_that_is_open_or_unsettled_is_not_closed(over: bool) -> None:
    with pytest.raises(LaneBusy):
        checked(order(), sold(lease=LeaseId(bytes(32)), lease_over=over, settled=False))


# --- the requester ---------------------------------------------------------


def test_a_close_that_the_provider_signs_is_carried_and_ends_the_lane() -> None:
    closer = LaneCloser(9)
    assert closer.handle(0, CloseWanted(300)) == [AskClose(9, 300)]
    assert closer.deadline_ns() is None, "another order may have the turn; nobody was asked yet"
    assert closer.handle(7, CloseAskSent()) == [] and closer.deadline_ns() == 7 + CLOSE_REPLY_NS
    assert closer.handle(1, CloseAgreed(b"p" * 64)) == [SendClose(9, b"p" * 64)]
    assert closer.handle(2, LaneLooked(lane_state(), 10)) == []
    assert closer.handle(3, LaneLooked(None, 11)) == [ReportClosed(9)]
    assert closer.stage is CloseStage.CLOSED
    for late in (CloseWanted(300), CloseAgreed(b""), CloseDenied("x"), OrderLapsed(), LaneLooked(None, 12)):
        assert closer.handle(4, late) == []


@pytest.mark.parametrize("answer", [CloseDenied("wrong_total"), DeadlinePassed()])
def test_without_the_providers_signature_the_expiry_is_brought_forward_and_the_lane_pruned(answer: Any) -> None:
    closer = LaneCloser(9)
    closer.handle(0, CloseWanted(300))
    closer.handle(0, CloseAskSent())
    assert closer.handle(CLOSE_REPLY_NS, answer) == [SendExpire(9)]
    assert closer.handle(CLOSE_REPLY_NS, answer) == []
    assert closer.handle(9, LaneLooked(lane_state(expires_s=70), 69)) == []
    assert closer.handle(9, LaneLooked(lane_state(expires_s=70), 70)) == [SendPrune(9)]
    assert closer.handle(9, LaneLooked(lane_state(expires_s=70), 71)) == []
    assert closer.handle(9, LaneLooked(None, 72)) == [ReportClosed(9)]


def test_a_provider_that_still_ends_the_lease_before_is_asked_again_for_a_while() -> None:
    closer, now_ns, asked = LaneCloser(9), 0, 0
    orders = closer.handle(0, CloseWanted(300))
    while orders == [AskClose(9, 300)]:
        asked += 1
        closer.handle(now_ns, CloseAskSent())
        orders = closer.handle(now_ns, CloseDenied("lane_busy"))
        if not orders:
            assert closer.handle(now_ns, DeadlinePassed()) == []
            now_ns = closer.deadline_ns() or 0
            orders = closer.handle(now_ns, DeadlinePassed())
    assert orders == [SendExpire(9)] and now_ns < CLOSE_REPLY_NS
    assert asked == CLOSE_REPLY_NS // RETRY_FIRST_NS


def test_an_order_that_lapsed_is_followed_by_an_expiry() -> None:
    closer = LaneCloser(9)
    closer.handle(0, CloseWanted(300))
    closer.handle(0, CloseAgreed(b"p" * 64))
    assert closer.handle(1, OrderLapsed()) == [SendExpire(9)]
    assert closer.handle(1, OrderLapsed()) == [SendExpire(9)]
    assert closer.handle(1, CloseAgreed(b"p" * 64)) == []


def test_a_close_nobody_wanted_does_nothing() -> None:
    closer = LaneCloser(9)
    assert closer.handle(0, DeadlinePassed()) == [] and closer.deadline_ns() is None
    assert closer.handle(0, CloseAgreed(b"p" * 64)) == []
    assert closer.handle(0, LaneLooked(lane_state(expires_s=1), 5)) == []


# --- order numbers ---------------------------------------------------------


def test_one_order_is_in_flight_until_it_ran_or_never_can() -> None:
    desk = OrderDesk()
    assert desk.take(STATE, 100) == (4, 100 + ORDER_WAIT_S)
    assert desk.take(STATE, 100 + ORDER_WAIT_S - 1) is None
    assert desk.take(STATE, 100 + ORDER_WAIT_S) == (4, 100 + 2 * ORDER_WAIT_S)
    ran = replace(STATE, order_number=5)
    assert desk.take(ran, 101) == (5, 101 + ORDER_WAIT_S)
    desk.drop(4)
    assert not desk.free(ran, 102)
    desk.drop(5)
    assert desk.free(ran, 102)


def test_an_order_of_an_earlier_life_is_waited_for_like_one_of_this() -> None:
    desk = OrderDesk()
    desk.resume(4, 700)
    assert desk.take(STATE, 699) is None
    assert desk.take(replace(STATE, order_number=5), 699) == (5, 699 + ORDER_WAIT_S)
    again = OrderDesk()
    again.resume(4, 700)
    assert again.take(STATE, 700) == (4, 700 + ORDER_WAIT_S)


def test_the_carried_order_tells_its_number_and_its_last_second() -> None:
    head = OrderHead(BIRTH.network_tag, BIRTH.address(), 4, 700)
    assert carried_order(order_body(4, 10, bytes(64), cancel_order(head))) == head
    with pytest.raises(Malformed):
        carried_order(prune_body(4, [1]))
