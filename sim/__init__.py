"""The simulator: the product's own machines under a seeded heap of events instead of trio.

Here will live ``engine`` (event heap, models of network, GPU and chain),
``scenarios`` and ``validation``. It imports pure modules of Cocoon only, and
nothing of Cocoon imports it, but for the one command that starts it.

Purity: pure.
"""
