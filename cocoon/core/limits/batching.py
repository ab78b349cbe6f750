"""Bounds of running several runs at once; ``cocoon.core.limits`` is the door to them.

Purity: pure.
"""

from __future__ import annotations

from cocoon.core.units import KIB, MIB, SECOND_NS

BATCH_ROWS = 64
"""Rows of one batch of several runs, however much a further doubling would pay: models that gain have gained most of it
by then, and an order to a worker has no more runs (BATCH_RUNS)."""
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
WARM_NS = 600 * SECOND_NS
"""How long a public model stays loaded that nobody runs: tasks that follow each other within minutes save its load."""
YIELD_LOOK_NS = 5 * SECOND_NS
"""Between two looks at what other programs use; a look at 400 processes takes 8 ms of a thread."""
YIELD_LOOKS = 6
"""Quiet looks in a row, half a minute, before a provider that rests sells again."""
SHARED_PATIENCE_NS = 2 * SECOND_NS
"""What a run waits for those of other leases, beside what it may take itself: half of the grace that its requester has
(ANSWER_GRACE_NS of ``scheduler.purchase``), which takes a silent provider for a lost one."""
JOIN_TRIALS = (2, 3, 8, 16, 32, 64)
"""Runs of an order that are tried together, one company after the other; the last is a whole order (BATCH_RUNS)."""
JOIN_ATTEMPTS = 3
"""Times that a company is tried which changes nothing and saves no time: one hiccup of the machine decides nothing."""
MODELS_APART = 1_024
"""Models whose worker died with several runs in its order, and whose runs are joined no more; then the oldest are."""
JOIN_FORMS = 64
"""Forms of inputs of one model of which a worker remembers what it tried; then it begins anew."""
CURVE_SAMPLES = 3
"""Batches of each size, the last ones; the one in the middle counts, so that one hiccup does not."""
CURVE_BATCHES = 256
"""Batches after which larger ones that seemed too slow are tried again: what a hiccup decided holds for seconds."""
