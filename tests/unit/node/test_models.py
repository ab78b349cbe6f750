"""Models on disk (MOD-1 to MOD-6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.core.errors import BadChunk, ModelRefused, NotFound
from cocoon.core.limits import CHUNK_BYTES
from cocoon.node.models import HeldModel, ModelShelf, ModelSink, hash_file
from cocoon.wire.manifest import chunk_hash

BODY = bytes(range(256)) * (CHUNK_BYTES // 256) * 2 + b"the end"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(BODY)
    return path


def filled(sink: ModelSink, source: HeldModel) -> ModelSink:
    sink.expect(0, source.hashes[0])
    for index in range(len(source.hashes[0])):
        sink.write(0, index, source.read_chunk(0, index))
    return sink


def test_equal_files_have_equal_ids_wherever_they_lie(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(BODY)
    changed = tmp_path / "changed"
    changed.write_bytes(BODY[:-1] + b"!")
    assert hash_file(model).id == hash_file(other).id != hash_file(changed).id


def test_a_sink_takes_chunks_in_any_order_and_gives_the_same_model(model: Path, tmp_path: Path) -> None:
    source = hash_file(model)
    sink = ModelSink(tmp_path / "sink", source.manifest)
    sink.expect(0, source.hashes[0])
    for index in (2, 0, 1):
        sink.write(0, index, source.read_chunk(0, index))
    assert sink.held().paths[0].read_bytes() == BODY
    assert sink.held().id == source.id


def test_a_chunk_with_other_bytes_is_refused_and_not_written(model: Path, tmp_path: Path) -> None:
    source = hash_file(model)
    sink = ModelSink(tmp_path / "sink", source.manifest)
    sink.expect(0, source.hashes[0])
    with pytest.raises(BadChunk):
        sink.write(0, 0, b"x" * CHUNK_BYTES)
    assert sink.paths[0].read_bytes() == bytes(len(BODY))


@pytest.mark.parametrize("index", [-1, 3, 1 << 31])
def test_a_chunk_outside_the_file_is_refused(model: Path, tmp_path: Path, index: int) -> None:
    source = hash_file(model)
    sink = ModelSink(tmp_path / "sink", source.manifest)
    sink.expect(0, source.hashes[0])
    with pytest.raises(BadChunk):
        sink.write(0, index, b"x")


def test_chunk_hashes_that_do_not_give_the_root_are_refused(model: Path, tmp_path: Path) -> None:
    source = hash_file(model)
    sink = ModelSink(tmp_path / "sink", source.manifest)
    for hashes in ((), source.hashes[0][:2], (chunk_hash(b"x"), *source.hashes[0][1:]), source.hashes[0][::-1]):
        with pytest.raises(BadChunk):
            sink.expect(0, hashes)
    with pytest.raises(BadChunk):
        sink.expect(1, source.hashes[0])


def test_a_file_that_changes_while_in_use_is_noticed(model: Path) -> None:
    source = hash_file(model)
    model.write_bytes(b"y" + BODY[1:])
    with pytest.raises(ModelRefused, match="changed while it was in use"):
        source.read_chunk(0, 0)


def test_a_changed_file_is_another_model_for_the_next_task(model: Path, tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path / "home")
    first = shelf.of_file(model)
    assert shelf.of_file(model) is first
    model.write_bytes(BODY + b"more")
    assert shelf.of_file(model).id != first.id


def test_public_models_survive_a_restart_and_leased_ones_do_not(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shelf = ModelShelf(home)
    public = shelf.add_public(model)
    private = filled(shelf.sink(public.manifest, b"\1" * 32), hash_file(model))
    assert private.paths[0].exists()
    again = ModelShelf(home)
    assert list(again.public()) == [public.id]
    assert not private.paths[0].exists()


def test_an_edited_public_model_is_not_announced_under_its_old_id(model: Path, tmp_path: Path) -> None:
    public = ModelShelf(tmp_path / "home").add_public(model)
    public.paths[0].write_bytes(b"z" + BODY[1:])
    assert ModelShelf(tmp_path / "home").public() == {}


def test_what_is_no_file_is_not_found(tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path / "home")
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFound):
            shelf.of_file(path)


def test_a_held_public_model_is_never_written_to_again(model: Path, tmp_path: Path) -> None:
    """Two leases may bring one model; the first may be running it when the second begins, or breaks off."""
    shelf = ModelShelf(tmp_path / "home")
    source = hash_file(model)
    first = filled(shelf.sink(source.manifest, b"\1" * 32), source)
    begun = shelf.sink(source.manifest, b"\2" * 32)
    held = shelf.keep(first)
    shelf.sink(source.manifest, b"\3" * 32).discard()
    assert held.paths[0].read_bytes() == BODY
    assert shelf.keep(filled(begun, source)) is held and not begun.folder.exists()
    assert shelf.add_public(model) is held
    assert held.paths[0].read_bytes() == BODY
