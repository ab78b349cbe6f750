"""The mutant runner is red for every way in which a mutant can prove nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mutants.run import PATCHES, ROOT, changed_files, judge, named_test

_PRODUCT = '"""Product."""\n\n\ndef double(number: int) -> int:\n    return 2 * number\n'
_TEST = """import pytest
from cocoon.product import double

def test_double():
    assert double(3) == 6

def test_blind():
    assert double(0) == 0

def test_crashes():
    {}[double(3)] if double(3) != 6 else None

def test_raises():
    with pytest.raises(ZeroDivisionError):
        1 // (double(3) - 6)

def test_red():
    assert double(3) == 7

def test_in_a_group():
    try:
        assert double(3) == 6
    except AssertionError as error:
        raise ExceptionGroup("nursery", [error])

def test_in_a_mixed_group():
    if double(3) != 6:
        raise ExceptionGroup("nursery", [AssertionError(), OSError()])
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the repository."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("cocoon", "tests/mutants"):
        (root / folder).mkdir(parents=True)
    (root / "cocoon/__init__.py").write_text("")
    (root / "cocoon/product.py").write_text(_PRODUCT)
    (root / "tests/__init__.py").write_text("")
    (root / "tests/test_product.py").write_text(_TEST)
    (root / "tests/mutants/witness.py").write_text((PATCHES / "witness.py").read_text(encoding="utf-8"))
    (root / "setup.cfg").write_text(
        "[tool:pytest]\naddopts = -p no:asyncio -p no:anyio -p no:trio -p no:hypothesispytest\n"
    )
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def _patch(folder: Path, test: str, new: str, old: str = "    return 2 * number") -> Path:
    path = folder / "mutant.patch"
    path.write_text(
        f"Breaks doubling.\n\nTest: tests/test_product.py::{test}\n\n"
        "diff --git a/cocoon/product.py b/cocoon/product.py\n"
        "--- a/cocoon/product.py\n+++ b/cocoon/product.py\n"
        f"@@ -4,2 +4,2 @@\n def double(number: int) -> int:\n-{old}\n+{new}\n"
    )
    return path


@pytest.mark.parametrize("test", ["test_double", "test_raises", "test_in_a_group"])
def test_a_mutant_that_its_test_notices_is_killed(test: str, tree: Path, tmp_path: Path) -> None:
    verdict = judge(_patch(tmp_path, test, "    return 5 * number"), tree)
    assert verdict.killed, verdict


@pytest.mark.parametrize(
    ("test", "new", "why"),
    [
        ("test_blind", "    return 5 * number", "SURVIVED"),
        ("test_red", "    return 5 * number", "failed without the mutant"),
        ("test_crashes", "    return 5 * number", "not by an assertion"),
        ("test_in_a_mixed_group", "    return 5 * number", "not by an assertion"),
        ("test_double", "    raise AssertionError", "not by an assertion"),
        ("test_double", "    return 5 *", "does not import"),
        ("test_double", "    return 2 * number", "nothing changed"),
        ("test_absent", "    return 5 * number", "ran no such test"),
    ],
)
def test_a_mutant_that_proves_nothing_is_red(
    test: str, new: str, why: str, tree: Path, tmp_path: Path
) -> None:
    verdict = judge(_patch(tmp_path, test, new), tree)
    assert not verdict.killed and why in verdict.why, verdict


def test_a_patch_that_does_not_apply_or_names_no_test_is_red(tree: Path, tmp_path: Path) -> None:
    stale = judge(_patch(tmp_path, "test_double", "    return 5", old="    return number + number"), tree)
    assert not stale.killed and "does not apply" in stale.why
    nameless = tmp_path / "nameless.patch"
    nameless.write_text("diff --git a/cocoon/product.py b/cocoon/product.py\n")
    assert "no line `Test:" in judge(nameless, tree).why


@pytest.mark.parametrize("patch", sorted(PATCHES.glob("*.patch")), ids=lambda p: p.stem)
def test_every_patch_applies_and_names_a_test_that_exists(patch: Path) -> None:
    path, _, name = named_test(patch).partition("::")
    assert f"def {name.split('::')[-1].split('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8")
    assert changed_files(patch)
    check = ["git", "apply", "--check", "--whitespace=nowarn", str(patch)]
    assert subprocess.run(check, cwd=ROOT, capture_output=True, text=True).stderr == ""
