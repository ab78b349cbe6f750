"""TOK-1 and TOK-4: a package from a folder with safetensors, as model hubs have it, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.convert.__main__ import main
from cocoon.convert.safetensors import _NAMES, read_safetensors
from cocoon.convert.tiny import SIZES, tiny_decoder, weights
from cocoon.convert.tokenizer import byte_level, byte_table, pieces
from cocoon.core.errors import ModelRefused
from cocoon.core.values import replace
from cocoon.wire.tokens import unpack_pieces

CONFIG = {
    "model_type": "llama", "hidden_size": SIZES.width, "num_attention_heads": SIZES.heads,
    "num_key_value_heads": SIZES.kv_heads, "num_hidden_layers": SIZES.layers, "intermediate_size": SIZES.inner,
    "vocab_size": SIZES.vocabulary, "max_position_embeddings": SIZES.context, "rope_theta": SIZES.rope_base,
    "rms_norm_eps": SIZES.epsilon, "eos_token_id": 2, "tie_word_embeddings": True,
}
LETTERS = {byte: letter for letter, byte in byte_table().items()}
TEXTS = ["<s>", "</s>", *(LETTERS[byte] for byte in range(256)), *(f"t{number}" for number in range(254))]
DTYPES = {"F32": "f4", "F16": "f2"}


def spelled(name):
    """The name that safetensors have for a GGUF name."""
    back = {gguf: hub for hub, gguf in _NAMES.items()}
    if not name.startswith("blk."):
        return back[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{back.get(rest, rest)}"


def safetensors(held, dtype="F32"):
    """The bytes of a file."""
    table, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in held.items():
        upper = (array.view("u4") >> 16).astype("u2")
        raw = upper.tobytes() if dtype == "BF16" else array.astype(DTYPES[dtype]).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        table[spelled(name)] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
        data += raw
    head = json.dumps(table).encode()
    return len(head).to_bytes(8, "little") + head + data


@pytest.fixture
def hub(tmp_path):
    """A function that lays a folder out: weights in two files, changed as the test likes."""
    def lay(config=(), more=(), dtype="F32"):
        held = {**weights(), **dict(more)}
        names = sorted(held)
        for number, part in enumerate((names[:5], names[5:])):
            (tmp_path / f"model-{number}.safetensors").write_bytes(safetensors({n: held[n] for n in part}, dtype))
        tokenizer = byte_level(TEXTS, ["a b"], [0, 1], "gpt-2")
        (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **dict(config)}))
        (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
        return tmp_path

    return lay


def test_the_command_writes_model_tokens_tokenizer_and_description(hub, tmp_path):
    out = tmp_path / "out"
    assert main([str(hub()), str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["decoder.json", "model.onnx", "tokenizer.json", "tokens.bin"]
    assert (out / "model.onnx").read_bytes() == tiny_decoder(replace(SIZES, interleaved=False), exact=False)
    told = json.loads((out / "decoder.json").read_text())
    assert told["stop_tokens"] == [1, 2] and told["chat_template"] == "{{ messages }}" and told["vocabulary"] == 512
    held = unpack_pieces((out / "tokens.bin").read_bytes())
    assert held[:2] == (b"", b"") and held[2:258] == tuple(bytes([byte]) for byte in range(256)) and held[258] == b"t0"


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_is_read_as_the_numbers_that_it_stands_for(hub, dtype):
    read = read_safetensors(hub(dtype=dtype)).read
    for name, array in weights().items():
        np.testing.assert_allclose(read(name), array, rtol=2**-7, atol=1e-6)


def test_a_tensor_that_the_graph_does_not_have_is_refused_and_nothing_is_written(hub, tmp_path, capsys):
    folder = hub(more={"blk.0.attn_q.bias": np.zeros(64, "f4")})
    assert main([str(folder), str(tmp_path / "out")]) != 0
    assert "model_refused" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "config", [{"model_type": "qwen2"}, {"rope_scaling": {"factor": 8}}, {"hidden_act": "gelu"}, {"eos_token_id": []}]
)
def test_another_family_or_variant_is_refused(hub, tmp_path, config, capsys):
    folder = hub(config=config)
    if config.get("eos_token_id") == []:
        (folder / "generation_config.json").unlink()
    assert main([str(folder), str(tmp_path / "out")]) != 0
    assert "model_refused" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model-0.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff" * 90, b"[]"])
def test_a_broken_file_is_refused(hub, tmp_path, name, content, capsys):
    folder = hub()
    (folder / name).write_bytes(content)
    assert main([str(folder), str(tmp_path / "out")]) != 0
    assert "model_refused" in capsys.readouterr().err


def test_a_file_that_is_cut_off_is_refused(hub, tmp_path, capsys):
    folder = hub()
    path = folder / "model-1.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert main([str(folder), str(tmp_path / "out")]) != 0
    assert "shorter than its table" in capsys.readouterr().err


@given(st.binary(max_size=20))
def test_each_byte_of_a_text_has_one_letter(data):
    tokenizer = byte_level(["".join(LETTERS[byte] for byte in data)], [], [], "smollm")
    assert pieces(tokenizer, 1) == [data]


def test_tokens_with_bytes_to_fall_back_on_are_read_too():
    tokenizer = {
        "added_tokens": [], "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
        "model": {"vocab": {"\u2581the": 0, "<0x0A>": 1, "é": 2}},
    }
    assert pieces(tokenizer, 4) == [b" the", b"\n", "é".encode(), b""]


def test_a_tokenizer_that_is_not_known_is_refused():
    with pytest.raises(ModelRefused):
        byte_level([], [], [], "another")
    with pytest.raises(ModelRefused):
        pieces({"added_tokens": [], "decoder": None, "model": {"vocab": {}}}, 1)
    with pytest.raises(ModelRefused):
        pieces(byte_level(["a", "b"], [], [], "gpt-2"), 1)
