"""Lengths, in bytes, of the things that have exactly one.

Purity: pure.
"""

from __future__ import annotations

HASH_BYTES = 32
KEY_BYTES = 32
SIGNATURE_BYTES = 64
BOOT_ID_BYTES = 8
LEASE_NONCE_BYTES = 16
SALT_BYTES = 16
#: Of the provider, into the session keys of a link.
LINK_NONCE_BYTES = 32
#: HPKE public key of suite 1: ML-KEM-768 (1,184) and X25519 (32).
HPKE_PUBLIC_BYTES = 1_216
#: Data bytes of the judged cells: 715 bits and 499 bits with completion tag, and 1,016 bits.
VOUCHER_BYTES = 90
CLOSE_BYTES = 63
STATEMENT_BYTES = 127
