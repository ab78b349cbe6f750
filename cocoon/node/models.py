"""Models on this disk: what the user runs, what is public, what a lease brought.

    models/<id>/          public models, kept until removed
    leased/<lease>/       models on their way here; private ones stay until their lease ends

Purity: shell. Spec: docs/spec/models.md, rules MOD-1 to MOD-6.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cocoon.core.errors import BadChunk, LimitExceeded, ModelRefused, NotFound, PeerFault, StorageFull
from cocoon.core.ids import ModelId
from cocoon.core.limits import CHUNK_BYTES, MANIFEST_BYTES, MODEL_BYTES
from cocoon.core.values import Value, replace
from cocoon.wire.manifest import (
    Manifest,
    chunk_count,
    chunk_hash,
    file_root,
    implicit,
    model_id,
    pack_manifest,
    unpack_manifest,
)


class HeldModel(Value):
    """A model whose bytes are at hand: its manifest, where each file is, and its chunk hashes."""

    id: ModelId
    manifest: Manifest
    paths: tuple[Path, ...]
    hashes: tuple[tuple[bytes, ...], ...]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return self.manifest.size_bytes

    def hashes_of(self, file: int) -> tuple[bytes, ...]:
        """Chunk hashes of one file; NotFound if the model has no such file."""
        if not 0 <= file < len(self.hashes):
            raise NotFound(f"model {self.id.hex()[:12]} has no file {file}")
        return self.hashes[file]

    def read_chunk(self, file: int, index: int) -> bytes:
        """One chunk, checked against the manifest.

        Raises:
            NotFound: no such file or chunk.
            ModelRefused: the file changed since it was hashed.
        """
        if not 0 <= index < len(self.hashes_of(file)):
            raise NotFound(f"model {self.id.hex()[:12]} has no chunk {index} of file {file}")
        try:
            with self.paths[file].open("rb") as source:
                source.seek(index * CHUNK_BYTES)
                data = source.read(CHUNK_BYTES)
        except OSError as error:
            raise NotFound(f"{self.paths[file].name} cannot be read any more: {error.strerror}") from error
        if chunk_hash(data) != self.hashes[file][index]:
            raise ModelRefused(f"{self.paths[file].name} changed while it was in use")
        return data


def hash_file(path: Path) -> HeldModel:
    """Read a bare model file once and give it its implicit manifest.

    Raises:
        NotFound: not a readable regular file.
        LimitExceeded: larger than any peer takes.
    """
    if not path.is_file():
        raise NotFound(f"{path} is no regular file")
    try:
        hashes = tuple(_chunk_hashes(path))
        size_bytes = path.stat().st_size
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
    if size_bytes == 0:
        raise ModelRefused(f"{path} is empty")
    manifest = implicit(size_bytes, hashes)
    return HeldModel(model_id(manifest), manifest, (path,), (hashes,))


def _chunk_hashes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        if os.fstat(source.fileno()).st_size > MODEL_BYTES:
            raise LimitExceeded(f"{path.name} is larger than {MODEL_BYTES} bytes, the limit for a model")
        while data := source.read(CHUNK_BYTES):
            yield chunk_hash(data)


class ModelSink:
    """Where a model is written as its verified chunks arrive, in any order."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.paths = tuple(folder / f"{index}.onnx" for index in range(len(manifest.files)))
        self._hashes: dict[int, tuple[bytes, ...]] = {}
        try:
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            for path, file in zip(self.paths, manifest.files, strict=True):
                with path.open("wb") as target:
                    os.posix_fallocate(target.fileno(), 0, max(1, file.size_bytes))
                    target.truncate(file.size_bytes)
        except OSError as error:
            self.discard()
            raise StorageFull(f"no room for a model of {manifest.size_bytes} bytes: {error.strerror}") from error

    def expect(self, file: int, hashes: tuple[bytes, ...]) -> None:
        """Take the chunk hashes of one file, which must give the manifest's root."""
        if not 0 <= file < len(self.paths):
            raise BadChunk(f"the model has no file {file}")
        described = self.manifest.files[file]
        if len(hashes) != chunk_count(described.size_bytes) or file_root(hashes) != described.root:
            raise BadChunk(f"the chunk hashes of file {file} do not fit the manifest")
        self._hashes[file] = hashes

    def write(self, file: int, index: int, data: bytes) -> None:
        """Check one chunk and write it.

        Raises:
            BadChunk: not announced, or not the announced bytes.
        """
        hashes = self._hashes.get(file, ())
        if not 0 <= index < len(hashes):
            raise BadChunk(f"chunk {index} of file {file} was not announced")
        if chunk_hash(data) != hashes[index]:
            raise BadChunk(f"chunk {index} of file {file} has other bytes than announced")
        try:
            with self.paths[file].open("r+b") as target:
                target.seek(index * CHUNK_BYTES)
                target.write(data)
        except OSError as error:
            raise StorageFull(f"chunk {index} of file {file} could not be written: {error.strerror}") from error

    def held(self) -> HeldModel:
        """The complete model, once every chunk was written."""
        hashes = tuple(self._hashes[index] for index in range(len(self.paths)))
        return HeldModel(model_id(self.manifest), self.manifest, self.paths, hashes)

    def discard(self) -> None:
        """Delete what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


class ModelShelf:
    """The models of one COCOON_HOME. Public ones persist; files of the user are only remembered."""

    def __init__(self, home: Path) -> None:
        self._public_dir = home / "models"
        self._leased_dir = home / "leased"
        # A crash may have left private models of other people behind: they go first.
        shutil.rmtree(self._leased_dir, ignore_errors=True)
        self._seen: dict[tuple[str, int, int, int], HeldModel] = {}
        self._public: dict[ModelId, HeldModel] = dict(self._load_public())

    def of_file(self, path: Path) -> HeldModel:
        """The model in a user's file; hashed again only if size, inode or mtime changed."""
        if not path.is_file():
            raise NotFound(f"{path} is no regular file")
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if key not in self._seen:
            if len(self._seen) >= 64:                   # oldest first; hashing again costs little
                self._seen.pop(next(iter(self._seen)))
            self._seen[key] = hash_file(path)
        return self._seen[key]

    def public(self) -> dict[ModelId, HeldModel]:
        """What this peer announces and serves to anybody."""
        return dict(self._public)

    def find(self, model: ModelId) -> HeldModel | None:
        """A public model by id."""
        return self._public.get(model)

    def add_public(self, path: Path) -> HeldModel:
        """Copy a file onto the shelf of public models."""
        source = hash_file(path)
        sink = self.sink(source.manifest, os.urandom(16))
        sink.expect(0, source.hashes[0])
        for index in range(len(source.hashes[0])):
            sink.write(0, index, source.read_chunk(0, index))
        return self.keep(sink)

    def sink(self, manifest: Manifest, name: bytes) -> ModelSink:
        """Where to write a model that arrives; ``name`` (a lease id) is nobody else's."""
        return ModelSink(self._leased_dir / name.hex(), manifest)

    def keep(self, sink: ModelSink) -> HeldModel:
        """Put a complete public model on the shelf for good.

        It moves there whole, and never onto one that is there: somebody may be loading that.
        """
        arrived = sink.held()
        if (held := self._public.get(arrived.id)) is not None:
            sink.discard()
            return held
        (sink.folder / "manifest").write_bytes(pack_manifest(arrived.manifest))
        target = self._public_dir / arrived.id.hex()
        self._public_dir.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)       # not on the shelf, so damaged or half made
        os.replace(sink.folder, target)
        held = self._public[arrived.id] = replace(arrived, paths=tuple(target / path.name for path in arrived.paths))
        return held

    def _load_public(self) -> Iterator[tuple[ModelId, HeldModel]]:
        for manifest_path in sorted(self._public_dir.glob("*/manifest")):
            if manifest_path.stat().st_size > MANIFEST_BYTES:
                continue
            try:
                manifest = unpack_manifest(manifest_path.read_bytes())
            except PeerFault:
                continue                                # damaged: not served, and not in the way of a start
            paths = tuple(manifest_path.parent / f"{i}.onnx" for i in range(len(manifest.files)))
            hashes = tuple(tuple(_chunk_hashes(path)) for path in paths)
            # A shelf that was edited by hand is not announced under the old name.
            if all(file_root(h) == f.root for h, f in zip(hashes, manifest.files, strict=True)):
                yield model_id(manifest), HeldModel(model_id(manifest), manifest, paths, hashes)
