"""What others may learn: padding, sealed keys, the sealed link.

Boundary: bytes in, bytes out; no sockets, no files, no messages of ``wire``.
Invariant: the size of what leaves depends only on a payload's padded class.
"""
