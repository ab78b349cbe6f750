"""Every word that peers exchange: one canonical codec, every message, judged cells, hash trees.

Boundary: imports only ``core``. Invariant: pure, all of it; what decodes has exactly one spelling.
Import the module you need; this package imports none, so that light users stay light.
"""
