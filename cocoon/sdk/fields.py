"""Typed, bounded access to the maps that the local peer sends.

A peer of another version may add fields and events; what a caller relies on is
checked here, so that a wrong type is one typed error and never a traceback.

Purity: pure. Spec: docs/spec/control.md, rule CTL-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.ids import peer_id, peer_key

_TEXT_CHARS = 512
_PEER_KEYS = ("peer", "provider", "requester")


def _missing(values: Mapping[str, Any], key: str, wanted: str) -> Malformed:
    found = type(values[key]).__name__ if key in values else "nothing"
    return Malformed(f"the local peer sent {found} where {key!r} should be {wanted}")


def take_int(values: Mapping[str, Any], key: str, *, low: int = 0, high: int = (1 << 64) - 1) -> int:
    """The integer under ``key``, in [low, high]."""
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _missing(values, key, f"an integer in [{low}, {high}]")
    return value


def take_bytes(values: Mapping[str, Any], key: str, *, size: int | None = None) -> bytes:
    """The bytes under ``key``, of exactly ``size`` bytes if given."""
    value = values.get(key)
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        raise _missing(values, key, "bytes" if size is None else f"{size} bytes")
    return value


def take_text(values: Mapping[str, Any], key: str, *, chars: int = _TEXT_CHARS) -> str:
    """The text under ``key``, at most ``chars`` characters."""
    value = values.get(key)
    if not isinstance(value, str) or len(value) > chars:
        raise _missing(values, key, f"text of at most {chars} characters")
    return value


def take_map(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The map under ``key``."""
    value = values.get(key)
    if not isinstance(value, dict):
        raise _missing(values, key, "a map")
    return value


def take_maps(values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of maps under ``key``."""
    value = values.get(key)
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
        raise _missing(values, key, "a list of maps")
    return list(value)


def take_hex(values: Mapping[str, Any], key: str, *, size: int = 32) -> str:
    """A digest under ``key`` as lower-case hex; it may travel as bytes or as that hex."""
    value = values.get(key)
    if isinstance(value, bytes) and len(value) == size:
        return value.hex()
    if isinstance(value, str) and len(value) == 2 * size and not value.strip("0123456789abcdef"):
        return value
    raise _missing(values, key, f"a digest of {size} bytes")


def take_peer(values: Mapping[str, Any], key: str) -> str:
    """A peer under ``key`` as its id text; it may travel as the 32-byte key or as that text."""
    value = values.get(key)
    if isinstance(value, bytes) and len(value) == 32:
        return peer_id(value)
    try:
        if isinstance(value, str):
            peer_key(value)
            return value
    except UsageError:
        pass
    raise _missing(values, key, "a peer id")


def plain(value: Any) -> Any:
    """The same value for people and JSON: bytes become hex, keys of peers their ids, tuples lists."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _plain_under(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _plain_under(key: str, value: Any) -> Any:
    is_peer = key in _PEER_KEYS and isinstance(value, bytes) and len(value) == 32
    return peer_id(value) if is_peer else plain(value)
