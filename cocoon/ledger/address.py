"""Addresses as people and wallet applications write them; inside Cocoon they are 32 bytes.

Purity: pure. Spec: docs/spec/wallet.md, rule WAL-13.
"""

from __future__ import annotations

import base64
import binascii
import re

from cocoon.core.errors import UsageError

_BOUNCEABLE, _PLAIN, _TEST_ONLY = 0x11, 0x51, 0x80
_FORM_BYTES = 36
_RAW = re.compile(r"0:([0-9a-fA-F]{64})", re.ASCII)


def format_address(address: bytes, *, bounceable: bool = False, test_only: bool = False) -> str:
    """The 48 characters of an address in workchain 0 (``UQ...``, or ``EQ...`` if ``bounceable``).

    Args:
        address: Hash part, 32 bytes.
        bounceable: Whether coins that the contract cannot take return to their sender; false for wallets.
        test_only: Whether applications shall refuse it on mainnet.
    """
    if len(address) != 32:
        raise UsageError(f"an address has 32 bytes, not {len(address)}")
    flags = (_BOUNCEABLE if bounceable else _PLAIN) | (_TEST_ONLY if test_only else 0)
    body = bytes((flags, 0)) + address
    return base64.urlsafe_b64encode(body + _check(body)).decode("ascii")


def parse_address(text: str) -> bytes:
    """The hash part in any of the usual spellings: 48 characters of base64, or ``0:`` and hex.

    Raises:
        UsageError: mistyped, of another workchain, or no address at all.
    """
    if (raw := _RAW.fullmatch(text)) is not None:
        return bytes.fromhex(raw[1])
    try:
        data = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    known = (_BOUNCEABLE, _PLAIN, _BOUNCEABLE | _TEST_ONLY, _PLAIN | _TEST_ONLY)
    if len(data) != _FORM_BYTES or data[0] not in known or _check(data[:-2]) != data[-2:]:
        raise UsageError(f"{ascii(text[:64])} is no address, or it is mistyped")
    if data[1] != 0:
        raise UsageError("this address is of another workchain than 0")
    return data[2:-2]


def _check(body: bytes) -> bytes:
    """CRC-16/XMODEM."""
    return binascii.crc_hqx(body, 0).to_bytes(2, "big")
