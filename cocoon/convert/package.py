"""Writing a package: the ONNX file, and beside it tokenizer, bytes of the tokens, and description.

Purity: shell. Spec: docs/spec/tokens.md, rules TOK-1 to TOK-4.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cocoon.convert.graph import build
from cocoon.convert.source import Source
from cocoon.convert.tokenizer import pieces
from cocoon.convert.weights import Matrix
from cocoon.core.errors import ModelRefused
from cocoon.core.limits import CONTEXT_TOKENS, MODEL_BYTES, STOP_TOKENS
from cocoon.core.values import asdict
from cocoon.wire.tokens import pack_pieces

FORMAT = 1


def write_package(source: Source, folder: Path) -> None:
    """Write the four files of a package.

    Raises:
        ModelRefused: a tensor that the graph does not have, or anything above a limit.
    """
    if source.sizes.context > CONTEXT_TOKENS or not 0 < len(source.stops) <= STOP_TOKENS:
        stops = f"{len(source.stops)} tokens that end an answer"
        raise ModelRefused(f"a context of {source.sizes.context} tokens and {stops}; above a limit, or none")
    model = convert(source)
    if len(model) > MODEL_BYTES:
        raise ModelRefused(f"the ONNX file would have {len(model)} bytes, above {MODEL_BYTES}")
    text = pack_pieces(pieces(source.tokenizer, source.sizes.vocabulary))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    (folder / "tokens.bin").write_bytes(text)
    _write_json(folder / "tokenizer.json", source.tokenizer)
    _write_json(folder / "decoder.json", describe(source))


def convert(source: Source) -> bytes:
    """The ONNX file; every tensor of the source is in it.

    Raises:
        ModelRefused: the source has a tensor that the graph does not: a bias, say. Without it answers would be wrong.
    """
    used: set[str] = set()

    def read(name: str) -> Matrix | None:
        used.add(name)
        return source.read(name)

    model = build(source.sizes, read)
    if unused := sorted(source.names - used):
        raise ModelRefused(f"{len(unused)} tensors have no place in the graph, the first is {unused[0]}")
    return model


def describe(source: Source) -> dict[str, Any]:
    """What a user of the package has to know."""
    return {
        "format": FORMAT, **source.told, **asdict(source.sizes), "stop_tokens": source.stops,
        "first_token": source.first, "chat_template": source.template,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
