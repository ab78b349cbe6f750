"""The simulator: the product's own machines under a seeded heap of events instead of trio.

``engine`` is the world around the machines: time, network, disks, chain, faults.
``peers`` does for each machine what a shell of ``cocoon.node`` does, as thin as
it goes: which effect becomes which message. ``checks`` watches. It imports pure
modules of Cocoon only, and nothing of Cocoon imports it, but for the one command
that starts it.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-1 to SIM-14.
"""
