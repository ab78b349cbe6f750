"""Packages on disk (MOD-9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.core.errors import ModelRefused, NotFound, UsageError
from cocoon.core.ids import PACKAGE_FILE
from cocoon.core.limits import MANIFEST_BYTES, MODEL_FILES
from cocoon.node.models import hash_file
from cocoon.node.packages import read_package
from cocoon.node.packing import write_package
from cocoon.node.shelf import ModelShelf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    (path / "words").mkdir(parents=True)
    (path / "model.onnx").write_bytes(b"a model")
    (path / "words" / "list.txt").write_bytes(b"one\ntwo\n")
    return path


def test_a_package_is_read_as_it_was_made_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    made = write_package(folder, None, {"licence": "MIT"})
    assert read_package(folder) == made
    copied = write_package(folder, tmp_path / "copy", {"licence": "MIT"})
    assert copied.id == made.id == read_package(tmp_path / "copy").id
    assert [file.path for file in made.manifest.files] == ["model.onnx", "words/list.txt"]
    assert made.main_path == folder / "model.onnx"


def test_making_a_package_again_does_not_pack_the_manifest(folder: Path) -> None:
    assert write_package(folder, None, {}).id == write_package(folder, None, {}).id


def test_a_package_of_one_bare_file_that_declares_nothing_is_that_file(folder: Path, tmp_path: Path) -> None:
    made = write_package(folder / "model.onnx", tmp_path / "new", {})
    assert made.id == hash_file(folder / "model.onnx").id


@pytest.mark.parametrize("changed", [b"A model", b"a model!", b""])
def test_a_file_that_was_edited_after_it_was_packed_is_refused(folder: Path, changed: bytes) -> None:
    write_package(folder, None, {})
    (folder / "model.onnx").write_bytes(changed)
    with pytest.raises(ModelRefused, match="pack the model again"):
        read_package(folder)


def test_a_manifest_that_is_none_or_names_a_missing_file_is_refused(folder: Path) -> None:
    with pytest.raises(NotFound):
        read_package(folder)
    write_package(folder, None, {})
    packed = (folder / PACKAGE_FILE).read_bytes()
    for spoilt in (b"", packed[:-1], packed + b"\0", bytes(MANIFEST_BYTES + 1)):
        (folder / PACKAGE_FILE).write_bytes(spoilt)
        with pytest.raises(ModelRefused):
            read_package(folder)
    (folder / PACKAGE_FILE).write_bytes(packed)
    (folder / "words" / "list.txt").unlink()
    with pytest.raises(NotFound):
        read_package(folder)


def test_what_cannot_be_a_package_is_not_made(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for source, target, declared in (
        (folder / "model.onnx", None, {}), (folder, tmp_path / "full", {}), (folder, tmp_path / "full" / "file", {}),
        (folder, None, {"licence": "?"}), (folder, None, {"main": "model.onnx"}),
    ):
        with pytest.raises(UsageError):
            write_package(source, target, declared)
    (folder / "words" / "more.txt").touch()
    with pytest.raises(UsageError, match="--main"):
        write_package(folder / "words", tmp_path / "two files", {})
    (folder / ".hidden").touch()
    with pytest.raises(UsageError, match="hidden"):
        write_package(folder, None, {})
    assert not (folder / PACKAGE_FILE).exists()


def test_a_directory_of_too_many_files_is_refused_before_they_are_read(folder: Path) -> None:
    for number in range(MODEL_FILES):
        (folder / f"part{number}").touch()
    with pytest.raises(UsageError, match=str(MODEL_FILES)):
        write_package(folder, None, {})


def test_the_shelf_hashes_a_package_again_when_a_file_of_it_changed(folder: Path, tmp_path: Path) -> None:
    write_package(folder, None, {})
    shelf = ModelShelf(tmp_path / "home")
    assert shelf.of_path(folder) is shelf.of_path(folder)
    (folder / "words" / "list.txt").write_bytes(b"three\n")
    with pytest.raises(ModelRefused):
        shelf.of_path(folder)
    public = shelf.add_public(tmp_path / "folder" / "model.onnx")
    assert public.id == hash_file(folder / "model.onnx").id
