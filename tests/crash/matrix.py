"""The matrix: every place where a crash could cost somebody money, from both sides of it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.crash.pair import Case

#: Rows of the requester, with the occurrence that a task or its settlement brings.
_REQUESTER_ROWS = (
    ("lane_fact:LanePromised", 1), ("lane_fact:LeaseReserved", 1), ("lease_bought", 1),
    ("receipt_fact:RunAccepted", 3), ("unit_accepted", 2), ("receipt_accepted", 2),
    ("lane_fact:LeaseReleased", 1), ("lane_fact:LaneEnding", 1),
    ("outbox_key", 1), ("outbox_queued:order", 1), ("outbox_signed:order", 1), ("outbox_ended:order", 1),
    ("outbox_queued:order", 2), ("outbox_signed:order", 2), ("outbox_ended:order", 2),
)
_PROVIDER_ROWS = (
    ("till_fact:LaneEntered", 1), ("lease_sold", 1), ("runs_reserved", 1), ("receipt_fact:StatementMade", 2),
    ("receipt_issued", 2), ("receipt_fact:CountersignReceived", 2), ("receipt_settled", 2),
    ("till_fact:LaneLeft", 1), ("till_fact:CloseSigned", 1), ("anchor_fact", 1),
    ("outbox_queued:claim", 1), ("outbox_signed:claim", 1), ("outbox_ended:claim", 1),
    ("outbox_queued:anchor", 1), ("outbox_signed:anchor", 1), ("outbox_ended:anchor", 1),
)
#: Effects, and the rows that stand behind them and not yet before them.
_REQUESTER_EFFECTS = (
    ("sent:LeaseOpen", 1, (("lease_bought", 1), ("receipt_fact:RunAccepted", 0))),
    ("sent:Countersign", 2, (("receipt_accepted", 2), ("lane_fact:LaneEnding", 0))),
    ("sent:CloseAsk", 1, (("lane_fact:LaneEnding", 1), ("outbox_queued:order", 1))),
    ("external:order", 1, (("outbox_signed:order", 1), ("outbox_ended:order", 0))),
    ("external:order", 2, (("outbox_signed:order", 2), ("outbox_ended:order", 1))),
)
_PROVIDER_EFFECTS = (
    ("sent:LeaseAccept", 1, (("lease_sold", 1), ("runs_reserved", 0))),
    # Its receipt is recorded while it leaves, or before, as the link is free sooner or later.
    ("sent:RunResult", 2, (("receipt_fact:StatementMade", 2), ("receipt_settled", 1))),
    ("sent:ReceiptIssued", 2, (("receipt_issued", 2), ("receipt_settled", 1))),
    ("sent:CloseAgree", 1, (("till_fact:CloseSigned", 1),)),
    ("external:claim", 1, (("outbox_signed:claim", 1), ("outbox_ended:claim", 0))),
    ("external:anchor", 1, (("outbox_signed:anchor", 1), ("outbox_ended:anchor", 0))),
)


def _cases() -> Iterator[Case]:
    for who, rows, effects in (
        ("requester", _REQUESTER_ROWS, _REQUESTER_EFFECTS), ("provider", _PROVIDER_ROWS, _PROVIDER_EFFECTS),
    ):
        for side in ("before", "after"):
            for name, count in rows:
                yield Case(who, f"row:{name}", side, count)
            for name, count, stands in effects:
                yield Case(who, name, side, count, stands)


MATRIX = tuple(_cases())

_FEW = (
    "requester-after-row:receipt_fact:RunAccepted-3", "requester-after-row:outbox_queued:order-1",
    "provider-after-row:receipt_fact:StatementMade-2",
    "provider-after-external:claim-1",
)
#: One of each kind, for every run of the tests.
REPRESENTATIVE = tuple(case for case in MATRIX if str(case) in _FEW)
assert len(REPRESENTATIVE) == len(_FEW)
