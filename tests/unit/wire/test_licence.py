"""Licences: an expression offers ways to use a model, and a policy permits one of them or none (MOD-8)."""

from __future__ import annotations

import pytest

from cocoon.core.errors import UsageError
from cocoon.core.limits import LICENCE_CHARS
from cocoon.wire.licence import check_expression, permitted

EITHER = "MIT OR GPL-3.0-only"
BOTH = "MIT AND GPL-3.0-only"
MIXED = "(MIT OR Apache-2.0) AND (CC-BY-4.0 OR LicenseRef-shop)"


@pytest.mark.parametrize(
    ("expression", "allowed", "denied", "good"),
    [
        ("MIT", (), (), True),
        ("MIT", ("mit",), (), True),
        ("MIT", ("Apache-2.0",), (), False),
        ("MIT", (), ("mIt",), False),
        ("MIT", ("MIT",), ("MIT",), False),
        (EITHER, (), ("GPL-3.0-only",), True),
        (EITHER, (), ("GPL-3.0-only", "MIT"), False),
        (BOTH, (), ("GPL-3.0-only",), False),
        (BOTH, ("MIT",), (), False),
        ("MIT OR GPL-3.0-only AND CC0-1.0", ("MIT",), (), True),
        ("GPL-3.0-only AND CC0-1.0 OR MIT", ("MIT",), (), True),
        ("(MIT OR GPL-3.0-only) AND CC0-1.0", ("MIT",), (), False),
        (MIXED, ("Apache-2.0", "LicenseRef-shop"), (), True),
        (MIXED, ("Apache-2.0", "MIT"), (), False),
        ("GPL-2.0+", (), ("GPL-2.0",), False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", (), ("GPL-2.0-only",), False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ("GPL-2.0-only",), (), True),
        ("", (), (), True),
        ("", (), ("none",), False),
        ("", ("MIT",), (), False),
        ("", ("MIT", "none"), (), True),
    ],
)
def test_a_policy_permits_a_model_if_one_way_to_use_it_is_permitted(
    expression: str, allowed: tuple[str, ...], denied: tuple[str, ...], good: bool
) -> None:
    assert permitted(expression, allowed=allowed, denied=denied) is good


@pytest.mark.parametrize(
    "text", ["AND", "MIT OR", "OR MIT", "MIT MIT", "(MIT", "MIT)", "()", "MIT WITH", "MIT or X", "+", "so!", "A;", "("]
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        check_expression(text)


def test_the_deepest_licence_that_fits_is_read() -> None:
    deepest = "(" * (LICENCE_CHARS // 2 - 1) + "A" + ")" * (LICENCE_CHARS // 2 - 1)
    check_expression(deepest)
    with pytest.raises(UsageError):
        check_expression(deepest + ")")
