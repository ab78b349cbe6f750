"""What is installed, from which lists, and what ``make`` says when something is missing."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = (
    "product", "dev", "setuptools", "magika", "models", "oracle", "rivals", "contracts", "convert", "smollm2",
)
#: Left out on purpose: no Linux wheel, and nothing of ours uses it (docs/dependencies.md).
LEFT_OUT = "fastecdsa"


def _entries(lock: Path) -> dict[str, list[str]]:
    """Each locked requirement with its hashes."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [
        line.split("--hash=")
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    return {parts[0].strip(): [part.strip() for part in parts[1:]] for parts in lines}


def _wanted(path: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.mark.parametrize("name", LOCKS)
def test_every_lock_is_exact_hashed_and_names_no_place(name: str, root: Path) -> None:
    lock = root / "requirements" / f"{name}.lock"
    for requirement, hashes in _entries(lock).items():
        assert re.match(r"[a-z0-9-]+==", requirement), requirement
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), requirement
        assert canonicalize_name(Requirement(requirement).name) != LEFT_OUT
    assert not re.search(r"://|find-links|index-url|(^|\s)/", lock.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("name", LOCKS)
def test_every_wanted_package_is_locked_at_a_wanted_version(name: str, python: str, root: Path) -> None:
    folder = root / "requirements"
    wanted = _wanted(folder / f"{name}.in") + (_wanted(folder / "product.in") if name == "dev" else [])
    assert wanted
    environment = {"python_version": python, "python_full_version": f"{python}.1"}
    locked = {
        canonicalize_name(entry.name): str(entry.specifier).removeprefix("==")
        for entry in map(Requirement, _entries(folder / f"{name}.lock"))
        if entry.marker is None or entry.marker.evaluate(environment)
    }
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_product_and_dev_locks_agree(root: Path) -> None:
    product, dev = (
        {
            r.name: (r.specifier, r.marker)
            for r in map(Requirement, _entries(root / f"requirements/{name}.lock"))
        }
        for name in ("product", "dev")
    )
    assert {name: pin for name, (pin, _) in product.items()} == {name: dev[name][0] for name in product}


@pytest.mark.parametrize(
    ("system", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")]
)
def test_exactly_one_onnxruntime_serves_each_platform(system: str, machine: str, root: Path) -> None:
    environment = {"sys_platform": system, "platform_machine": machine}
    chosen = [
        r.name
        for r in _wanted(root / "requirements/product.in")
        if r.name.startswith("onnxruntime") and (r.marker is None or r.marker.evaluate(environment))
    ]
    assert chosen == ["onnxruntime-gpu" if (system, machine) == ("linux", "x86_64") else "onnxruntime"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel, built from a copy so that no stale build folder leaks in."""
    root = Path(__file__).resolve().parents[2]
    tree = tmp_path_factory.mktemp("source")
    for name in ("cocoon", "sim", "tests", "tools", "bench", "requirements", "examples"):
        if (root / name).is_dir():
            shutil.copytree(root / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (root / name).is_file():
            shutil.copy(root / name, tree)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tree / "out", tree],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (tree / "out").glob("cocoon_mesh-*.whl")
    return zipfile.Path(built)


def test_the_wheel_holds_exactly_cocoon_and_sim(wheel: zipfile.Path) -> None:
    assert {p.name for p in wheel.iterdir() if not p.name.endswith(".dist-info")} == {"cocoon", "sim"}


def test_the_wheel_says_what_it_needs_and_what_it_installs(wheel: zipfile.Path, root: Path) -> None:
    (info,) = (p for p in wheel.iterdir() if p.name.endswith(".dist-info"))
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    assert "Requires-Python: <3.14,>=3.11" in metadata
    assert "License: Apache-2.0" in metadata
    needs = {
        Requirement(line.partition(": ")[2]).name
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist")
    }
    assert needs.issuperset(r.name for r in _wanted(root / "requirements/product.in"))
    scripts = configparser.ConfigParser()
    scripts.read_string((info / "entry_points.txt").read_text(encoding="utf-8"))
    assert dict(scripts["console_scripts"]) == {"cocoon": "cocoon.cli.main:main"}


def _make(root: Path, target: str, path: str, *settings: str) -> subprocess.CompletedProcess[str]:
    make = shutil.which("make")
    assert make is not None
    return subprocess.run(
        [make, "-n" if target == "help" else "-s", target, *settings],
        cwd=root,
        capture_output=True,
        text=True,
        env={"PATH": path, "HOME": os.environ.get("HOME", "/")},
        timeout=60,
    )


def _bin(folder: Path, **scripts: str) -> str:
    """A PATH with a shell, the given scripts, and nothing else."""
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_make_names_a_missing_python(root: Path, tmp_path: Path) -> None:
    done = _make(root, "tools-present", _bin(tmp_path / "bin", git="exit 0"), f"DISTRIBUTION={tmp_path}")
    assert done.returncode == 2
    assert "missing: Python 3.11, 3.12 or 3.13" in done.stderr and "make PYTHON=" in done.stderr


def test_make_refuses_another_python_by_one_line(root: Path, tmp_path: Path) -> None:
    done = _make(
        root, "tools-present", _bin(tmp_path / "bin", git="exit 0", python9="exit 1"), "PYTHON=python9"
    )
    assert "python9 is another version" in done.stderr.splitlines()[0]


def test_make_takes_the_distributions_python_first_if_it_has_venv(root: Path, tmp_path: Path) -> None:
    whole, halved = {"python3.12": "exit 0"}, {"python3.12": "case $2 in *ensurepip*) exit 1;; esac"}
    path = _bin(tmp_path / "path", **{"python3.11": "exit 0"})
    taken = []
    for name, distribution in (("whole", whole), ("halved", halved)):
        where = f"DISTRIBUTION={_bin(tmp_path / name, **distribution)}"
        taken.append(_make(root, "which", path, where, "--eval=which: ; $(info $(PYTHON))").stdout.strip())
    assert taken == [str(tmp_path / "whole/python3.12"), "python3.11"]


def test_make_names_a_missing_venv_module_and_git(root: Path, tmp_path: Path) -> None:
    """A Python whose ``import ensurepip, venv`` fails, as Debian ships it without python3-venv."""
    halved = _bin(tmp_path / "a", git="exit 0", python="case $2 in *ensurepip*) exit 1;; esac")
    assert "missing: the venv module" in _make(root, "tools-present", halved, "PYTHON=python").stderr
    gitless = _bin(tmp_path / "b", python="exit 0")
    assert "missing: git" in _make(root, "tools-present", gitless, "PYTHON=python").stderr
