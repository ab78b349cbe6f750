"""TOK-35 to TOK-38: texts to inputs and outputs to vectors, by what a package of a stranger says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cocoon.core.errors import ModelRefused, UsageError
from cocoon.sdk.embedding import Encoder, Vector
from cocoon.sdk.results import Result

WORDS = {"<": 0, ">": 1, "?": 2, "a": 3, "b": 4}


def tokenizer(longest: int | None = None, padded: bool = True, marks: bool = True) -> bytes:
    """Words between marks of both ends, by the library that people use."""
    made = Tokenizer(models.WordLevel(WORDS, "?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if marks:
        made.post_processor = processors.TemplateProcessing("< $A >", special_tokens=[("<", 0), (">", 1)])
    if longest is not None:
        made.enable_truncation(longest)
    if padded:
        made.enable_padding(length=9)
    return made.to_str().encode()


def end(name: str, dtype: str = "int64") -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "axes": ["batch", "sequence"]}


def said(*inputs: str, after: tuple[str, ...] = ("mean_pool",), **more: Any) -> dict[str, Any]:
    ends = [end(name) for name in inputs or ("input_ids", "attention_mask")]
    return {"kind": "embed", "inputs": ends, "outputs": [{"name": "h"}], "after": after, **more}


def encoder(told: Mapping[str, Any], data: bytes | None = None) -> Encoder:
    return Encoder(told, {"tokenizer.json": tokenizer() if data is None else data}.__getitem__)


def vector(made: Encoder, **outputs: Any) -> Vector:
    result = Result(0, outputs, "", "", 1, 4, 0, "", "", 0)
    (found,) = made.vectors(made.encode(["a"]), [result])
    return found


def test_a_text_is_a_run_of_its_tokens_and_of_nothing_that_fills_a_row() -> None:
    texts = encoder(said("input_ids", "attention_mask", "token_type_ids", "position_ids")).encode(["a b", "b", "odd"])
    assert len(texts) == 3 and texts.most_tokens == 4 and not texts.cut
    first, second, third = texts
    assert {name: array.tolist() for name, array in first.items()} == {
        "input_ids": [[0, 3, 4, 1]], "attention_mask": [[1] * 4], "token_type_ids": [[0] * 4],
        "position_ids": [[0, 1, 2, 3]],
    }
    assert second["input_ids"].tolist() == [[0, 4, 1]] and third["input_ids"].tolist() == [[0, 2, 1]]
    assert [list(inputs["input_ids"][0]) for inputs in texts][0] == [0, 3, 4, 1], "it can be read again"


def test_inputs_have_the_dtype_that_the_model_declares() -> None:
    (inputs,) = encoder(said(inputs=[end("input_ids", "int32")])).encode(["a"])
    assert inputs["input_ids"].dtype == np.int32 and list(inputs) == ["input_ids"]


def test_a_text_that_the_tokenizer_cuts_is_told_as_such() -> None:
    made = encoder(said(), tokenizer(longest=4))
    texts = made.encode(["a a", "a a a", "b"])
    assert texts.most_tokens == 4 and texts.cut == {1}
    results = [Result(unit, {"h": np.ones((1, 4, 2), "f4")}, "", "", 1, 4, 0, "", "", 0) for unit in range(3)]
    assert [found.is_cut for found in made.vectors(texts, results)] == [False, True, False]


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=9))
def test_vectors_are_the_mean_of_their_tokens_and_then_of_length_one(rows: list[list[float]]) -> None:
    hidden = np.array([rows], "f4")
    mean = hidden[0].astype("f8").mean(axis=0)
    pooled = vector(encoder(said()), h=hidden).values
    np.testing.assert_allclose(pooled, mean, rtol=1e-6, atol=1e-40)
    length = float(np.sqrt((mean**2).sum()))
    made = vector(encoder(said(after=("mean_pool", "normalise_l2"))), h=hidden).values
    np.testing.assert_allclose(made, mean / length if length else mean, rtol=1e-6, atol=1e-40)
    assert made.dtype == np.float32


def test_a_model_that_pools_by_itself_is_taken_at_its_word() -> None:
    given = np.array([[3.0, 4.0]], "f2")
    assert vector(encoder(said(after=())), h=given).values.tolist() == [3.0, 4.0]
    made = vector(encoder(said(after=("normalise_l2",))), h=given).values
    np.testing.assert_allclose(made, [0.6, 0.8], rtol=1e-6)
    told = said(after=(), outputs=[{"name": "h"}, {"name": "sentence_embedding"}])
    assert vector(encoder(told), h=np.zeros((1, 5, 2)), sentence_embedding=given).values.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("hidden", [
    np.ones((1, 2), "f4"), np.ones((2, 3, 2), "f4"), np.ones((1, 3, 2), "i8"), np.ones(3, "f4"),
])
def test_what_is_no_row_of_vectors_is_refused(hidden: Any) -> None:
    with pytest.raises(ModelRefused):
        vector(encoder(said()), h=hidden)


def test_an_output_that_the_package_named_and_the_model_lacks_is_refused() -> None:
    with pytest.raises(ModelRefused, match="'h'"):
        vector(encoder(said()), g=np.ones((1, 3, 2), "f4"))


@pytest.mark.parametrize("told", [
    said("input_ids", "pixels"), said("attention_mask"), said(after=("labels",)), said(before=("image_rgb",)),
    said(inputs=[end("input_ids", "float32")]),
])
def test_an_encoder_that_wants_more_than_texts_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused):
        encoder(told)


@pytest.mark.parametrize("kind", ["infer", "generate", None])
def test_another_model_is_no_encoder_and_nothing_of_it_is_read(kind: str | None) -> None:
    with pytest.raises(UsageError, match="embed"):
        Encoder(said() | {"kind": kind}, {}.__getitem__)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"model": {"type": "WordLevel"}}'])
def test_a_tokenizer_that_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused, match="tokenizer"):
        encoder(said(), data)


def changed(**changes: Any) -> bytes:
    """The tokenizer as a stranger might have it."""
    return json.dumps({**json.loads(tokenizer(longest=4)), **changes}).encode()


TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}


@pytest.mark.parametrize("data", [
    changed(truncation={**TRUNCATION, "stride": 10}),   # the library panics
    changed(truncation={**TRUNCATION, "strategy": "OnlySecond"}),
    changed(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "missing"}),
], ids=["panics", "second", "unknown"])
def test_a_tokenizer_that_fails_on_a_text_is_refused(data: bytes) -> None:
    made = encoder(said(), data)
    with pytest.raises(ModelRefused, match="cannot cut a text"):
        made.encode(["a a a a a odd"])


def test_what_is_no_list_of_texts_is_refused_before_anything_is_bought() -> None:
    made = encoder(said())
    for texts in ("a", ["a", 3], [b"a"]):
        with pytest.raises(UsageError):
            made.encode(texts)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="text 1 has no tokens"):
        encoder(said(), tokenizer(marks=False)).encode(["a", " "])
