"""The signer: a process of its own that holds the wallet key.

Boundary: words stay in the process and in one private file; seeds of lane and provider keys leave to
its own peer. Invariant: nothing is signed above a cap, and what was signed is on disk before it leaves.
"""
