"""What the peer says about itself: structured log lines and counters.

Boundary: everybody may write, nobody reads decisions from it. Invariant:
inputs, outputs, keys, tokens and the pair (requester, task) never leave here.
"""
