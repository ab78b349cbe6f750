"""TOK-32 and TOK-33: what a run is billed for, counted alike by both sides, and without numpy."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed, WrongField
from cocoon.core.limits import CONTEXT_TOKENS
from cocoon.core.units import UnitKind
from cocoon.wire.codec import encode
from cocoon.wire.counting import counted_units, most_units, token_units
from cocoon.wire.generation import Ask, ask_tensors, said_tensors
from cocoon.wire.layout import numbers
from cocoon.wire.tensors import encode_tensors

TOKENS = UnitKind.OUTPUT_TOKEN
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def asked(prompt: int = 5, most: int = 3, **more: tuple[int, ...]) -> bytes:
    return encode_tensors(ask_tensors(Ask(tuple(range(prompt)), most, **more)))


def said(*tokens: int) -> bytes:
    return encode_tensors(said_tensors(tokens, bytes(32), "length", 0))


@pytest.mark.parametrize(("prompt", "units"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_four_tokens_of_a_prompt_count_as_one_of_an_answer(prompt: int, units: int) -> None:
    assert token_units(prompt, 7) == units + 7
    assert most_units(TOKENS, asked(prompt, 7)) == units + 7
    assert counted_units(TOKENS, asked(prompt, 7), said(1, 2)) == units + 2


@given(st.integers(1, 300), st.integers(1, 100), st.integers(0, 100))
def test_what_is_counted_is_never_more_than_what_was_foreseen(prompt: int, most: int, answer: int) -> None:
    inputs = asked(prompt, most)
    if answer <= most:
        assert 1 <= counted_units(TOKENS, inputs, said(*range(answer))) <= most_units(TOKENS, inputs)


TEXT = UnitKind.PROMPT_TOKEN


def text(*shape: int, **more: tuple[int, ...]) -> bytes:
    return encode_tensors({name: np.zeros(size, "i8") for name, size in {"input_ids": shape, **more}.items()})


@pytest.mark.parametrize(("inputs", "units"), [
    (text(7), 7), (text(1, 7), 7), (text(3, 5, attention_mask=(3, 5), token_type_ids=(3, 5), position_ids=(3, 5)), 15),
    (text(1, CONTEXT_TOKENS), CONTEXT_TOKENS),
])
def test_each_token_of_a_text_counts_whatever_comes_of_it(inputs: bytes, units: int) -> None:
    assert most_units(TEXT, inputs) == counted_units(TEXT, inputs, b"anything") == units


@pytest.mark.parametrize("inputs", [
    b"", b"no tensors", encode_tensors({}), text(0), text(1, 0), text(), text(1, 1, 4), text(1, CONTEXT_TOKENS + 1),
    text(3, attention_mask=(1, 3)), text(3, attention_mask=(4,)), text(3, work=(3,)),
    encode_tensors({"attention_mask": np.zeros(3, "i8")}),
])
def test_what_is_more_or_less_than_a_text_is_not_embedded(inputs: bytes) -> None:
    assert most_units(TEXT, inputs) == 1
    with pytest.raises(Malformed):
        counted_units(TEXT, inputs, b"anything")


def test_a_run_of_anything_else_is_one() -> None:
    assert most_units(UnitKind.RUN, b"anything") == counted_units(UnitKind.RUN, b"anything", b"else") == 1


@pytest.mark.parametrize(("inputs", "outputs"), [
    (asked(most=3), said(1, 2, 3, 4)),
    (asked(most=3, stop_tokens=(9,)), said(9, 1)),
])
def test_an_answer_that_is_longer_than_it_may_be_is_refused(inputs: bytes, outputs: bytes) -> None:
    with pytest.raises(WrongField) as refused:
        counted_units(TOKENS, inputs, outputs)
    assert refused.value.code == "wrong_output"


def test_a_token_that_ends_an_answer_is_its_last() -> None:
    assert counted_units(TOKENS, asked(most=3, stop_tokens=(9,)), said(1, 9)) == 2 + 2


NO_QUESTIONS = [
    b"", b"no tensors", encode_tensors({}), encode_tensors({"prompt": np.arange(3)}),
    encode_tensors({"most_tokens": np.int64(3)}),
    encode_tensors({"prompt": np.arange(0), "most_tokens": np.int64(3)}),
    encode_tensors({"prompt": np.arange(3.0), "most_tokens": np.int64(3)}),
    encode_tensors({"prompt": np.arange(4).reshape(2, 2), "most_tokens": np.int64(3)}),
    encode_tensors({"prompt": np.arange(3), "most_tokens": np.arange(2)}),
]


@pytest.mark.parametrize("inputs", NO_QUESTIONS)
def test_of_inputs_that_are_no_question_comes_no_run_that_is_billed(inputs: bytes) -> None:
    assert most_units(TOKENS, inputs) == 1
    with pytest.raises(Malformed):
        counted_units(TOKENS, inputs, said(1))


@pytest.mark.parametrize("outputs", [b"", encode_tensors({}), encode_tensors({"tokens": np.arange(2.0)})])
def test_outputs_that_are_no_answer_are_malformed(outputs: bytes) -> None:
    with pytest.raises(Malformed):
        counted_units(TOKENS, asked(), outputs)


def test_no_number_of_tokens_makes_a_bill_negative_or_endless() -> None:
    for most in (-(1 << 63), -1, 0, 1):
        assert most_units(TOKENS, asked(4, most)) == 2
    assert most_units(TOKENS, asked(4, (1 << 63) - 1)) == 1 + CONTEXT_TOKENS


@given(st.sampled_from(WHOLE), st.lists(st.integers(-128, 255), max_size=20))
def test_whole_numbers_of_every_dtype_are_read_as_numpy_wrote_them(dtype: str, items: list[int]) -> None:
    array = np.array([item for item in items if np.iinfo(dtype).min <= item <= np.iinfo(dtype).max], dtype)
    payload = encode_tensors({"a": array, "b": np.array(7, dtype), "c": np.arange(2.0)})
    assert numbers(payload, {"a": 20, "b": 1, "c": 9}) == {"a": tuple(array.tolist()), "b": (7,)}


@pytest.mark.parametrize("tensor", [
    ["a", "int64", [1 << 40], b""], ["a", "int64", [3], bytes(16)], ["a", "int64", [21], bytes(168)],
])
def test_a_tensor_that_is_not_what_it_says_is_malformed_before_anything_is_allocated(tensor: list[object]) -> None:
    payload = encode([tensor])
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            numbers(payload, {"a": 20})
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_a_peer_counts_without_numpy() -> None:
    code = "import sys, cocoon.node.purchase, cocoon.node.generation; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
