"""Manifests: equal files give equal ids, and no path leaves its directory."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from blake3 import blake3

from cocoon.core.errors import Malformed, NonCanonical, PeerFault, UsageError
from cocoon.core.limits import CHUNK_BYTES, MODEL_BYTES, MODEL_FILES
from cocoon.core.values import astuple, replace
from cocoon.wire import merkle
from cocoon.wire.declarations import End, Tolerance
from cocoon.wire.manifest import (
    Manifest,
    ModelFile,
    chunk_count,
    chunk_hash,
    file_root,
    implicit,
    model_id,
    pack_manifest,
    unpack_manifest,
)
from tests.vectors import samples
from tests.vectors.spelling import canonical, misspellings


@pytest.mark.parametrize(
    ("size", "chunks"),
    [(0, 0), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (MODEL_BYTES, MODEL_BYTES // CHUNK_BYTES)],
)
def test_a_file_has_as_many_chunks_as_begun_mebibytes(size: int, chunks: int) -> None:
    assert chunk_count(size) == chunks


def test_the_implicit_manifest_names_one_file_and_hangs_on_every_chunk() -> None:
    manifest = implicit(CHUNK_BYTES + 12, samples.HASHES)
    assert manifest.format == "onnx"
    assert manifest.files == (ModelFile("model.onnx", CHUNK_BYTES + 12, merkle.root(samples.HASHES)),)
    swapped = implicit(CHUNK_BYTES + 12, samples.HASHES[::-1])
    longer = implicit(CHUNK_BYTES + 13, samples.HASHES)
    assert len({model_id(manifest), model_id(swapped), model_id(longer)}) == 3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_chunk_hashes_is_our_own_mistake(count: int) -> None:
    with pytest.raises(UsageError):
        implicit(CHUNK_BYTES + 1, [bytes(32)] * count)


def test_ids_and_hashes_are_what_the_design_says() -> None:
    assert model_id(samples.MANIFEST) == hashlib.sha256(pack_manifest(samples.MANIFEST)).digest()
    assert chunk_hash(b"data") == blake3(b"data").digest()
    assert file_root([]) == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("manifest", samples.MANIFESTS.values(), ids=samples.MANIFESTS)
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    assert unpack_manifest(pack_manifest(manifest)) == manifest


def test_a_manifest_has_one_spelling_without_unknown_fields() -> None:
    rows = [[f.path, f.size_bytes, f.root] for f in samples.TWO_FILES.files]
    value = [50, 1, {1: "onnx", 2: rows}]
    assert canonical(value) == pack_manifest(samples.TWO_FILES)
    for _, data in misspellings(value):
        with pytest.raises(NonCanonical):
            unpack_manifest(data)
    with pytest.raises(Malformed, match="that we know"):
        unpack_manifest(canonical([50, 1, {1: "onnx", 2: rows, 99: 1}]))


BAD_PATHS = [
    "", ".", "..", "/", "/etc/passwd", "a/../b", "../a", "a/..", "a//b", "a/", "./a", "a/./b", ".hidden",
    "a/.b", "a\\b", "C:model", "a b", "a\0b", "a\nb", "~/a", "ü", "a*", "$HOME", "x" * 201,
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_a_path_that_could_leave_or_confuse_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        pack_manifest(Manifest(format="onnx", files=(ModelFile(path, 1, bytes(32)),)))
    with pytest.raises(Malformed):
        unpack_manifest(canonical([50, 1, {1: "onnx", 2: [[path, 1, bytes(32)]]}]))


@pytest.mark.parametrize("path", ["model.onnx", "a/b/c.bin", "weights-0_1+2.data", "x" * 200])
def test_a_plain_path_is_taken(path: str) -> None:
    manifest = Manifest(format="onnx", files=(ModelFile(path, 1, bytes(32)),))
    assert unpack_manifest(pack_manifest(manifest)) == manifest


def _file(path: str, size: int = 1) -> ModelFile:
    return ModelFile(path, size, bytes(32))


@pytest.mark.parametrize(
    "files",
    [
        (),
        (_file("b"), _file("a")),
        (_file("a"), _file("a")),
        tuple(_file(f"f{i:03}") for i in range(MODEL_FILES + 1)),
        (_file("a", 0),),
        (_file("a", MODEL_BYTES), _file("b")),
    ],
    ids=["none", "unsorted", "twice", "too_many", "empty_with_root", "too_large"],
)
def test_an_impossible_list_of_files_is_refused(files: Any) -> None:
    with pytest.raises(UsageError):
        pack_manifest(Manifest(format="onnx", files=files))
    with pytest.raises(Malformed):
        unpack_manifest(canonical([50, 1, {1: "onnx", 2: [list(astuple(f)) for f in files]}]))


def test_the_largest_manifest_fits_its_limit() -> None:
    files = tuple(_file(f"f{i:03}" + "x" * 196) for i in range(MODEL_FILES))
    assert unpack_manifest(pack_manifest(Manifest(format="onnx", files=files))).files == files


# --- declarations --------------------------------------------------------------


def test_every_declaration_is_part_of_the_id() -> None:
    """Whoever changes a licence, or leaves it out, has made another model."""
    declared = [name for name in Manifest.__struct_fields__ if name not in ("format", "files", "main")]
    assert all(getattr(samples.PACKAGE, name) is not None for name in declared)
    ids = {model_id(replace(samples.PACKAGE, **{name: None})) for name in declared}
    assert len(ids | {model_id(samples.PACKAGE), model_id(samples.TWO_FILES)}) == len(declared) + 2


@pytest.mark.parametrize(
    "declared",
    [
        {"name": ""}, {"name": " padded"}, {"name": "x" * 65}, {"name": "line\nbreak"}, {"version": ""},
        {"licence": ""}, {"licence": "MIT OR"}, {"licence": "free for all!"}, {"licence": "A" * 129},
        {"kind": "train"}, {"unit": "second"}, {"determinism": "mostly"}, {"before": ("guess",)}, {"after": ()},
        {"before": ("tokens",) * 9}, {"inputs": ()}, {"inputs": (End("x", "complex64", ()),)},
        {"inputs": (End("x", "bool", ()),) * 2}, {"outputs": (End("x", "bool", ("",)),)},
        {"outputs": (End("x", "bool", ("*", "2")),)}, {"outputs": (End("x", "bool", ("1",) * 33),)},
        {"joinable": Tolerance(1 << 32, 0)}, {"main": "model.onnx"}, {"main": "missing.onnx"},
    ],
    ids=ascii,
)
def test_a_declaration_that_says_nothing_or_too_much_is_refused(declared: dict[str, Any]) -> None:
    manifest = replace(samples.TWO_FILES, **declared)
    with pytest.raises(UsageError):
        pack_manifest(manifest)
    with pytest.raises(PeerFault):
        unpack_manifest(spelled(manifest))


def spelled(manifest: Manifest) -> bytes:
    """What a careless maker would send: the same fields, and nobody looked at them."""
    keys = {item.name: item.key for item in Manifest.shape.fields}
    said = {key: getattr(manifest, name) for name, key in keys.items()}
    return canonical([50, 1, {key: _plain(value) for key, value in said.items() if value is not None}])


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _plain(astuple(value)) if isinstance(value, ModelFile | End | Tolerance) else value


@pytest.mark.parametrize(
    ("paths", "main", "entry"),
    [
        (("any.onnx",), None, 0), (("a.bin", "model.onnx"), None, 1), (("a.onnx", "b.onnx"), None, None),
        (("a.onnx", "b.onnx"), "b.onnx", 1), (("a.onnx", "model.onnx"), "a.onnx", 0),
    ],
)
def test_the_file_that_runs_is_named_or_usual_or_the_only_one(
    paths: tuple[str, ...], main: str | None, entry: int | None
) -> None:
    manifest = Manifest(format="onnx", files=tuple(map(_file, paths)), main=main)
    assert unpack_manifest(pack_manifest(manifest)).entry == entry
