"""Who runs what: standing offers, choosing a seller, leases, and the life of a task.

Boundary: emits effects, sends nothing. Invariant: never imports p2p, ledger,
runtime, privacy or a clock.
"""
