"""One row of the corpus: a model, what it is fed with, and how it may end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx.parser

from cocoon.wire.tensors import encode_tensors

Array = np.ndarray[Any, Any]


def scalar() -> dict[str, Array]:
    """The usual feed: one float32 ``x``."""
    return {"x": np.array(1, "f4")}


@dataclass(frozen=True)
class Row:
    """A hostile model or input.

    Attributes:
        model: Makes the bytes that are loaded.
        codes: Of the errors that it may end with, at its load or at its run.
        feeds: Makes the tensors of its one run, or the bytes that stand for them.
    """

    name: str
    model: Callable[[], bytes]
    codes: frozenset[str]
    feeds: Callable[[], Mapping[str, Array] | bytes] = field(default=scalar)

    def payload(self) -> bytes:
        """What the worker is told to run on."""
        feeds = self.feeds()
        return feeds if isinstance(feeds, bytes) else encode_tensors(feeds)


def row(name: str, model: Callable[[], bytes], codes: str, feeds: Callable[[], Any] = scalar) -> Row:
    """A row whose codes are given as words."""
    return Row(name, model, frozenset(codes.split()), feeds)


def written(body: str, head: str = "g (float x) => (float y)", domains: str = "") -> Callable[[], bytes]:
    """A model in ONNX's textual form: one graph, operator set 21."""
    text = f'<ir_version: 10, opset_import: ["" : 21{domains}]> {head} {{ {body} }}'
    return lambda: onnx.parser.parse_model(text).SerializeToString()
