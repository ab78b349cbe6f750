"""RUN-9 to RUN-11: exactly the model's inputs, and a message that says which they are."""

import pytest

from cocoon.core.errors import InputsMismatch
from cocoon.core.limits import ERROR_TEXT_CHARS
from cocoon.runtime.specs import TensorSpec, check_inputs, clip

X = TensorSpec("x", "float32", ("n", 4))
B = TensorSpec("b", "float32", (3,))
GOOD = {"x": ("float32", (7, 4)), "b": ("float32", (3,))}


def test_exact_inputs_pass():
    check_inputs([X, B], GOOD)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"x": None}, "input 'x' is missing"),
        ({"c": ("bool", ())}, "the model has no input 'c'"),
        ({"x": ("float64", (7, 4))}, "input 'x' is float64 (7, 4), not float32 (n, 4)"),
        ({"x": ("float32", (7, 5))}, "input 'x' is float32 (7, 5), not float32 (n, 4)"),
        ({"x": ("float32", (4,))}, "input 'x' is float32 (4,), not float32 (n, 4)"),
        ({"b": ("float32", ())}, "input 'b' is float32 (), not float32 (3,)"),
    ],
)
def test_one_wrong_input_is_named_with_what_the_model_takes(change, cause):
    got = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(InputsMismatch) as caught:
        check_inputs([X, B], got)
    assert caught.value.text == f"{cause}; the model takes x float32 (n, 4), b float32 (3,)"


def test_an_open_rank_takes_any_shape_but_not_any_dtype():
    spec = TensorSpec("x", "int64", None)
    check_inputs([spec], {"x": ("int64", (1, 2, 3))})
    with pytest.raises(InputsMismatch, match=r"not int64 \(any rank\)"):
        check_inputs([spec], {"x": ("int32", (1, 2, 3))})


def test_a_dynamic_axis_may_be_empty():
    check_inputs([X], {"x": ("float32", (0, 4))})


def test_a_message_stays_one_printable_line_of_bounded_length():
    text = clip("a\nb\x1b[31m\0" + "c" * 10_000)
    assert text.startswith("a b [31m ccc") and len(text) == ERROR_TEXT_CHARS and text.isprintable()
