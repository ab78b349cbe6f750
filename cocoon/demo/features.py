"""Features of a file as Magika's model wants them: its first and last bytes as tokens.

Only two blocks of a file are ever looked at, its first and its last 4,096
bytes; in a small file they overlap or are the same. White space is taken off
the outer ends first, so that a licence header pushed down by blank lines still
counts. A token is the byte's value; 256 means "no byte here".

Purity: pure. Source: features v2 of the magika 1.0.3 package, which is the
oracle of tests/oracle; the numbers come from the model's own configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Tokens as kept in memory: 0..256 fits 16 bits, and 10,000 files stay at 41 MB.
Tokens = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How many bytes the model looks at; every size in bytes.

    ``floor_bytes`` is the fewest bytes that the model is asked about.
    """

    head_bytes: int
    tail_bytes: int
    block_bytes: int
    floor_bytes: int
    padding_token: int

    @property
    def tokens(self) -> int:
        """Length of the model's input."""
        return self.head_bytes + self.tail_bytes


@dataclass(frozen=True, slots=True)
class Edges:
    """What is read of a file: its size, and its first and last block.

    ``head`` and ``tail`` hold min(size, block) bytes each and overlap in files
    shorter than two blocks.
    """

    size_bytes: int
    head: bytes
    tail: bytes


def edges_of(content: bytes, block_bytes: int) -> Edges:
    """The edges of a file that is already in memory."""
    return Edges(len(content), content[:block_bytes], content[max(0, len(content) - block_bytes) :])


def tokens_of(edges: Edges, geometry: Geometry) -> Tokens:
    """Tokens of one file, shape (head + tail,): the head padded behind, the tail padded before.

    Each end is stripped on its outer side only: the head of a one-block file
    keeps its trailing white space and the tail its leading white space.
    """
    head = edges.head.lstrip()[: geometry.head_bytes]
    stripped = edges.tail.rstrip()
    tail = stripped[max(0, len(stripped) - geometry.tail_bytes) :]
    tokens = np.full(geometry.tokens, geometry.padding_token, np.uint16)
    tokens[: len(head)] = np.frombuffer(head, np.uint8)
    tokens[geometry.tokens - len(tail) :] = np.frombuffer(tail, np.uint8)
    return tokens


def model_input(tokens: Tokens) -> dict[str, NDArray[np.int32]]:
    """One file as the model's input: ``bytes``, int32, shape (1, tokens), values 0..256."""
    return {"bytes": tokens.astype(np.int32)[np.newaxis, :]}
