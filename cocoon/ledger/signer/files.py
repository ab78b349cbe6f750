"""The wallet's files in a home: the words, and what was spent.

Purity: shell. Spec: docs/spec/wallet.md, rules WAL-7 and WAL-10.
"""

from __future__ import annotations

import os
from pathlib import Path

from cocoon.core.errors import BadWords, Corrupt
from cocoon.identity.files import create_secret, private_dir, read_secret, write_private
from cocoon.ledger.mnemonic import ENTROPY_BYTES, is_lawful, parse_words, words_of
from cocoon.ledger.signer.caps import FILE_BYTES, Spent, pack_spent, unpack_spent

WORDS_FILE = Path("keys") / "wallet.words"
SPENT_FILE = Path("keys") / "wallet.spent"
_WORDS_BYTES = 512


def read_words(home: Path) -> tuple[str, ...] | None:
    """The 24 words of ``home``; None if it has none yet.

    Raises:
        Corrupt: the file holds no wallet words; it is never replaced.
        LaxPermissions: others may read it.
    """
    try:
        text = read_secret(home / WORDS_FILE, _WORDS_BYTES)
    except FileNotFoundError:
        return None
    try:
        return parse_words(text.decode("ascii"))
    except (BadWords, UnicodeDecodeError):
        raise Corrupt(f"{WORDS_FILE} is damaged: restore it from your written copy of the words") from None


def make_words(home: Path) -> tuple[str, ...]:
    """The words of ``home``; drawn from the operating system if it has none."""
    if (found := read_words(home)) is not None:
        return found
    words = words_of(os.urandom(ENTROPY_BYTES))
    while not is_lawful(words):  # one draw in 256 passes the phrase's own check
        words = words_of(os.urandom(ENTROPY_BYTES))
    keep_words(home, words)
    return words


def keep_words(home: Path, words: tuple[str, ...]) -> None:
    """Write the words of a wallet that a person brings.

    Raises:
        BadWords: ``home`` has a wallet; it is left as it is.
    """
    private_dir(private_dir(home) / WORDS_FILE.parent)
    try:
        create_secret(home / WORDS_FILE, (" ".join(words) + "\n").encode("ascii"))
    except FileExistsError:
        raise BadWords(f"{home} has a wallet already; move {WORDS_FILE} away first") from None


def read_spent(home: Path) -> Spent:
    """What the signer of ``home`` has signed within a day.

    Raises:
        Corrupt: the file is damaged.
    """
    try:
        return unpack_spent(read_secret(home / SPENT_FILE, FILE_BYTES))
    except FileNotFoundError:
        return Spent()


def write_spent(home: Path, spent: Spent) -> None:
    """Make ``spent`` durable."""
    write_private(home / SPENT_FILE, pack_spent(spent))
