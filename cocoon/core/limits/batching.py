"""Bounds of running several runs at once; ``cocoon.core.limits`` is the door to them.

Purity: pure.
"""

from __future__ import annotations

from cocoon.core.units import KIB, MIB, SECOND_NS

BATCH_ROWS = 256
"""Rows of one batch, however much a further doubling would pay: models that gain have gained most of it at 64."""
BATCH_BYTES = 64 * MIB
"""Inputs of one batch; what one message to a worker may carry."""
BATCH_GAIN_PPM = 100_000
"""A doubling of the rows pays if a row takes at least a tenth less time. Batches that gain take off a quarter and more
(SmolLM2: 28 to 39 %); a quiet machine measures a tenth too much or too little, a batch for that would only be slow."""
BATCH_LEASE_RUNS = 256
"""Runs of one lease that wait or run: two frames of 64 units on the link, and as many that are being read or sealed."""
BATCH_WAITING_BYTES = 256 * MIB
"""Inputs of all runs that wait for one worker, and of those in it: four batches of the largest size."""
BATCH_RUN_BYTES = 256 * KIB
"""A run counts as so much at least, so that no more than 1,024 are held: a choice looks at each that waits."""
BATCH_APART = 1_024
"""Leases whose runs are joined with those of no other lease; then the first is forgotten. Many times those of a day."""
BATCH_REQUESTERS = 2_048
"""Requesters whose credit is kept: the 1,024 that can wait at once, and as many that came and went in this round."""
JOIN_SIZES = (1, 2, 3, 8)
"""Batches that must give equal bits: the least, an even and an odd one, and one that fills vectors of eight floats."""
JOIN_TRIALS = (2, 3, 8, 16, 32, 64)
"""Runs of an order that are tried together, one company after the other; the last is a whole order (BATCH_RUNS)."""
JOIN_ATTEMPTS = 3
"""Times that a company is tried which changes nothing and saves no time: one hiccup of the machine decides nothing."""
MODELS_APART = 1_024
"""Models whose worker died with several runs in its order, and whose runs are joined no more; then the oldest are."""
JOIN_FORMS = 64
"""Forms of inputs of one model of which a worker remembers what it tried; then it begins anew."""
JOIN_DIFFERENCE = 1e-2
"""Largest difference of a row, alone and in a batch, that is rounding: the largest measured is 1.3e-3 (Magika)."""
CURVE_NS = 2 * SECOND_NS
"""Time inside the model for measuring its curve, before a lease of an hour."""
CURVE_SAMPLES = 3
"""Executions of each size; the one in the middle counts, so that one hiccup does not."""
