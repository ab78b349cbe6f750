"""The wallet's words, for its owner.

Purity: shell. Spec: docs/spec/wallet.md.
"""

from __future__ import annotations

from pathlib import Path

from cocoon.core.errors import NotFound
from cocoon.ledger.mnemonic import parse_words
from cocoon.ledger.signer.files import keep_words, read_words


def wallet_words(home: Path) -> str:
    """The 24 words of the wallet in ``home``, separated by spaces.

    Raises:
        NotFound: this home has no wallet yet. LaxPermissions, BadWords: its file cannot be used.
    """
    words = read_words(home)
    if words is None:
        raise NotFound("this home has no wallet yet; a peer on a network with a ledger makes one")
    return " ".join(words)


def restore_words(home: Path, text: str) -> None:
    """Give ``home`` the wallet of these 24 words.

    Raises:
        BadWords: they are no wallet, or ``home`` has one already.
    """
    keep_words(home, parse_words(text))
