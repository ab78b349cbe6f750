"""Reading safetensors: a folder with config.json, tokenizer.json and weights, as model hubs have it.

The format is a length, a JSON table of names, and numbers; a reader of it takes less
room than a dependency. Weights lie in one file or in several with an index.

Purity: shell. Spec: docs/spec/tokens.md, rules TOK-1 and TOK-4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cocoon.convert.source import Source
from cocoon.convert.weights import Array, Sizes
from cocoon.core.errors import ModelRefused

_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
#: Names in safetensors, and in GGUF.
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight", "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight", "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight", "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight", "mlp.down_proj.weight": "ffn_down.weight",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
#: Tables of a model of a thousand layers have a tenth of this.
_TABLE_BYTES = 100 << 20


class _Place(NamedTuple):
    """Where a tensor lies."""

    file: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]


def read_safetensors(folder: Path) -> Source:
    """What the folder holds.

    Raises:
        ModelRefused: a file is missing or no such file, another family than Llama, or a variant that the graph lacks.
    """
    config, tokenizer = _json(folder / "config.json"), _json(folder / "tokenizer.json")
    others = (folder / "generation_config.json", folder / "tokenizer_config.json")
    more = [_json(path) for path in others if path.exists()]
    told = {**config, **{key: value for part in more for key, value in part.items()}}
    places = {_gguf_name(name): place for path in sorted(folder.glob("*.safetensors")) for name, place in _table(path)}
    if config.get("tie_word_embeddings"):
        places.pop("output.weight", None)               # a second copy of the embedding

    def read(name: str) -> Array | None:
        return _numbers(places[name]) if name in places else None

    stops = told.get("eos_token_id", [])
    first = told.get("bos_token_id") if told.get("add_bos_token") else None
    template = told.get("chat_template")
    return Source(
        _sizes(config), read, frozenset(places), tokenizer, tuple(stops if isinstance(stops, list) else [stops]),
        first, template if isinstance(template, str) else "", {"name": folder.resolve().name, "licence": ""},
    )


def _sizes(config: Mapping[str, Any]) -> Sizes:
    if (family := config.get("model_type")) != "llama":
        raise ModelRefused(f"this is a decoder of the family {family!r}; only llama is converted")
    if config.get("rope_scaling") or config.get("hidden_act", "silu") != "silu":
        raise ModelRefused("scaled positions, and gates that are not SiLU, are not converted")
    try:
        width, heads = config["hidden_size"], config["num_attention_heads"]
        return Sizes(
            layers=config["num_hidden_layers"], width=width, heads=heads,
            kv_heads=config.get("num_key_value_heads", heads), head_width=config.get("head_dim") or width // heads,
            inner=config["intermediate_size"], vocabulary=config["vocab_size"],
            context=config["max_position_embeddings"], rope_base=float(config.get("rope_theta", 10_000.0)),
            epsilon=config["rms_norm_eps"], interleaved=False,
        )
    except KeyError as error:
        raise ModelRefused(f"config.json does not tell {error}") from None


def _gguf_name(name: str) -> str:
    """The name in GGUF; an unknown one stays, and is refused as a tensor that the graph does not have."""
    if layer := _LAYER.fullmatch(name):
        return f"blk.{layer[1]}.{_NAMES.get(layer[2], layer[2])}"
    return _NAMES.get(name, name)


def _table(path: Path) -> Iterator[tuple[str, _Place]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _TABLE_BYTES:
            raise ModelRefused(f"{path.name} is no file of safetensors: its table would have {length} bytes")
        head = file.read(length)
    try:
        table = json.loads(head)
        for name, entry in table.items():
            if name != "__metadata__":
                yield name, _Place(path, 8 + length + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ModelRefused(f"{path.name} is no file of safetensors: its table cannot be read") from None


def _numbers(place: _Place) -> Array:
    if place.dtype not in _DTYPES:
        raise ModelRefused(f"weights of {place.dtype} are not converted; only {', '.join(_DTYPES)}")
    count = int(np.prod(place.shape))
    stored = np.fromfile(place.file, _DTYPES[place.dtype], count, offset=place.offset)
    if len(stored) != count:
        raise ModelRefused(f"{place.file.name} is shorter than its table says")
    if place.dtype == "BF16":                           # the upper half of a float32
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    found: Array = stored.astype(np.float32).reshape(place.shape)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelRefused(f"{path.name} is missing, or no JSON") from None
    if not isinstance(found, dict):
        raise ModelRefused(f"{path.name} is no JSON object")
    return found
