"""Every label of ours equals that of the Magika package, whose rules we wrote anew.

The package lives in .venv-oracle, which ``make test`` makes. Without it these
tests fail, unless COCOON_ORACLE=skip says that it cannot be made here.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.oracle import compare

SEED = int(os.environ.get("COCOON_ORACLE_SEED", compare.SEED))


@pytest.fixture(scope="module", autouse=True)
def oracle() -> None:
    if compare.ORACLE.exists() and (compare.MODEL / "model.onnx").exists():
        return
    if os.environ.get("COCOON_ORACLE") == "skip":
        pytest.skip("NOT COMPARED with the Magika package: COCOON_ORACLE=skip")
    pytest.fail("no .venv-oracle or no build/magika: run `make test`, or set COCOON_ORACLE=skip")


def assert_equal_labels(paths: Sequence[str]) -> None:
    ours, theirs = compare.plain_labels(paths), compare.package_labels(paths)
    assert compare.different(paths, ours, theirs) == []
    largest = compare.largest_difference(ours, theirs)
    print(f"{len(paths)} files, largest difference of scores {largest:.3g}")
    # One file a run on both sides: what remains is another release or thread count, far below a threshold.
    assert largest < 1e-4


def test_the_example_files_get_the_packages_labels() -> None:
    assert_equal_labels(sorted(str(p) for p in (compare.REPOSITORY / "examples" / "filetypes").iterdir()))


@pytest.mark.parametrize("count", [200, pytest.param(1_000, marks=pytest.mark.long)])
def test_files_of_this_machine_get_the_packages_labels(count: int) -> None:
    paths = compare.sample("/usr", count, SEED)
    print(f"seed {SEED}")
    assert len(paths) == count
    assert_equal_labels(paths)


def test_files_at_every_edge_of_the_rules_get_the_packages_labels(tmp_path: Path) -> None:
    """Sizes around the floor and the block, blanks at both ends, cut characters, and noise."""
    draw = random.Random(SEED)
    long_bodies = [b"import os\nprint(os.getcwd())\n" * 9, b'{"a": [1, 2]}\n' * 400]
    bodies = [b"", b"x", b"\xff", "é".encode(), *long_bodies]
    sizes = [0, 1, 6, 7, 8, 9, 1023, 1024, 1025, 4088, 4089, 4095, 4096, 4097, 8191, 8192, 8193]
    contents = [blank * size + body for size in sizes for body in bodies for blank in (b" ", b"\n")]
    contents += [body + b" \t\r\n\v\f"[size % 6 :][:1] * size for size in sizes for body in bodies]
    contents += [draw.randbytes(size) for size in sizes]
    contents += [b"\n" * draw.randrange(4_200) + draw.randbytes(draw.randrange(40)) for _ in range(100)]
    paths = []
    for number, content in enumerate(contents):
        (tmp_path / f"{number:04d}").write_bytes(content)
        paths.append(str(tmp_path / f"{number:04d}"))
    print(f"seed {SEED}")
    assert_equal_labels(paths)
