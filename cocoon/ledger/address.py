"""Addresses as people and wallet applications write them; inside Cocoon they are 32 bytes.

Purity: pure. Spec: docs/spec/wallet.md, rule WAL-13.
"""

from __future__ import annotations

import base64
import binascii

from cocoon.core.errors import UsageError

_BOUNCEABLE, _PLAIN, _TEST_ONLY = 0x11, 0x51, 0x80


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


def _check(body: bytes) -> bytes:
    """CRC-16/XMODEM."""
    return binascii.crc_hqx(body, 0).to_bytes(2, "big")
