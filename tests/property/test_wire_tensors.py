"""Laws of tensors: bits come back, and damaged ones only ever raise typed errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import CocoonError, DtypeUnsupported, PeerFault
from cocoon.wire.tensors import NUMERIC, decode_tensors, encode_tensors
from tests.vectors import samples
from tests.vectors.spelling import canonical

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Any dtype and shape, any bits, any layout."""
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    dtype = draw(st.sampled_from([*NUMERIC, "string"]))
    if dtype == "string":
        text = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
        flat = np.empty(count, dtype=object)
        flat[:] = draw(st.lists(text, min_size=count, max_size=count))
    else:
        size = count * np.dtype(dtype).itemsize
        raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
        flat = (raw & 1 if dtype == "bool" else raw).view(dtype)
    array = flat.reshape(shape)
    return draw(st.sampled_from([array, array.T, array[::-1] if shape else array, np.asfortranarray(array)]))


@given(st.dictionaries(NAMES, arrays(), max_size=4))
def test_every_bit_of_every_tensor_comes_back(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    data = encode_tensors(tensors)
    found = decode_tensors(data)
    assert list(found) == sorted(tensors, key=lambda name: name.encode())
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert array.tolist() == found[name].tolist() if array.dtype == object else (
            found[name].tobytes() == np.ascontiguousarray(array).tobytes()
        )
    assert encode_tensors(found) == data


@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_no_tensors_or_have_one_spelling(data: bytes) -> None:
    try:
        found = decode_tensors(data)
    except (PeerFault, DtypeUnsupported):
        return
    assert encode_tensors(found) == data


ANY_DTYPE = st.sampled_from([*NUMERIC, "string", "object", "bfloat16"]) | st.text(max_size=20)
ANY_SHAPE = st.lists(st.integers(0, 1 << 63), max_size=5)
ROWS = st.tuples(st.text(max_size=4), ANY_DTYPE, ANY_SHAPE, st.binary(max_size=40))


@given(st.lists(ROWS.map(list), max_size=3))
def test_rows_of_any_content_only_raise_typed_errors(rows: list[Any]) -> None:
    try:
        data = canonical(rows)
    except UnicodeEncodeError:
        return
    try:
        found = decode_tensors(data)
    except CocoonError:
        return
    assert encode_tensors(found) == data


@given(st.data())
def test_damaged_tensors_only_raise_typed_errors(data: st.DataObject) -> None:
    original = encode_tensors(samples.TENSORS[data.draw(st.sampled_from(sorted(samples.TENSORS)))])
    at = data.draw(st.integers(0, len(original)))
    patch = data.draw(st.binary(max_size=8))
    damaged = original[:at] + patch + original[at + data.draw(st.sampled_from([0, len(patch), 9])) :]
    try:
        found = decode_tensors(damaged)
    except CocoonError:
        return
    assert encode_tensors(found) == damaged
