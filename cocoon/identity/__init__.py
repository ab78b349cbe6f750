"""Who this peer is: the Ed25519 peer key and the daily HPKE key.

Boundary: makes and keeps keys, interprets nothing that they sign. Invariant:
key bytes never appear in a repr, a log line or an exception.
"""
