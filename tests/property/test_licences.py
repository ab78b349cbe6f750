"""Laws of licences: whatever is combined, a policy's answer follows from its answers about the names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import UsageError
from cocoon.wire.licence import check_expression, permitted

NAMES = st.sampled_from(["MIT", "Apache-2.0", "GPL-3.0-only", "LicenseRef-shop"])
POLICIES = st.sets(NAMES).map(tuple)


def combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Two expressions joined, in parentheses or bare."""
    joined = st.tuples(parts, st.sampled_from([" AND ", " OR "]), parts).map("".join)
    return joined | joined.map(lambda text: f"({text})")


EXPRESSIONS = st.recursive(NAMES, combined, max_leaves=8)


def by_python(expression: str, allowed: tuple[str, ...], denied: tuple[str, ...]) -> bool:
    """The same question as Python's own ``and`` and ``or``, which bind as those of SPDX do."""
    words = expression.replace("(", " ( ").replace(")", " ) ").split()
    good = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    text = " ".join(good.get(word) or str(word not in denied and (not allowed or word in allowed)) for word in words)
    return bool(eval(text, {"__builtins__": {}}))  # words of this test only


@given(EXPRESSIONS, POLICIES, POLICIES)
def test_an_expression_is_permitted_as_its_parts_are(
    expression: str, allowed: tuple[str, ...], denied: tuple[str, ...]
) -> None:
    assert permitted(expression, allowed=allowed, denied=denied) is by_python(expression, allowed, denied)


@given(EXPRESSIONS, POLICIES, POLICIES, NAMES)
def test_a_stricter_policy_never_permits_more(
    expression: str, allowed: tuple[str, ...], denied: tuple[str, ...], name: str
) -> None:
    if permitted(expression, allowed=allowed, denied=(*denied, name)):
        assert permitted(expression, allowed=allowed, denied=denied)


@given(st.text(max_size=128))
def test_any_text_is_an_expression_or_refused_as_none(text: str) -> None:
    try:
        check_expression(text)
    except UsageError:
        pass
