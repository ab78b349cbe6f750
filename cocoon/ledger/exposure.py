"""Exposure: what a provider has delivered and not been promised, and how little of that it allows.

Work is paid after it is delivered, so somebody always trusts somebody; here it
is the provider, for one tranche. Before a lane is on chain it trusts a stranger
for one tranche in all, out of a total for strangers.

Invariants
    Delivered unpaid value never exceeds one tranche, or one run if dearer.
    Open credit never exceeds its total, and a debtor gets none.

Purity: pure. Spec: docs/spec/money.md, rules MON-13 to MON-18.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cocoon.core.errors import CreditRefused
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import (
    CREDIT_DEBTORS,
    CREDIT_PATIENCE_NANOTON,
    CREDIT_STRANGERS_NANOTON,
    CREDIT_TRANCHES,
    RUNS_UNSETTLED,
    TRANCHE_RUNS,
)
from cocoon.core.machine import Event
from cocoon.ledger.facts import FactBook
from cocoon.ledger.tab import Tab
from cocoon.wire.judged import Statement


def is_ripe(tab: Tab) -> bool:
    """Whether a receipt is due by value or by count (MON-14)."""
    tranche_nanoton = tab.terms.tranche_nanoton
    by_value = tranche_nanoton and 2 * tab.open_nanoton >= tranche_nanoton
    return bool(by_value) or len(tab.open) >= TRANCHE_RUNS


def has_ripened(tab: Tab) -> bool:
    """Whether a receipt is due since the newest statement, and was not before."""
    if not is_ripe(tab):
        return False
    before_nanoton, tranche_nanoton = tab.open_nanoton - tab.open[-1].price_nanoton, tab.terms.tranche_nanoton
    return len(tab.open) <= TRANCHE_RUNS and not (tranche_nanoton and 2 * before_nanoton >= tranche_nanoton)


def ripe(tab: Tab) -> int:
    """How many statements, from the oldest, the receipt that is due covers; 0 if none is (MON-14)."""
    if not is_ripe(tab):
        return 0
    value, tranche_nanoton = 0, tab.terms.tranche_nanoton
    for count, statement in enumerate(tab.open[:TRANCHE_RUNS], start=1):
        value += statement.price_nanoton
        if tranche_nanoton and 2 * value >= tranche_nanoton:
            return count
    return TRANCHE_RUNS if len(tab.open) >= TRANCHE_RUNS else 0


def fits(tab: Tab, pending: int = 0, units: int | None = None, *, unproven: bool = False) -> bool:
    """Whether one more run keeps the unpaid work within the bound (MON-13).

    Args:
        pending: Runs that were started and have no statement yet.
        units: The most that these and the one more come to; None: one each.
        unproven: Bound the whole lease instead, paid work included (MON-16).
    """
    if len(tab.open) + pending >= RUNS_UNSETTLED:
        return False
    if not tab.terms.tranche_nanoton:
        return True
    settled, settled_nanoton = (0, 0) if unproven else (tab.units_settled, tab.billed_nanoton - tab.open_nanoton)
    most = tab.units + (pending + 1 if units is None else units)
    value = tab.terms.bill_nanoton(most) - settled_nanoton
    # A run dearer than a tranche may go alone; on credit no more is given than a tranche, or one unit.
    is_alone = not pending and tab.units == settled and (not unproven or most - settled == 1)
    return value <= tab.terms.tranche_nanoton or is_alone


def within(tab: Tab, statement: Statement) -> bool:
    """Whether ``statement``, not yet on ``tab``, keeps the unpaid work within the bound."""
    if len(tab.open) >= RUNS_UNSETTLED:
        return False
    if not tab.terms.tranche_nanoton or not tab.open:
        return True
    return tab.open_nanoton + statement.price_nanoton <= tab.terms.tranche_nanoton


def affordable(tab: Tab, pending: int = 0, units: int | None = None) -> bool:
    """Whether one more run stays below the lease's ceiling (MON-6); arguments as for ``fits``."""
    most = tab.units + (pending + 1 if units is None else units)
    return tab.terms.bill_nanoton(most) <= tab.terms.ceiling_nanoton


def lost_nanoton(tab: Tab, *, cut: bool = False) -> int:
    """What a provider has delivered on this lease and never been promised, withdrawn results included (MON-18).

    Args:
        cut: Our own end broke the lease off: what was withdrawn then had perhaps never left us.
    """
    return tab.open_nanoton + (0 if cut else tab.withdrawn_nanoton)


# --- first contact ---------------------------------------------------------


class CreditGiven(Event):
    """A lease may begin before its lane is on chain; it may cost us this much."""

    lease: LeaseId
    requester: PeerKey
    nanoton: int


class CreditEnded(Event):
    """The lane was proven, or the lease ended; ``lost_nanoton`` of delivered work stay unpaid.

    May come again for one lease: when it was resumed and settled after all.
    """

    lease: LeaseId
    lost_nanoton: int


class WorkLost(Event):
    """A paid lease ended with ``nanoton`` delivered and never promised; 0: it was promised after all."""

    lease: LeaseId
    requester: PeerKey
    nanoton: int


CreditFact = CreditGiven | CreditEnded | WorkLost
CREDIT_FACTS = FactBook(CreditGiven, CreditEnded, WorkLost)


@dataclass(slots=True)
class CreditBook:
    """A provider's credit to requesters whose lanes are not on chain yet, and its patience with those that cost it."""

    strangers_nanoton: int = CREDIT_STRANGERS_NANOTON
    patience_nanoton: int = CREDIT_PATIENCE_NANOTON
    tranches_behind: int = CREDIT_TRANCHES
    open: dict[LeaseId, CreditGiven] = field(default_factory=dict)
    #: Leases that ended unpaid, the oldest first; ``nanoton`` is what is owed.
    owed: dict[LeaseId, CreditGiven] = field(default_factory=dict)

    def ask(self, lease: LeaseId, requester: PeerKey, tranche_nanoton: int, unlocked_nanoton: int) -> CreditGiven:
        """The fact to record before a lease on credit is countersigned (MON-17).

        Args:
            tranche_nanoton: What the lease may cost us: one tranche, or one unit if dearer.
            unlocked_nanoton: Proven unlocked balance of the requester's escrow.

        Raises:
            CreditRefused: too little behind it, a debtor, or the total is used up.
        """
        needed = self.tranches_behind * tranche_nanoton
        if unlocked_nanoton < needed:
            raise CreditRefused(f"{unlocked_nanoton} nanoton lie unlocked in the escrow, credit needs {needed}")
        if debt := self.debt_nanoton(requester):
            raise CreditRefused(f"{debt} nanoton of delivered work were never promised")
        used = sum(credit.nanoton for credit in self.open.values())
        if used + tranche_nanoton > self.strangers_nanoton:
            raise CreditRefused(f"credit of {used} of {self.strangers_nanoton} nanoton is out, asked {tranche_nanoton}")
        return CreditGiven(lease, requester, tranche_nanoton)

    def check(self, requester: PeerKey) -> None:
        """Return if we serve this requester at all (MON-18); asked before every paid lease.

        Raises:
            CreditRefused: it cost us more delivered work than ``patience_nanoton``.
        """
        if (debt := self.debt_nanoton(requester)) > self.patience_nanoton:
            borne = f"borne are {self.patience_nanoton}"
            raise CreditRefused(f"{debt} nanoton of delivered work were never promised, {borne}")

    def debt_nanoton(self, requester: PeerKey) -> int:
        """What this requester had and did not promise to pay, over all leases that we remember."""
        return sum(credit.nanoton for credit in self.owed.values() if credit.requester == requester)

    def record(self, fact: CreditFact) -> None:
        """Take a fact of record; one that came before changes nothing."""
        match fact:
            case CreditGiven(lease):
                self.open.setdefault(lease, fact)
            case CreditEnded(lease, lost_nanoton):
                given = self.open.pop(lease, None) or self.owed.pop(lease, None)
                if given is not None:
                    self._owe(lease, given.requester, lost_nanoton)
            case WorkLost(lease, requester, nanoton):
                self._owe(lease, requester, nanoton)

    def concerns(self, lease: LeaseId) -> bool:
        """Whether the end of this lease is a fact for this book."""
        return lease in self.open or lease in self.owed

    def _owe(self, lease: LeaseId, requester: PeerKey, nanoton: int) -> None:
        self.owed.pop(lease, None)
        if nanoton:
            self.owed[lease] = CreditGiven(lease, requester, nanoton)
            while len(self.owed) > CREDIT_DEBTORS:
                del self.owed[next(iter(self.owed))]
