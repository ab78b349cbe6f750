"""A provider's bid strategy: what it bids for a call, and what it will not do at all.

The policy, in full: a bid never exceeds the standing asks and never falls below
the floor. An idle provider takes ``idle_discount_ppm`` off the room between
floor and ask, a full one nothing, and between them the discount falls evenly
with the share of its leases that are open. In a first-price auction the ask of
a full machine is the price of its scarcity; an idle one earns nothing by it.
Asks and floors are the same for every model, but time is not: what an hour of it
must earn raises the floor of a model that was measured, and what would earn less
than that at the ask gets no bid.

Purity: pure. Spec: docs/spec/auction.md, rules AUC-13 to AUC-15; models.md, rule MOD-13.
"""

from __future__ import annotations

from cocoon.core.units import HOUR_NS, PPM, PRICE_UNITS, ceil_div, unit_of
from cocoon.core.values import Value
from cocoon.wire.licence import NO_LICENCE, permitted
from cocoon.wire.manifest import Manifest
from cocoon.wire.market import NO_MODEL, Call

Prices = tuple[tuple[int, int], ...]


class Strategy(Value):
    """Asks and floors per 1,000 of a unit and for the set-up, in nanoton; and the models that are refused.

    A floor that names no price of a unit is 0 there. ``floor_hour_nanoton`` is for an hour of a worker.
    ``allowed`` models are the only ones that are run, if there are any; a private model has no name before it is
    bought, and counts as none of them. So it is with licences, which a manifest says before anything is fetched.
    """

    ask_setup_nanoton: int = 0
    asks: Prices = ()
    floor_setup_nanoton: int = 0
    floors: Prices = ()
    floor_hour_nanoton: int = 0
    idle_discount_ppm: int = 0
    kinds: tuple[str, ...] = ("infer",)
    max_model_bytes: int = 0
    denied: frozenset[bytes] = frozenset()
    allowed: frozenset[bytes] = frozenset()
    denied_licences: tuple[str, ...] = ()
    allowed_licences: tuple[str, ...] = ()

    def price(self, kind: str, open_ppm: int, unit_ns: int = 0) -> tuple[int, Prices]:
        """Set-up price of a bid for ``kind``, and that of its unit, while ``open_ppm`` of the leases are open.

        Args:
            unit_ns: What a unit of this model takes here; 0 if that was never measured.
        """
        discount_ppm = self.idle_discount_ppm * (PPM - min(open_ppm, PPM)) // PPM
        floors, cost_nanoton = dict(self.floors), self._cost_nanoton(unit_ns)
        return (
            _between(self.floor_setup_nanoton, self.ask_setup_nanoton, discount_ppm),
            tuple(
                (unit, _between(max(floors.get(unit, 0), cost_nanoton), ask, discount_ppm))
                for unit, ask in self.asks if unit == unit_of(kind)
            ),
        )

    def refusal(self, call: Call, unit_ns: int = 0) -> tuple[str, str] | None:
        """Code and text of why this call gets no bid; None if it may have one. ``unit_ns`` as for ``price``."""
        if call.kind not in self.kinds or call.tier:
            return "kind_refused", f"{call.kind!r} of tier {call.tier} is not sold here"
        # Sizes are told rounded up by at most an eighth; the lease's own model is measured exactly.
        if call.model_bytes > self.max_model_bytes + self.max_model_bytes // 8:
            return "limit_exceeded", f"models up to {self.max_model_bytes} bytes are run here"
        if call.model in self.denied or (self.allowed and call.model not in self.allowed):
            what = "a private model" if call.model == NO_MODEL else f"model {call.model.hex()[:16]}"
            return "model_denied", f"{what} is not run here"
        ask_nanoton, cost_nanoton = dict(self.asks).get(unit_of(call.kind), 0), self._cost_nanoton(unit_ns)
        if cost_nanoton > ask_nanoton:
            what = f"{PRICE_UNITS:,} units of this model take time for {cost_nanoton} nanoton here"
            return "below_cost", f"{what}, and {ask_nanoton} are asked"
        return None

    def _cost_nanoton(self, unit_ns: int) -> int:
        """What the time of ``PRICE_UNITS`` must earn."""
        return ceil_div(self.floor_hour_nanoton * unit_ns * PRICE_UNITS, HOUR_NS)

    def licence_refusal(self, manifest: Manifest) -> str | None:
        """Why a model under this licence is not run; None if it is (MOD-13)."""
        licence = manifest.licence or NO_LICENCE
        if permitted(licence, allowed=self.allowed_licences, denied=self.denied_licences):
            return None
        return f"models under the licence {licence!r} are not run here"


def _between(floor: int, ask: int, discount_ppm: int) -> int:
    """The ask less its discount, rounded up: never below the floor, never above the ask."""
    return ask - max(0, ask - floor) * discount_ppm // PPM
