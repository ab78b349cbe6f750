"""What a task may still come to cost: the bill of each of its leases, and the most over all of them.

A lease is billed by the running sum of its units, rounded up (MON-2), so what a
further unit costs depends on those before. While a task is alone on a lease that
is known to the nanoton. Where another task has units on it too, each unit of ours
is counted as if it alone were rounded up: never too little.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-24 and SCH-25.
"""

from __future__ import annotations

from collections.abc import Sequence

from cocoon.core.units import PRICE_UNITS, bill_nanoton, ceil_div
from cocoon.core.values import Value, replace
from cocoon.scheduler.selection import RUNS, Quote, run_nanoton_per_1000


class LeasePrice(Value):
    """What the next units of one lease cost."""

    #: Due with the next unit; 0 once it was paid.
    setup_nanoton: int = 0
    run_nanoton_per_1000: int = 0
    #: Units that are on the lease's bill.
    billed: int = 0
    #: Another task has units on it, so nobody knows how many stand before ours; or each may come to less than we think.
    shared: bool = False

    @classmethod
    def of(cls, quote: Quote) -> LeasePrice:
        """The price of a new lease under ``quote``."""
        terms = quote.terms
        return cls(terms.setup_nanoton, run_nanoton_per_1000(terms), shared=quote.measure != RUNS)

    @property
    def rate(self) -> int:
        """Price per 1,000 units as it is counted here."""
        per_1000 = self.run_nanoton_per_1000
        return ceil_div(per_1000, PRICE_UNITS) * PRICE_UNITS if self.shared else per_1000

    def runs_nanoton(self, units: int) -> int:
        """The most that so many units more cost, without set-up."""
        rate = self.rate
        return bill_nanoton(self.billed + units, rate) - bill_nanoton(self.billed, rate)

    def cost_nanoton(self, units: int) -> int:
        """The most that so many units more cost."""
        return self.setup_nanoton + self.runs_nanoton(units) if units else 0

    def after(self, prices: Sequence[int]) -> LeasePrice:
        """The price after these units more, in nanoton; if they are not what we thought, others are there too."""
        shared = self.shared or not self._foresees(prices)
        return replace(self, setup_nanoton=0, billed=self.billed + len(prices), shared=shared)

    def _foresees(self, prices: Sequence[int]) -> bool:
        """Whether the next units cost this by the bill of a lease that nobody else has units on."""
        due_nanoton, before_nanoton = self.setup_nanoton, bill_nanoton(self.billed, self.run_nanoton_per_1000)
        for billed, price_nanoton in enumerate(prices, self.billed + 1):
            after_nanoton = bill_nanoton(billed, self.run_nanoton_per_1000)
            if price_nanoton != due_nanoton + after_nanoton - before_nanoton:
                return False
            due_nanoton, before_nanoton = 0, after_nanoton
        return True


class Stake(Value):
    """A lease with the units that are out on it."""

    price: LeasePrice
    out: int


def most_nanoton(taking: Sequence[Stake], leaving: Sequence[Stake], rest: int) -> int:
    """The most that all units cost that are out, and ``rest`` more, wherever among ``taking`` they go.

    Args:
        taking: Leases that get further units. Not empty if ``rest`` is above 0.
        leaving: Leases that get none.

    The dearest takes the whole rest here. Each other lease could still round its part up: by less than one nanoton,
    and not at all if a unit costs whole ones (the proof is in the spec, SCH-25).
    """
    if not rest:
        return sum(stake.price.cost_nanoton(stake.out) for stake in (*leaving, *taking))
    dearest = max(taking, key=lambda stake: stake.price.rate)
    most = dearest.price.setup_nanoton + dearest.price.runs_nanoton(dearest.out + rest)
    for stake in leaving:
        most += stake.price.cost_nanoton(stake.out)
    for stake in taking:
        if stake is not dearest:
            rounding_nanoton = int(stake.price.rate % PRICE_UNITS != 0)
            most += stake.price.setup_nanoton + stake.price.runs_nanoton(stake.out) + rounding_nanoton
    return most
