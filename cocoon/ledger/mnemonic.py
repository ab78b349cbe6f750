"""From 24 words to every key of the wallet's owner.

    words -> wallet seed            as every TON wallet does it
    wallet seed -> lane seed        HKDF-SHA256 by genesis hash and escrow index
    wallet seed -> provider seed    HKDF-SHA256 by genesis hash

The genesis hash makes keys of two networks differ, so that a voucher signed on
a devnet that was reset can never be valid on the next one.

Purity: pure; the entropy comes from the signer. Spec: docs/spec/wallet.md, rules WAL-3 and WAL-4.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from cocoon.core.errors import BadWords, UsageError
from cocoon.ledger.words import WORDS

WORD_COUNT = 24
SEED_BYTES = 32
#: Entropy of one attempt: 11 bits a word, two bytes each.
ENTROPY_BYTES = 2 * WORD_COUNT

_ROUNDS = 100_000
_CHECK_ROUNDS = _ROUNDS // 256
_LANE = b"cocoon lane key 1"
_PROVIDER = b"cocoon provider key 1"
_KNOWN = frozenset(WORDS)


def words_of(entropy: bytes) -> tuple[str, ...]:
    """24 words of ``ENTROPY_BYTES`` random bytes; only one draw in 256 is lawful (``is_lawful``)."""
    if len(entropy) != ENTROPY_BYTES:
        raise UsageError(f"words take {ENTROPY_BYTES} random bytes, not {len(entropy)}")
    pairs = (int.from_bytes(entropy[at : at + 2], "big") for at in range(0, ENTROPY_BYTES, 2))
    return tuple(WORDS[pair % len(WORDS)] for pair in pairs)  # 65,536 is a multiple of 2,048: no bias


def is_lawful(words: Sequence[str]) -> bool:
    """Whether wallets take these words: the check that TON puts into every phrase (about a second per 256)."""
    check = hashlib.pbkdf2_hmac("sha512", _phrase_key(words), b"TON seed version", _CHECK_ROUNDS)
    return check[0] == 0


def parse_words(text: str) -> tuple[str, ...]:
    """Read a phrase; white space and case are forgiven.

    Raises:
        BadWords: says how many words, or which place is wrong, and never a word.
    """
    words = tuple(text.lower().split())
    if len(words) != WORD_COUNT:
        raise BadWords(f"a wallet has {WORD_COUNT} words, not {len(words)}")
    for place, word in enumerate(words, start=1):
        if word not in _KNOWN:
            raise BadWords(f"word {place} is none of the {len(WORDS)} words of a wallet")
    if not is_lawful(words):
        raise BadWords("each word exists, but together they are no wallet: one is wrong or out of place")
    return words


def wallet_seed(words: Sequence[str]) -> bytes:
    """Ed25519 seed of the wallet key, 32 bytes."""
    return hashlib.pbkdf2_hmac("sha512", _phrase_key(words), b"TON default seed", _ROUNDS)[:SEED_BYTES]


def lane_seed(wallet: bytes, genesis: bytes, index: int) -> bytes:
    """Ed25519 seed of the lane key of escrow ``index`` (below 2^32) on one chain, 32 bytes."""
    if not 0 <= index < 1 << 32:
        raise UsageError(f"an escrow's index has 32 bits, not {index}")
    return _derive(wallet, _LANE, genesis, index.to_bytes(4, "big"))


def provider_seed(wallet: bytes, genesis: bytes) -> bytes:
    """Ed25519 seed of the provider key on one chain, 32 bytes."""
    return _derive(wallet, _PROVIDER, genesis, b"")


def _phrase_key(words: Sequence[str]) -> bytes:
    return hmac.new(" ".join(words).encode("ascii"), b"", hashlib.sha512).digest()


def _derive(wallet: bytes, label: bytes, genesis: bytes, rest: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869), one block: salt = label, key = wallet seed, info = genesis and rest."""
    if len(wallet) != SEED_BYTES or len(genesis) != 32:
        raise UsageError("a wallet seed and a genesis hash have 32 bytes")
    key = hmac.new(label, wallet, hashlib.sha256).digest()
    return hmac.new(key, genesis + rest + b"\x01", hashlib.sha256).digest()
