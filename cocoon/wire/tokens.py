"""What two peers have to agree on about tokens: the bytes of each, and the running hash over them.

The text of a sequence is the bytes of its tokens, one behind the other; a character
may be split between two. The running hash commits to every token so far, and
costs as much for the thousandth as for the first.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-4 and TOK-9.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from cocoon.core.errors import Malformed, ModelRefused
from cocoon.core.limits import PIECE_BYTES, PIECES_BYTES, VOCABULARY

_TAG = b"cocoon tokens 1\0"


def first_head(prompt: Sequence[int]) -> bytes:
    """The running hash before the first token: of the prompt alone."""
    numbers = b"".join(token.to_bytes(4, "big") for token in prompt)
    return hashlib.sha256(_TAG + len(prompt).to_bytes(4, "big") + numbers).digest()


def next_head(head: bytes, token: int) -> bytes:
    """The running hash after one more token."""
    return hashlib.sha256(head + token.to_bytes(4, "big")).digest()


def pack_pieces(pieces: Iterable[bytes]) -> bytes:
    """The file of all tokens' bytes, by id: each a u16 length, big-endian, and the bytes.

    Raises:
        ModelRefused: more tokens, or more bytes of one, than a limit allows.
    """
    found = list(pieces)
    if len(found) > VOCABULARY or any(len(piece) > PIECE_BYTES for piece in found):
        raise ModelRefused(f"more than {VOCABULARY} tokens, or one of more than {PIECE_BYTES} bytes")
    return b"".join(len(piece).to_bytes(2, "big") + piece for piece in found)


def unpack_pieces(data: bytes) -> tuple[bytes, ...]:
    """The bytes of each token, by id; of tokens that are no text, like the end of an answer, none.

    Raises:
        Malformed: the file is longer than its limit, cut off, or tells of too many tokens or too long ones.
    """
    if len(data) > PIECES_BYTES:
        raise Malformed(f"{len(data)} bytes of tokens, above {PIECES_BYTES}")
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + (length := int.from_bytes(data[at : at + 2], "big"))
        if end > len(data) or at + 2 > len(data) or length > PIECE_BYTES or len(pieces) == VOCABULARY:
            raise Malformed(f"no list of the bytes of tokens: it breaks at token {len(pieces)}")
        pieces.append(data[at + 2 : end])
        at = end
    return tuple(pieces)
