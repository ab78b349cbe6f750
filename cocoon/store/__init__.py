"""What must survive a crash: the journal, and the lock on COCOON_HOME.

Boundary: knows nothing of messages; records are a kind, bytes and an optional
unique key. Invariant: ``append`` returns only when the record is durable.
"""
