"""Vectors of texts: tokens, what an encoder makes of them, pooled and normalised as its package says.

Each text is a run of its own, so that no row is filled up to the length of another:
a text has the same vector in any company, and no token is paid for that says nothing.

Purity: shell (numpy, and a third-party library that is imported late).
Spec: docs/spec/tokens.md, rules TOK-35 to TOK-38.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cocoon.core.errors import ModelRefused, UsageError
from cocoon.sdk.arrays import Array
from cocoon.sdk.results import Result
from cocoon.sdk.text import cut, read_tokenizer
from cocoon.wire.counting import EMBED_INPUTS

if TYPE_CHECKING:
    from tokenizers import Encoding

#: The output that is taken of several, where there is one of this name.
_OUTPUT = "sentence_embedding"
_STEPS = {"before": {"tokens"}, "after": {"mean_pool", "normalise_l2"}}


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """What became of one text.

    Attributes:
        values: float32 (width,).
        tokens: What the text was cut into, those that mark its ends among them.
        is_cut: It is longer than the package's tokenizer takes; its end has no part in the vector.
        result: The run as any other one: provider, price, receipt; ``outputs`` before pooling.
    """

    values: Array
    tokens: int
    is_cut: bool
    result: Result


class Encoder:
    """How the package of one encoder wants texts, and what it wants done with what comes out."""

    def __init__(self, said: Mapping[str, Any], read: Callable[[str], bytes]) -> None:
        """
        Args:
            said: As ``Client.inspect_model`` tells it.
            read: Gives a file of the package; what it raises is raised.

        Raises:
            UsageError: the model is no encoder, or the package ``tokenizers`` is not installed.
            ModelRefused: it wants other inputs than tokens, or steps that nobody knows here; or no such tokenizer.
        """
        if said.get("kind") != "embed":
            raise UsageError("this model is no encoder: its package does not declare the kind embed")
        for side, known in _STEPS.items():
            if other := [step for step in said.get(side) or () if step not in known]:
                raise ModelRefused(f"this encoder wants {other[0]} {side} it, which is not done here")
        self._dtypes = {end["name"]: end["dtype"] for end in said.get("inputs") or ()} or {EMBED_INPUTS[0]: "int64"}
        if EMBED_INPUTS[0] not in self._dtypes or not set(self._dtypes.values()) <= {"int32", "int64"}:
            raise ModelRefused(f"this encoder takes {', '.join(self._dtypes)} where tokens are {EMBED_INPUTS[0]}")
        if other := [name for name in self._dtypes if name not in EMBED_INPUTS]:
            raise ModelRefused(f"this encoder also takes {other[0]!r:.40}, which follows from no text")
        outputs = [end["name"] for end in said.get("outputs") or ()]
        self._output = _OUTPUT if _OUTPUT in outputs or not outputs else outputs[0]
        self._after = tuple(said.get("after") or ())
        self._tokenizer = read_tokenizer(read("tokenizer.json"))
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> Texts:
        """These texts as inputs of one task.

        Raises:
            UsageError: something else than texts, or one of no tokens.
            ModelRefused: the package's tokenizer cannot cut one.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise UsageError("embed takes a list of texts")
        return Texts(self._tokenizer, self._dtypes, texts)

    def vectors(self, texts: Texts, results: Iterable[Any]) -> Iterator[Vector]:
        """Of each result its vector.

        Raises:
            ModelRefused: no vector comes out of this model.
        """
        for result in results:
            yield Vector(self._vector(result.outputs), result.units, result.unit in texts.cut, result)

    def _vector(self, outputs: Mapping[str, Array]) -> Array:
        is_pooled = "mean_pool" not in self._after
        found = outputs.get(self._output)
        if found is None:
            raise ModelRefused(f"this encoder has no output {self._output!r:.40}")
        if found.ndim != (2 if is_pooled else 3) or len(found) != 1 or not np.issubdtype(found.dtype, np.floating):
            raise ModelRefused(f"no vector comes out of this encoder, but {found.dtype} {found.shape}")
        # No token of a run is padding, so the mean is over all of them.
        values = found[0].astype(np.float64) if is_pooled else found[0].mean(axis=0, dtype=np.float64)
        # In float64, because squares of small float32 vanish.
        if "normalise_l2" in self._after and (length := float(np.linalg.norm(values))):
            values /= length
        made: Array = values.astype(np.float32)
        return made


class Texts:
    """Texts as the inputs of runs, made one by one as they are sent.

    Attributes:
        most_tokens: Of the longest one.
        cut: Places of those that are longer than the tokenizer takes.
    """

    def __init__(self, tokenizer: Any, dtypes: Mapping[str, str], texts: Sequence[str]) -> None:
        """Cuts each of them once, to know the longest before anything is bought."""
        self._tokenizer = tokenizer
        self._dtypes = dtypes
        self._texts = texts
        self.most_tokens = 1
        self.cut: set[int] = set()
        for place, found in enumerate(map(self._cut, texts)):
            if not found.ids:
                raise UsageError(f"text {place} has no tokens")
            self.most_tokens = max(self.most_tokens, len(found.ids))
            if found.overflowing:
                self.cut.add(place)

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for found in map(self._cut, self._texts):
            count = len(found.ids)
            made = {
                "input_ids": found.ids, "attention_mask": [1] * count, "token_type_ids": found.type_ids,
                "position_ids": range(count),
            }
            yield {name: np.array([made[name]], dtype) for name, dtype in self._dtypes.items()}

    def _cut(self, text: str) -> Encoding:
        found: Encoding = cut(self._tokenizer, text, ends=True)
        return found
