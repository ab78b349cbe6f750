"""How fast this machine is with each model, as measured: for bids, which say nothing that was not measured.

Purity: pure. Spec: docs/spec/auction.md, rule AUC-11.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from cocoon.core.limits import MODELS_PACED, WARM_MODELS
from cocoon.core.units import MICROSECOND_NS

#: A new time weighs a quarter: two slow runs show, one does not decide.
_WEIGHT = 4


@dataclass(slots=True)
class _Times:
    run_us: int = 0
    unit_ns: int = 0
    load_us: int = 0


@dataclass(slots=True)
class Pace:
    """Times of runs and loads by model, each a moving average."""

    _models: OrderedDict[bytes, _Times] = field(default_factory=OrderedDict)

    def ran(self, model: bytes, run_us: int, units: int = 1) -> None:
        """A run took so long in the worker, and is billed as so many units."""
        times = self._of(model)
        times.run_us = _moved(times.run_us, run_us)
        times.unit_ns = _moved(times.unit_ns, run_us * MICROSECOND_NS // max(1, units))

    def loaded(self, model: bytes, load_us: int) -> None:
        """A worker took so long to load it."""
        times = self._of(model)
        times.load_us = _moved(times.load_us, load_us)

    def run_us(self, model: bytes) -> int:
        """Of one run; 0 if this model never ran here."""
        return self._models[model].run_us if model in self._models else 0

    def unit_ns(self, model: bytes) -> int:
        """Of one unit that is billed; 0 if this model never ran here."""
        return self._models[model].unit_ns if model in self._models else 0

    def load_us(self, model: bytes) -> int:
        """Of one load; of a model that was never loaded here the longest of all that were, 0 if none was."""
        known = self._models.get(model)
        if known is not None and known.load_us:
            return known.load_us
        return max((times.load_us for times in self._models.values()), default=0)

    def measured(self, models: Iterable[bytes]) -> tuple[tuple[bytes, int, int], ...]:
        """Of these models those that ran here, ascending: (model, runs in one batch, microseconds of it)."""
        ran = sorted(model for model in models if self.run_us(model))[:WARM_MODELS]
        return tuple((model, 1, self.run_us(model)) for model in ran)

    def _of(self, model: bytes) -> _Times:
        times = self._models.setdefault(model, _Times())
        self._models.move_to_end(model)
        while len(self._models) > MODELS_PACED:
            self._models.popitem(last=False)
        return times


def _moved(average: int, now: int) -> int:
    return average + (now - average) // _WEIGHT if average else now
