"""JOI-2: tensors of several runs become one batch, and come out of it as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cocoon.core.errors import InputsMismatch, RunFailed
from cocoon.runtime.company import Forms, form_of
from cocoon.runtime.rows import describe, join, split
from cocoon.wire.layout import shapes
from cocoon.wire.tensors import encode_tensors

DTYPES = st.sampled_from(["float16", "float32", "int64", "uint8", "bool"])


@st.composite
def parts(draw):
    """Inputs of a few runs of one form: two tensors each, any rows, any shapes behind them."""
    kinds = [(draw(DTYPES), tuple(draw(st.lists(st.integers(0, 3), max_size=3)))) for _ in range(2)]
    found = []
    for rows in draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)):
        found.append({
            name: draw(arrays.arrays(dtype, (rows, *shape)))
            for name, (dtype, shape) in zip("ab", kinds, strict=True)
        })
    return found


def same(one, other):
    """Equal names, dtypes, shapes and bits."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


@given(parts())
def test_what_is_joined_and_split_is_what_it_was(runs):
    rows = [describe(run)[1] for run in runs]
    back = split(join(runs), rows)
    assert len(back) == len(runs) and all(map(same, back, runs))


@given(parts())
def test_the_form_is_that_of_the_encoded_tensors(runs):
    for run in runs:
        assert describe(run) == form_of(shapes(encode_tensors(run)))


@given(st.lists(parts(), min_size=1, max_size=4), st.binary(max_size=40), st.integers(0, 200))
def test_forms_that_are_remembered_are_those_that_are_read(groups, junk, at):
    forms, payloads = Forms(), [encode_tensors(run) for runs in groups for run in runs]
    torn = [payload[:at] + junk + payload[at + len(junk) :] for payload in payloads]
    for payload in [*payloads, *torn, *payloads, *(one for pair in zip(payloads, torn, strict=True) for one in pair)]:
        assert forms.of(payload) == Forms().of(payload)
    for payload in payloads:
        assert forms.of(payload) == form_of(shapes(payload))


def test_a_split_copies_nothing_and_neither_does_joining_one():
    whole = {"y": np.arange(12, dtype="f4").reshape(6, 2)}
    for part in split(whole, [1, 2, 3]):
        assert np.shares_memory(part["y"], whole["y"]) and part["y"].flags.c_contiguous
    assert join([whole])["y"] is whole["y"]


def test_strings_are_joined_and_split_like_numbers():
    words = [{"w": np.array(["a\0", "b"], dtype=object)}, {"w": np.array(["c"], dtype=object)}]
    assert [part["w"].tolist() for part in split(join(words), [2, 1])] == [["a\0", "b"], ["c"]]


def test_the_form_names_all_but_the_rows():
    x, y = np.zeros((5, 4), "f4"), np.zeros(5, "i8")
    assert describe({"y": y, "x": x}) == ((("x", "float32", (4,)), ("y", "int64", ())), 5)


@pytest.mark.parametrize(
    "tensors",
    [
        {"x": np.zeros((2, 3), "f4"), "y": np.zeros(3, "f4")},
        {"x": np.zeros(2, "f4"), "scale": np.float32(1)},
        {"x": np.float32(1)},
        {"x": np.zeros((0, 3), "f4")},
        {},
    ],
    ids=["differ", "one has none", "scalar", "empty", "no inputs"],
)
def test_inputs_without_common_rows_have_none(tensors):
    assert describe({name: np.asarray(array) for name, array in tensors.items()})[1] is None


@pytest.mark.parametrize(
    "others",
    [
        {"x": np.zeros((1, 5), "f4")},
        {"x": np.zeros((1, 4), "f8")},
        {"y": np.zeros((1, 4), "f4")},
        {"x": np.zeros((0, 4), "f4")},
    ],
    ids=["length", "dtype", "name", "no rows"],
)
def test_only_inputs_of_one_form_are_joined(others):
    with pytest.raises(InputsMismatch):
        join([{"x": np.zeros((1, 4), "f4")}, others])


@pytest.mark.parametrize("output", [np.zeros(1, "f4"), np.zeros((2, 3), "f4"), np.float32(0)], ids=["one", "two", "0"])
def test_outputs_that_have_not_a_row_for_each_row_are_not_split(output):
    with pytest.raises(RunFailed, match="first axis should have 3 rows"):
        split({"y": np.asarray(output)}, [1, 2])
