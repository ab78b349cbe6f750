"""Bounds of generating tokens; ``cocoon.core.limits`` is the door to them.

Purity: pure.
"""

from __future__ import annotations

from cocoon.core.units import MIB, MILLISECOND_NS, SECOND_NS

VOCABULARY = 1 << 20
"""Tokens that a decoder may know; the largest published vocabularies have 262,144."""
PIECE_BYTES = 4_096
"""Text of one token; the longest of published ones are runs of some hundred spaces."""
PIECES_BYTES = 16 * MIB
"""Text of all tokens together; 49,152 tokens of SmolLM2 have 345 KiB."""
CONTEXT_TOKENS = 1 << 17
"""Tokens of one sequence, its prompt included: what the longest of published contexts have."""
PROMPT_TOKENS_A_UNIT = 4
"""Tokens of a prompt that are billed as one of an answer: to read one takes a fifth to a quarter as long as to make one
(docs/benchmarks.md: 3.6 to 4.6 ms and 22 ms)."""
DECODE_ROWS = 64
"""Sequences that one decoder steps together; a batch of 8 has gained most of what there is (docs/benchmarks.md)."""
SEQUENCES_WAITING = 256
"""Sequences that wait for a row: four for each that can run, more would only wait in vain."""
SEQUENCES_WAITING_TOKENS = 1 << 20
"""Prompts of all that wait together: eight of the longest; eight MiB as numbers of Python."""
PREFILL_TOKENS = 32
"""Of a prompt that are read at once, before all others make a token. One such piece takes SmolLM2 as long as five
steps; reading more at once saves a twentieth of the time at most (docs/benchmarks.md)."""
STOP_TOKENS = 64
"""Tokens that end one sequence; published decoders name one to five."""
STOP_TEXTS = 16
"""Texts that end one sequence; other services allow four."""
STOP_TEXT_BYTES = 256
"""Length of one of them: as much text as may be held back until it is known not to be its beginning."""
LEASE_SEQUENCES = 64
"""Sequences of one lease that wait or run: what one frame of a link may bring, and a quarter of the line."""
SPOKEN_ROWS = 8
"""Rows of a decoder that a provider loads: eight have gained most of what a batch gains on one core."""
CHORUS_PATIENCE_NS = MILLISECOND_NS
"""What a decoder waits after a turn for the leases that heard of it: a small part of a step, many passes of a loop."""
TEMPLATE_CHARS = 64 * 1_024
"""A chat template, and what it adds to what was said; published ones have up to 10,000 characters."""
TEMPLATE_CPU_S = 2
"""Of the process in which a chat template is written out: it starts in 0.2 s, and published ones take a millisecond."""
TEMPLATE_MEMORY_BYTES = 512 * MIB
"""Address space of that process; without a template it has 100 MiB."""
TEMPLATE_NS = 20 * SECOND_NS
"""What it may take on a machine that has more to do."""
MODEL_FILE_BYTES = 32 * MIB
"""A file of a package that a client reads through its peer: a tokenizer of 262,144 tokens has 17 MiB."""
