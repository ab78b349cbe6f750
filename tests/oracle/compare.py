"""Compare ``cocoon demo`` with the Magika package, file by file.

    python -m tests.oracle.compare DIRECTORY      the demo, end to end, on a directory
    python -m tests.oracle.compare --sample 1000 [--seed N] [--root /usr]
                                                  the same on a random sample of this machine's files

Exit code 0 if every label is equal and every file was decided; the largest
difference of scores is printed. The sample is copied, so that both see the
same bytes; its seed is printed, and the same seed on the same files draws the
same sample.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
ORACLE = REPOSITORY / ".venv-oracle" / "bin" / "python"
MODEL = REPOSITORY / "build" / "magika"
SEED = 20_261
COPY_BYTES = 16 << 20
"""Larger files are left out of a sample that is copied; the model sees 8 KiB of any file."""

Answer = tuple[str, float]


def answers_of(command: Sequence[str | Path], paths: Sequence[str]) -> list[Answer]:
    """Run one of the two label programs on ``paths``."""
    text = b"".join(os.fsencode(path) + b"\0" for path in paths)
    arguments = [str(part) for part in command]
    done = subprocess.run(
        arguments, input=text, stdout=subprocess.PIPE, cwd=REPOSITORY, check=True, timeout=900
    )
    answers = [(str(label), float(score)) for label, score in json.loads(done.stdout)]
    assert len(answers) == len(paths)
    return answers


def package_labels(paths: Sequence[str]) -> list[Answer]:
    """What the Magika package says."""
    return answers_of([ORACLE, REPOSITORY / "tests" / "oracle" / "package_labels.py"], paths)


def plain_labels(paths: Sequence[str]) -> list[Answer]:
    """What our rules say with a plain ONNX Runtime session."""
    return answers_of([sys.executable, "-m", "tests.oracle.plain_labels", MODEL], paths)


def demo_lines(directory: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run ``cocoon demo DIRECTORY --json``; its file objects and its totals."""
    command = [sys.executable, "-m", "cocoon", "demo", directory, "--json"]
    environment = {**os.environ, "COCOON_MAGIKA": str(MODEL)}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, cwd=REPOSITORY, timeout=1_800)
    if done.returncode != 0:
        end = done.stdout.decode()[-2_000:]
        raise SystemExit(f"cocoon demo ended with exit code {done.returncode}: {end}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines[:-1], lines[-1]


def different(paths: Sequence[str], ours: Sequence[Answer], theirs: Sequence[Answer]) -> list[str]:
    """One line for each file whose labels differ."""
    return [
        f"{path!r}: we say {our[0]} ({our[1]:.6f}), the package {their[0]} ({their[1]:.6f})"
        for path, our, their in zip(paths, ours, theirs, strict=True)
        if our[0] != their[0]
    ]


def largest_difference(ours: Sequence[Answer], theirs: Sequence[Answer]) -> float:
    """The largest difference of two scores."""
    return max((abs(our[1] - their[1]) for our, their in zip(ours, theirs, strict=True)), default=0.0)


def sample(root: str, count: int, seed: int, *, most_bytes: int | None = None) -> list[str]:
    """``count`` regular, readable files below ``root``, drawn with ``seed``; links are not followed."""
    found = []
    for directory, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            if not os.path.isfile(path) or os.path.islink(path) or not os.access(path, os.R_OK):
                continue
            if most_bytes is None or os.path.getsize(path) <= most_bytes:
                found.append(path)
    return sorted(random.Random(seed).sample(sorted(found), min(count, len(found))))


def copied(paths: Sequence[str], directory: str) -> None:
    """Copy files to ``directory`` under numbers, so that names cannot clash."""
    for number, path in enumerate(paths):
        shutil.copyfile(path, os.path.join(directory, f"{number:05d}"))


def compare_demo(directory: str) -> bool:
    """Run the demo and the package on one directory, tell the outcome, and return whether all agree."""
    lines, totals = demo_lines(directory)
    paths = [os.path.abspath(line["path"]) for line in lines]
    ours = [(line["label"], line["score"]) for line in lines]
    theirs = package_labels(paths)
    wrong = different(paths, ours, theirs)
    for line in wrong:
        print(line)
    print(
        f"{len(paths)} files ({totals['by_model']} by a provider, {totals['by_rule']} by rule, "
        f"{totals['unreadable']} unreadable): {len(wrong)} labels differ, "
        f"largest difference of scores {largest_difference(ours, theirs):.3g}"
    )
    return not wrong and not totals["unreadable"]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.compare")
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--sample", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--root", default="/usr")
    arguments = parser.parse_args()
    if not ORACLE.exists():
        raise SystemExit("no .venv-oracle; `make test` makes it")
    if arguments.directory:
        return 0 if compare_demo(arguments.directory) else 1
    if not arguments.sample:
        parser.error("name a directory or --sample N")
    paths = sample(arguments.root, arguments.sample, arguments.seed, most_bytes=COPY_BYTES)
    print(f"{len(paths)} files of {arguments.root}, seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="cocoon-sample-") as directory:
        copied(paths, directory)
        return 0 if compare_demo(directory) else 1


if __name__ == "__main__":
    sys.exit(main())
