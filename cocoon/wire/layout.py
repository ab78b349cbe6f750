"""Where the raw bytes of tensors lie in their canonical form, for who moves tensors without numpy.

Purity: pure. Spec: docs/spec/tensors.md, rule TEN-1.
"""

from __future__ import annotations

from cocoon.core.limits import PAYLOAD_BYTES, TENSOR_NAME_CHARS, TENSOR_RANK, TENSORS
from cocoon.wire.codec import Reader

_DTYPE_CHARS = 16


def largest_raw(payload: bytes | memoryview) -> int:
    """Offset of the longest raw bytes; 0 if there are none.

    Raises:
        TooLarge, NonCanonical, Malformed: no canonical tensors; not all of these are noticed.
    """
    reader = Reader(payload, PAYLOAD_BYTES)
    found, longest = 0, 0
    for _ in range(reader.array(TENSORS)):
        reader.array(4)
        reader.text(TENSOR_NAME_CHARS)
        reader.text(_DTYPE_CHARS)
        for _ in range(reader.array(TENSOR_RANK)):
            reader.uint()
        size_bytes = len(reader.view(PAYLOAD_BYTES))
        if size_bytes > longest:
            found, longest = reader.position() - size_bytes, size_bytes
    return found
