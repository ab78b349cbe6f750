"""Reading GGUF: the file format of llama.cpp, with sizes, weights and tokenizer in one file.

Q8_0 is taken over bit by bit. Whatever else a matrix is stored in becomes float32
numbers first, and is quantised anew.

Purity: shell; needs the package gguf. Spec: docs/spec/tokens.md, rules TOK-1 and TOK-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, dequantize

from cocoon.convert.source import Source
from cocoon.convert.tokenizer import byte_level
from cocoon.convert.weights import Matrix, Sizes, from_q8_0
from cocoon.core.errors import ModelRefused

#: GGUF's kind of a token that is no text.
_CONTROL = 3


def read_gguf(path: Path) -> Source:
    """What the file holds.

    Raises:
        ModelRefused: no GGUF, another family than Llama, or a variant of it that the graph does not have.
    """
    try:
        reader = GGUFReader(str(path))
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ModelRefused(f"{path.name} is no GGUF that can be read: {error}") from None
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    stops = [fields[name] for name in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id") if name in fields]
    first = fields.get("tokenizer.ggml.bos_token_id") if fields.get("tokenizer.ggml.add_bos_token") else None

    def read(name: str) -> Matrix | None:
        return _matrix(tensors[name]) if name in tensors else None

    return Source(
        _sizes(fields), read, frozenset(tensors), _tokenizer(fields), tuple(dict.fromkeys(stops)), first,
        fields.get("tokenizer.chat_template", ""),
        {"name": fields.get("general.name", path.stem), "licence": fields.get("general.license", "")},
    )


def _sizes(fields: Mapping[str, Any]) -> Sizes:
    if (family := fields.get("general.architecture")) != "llama":
        raise ModelRefused(f"this is a decoder of the family {family!r}; only llama is converted")
    if fields.get("llama.rope.scaling.type", "none") != "none" or fields.get("llama.expert_count"):
        raise ModelRefused("scaled positions and experts are not converted")
    try:
        width, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
        head_width = fields.get("llama.attention.key_length", width // heads)
        if fields.get("llama.rope.dimension_count", head_width) != head_width:
            raise ModelRefused("positions that turn only a part of a head are not converted")
        return Sizes(
            layers=fields["llama.block_count"], width=width, heads=heads,
            kv_heads=fields.get("llama.attention.head_count_kv", heads), head_width=head_width,
            inner=fields["llama.feed_forward_length"], vocabulary=len(fields["tokenizer.ggml.tokens"]),
            context=fields["llama.context_length"], rope_base=fields.get("llama.rope.freq_base", 10_000.0),
            # Written as float32; what people wrote is the short number.
            epsilon=float(np.float32(fields["llama.attention.layer_norm_rms_epsilon"])), interleaved=True,
        )
    except KeyError as error:
        raise ModelRefused(f"the file does not tell {error}") from None


def _tokenizer(fields: Mapping[str, Any]) -> dict[str, Any]:
    if (kind := fields.get("tokenizer.ggml.model")) != "gpt2":
        raise ModelRefused(f"a tokenizer of the kind {kind!r} is not converted; take the safetensors of this model")
    texts = fields["tokenizer.ggml.tokens"]
    kinds = fields.get("tokenizer.ggml.token_type", [1] * len(texts))
    control = [number for number, kind in enumerate(kinds) if kind == _CONTROL]
    return byte_level(texts, fields["tokenizer.ggml.merges"], control, fields.get("tokenizer.ggml.pre", "gpt-2"))


def _matrix(tensor: Any) -> Matrix:
    if tensor.tensor_type == GGMLQuantizationType.Q8_0:
        return from_q8_0(np.asarray(tensor.data), int(tensor.shape[1]))
    numbers = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    return np.asarray(numbers).reshape(tuple(int(length) for length in reversed(tensor.shape)))
