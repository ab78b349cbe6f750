"""Facts as journal bodies: one array per fact, its class by name, its fields in order.

Purity: pure. Spec: docs/spec/lanes.md, rule LAN-14.
"""

from __future__ import annotations

from typing import Any

from cocoon.core.errors import Corrupt, PeerFault, UsageError
from cocoon.core.limits import RECORD_BYTES
from cocoon.core.machine import Event
from cocoon.core.values import astuple
from cocoon.wire.codec import decode, pack_plain

_TYPES: dict[str, type] = {"int": int, "bytes": bytes, "bool": bool, "PeerKey": bytes, "LeaseId": bytes,
                           "ReceiptHash": bytes}


class FactBook:
    """Packs and reads the journalled facts of one machine; their fields are integers, flags and bytes."""

    def __init__(self, *classes: type[Event]) -> None:
        self._classes = {cls.__name__: cls for cls in classes}
        for cls in classes:
            for name in cls.__struct_fields__:
                if cls.__annotations__[name] not in _TYPES:
                    raise UsageError(f"{cls.__name__}.{name} cannot be journalled as {cls.__annotations__[name]}")

    def pack(self, fact: Event) -> bytes:
        """The journal body of a fact of record."""
        name = type(fact).__name__
        if name not in self._classes:
            raise UsageError(f"{name} is not a fact of record here")
        return pack_plain([name, *astuple(fact)])

    def unpack(self, body: bytes) -> Any:
        """The fact inside a journal body.

        Raises:
            Corrupt: not written by ``pack``.
        """
        try:
            value = decode(body, max_bytes=RECORD_BYTES)
        except PeerFault as error:
            raise Corrupt(f"a journalled fact of {len(body)} bytes cannot be read: {error.text}") from error
        match value:
            case [str(name), *values] if name in self._classes:
                cls = self._classes[name]
                due = [_TYPES[cls.__annotations__[field]] for field in cls.__struct_fields__]
                if [type(item) for item in values] == due:
                    return cls(*values)
        raise Corrupt("a journalled fact of no known kind")
