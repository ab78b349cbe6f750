"""TOK-1 to TOK-3: blocks, and what the graph refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cocoon.convert.graph import build
from cocoon.convert.tiny import SIZES, tiny_decoder, weights
from cocoon.convert.weights import from_q8_0, numbers, quantise
from cocoon.core.errors import ModelRefused
from cocoon.core.values import replace

matrices = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.sampled_from([32, 64, 96])), elements=st.floats(-8, 8, width=32)
)


@given(matrices)
@example(np.full((1, 32), 3e-43, np.float32))
@example(np.full((1, 32), -2.1e-44, np.float32))
def test_a_number_is_at_most_half_a_step_away_from_its_block(matrix):
    stored = quantise(matrix)
    steps = np.repeat(stored.scales, 32, axis=1)
    assert (np.abs(numbers(stored) - matrix) <= steps * 0.5001 + 127 * np.finfo(np.float32).tiny).all()
    assert stored.codes.min() >= 1


@given(arrays.arrays(np.int8, (3, 2, 32)), arrays.arrays(np.float16, (3, 2), elements=st.floats(0, 4, width=16)))
def test_blocks_of_q8_0_stand_for_the_same_numbers(codes, scales):
    stored = np.concatenate([scales[..., None].view(np.uint8), codes.view(np.uint8)], axis=-1)
    wanted = codes.astype(np.float32) * scales.astype(np.float32)[..., None]
    assert (numbers(from_q8_0(stored, 3)) == wanted.reshape(3, 64)).all()


@pytest.mark.parametrize(("number", "width"), [(np.nan, 32), (np.inf, 32), (1, 33)])
def test_weights_that_are_no_numbers_or_no_whole_blocks_are_refused(number, width):
    with pytest.raises(ModelRefused):
        quantise(np.full((1, width), number, np.float32))


def test_equal_seeds_give_equal_files_and_others_others():
    assert tiny_decoder() == tiny_decoder()
    assert tiny_decoder(seed=1) != tiny_decoder()


def test_the_file_holds_all_its_weights():
    model = onnx.load_from_string(tiny_decoder(exact=False))
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_inputs_and_outputs_have_the_names_and_axes_of_the_convention():
    graph = onnx.load_from_string(tiny_decoder()).graph

    def form(value):
        return value.name, [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]

    past, present = "past_key_values_length", "present_length"
    assert [form(value) for value in graph.input][:4] == [
        ("input_ids", ["batch", "sequence"]), ("attention_mask", ["batch", "total"]),
        ("past_key_values.0.key", ["batch", 2, past, 16]), ("past_key_values.0.value", ["batch", 2, past, 16]),
    ]
    assert [form(value) for value in graph.output][:2] == [
        ("logits", ["batch", 1, 512]), ("present.0.key", ["batch", 2, present, 16]),
    ]
    assert len(graph.input) == 2 + 2 * SIZES.layers and len(graph.output) == 1 + 2 * SIZES.layers


@pytest.mark.parametrize("name", ["token_embd.weight", "output_norm.weight", "blk.1.attn_k.weight"])
def test_a_weight_that_is_missing_or_has_another_shape_is_refused(name):
    held = weights()
    whole = held.pop(name)
    with pytest.raises(ModelRefused, match="missing"):
        build(SIZES, held.get)
    with pytest.raises(ModelRefused):
        build(SIZES, {**held, name: whole[:-1]}.get)


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"head_width": 15}, {"layers": 0}, {"vocabulary": -1}])
def test_sizes_that_no_decoder_has_are_refused(wrong):
    with pytest.raises(ModelRefused):
        build(replace(SIZES, **wrong), weights().get)
