"""From scores to a label: what Magika decides by rule, and how far it trusts its model.

Purity: pure. Source: the magika 1.0.3 package in its default (high confidence)
mode; thresholds and label names come from the model's own configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoon.core.errors import wrong
from cocoon.demo.errors import DemoModelBroken
from cocoon.demo.features import Edges, Geometry, Tokens

TEXT = "txt"
BINARY = "unknown"
EMPTY = "empty"
#: Name of the model's output: float32, shape (1, labels), values 0..1.
OUTPUT = "target_label"
#: What rounding in float32 may add to a probability of 1.
ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Rules:
    """What stands beside the model in its two configuration files.

    ``thresholds`` are unitless probabilities by raw label; a label that has
    none uses ``default_threshold``. ``renamed`` maps raw labels to shown ones.
    """

    geometry: Geometry
    names: tuple[str, ...]
    thresholds: Mapping[str, float]
    default_threshold: float
    renamed: Mapping[str, str]
    is_text: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the model's probability for it; 1.0 where a rule decided."""

    name: str
    score: float


def parse_rules(config: str, content_types: str) -> Rules:
    """Read the texts of ``config.min.json`` and ``content_types_kb.min.json``.

    Raises:
        DemoModelBroken: no such configuration, or one whose features are not
            head and tail only (the model would see something else than meant).
    """
    try:
        return _rules(json.loads(config), json.loads(content_types))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DemoModelBroken(f"Magika's configuration cannot be read: {error!r}") from error


def _rules(config: dict[str, Any], content_types: dict[str, Any]) -> Rules:
    geometry = Geometry(
        head_bytes=int(config["beg_size"]),
        tail_bytes=int(config["end_size"]),
        block_bytes=int(config["block_size"]),
        floor_bytes=int(config["min_file_size_for_dl"]),
        padding_token=int(config["padding_token"]),
    )
    if config["mid_size"] != 0 or config["use_inputs_at_offsets"]:
        raise ValueError("features of the middle or at offsets are asked for")
    if not 0 < geometry.floor_bytes <= geometry.head_bytes < geometry.block_bytes:
        raise ValueError("sizes contradict each other")
    if not (0 < geometry.tail_bytes < geometry.block_bytes and geometry.padding_token == 256):
        raise ValueError("sizes contradict each other")
    names = tuple(str(name) for name in config["target_labels_space"])
    renamed = {str(raw): str(shown) for raw, shown in config["overwrite_map"].items()}
    is_text = {str(name): bool(about["is_text"]) for name, about in content_types.items()}
    unknown = {renamed.get(name, name) for name in names} - is_text.keys()
    if unknown or not names:
        raise ValueError(f"labels without a description: {sorted(unknown)[:5]}")
    return Rules(
        geometry=geometry,
        names=names,
        thresholds={str(name): float(value) for name, value in config["thresholds"].items()},
        default_threshold=float(config["medium_confidence_threshold"]),
        renamed=renamed,
        is_text=is_text,
    )


def by_rule(edges: Edges, tokens: Tokens, rules: Rules) -> Label | None:
    """The label of a file that needs no model, or None.

    Empty files, files of fewer than ``floor_bytes`` bytes, and files whose
    first block has fewer than that once leading white space is gone. Only the
    first block is asked whether it is UTF-8, cut character or not, as in the
    original.
    """
    if edges.size_bytes == 0:
        return Label(EMPTY, 1.0)
    floor = rules.geometry.floor_bytes
    if edges.size_bytes >= floor and tokens[floor - 1] != rules.geometry.padding_token:
        return None
    try:
        edges.head.decode("utf-8")
    except UnicodeDecodeError:
        return Label(BINARY, 1.0)
    return Label(TEXT, 1.0)


def by_model(scores: NDArray[np.float32], rules: Rules) -> Label:
    """The label that the model's answer means.

    Args:
        scores: float32, shape (1, labels). A provider's output, not trusted.

    The threshold is that of the raw label. Below it the answer is only whether
    the (renamed) label is a text format.

    Raises:
        WrongField: ``wrong_output``; another shape or dtype, or values that are
            no probabilities: not this model's output.
    """
    wanted = (1, len(rules.names))
    if scores.shape != wanted or scores.dtype != np.float32:
        raise wrong("output", f"the answer is {scores.dtype} {scores.shape}, not float32 {wanted}")
    row = scores[0]
    if not bool(np.all((row >= 0.0) & (row <= 1.0 + ROUNDING))):
        raise wrong("output", "the answer holds values that are no probabilities")
    best = int(row.argmax())
    raw, score = rules.names[best], float(row[best])
    shown = rules.renamed.get(raw, raw)
    if score < rules.thresholds.get(raw, rules.default_threshold):
        shown = TEXT if rules.is_text[shown] else BINARY
    return Label(shown, score)
