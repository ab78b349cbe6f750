"""What is owed and what proves it: terms, statements, receipts, records.

Boundary: machines give orders and send nothing; keys, disks and links belong to ``node``.
Invariant: both sides compute every figure themselves and believe none of the other's.
"""
