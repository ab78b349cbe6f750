"""The provider's till, rule by rule (LAN-8 to LAN-14)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import BadSignature, LaneBusy, LaneClosing, Replayed, UsageError, WrongField
from cocoon.core.ids import LeaseId
from cocoon.core.values import replace
from cocoon.ledger.tab import Head
from cocoon.ledger.till import (
    TILL_FACTS,
    CloseSigned,
    LaneEntered,
    LaneGone,
    LaneLeft,
    LaneTill,
    VoucherKept,
    check_lane,
    check_network,
    proof_of_lane,
)
from cocoon.wire.judged import sign_cell
from tests.unit.ledger.chainside import PAYOUT, PROVIDER_KEY, TON, head_at, lane_state, vouched
from tests.unit.ledger.parties import BIRTH, LANE_OWNER, STRANGER, terms

ONE, TWO = LeaseId(b"\x01" * 32), LeaseId(b"\x02" * 32)


def proof(lease: LeaseId, signer: Any = LANE_OWNER) -> tuple[bytes, bytes]:
    """The lane key's word for ``lease``."""
    voucher = proof_of_lane(BIRTH.network_tag, BIRTH.address(), 9, lease)
    return voucher.pack(), sign_cell(voucher.hash(), signer)


def entered(till: LaneTill, *shown: bytes, now_s: int = 0, known: bool = False, **changes: Any) -> tuple[Any, ...]:
    agreed = terms(paid=True, **changes)
    voucher, signature = shown or proof(agreed.lease)
    return till.enter(agreed, voucher, signature, now_s=now_s, known=known)


def sold(head: Head | None = None, lease: LeaseId = ONE) -> LaneTill:
    """A till that has settled one lease of lane 9, up to ``head``."""
    till = LaneTill()
    for fact in entered(till, lease=lease):
        till.record(fact)
    if head is not None:
        till.record(VoucherKept(BIRTH.address(), 9, *vouched(head)))
    till.record(LaneLeft(BIRTH.address(), 9, lease, True, 0))
    return till


def test_a_new_lane_begins_at_zero() -> None:
    (fact,) = entered(LaneTill())
    assert isinstance(fact, LaneEntered) and fact.opening == Head()


@pytest.mark.parametrize(
    "shown", [(b"", b""), proof(TWO), vouched(head_at(0, 0)), vouched(replace(head_at(0, 1), digest=ONE))]
)
def test_a_first_lease_needs_the_lane_keys_word_for_it(shown: tuple[bytes, bytes]) -> None:
    """Else a stranger could take leases on anybody's escrow, and keep its owner out."""
    with pytest.raises(WrongField) as refused:
        entered(LaneTill(), *shown, lease=ONE)
    assert refused.value.code == "wrong_lane_key"
    with pytest.raises(BadSignature):
        entered(LaneTill(), *proof(ONE, STRANGER), lease=ONE)


def test_the_lane_keys_word_for_a_lease_is_no_voucher() -> None:
    till = sold()
    assert till.lane(BIRTH.address(), 9).voucher is None
    with pytest.raises(WrongField) as refused:
        entered(sold(head_at(4, 400)), *proof(TWO), lease=TWO)
    assert refused.value.code == "wrong_head"


def test_a_lease_begins_where_the_lanes_newest_voucher_stands() -> None:
    head = head_at(4, 400)
    till = sold(head)
    (fact,) = entered(till, *vouched(head), lease=TWO)
    assert fact.opening == head
    till.record(fact)
    till.record(VoucherKept(BIRTH.address(), 9, *vouched(head_at(5, 500))))
    lane = till.lane(BIRTH.address(), 9)
    assert (lane.opening, lane.head) == (head, head_at(5, 500))


@pytest.mark.parametrize(
    "shown", [(b"", b""), vouched(head_at(3, 300)), vouched(replace(head_at(4, 400), total_nanoton=399))]
)
def test_an_older_head_or_none_is_refused(shown: tuple[bytes, ...]) -> None:
    with pytest.raises(WrongField) as refused:
        entered(sold(head_at(4, 400)), *shown, lease=TWO)
    assert refused.value.code == "wrong_head"


def test_a_newer_voucher_than_we_remember_is_money_and_taken() -> None:
    head = head_at(6, 600)
    for till in (LaneTill(), sold(head_at(4, 400))):
        first, kept = entered(till, *vouched(head), lease=TWO)
        till.record(first)
        till.record(kept)
        lane = till.lane(BIRTH.address(), 9)
        assert lane.opening == lane.head == head and lane.voucher is not None


def test_a_newer_voucher_that_promises_less_is_refused() -> None:
    """A requester could otherwise take back what it owes by opening one more lease."""
    till = sold(head_at(4, 400))
    for total, code in ((399, "wrong_total"), (400, None)):
        shown = vouched(head_at(5, total))
        if code is None:
            assert len(entered(till, *shown, lease=TWO)) == 2
            continue
        with pytest.raises(WrongField) as refused:
            entered(till, *shown, lease=TWO)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("head", "code"),
    [(replace(head_at(5, 5), seq=(1 << 32) - 1), "wrong_seq"), (head_at(5, (1 << 64) - 1), "wrong_total")],
)
def test_a_voucher_that_no_receipt_can_follow_is_refused(head: Head, code: str) -> None:
    with pytest.raises(WrongField) as refused:
        entered(LaneTill(), *vouched(head))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"network_tag": 1}, "wrong_network_id"), ({"escrow": b"\x01" * 32}, "wrong_escrow"), ({"lane": 8}, "wrong_lane")],
)
def test_a_voucher_of_another_lane_is_refused_by_the_field(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(WrongField) as refused:
        entered(LaneTill(), *vouched(head_at(4, 400), **changes))
    assert refused.value.code == code


def test_a_voucher_that_the_lane_key_did_not_sign_is_refused() -> None:
    with pytest.raises(BadSignature):
        entered(LaneTill(), *vouched(head_at(4, 400), signer=STRANGER))


def test_one_lease_is_open_on_a_lane_and_the_same_lease_may_come_again() -> None:
    till = sold()
    for fact in entered(till, lease=TWO):
        till.record(fact)
    assert [fact.lease for fact in entered(till, lease=TWO)] == [TWO]
    with pytest.raises(LaneBusy):
        entered(till, lease=ONE)
    assert [lane.lease for lane in till.open_leases()] == [TWO]


def test_an_unsettled_lease_may_be_resumed_until_the_next_one_shows_the_last_word_on_it() -> None:
    till = sold(head_at(4, 400))
    for fact in entered(till, *vouched(head_at(4, 400)), lease=TWO):
        till.record(fact)
    till.record(LaneLeft(BIRTH.address(), 9, TWO, False, 2))
    assert till.unsettled(BIRTH.address(), 9) == TWO and till.open_leases() == ()
    (again,) = entered(till, lease=TWO)
    assert again.opening == head_at(4, 400)
    (fact,) = entered(till, *vouched(head_at(4, 400)), lease=ONE)
    assert fact.opening == replace(head_at(4, 400), skipped=2)
    first, kept = entered(till, *vouched(head_at(5, 500)), lease=ONE)
    assert first.opening == replace(head_at(5, 500), skipped=1) and isinstance(kept, VoucherKept)
    till.record(LaneLeft(BIRTH.address(), 9, TWO, True, 0))
    assert till.unsettled(BIRTH.address(), 9) is None


def test_a_lease_may_be_resumed_as_it_began_until_the_lane_has_another() -> None:
    till = sold(head_at(4, 400))
    (again,) = entered(till, lease=ONE, known=True)
    assert again.opening == Head()
    till.record(again)
    assert till.lane(BIRTH.address(), 9).head == head_at(4, 400) and not till.lane(BIRTH.address(), 9).settled
    till.record(LaneLeft(BIRTH.address(), 9, ONE, True, 0))
    for fact in entered(till, *vouched(head_at(4, 400)), lease=TWO):
        till.record(fact)
    till.record(LaneLeft(BIRTH.address(), 9, TWO, True, 0))
    with pytest.raises(Replayed):
        entered(till, *vouched(head_at(4, 400)), lease=ONE, known=True)


def test_a_lane_serves_one_requester() -> None:
    with pytest.raises(WrongField) as refused:
        entered(sold(), lease=TWO, requester=STRANGER.key)
    assert refused.value.code == "wrong_requester"


def test_a_lane_whose_close_we_signed_takes_no_lease_until_the_order_is_void() -> None:
    till = sold()
    till.record(CloseSigned(BIRTH.address(), 9, 0, 600))
    with pytest.raises(LaneClosing):
        entered(till, lease=TWO, now_s=599)
    assert entered(till, lease=TWO, now_s=600)


def test_a_lane_that_is_gone_takes_no_lease() -> None:
    till = sold()
    till.record(LaneGone(BIRTH.address(), 9))
    with pytest.raises(LaneClosing):
        entered(till, lease=TWO)


def test_a_close_that_was_signed_is_remembered_at_its_highest_total() -> None:
    till = sold()
    assert till.lane(BIRTH.address(), 9).closing_nanoton is None
    for total in (5, 7, 6):
        till.record(CloseSigned(BIRTH.address(), 9, total, 600))
    assert till.lane(BIRTH.address(), 9).closing_nanoton == 7


def test_a_lane_that_nobody_entered_is_our_own_fault() -> None:
    with pytest.raises(UsageError):
        LaneTill().lane(bytes(32), 1)


def test_a_replay_of_the_facts_gives_the_same_lanes() -> None:
    facts: list[Any] = [
        *entered(LaneTill(), lease=ONE), VoucherKept(BIRTH.address(), 9, *vouched(head_at(1, 5))),
        LaneLeft(BIRTH.address(), 9, ONE, True, 0), CloseSigned(BIRTH.address(), 9, 5, 60),
        LaneGone(BIRTH.address(), 9),
    ]
    first, again = LaneTill(), LaneTill()
    for fact in facts:
        first.record(fact)
        again.record(TILL_FACTS.unpack(TILL_FACTS.pack(fact)))
    assert first == again


# --- the proven lane -------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (None, "wrong_lane"), (lane_state(payout=b"\x01" * 32), "wrong_payout"),
        (lane_state(provider_key=b"\x01" * 32), "wrong_provider_key"), (lane_state(cap_nanoton=1_099), "wrong_cap"),
        (lane_state(paid_nanoton=TON - 999), "wrong_cap"), (lane_state(expires_s=4_999), "wrong_expiry"),
    ],
)
def test_each_way_in_which_a_proven_lane_does_not_cover_the_lease_has_its_code(state: Any, code: str) -> None:
    with pytest.raises(WrongField) as refused:
        check_lane(
            state, terms(paid=True), head_at(1, 100), payout=PAYOUT, provider_key=PROVIDER_KEY, until_s=5_000,
            least_cap_nanoton=1_000,
        )
    assert refused.value.code == code


def test_a_lane_covers_the_ceiling_to_the_nanoton_and_the_end_to_the_second() -> None:
    state = lane_state(cap_nanoton=4_100, expires_s=5_000)
    check_lane(
        state, terms(paid=True), head_at(1, 100), payout=PAYOUT, provider_key=PROVIDER_KEY, until_s=5_000,
        least_cap_nanoton=4_100,
    )
    with pytest.raises(WrongField) as refused:
        check_lane(
            state, terms(paid=True), head_at(1, 100), payout=PAYOUT, provider_key=PROVIDER_KEY, until_s=5_000,
            least_cap_nanoton=4_101,
        )
    assert refused.value.code == "wrong_cap"


def test_the_escrow_of_another_chain_or_close_delay_is_refused() -> None:
    check_network(terms(paid=True), network_tag=BIRTH.network_tag, close_delay_s=60)
    for network_tag, delay_s, code in ((1, 60, "wrong_network_id"), (BIRTH.network_tag, 61, "wrong_escrow")):
        with pytest.raises(WrongField) as refused:
            check_network(terms(paid=True), network_tag=network_tag, close_delay_s=delay_s)
        assert refused.value.code == code
