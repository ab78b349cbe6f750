"""How long models take on a provider's machine.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-8.
"""

from __future__ import annotations

from cocoon.core.rng import Stream
from cocoon.core.units import MIB, PPM
from cocoon.core.values import Value

#: One run of the demo's model (3 MB) in a worker, two threads of a common CPU; ``make bench`` shows it as the plain
#: ONNX Runtime's p50, which is a few milliseconds on the machines that it was run on.
RUN_US = 4_000
#: A worker's start, imports warm, and a session per MiB of model: 0.5 s for one of 135 M parameters.
WORKER_START_US = 1_000_000
LOAD_US_PER_MIB = 1_000
#: Upload of a model from requester to provider: 100 Mbit/s, assumed.
UPLOAD_NS_PER_MIB = 80_000_000
#: Runs and loads take up to so much longer.
JITTER_PPM = 200_000


class Compute(Value):
    """One machine; ``slowness_ppm`` is 1,000,000 for the machine that the constants are of."""

    slowness_ppm: int = PPM
    #: Of one run on that machine.
    usual_run_us: int = RUN_US

    def run_us(self, draws: Stream) -> int:
        """One run."""
        return self._scaled(self.usual_run_us, draws)

    def load_us(self, model_bytes: int, draws: Stream) -> int:
        """A new worker with the model."""
        return self._scaled(WORKER_START_US + LOAD_US_PER_MIB * model_bytes // MIB, draws)

    def _scaled(self, us: int, draws: Stream) -> int:
        return us * self.slowness_ppm // PPM * (PPM + draws.below(JITTER_PPM)) // PPM
