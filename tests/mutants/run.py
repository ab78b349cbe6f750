"""Break the product on purpose, one patch at a time; the test that a patch names must notice.

Each tests/mutants/*.patch begins with lines that say what it breaks, one of them
``Test: tests/...::name``. A mutant is killed only if, in a copy of the tree,
    the named test passes before,
    the patch applies and changes a module of the product,
    every changed module still imports,
    and the named test then fails by an assertion of its own.
Anything else is red: a patch that no longer applies, a mutant that does not
import, a test that passes, skips, hangs, or fails in another way.

usage: run.py [NAME ...]     exit 0 if all mutants are killed
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "tests" / "mutants"
#: Ignored by git and needed by tests: linked into the copy.
LINKED = (".venv", ".venv-oracle", "build")
TEST_SECONDS = 300
PARALLEL = 2


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant; ``killed`` is the only good end."""

    mutant: str
    test: str
    killed: bool
    why: str


class Red(Exception):
    """The mutant proves nothing, and why."""


def named_test(patch: Path) -> str:
    """The node id in the patch's ``Test:`` line."""
    match = re.search(r"^Test: (tests/\S+::\S+)$", patch.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise Red("no line `Test: tests/...::name`")
    return match.group(1)


def changed_files(patch: Path) -> list[str]:
    """Paths that the patch writes."""
    return re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(encoding="utf-8"), re.MULTILINE)


def copy_tree(source: Path, target: Path) -> None:
    """Copy what git tracks or would track, and link the environments."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=source, capture_output=True, check=True
    ).stdout.decode()
    for name in filter(None, listing.split("\0")):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    for name in LINKED:
        if (source / name).exists():
            (target / name).symlink_to(source / name)


def environment(tree: Path, **more: str) -> dict[str, str]:
    """This environment, with ``tree`` ahead of the installed product and no byte code of another tree."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PYTEST_"))}
    return {**plain, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", **more}


def run_test(tree: Path, test: str) -> list[dict[str, object]]:
    """Run one node id in ``tree``; the records of witness.py, call phases and failed set-ups only."""
    record = tree / "witness.json"
    record.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.mutants.witness",
        "-p",
        "no:cacheprovider",
        "-m",
        "",
    ]
    try:
        done = subprocess.run(
            [*command, test],
            cwd=tree,
            env=environment(tree, MUTANT_WITNESS=str(record)),
            capture_output=True,
            text=True,
            timeout=TEST_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as late:
        raise Red(f"the test did not end within {TEST_SECONDS} s") from late
    if not record.is_file() or not (rows := json.loads(record.read_text(encoding="utf-8"))):
        raise Red(f"pytest ran no such test: {_last_line(done.stdout + done.stderr)}")
    return [row for row in rows if row["phase"] == "call" or row["outcome"] != "passed"]


def apply(tree: Path, patch: Path) -> None:
    """Apply ``patch``; red unless it changes a module and all changed modules import."""
    modules = [path for path in changed_files(patch) if re.match(r"(cocoon|sim)/.*\.py$", path)]
    if not modules:
        raise Red("the patch changes no module of the product")
    before = {path: (tree / path).read_bytes() for path in modules if (tree / path).is_file()}
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", str(patch)],
        cwd=tree,
        capture_output=True,
        text=True,
        env={**environment(tree), "GIT_CEILING_DIRECTORIES": str(tree.parent)},
    )
    if done.returncode:
        raise Red(f"does not apply: {_last_line(done.stderr)}")
    if all((tree / path).read_bytes() == before.get(path) for path in modules):
        raise Red("applied, but nothing changed")
    for path in modules:
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            cwd=tree,
            env=environment(tree),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Red(f"{name} does not import: {_last_line(done.stderr)}")


def judge(patch: Path, source: Path = ROOT) -> Verdict:
    """Everything about one mutant, in a copy of ``source`` of its own."""
    test = "-"
    try:
        test = named_test(patch)
        with tempfile.TemporaryDirectory(prefix="cocoon-mutant-") as folder:
            tree = Path(folder)
            copy_tree(source, tree)
            _require_pass(run_test(tree, test))
            apply(tree, patch)
            return Verdict(patch.stem, test, True, _require_assertion(run_test(tree, test)))
    except Red as red:
        return Verdict(patch.stem, test, False, str(red))


def _require_pass(rows: list[dict[str, object]]) -> None:
    for row in rows:
        if row["outcome"] != "passed":
            raise Red(f"{row['outcome']} without the mutant: {row['error']}")


def _require_assertion(rows: list[dict[str, object]]) -> str:
    for row in rows:
        if row["outcome"] != "passed" and not (row["phase"] == "call" and row["assertion"]):
            raise Red(f"{row['outcome']} in {row['phase']}, not by an assertion of the test: {row['error']}")
    failed = [row for row in rows if row["outcome"] == "failed"]
    if not failed:
        raise Red("SURVIVED: the test passes with the mutant")
    return str(failed[0]["error"])


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def main(names: list[str]) -> int:
    """Judge the named patches, or all; print one line each."""
    patches = [p for p in sorted(PATCHES.glob("*.patch")) if not names or p.stem in names]
    if not patches:
        print("no mutants", file=sys.stderr)
        return 1
    bad = 0
    with ThreadPoolExecutor(PARALLEL) as pool:
        for verdict in pool.map(judge, patches):
            bad += not verdict.killed
            mark = "killed" if verdict.killed else "RED   "
            print(
                f"{mark}  {verdict.mutant:<34} {verdict.test}\n        {' '.join(verdict.why.split())[:110]}",
                flush=True,
            )
    print(f"{len(patches) - bad} of {len(patches)} mutants killed")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
