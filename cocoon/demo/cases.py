"""The files of one demonstration: looked at once, then decided one by one.

All tokens are in memory before a peer is asked, so that the task has a known
size and a file that changes later changes nothing. 10,000 files take 41 MB.

Purity: shell (reads files).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoon.demo.features import Tokens, model_input, tokens_of
from cocoon.demo.files import FileRefused, Listing, Unreadable, read_edges
from cocoon.demo.labels import Label, Rules, by_rule
from cocoon.sdk import Result


@dataclass(slots=True)
class Case:
    """One file. ``tokens`` is None where a rule decided; ``result`` is the run that decided otherwise."""

    path: str
    tokens: Tokens | None = None
    label: Label | None = None
    result: Result | None = None

    def line(self) -> dict[str, Any]:
        """The file's object in ``--json``; only for a decided file."""
        assert self.label is not None
        result = self.result
        return {
            "path": self.path,
            "label": self.label.name,
            "score": self.label.score,
            "by": "rule" if result is None else "model",
            "provider": None if result is None else result.provider,
            "price_nanoton": 0 if result is None else result.price_nanoton,
            "receipt": None if result is None else result.receipt,
        }


@dataclass(slots=True)
class Batch:
    """All files in order, and those that were left out."""

    cases: list[Case] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    #: Files that were run once more, while a provider was killed.
    again: list[Case] = field(default_factory=list)

    @property
    def asked(self) -> list[Case]:
        """The files that the model decides."""
        return [case for case in self.cases if case.tokens is not None]

    @property
    def decided(self) -> list[Case]:
        """All that was run and is to be paid."""
        return [*self.asked, *self.again]


class Inputs:
    """The model's inputs, made one at a time; having a length makes them one task."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[Mapping[str, NDArray[np.int32]]]:
        for case in self._cases:
            assert case.tokens is not None
            yield model_input(case.tokens)


def look(listing: Listing, rules: Rules) -> Batch:
    """Read the edges of every listed file and decide what a rule can decide."""
    batch = Batch(unreadable=list(listing.unreadable))
    for path in listing.files:
        try:
            edges = read_edges(path, rules.geometry.block_bytes)
        except FileRefused as error:
            batch.unreadable.append(Unreadable(path, str(error)))
            continue
        tokens = tokens_of(edges, rules.geometry)
        label = by_rule(edges, tokens, rules)
        batch.cases.append(Case(path, tokens if label is None else None, label))
    return batch
