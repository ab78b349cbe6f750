"""Every label of ours equals that of the Magika package, whose rules we wrote anew.

The package lives in .venv-oracle, which ``make test`` makes. Without it these
tests fail, unless COCOON_ORACLE=skip says that it cannot be made here.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from itertools import islice
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


def examples() -> list[str]:
    """The files of the demonstration."""
    return sorted(map(str, (compare.REPOSITORY / "examples" / "filetypes").iterdir()))


def edges(folder: Path) -> list[str]:
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
        (folder / f"{number:04d}").write_bytes(content)
        paths.append(str(folder / f"{number:04d}"))
    return paths


def assert_equal_labels(paths: Sequence[str], ours: Sequence[compare.Answer], theirs: Sequence[compare.Answer]) -> None:
    assert compare.different(paths, ours, theirs) == []
    largest = compare.largest_difference(ours, theirs)
    print(f"seed {SEED}, {len(paths)} files, largest difference of scores {largest:.3g}")
    # One file a run on both sides: what remains is another release or thread count, far below a threshold.
    assert largest < 1e-4


Answered = dict[str, tuple[list[str], list[compare.Answer], list[compare.Answer]]]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    """What both programs, each run once, say of three kinds of files."""
    kinds = {
        "examples": examples(), "of this machine": compare.sample("/usr", 200, SEED),
        "at every edge of the rules": edges(tmp_path_factory.mktemp("edges")),
    }
    every = [path for paths in kinds.values() for path in paths]
    ours, theirs = iter(compare.plain_labels(every)), iter(compare.package_labels(every))
    return {
        kind: (paths, list(islice(ours, len(paths))), list(islice(theirs, len(paths))))
        for kind, paths in kinds.items()
    }


@pytest.mark.parametrize(("kind", "least"), [
    ("examples", 30), ("of this machine", 200), ("at every edge of the rules", 400),
])
def test_files_get_the_packages_labels(answered: Answered, kind: str, least: int) -> None:
    paths, ours, theirs = answered[kind]
    assert len(paths) >= least
    assert_equal_labels(paths, ours, theirs)


@pytest.mark.long
def test_a_thousand_files_of_this_machine_get_the_packages_labels() -> None:
    paths = compare.sample("/usr", 1_000, SEED)
    assert len(paths) == 1_000
    assert_equal_labels(paths, compare.plain_labels(paths), compare.package_labels(paths))
