"""Models on disk (MOD-1 to MOD-6, MOD-10 and MOD-11)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import BadChunk, ModelInUse, ModelRefused, NotFound
from cocoon.core.ids import ModelId
from cocoon.core.limits import CHUNK_BYTES
from cocoon.node.models import HeldModel, ModelSink, hash_file
from cocoon.node.shelf import ModelShelf
from cocoon.wire.manifest import Manifest, ModelFile, chunk_hash, file_root, model_id

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
    first = shelf.of_path(model)
    assert shelf.of_path(model) is first
    model.write_bytes(BODY + b"more")
    assert shelf.of_path(model).id != first.id


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
            shelf.of_path(path)


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


def test_a_model_of_several_files_is_kept_whole_and_an_empty_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(BODY)
    hashes = hash_file(tmp_path / "part").hashes[0]
    files = (ModelFile("labels.txt", 0, file_root(())), ModelFile("model.onnx", len(BODY), file_root(hashes)))
    manifest = Manifest(format="onnx", files=files)
    shelf = ModelShelf(tmp_path / "home")
    sink = shelf.sink(manifest, b"\1" * 32)
    sink.expect(1, hashes)
    for index in range(len(hashes)):
        sink.write(1, index, BODY[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    held = shelf.keep(sink)
    assert held.id == model_id(manifest) and held.main_path.read_bytes() == BODY
    assert ModelShelf(tmp_path / "home").public()[held.id].manifest == manifest


# --- pulls -----------------------------------------------------------------


def test_a_pull_goes_on_from_what_is_on_the_disk_and_believes_none_of_it(model: Path, tmp_path: Path) -> None:
    """Whatever a crash, or somebody else, left there: a chunk with other bytes is fetched again."""
    source, home = hash_file(model), tmp_path / "home"
    first = ModelShelf(home).pull_sink(source.manifest)
    first.expect(0, source.hashes[0])
    assert first.missing(0) == [0, 1, 2]
    for index in (0, 2):
        first.write(0, index, source.read_chunk(0, index))
    with first.paths[0].open("r+b") as file:
        file.write(b"!")
    again = ModelShelf(home).pull_sink(source.manifest)
    again.expect(0, source.hashes[0])
    assert again.missing(0) == [0, 1]
    for index in (0, 1):
        again.write(0, index, source.read_chunk(0, index))
    assert again.missing(0) == []
    assert ModelShelf(home).keep(again).paths[0].read_bytes() == BODY


# --- room ------------------------------------------------------------------


def brought(shelf: ModelShelf, folder: Path, body: bytes) -> HeldModel:
    """What becomes of a public model with these bytes that a lease brings."""
    path = folder / chunk_hash(body).hex()
    path.write_bytes(body)
    source = hash_file(path)
    return shelf.keep_leased(filled(shelf.sink(source.manifest, os.urandom(16)), source))


def used_at(shelf: ModelShelf, model: ModelId, at_s: int) -> None:
    """As if its last lease had begun then."""
    shelf.use(model)
    shelf.leave(model)
    os.utime(shelf._mark(model), (at_s, at_s))


def test_the_model_that_was_unused_longest_makes_room_also_after_a_restart(tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path / "home", leased_limit_bytes=300)
    first, second, third = (brought(shelf, tmp_path, bytes([n]) * 100).id for n in range(3))
    for model, at_s in ((first, 30), (second, 10), (third, 20)):
        used_at(shelf, model, at_s)
    gone: list[ModelId] = []
    shelf = ModelShelf(tmp_path / "home", 300, gone.append)
    fourth = brought(shelf, tmp_path, b"4" * 150).id
    assert set(shelf.public()) == {first, fourth} and gone == [second, third], "whoever announces them is told"
    assert {path.name for path in (tmp_path / "home" / "models").iterdir()} == {first.hex(), fourth.hex()}


def test_what_the_user_added_is_never_evicted_and_does_not_count(model: Path, tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path / "home", leased_limit_bytes=100)
    added = shelf.add_public(model).id
    wanted = brought(shelf, tmp_path, b"w" * 100).id
    shelf.own(wanted)
    for number in range(3):
        last = brought(shelf, tmp_path, bytes([number]) * 100).id
    assert set(shelf.public()) == {added, wanted, last}
    assert list(shelf.public())[-1] == last, "what the user wants is announced first"


def test_a_model_that_a_lease_runs_is_neither_evicted_nor_removed(tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path / "home", leased_limit_bytes=100)
    running = brought(shelf, tmp_path, b"r" * 100)
    shelf.use(running.id)
    shelf.use(running.id)
    shelf.leave(running.id)
    homeless = brought(shelf, tmp_path, b"h" * 100)
    assert homeless.paths[0].read_bytes() == b"h" * 100, "its lease has it all the same"
    assert set(shelf.public()) == {running.id} and running.paths[0].exists()
    with pytest.raises(ModelInUse):
        shelf.remove(running.id)
    assert running.paths[0].exists()
    shelf.leave(running.id)
    assert shelf.remove(running.id)
    assert not running.paths[0].exists()


def test_a_model_without_room_costs_no_other_its_place(tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path / "home", leased_limit_bytes=100)
    small = brought(shelf, tmp_path, b"s" * 100).id
    large = brought(shelf, tmp_path, b"l" * 101)
    assert set(shelf.public()) == {small} and large.paths[0].exists()


@given(st.lists(st.tuples(st.integers(1, 90), st.booleans()), min_size=1, max_size=8))
def test_leased_models_never_take_more_than_their_room(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]]
) -> None:
    """Whatever leases bring, and whichever of it still runs."""
    folder = tmp_path_factory.mktemp("room")
    shelf = ModelShelf(folder / "home", leased_limit_bytes=100)
    running: set[ModelId] = set()
    for number, (size_bytes, runs) in enumerate(steps):
        held = brought(shelf, folder, bytes([number]) * size_bytes)
        if runs and shelf.find(held.id) is held:
            shelf.use(held.id)
            running.add(held.id)
        assert sum(model.size_bytes for model in shelf.public().values()) <= 100
        assert running <= set(shelf.public())


def test_removing_takes_what_a_broken_pull_left_and_says_what_is_not_there(model: Path, tmp_path: Path) -> None:
    shelf, source = ModelShelf(tmp_path / "home"), hash_file(model)
    folder = shelf.pull_sink(source.manifest).folder
    assert not shelf.remove(source.id) and not folder.exists()
    with pytest.raises(NotFound):
        shelf.remove(source.id)


def test_a_damaged_model_that_a_lease_brought_is_cleared_away_at_the_start(tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path / "home")
    held = brought(shelf, tmp_path, b"x" * 100)
    held.paths[0].write_bytes(b"y" * 100)
    assert ModelShelf(tmp_path / "home").public() == {}
    assert not held.paths[0].parent.exists()
