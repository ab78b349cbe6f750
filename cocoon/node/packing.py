"""Making a package: the files of a model hashed, its ends asked of a worker, its manifest written beside them.

Purity: shell. Spec: docs/spec/models.md, rule MOD-9.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from cocoon.core.errors import NotFound, UsageError
from cocoon.core.ids import PACKAGE_FILE
from cocoon.core.limits import MANIFEST_ENDS, MODEL_FILES
from cocoon.node.models import HeldModel, hash_chunks
from cocoon.runtime.service import TensorSpec, Worker, WorkerLimits
from cocoon.wire.declarations import End, Tolerance
from cocoon.wire.manifest import MAIN_FILE, Manifest, ModelFile, file_root, model_id, pack_manifest


def make_package(source: Path, target: Path | None, declared: Mapping[str, Any]) -> dict[str, Any]:
    """``write_package``, with the model's inputs and outputs as a worker finds them.

    Returns:
        ``model`` (its id), ``package`` (the directory), ``files`` and ``size_bytes``.

    Raises:
        CocoonError: no provider would load the model, or see ``write_package``.
    """
    said = {key: _declaration(key, value) for key, value in declared.items()}
    main = source / (said.get("main") or MAIN_FILE) if source.is_dir() else source
    # Those of a decoder are its cache: its users hand over prompts (TOK-22).
    ends = trio.run(ends_of, main) if main.is_file() and said.get("kind") != "generate" else {}
    held = write_package(source, target, {**said, **ends})
    return {
        "model": held.id.hex(), "package": str(target or source), "files": len(held.paths),
        "size_bytes": held.size_bytes,
    }


def _declaration(key: str, value: Any) -> Any:
    """As a manifest holds it: what was not given is None."""
    if key == "joinable" and value:
        return Tolerance(*value)
    return value or None


def write_package(source: Path, target: Path | None, declared: Mapping[str, Any]) -> HeldModel:
    """Make a package of a model file, or of a directory of files.

    Args:
        source: A file becomes ``model.onnx``; a directory keeps its names.
        target: A new or empty directory that gets copies; None makes the package of ``source`` itself, a directory.
        declared: Fields of the manifest; whatever is None is not declared.

    Raises:
        UsageError: a declaration, a file name or the target will not do.
        NotFound: a file cannot be read.
    """
    if target is not None:
        _copy(source, target)
    elif source.is_dir():
        target = source
    else:
        raise UsageError("the package of a single file needs a directory of its own; name one with --output")
    paths = _files(target)
    hashes = tuple(map(hash_chunks, paths))
    files = tuple(
        ModelFile(path.relative_to(target).as_posix(), path.stat().st_size, file_root(found))
        for path, found in zip(paths, hashes, strict=True)
    )
    manifest = Manifest(format="onnx", files=files, **declared)
    packed = pack_manifest(manifest)
    if manifest.entry is None:
        raise UsageError(f"none of {len(files)} files is {MAIN_FILE}; name the one that runs with --main")
    draft = target / f".{PACKAGE_FILE}.part"
    draft.write_bytes(packed)
    os.replace(draft, target / PACKAGE_FILE)
    return HeldModel(model_id(manifest), manifest, paths, hashes)


async def ends_of(model_file: Path) -> dict[str, tuple[End, ...] | None]:
    """``inputs`` and ``outputs`` of a model, as a worker that has loaded it says.

    Raises:
        CocoonError: no provider would load it.
    """
    with tempfile.TemporaryDirectory(prefix="cocoon-pack-") as workdir:
        async with await Worker.start(WorkerLimits(), Path(workdir)) as worker:
            report = await worker.load(model_file)
    return {"inputs": _ends(report.inputs), "outputs": _ends(report.outputs)}


def _ends(specs: tuple[TensorSpec, ...]) -> tuple[End, ...] | None:
    """As a manifest declares them; None if there are none, or more than it holds."""
    ends = tuple(
        End(spec.name, spec.dtype, ("*",) if spec.shape is None else tuple(str(axis) or "?" for axis in spec.shape))
        for spec in specs
    )
    return ends if 0 < len(ends) <= MANIFEST_ENDS else None


def _copy(source: Path, target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is no empty directory")
    whole = _files(source) if source.is_dir() else (source,)
    for path in whole:
        copy = target / (path.relative_to(source) if source.is_dir() else MAIN_FILE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _files(folder: Path) -> tuple[Path, ...]:
    """Every regular file below ``folder`` but the manifest, by its path in the package."""
    found: list[Path] = []
    for path in folder.rglob("*"):
        if path.is_file() and path != folder / PACKAGE_FILE:
            found.append(path)
            if len(found) > MODEL_FILES:
                raise UsageError(f"{folder} holds more than {MODEL_FILES} files, the limit of a model")
    if not found:
        raise NotFound(f"{folder} holds no file")
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))
