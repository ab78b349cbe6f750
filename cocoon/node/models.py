"""Models at hand: their bytes, wherever they lie, and how they get onto this disk.

Purity: shell. Spec: docs/spec/models.md, rules MOD-1, MOD-2, MOD-5 and MOD-6.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cocoon.core.errors import BadChunk, LimitExceeded, ModelRefused, NotFound, StorageFull
from cocoon.core.ids import ModelId
from cocoon.core.limits import CHUNK_BYTES, MODEL_BYTES
from cocoon.core.values import Value
from cocoon.wire.manifest import Manifest, chunk_count, chunk_hash, file_root, implicit, model_id


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

    @property
    def main_path(self) -> Path:
        """The file that runs; ModelRefused if the manifest names none."""
        if (entry := self.manifest.entry) is None:
            raise ModelRefused(f"none of {len(self.manifest.files)} files is named to run")
        return self.paths[entry]

    def path_of(self, name: str) -> Path:
        """Where the file is that the manifest calls so; ModelRefused if there is none."""
        for file, path in zip(self.manifest.files, self.paths, strict=True):
            if file.path == name:
                return path
        raise ModelRefused(f"the model has no file {name}")

    def verify(self) -> None:
        """Read every byte again; ModelRefused if one changed."""
        for file, hashes in enumerate(self.hashes):
            for index in range(len(hashes)):
                self.read_chunk(file, index)

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
    hashes = hash_chunks(path)
    if not hashes:
        raise ModelRefused(f"{path} is empty")
    manifest = implicit(path.stat().st_size, hashes)
    return HeldModel(model_id(manifest), manifest, (path,), (hashes,))


def hash_chunks(path: Path) -> tuple[bytes, ...]:
    """BLAKE3 of each chunk of a file.

    Raises:
        NotFound: not a readable regular file.
        LimitExceeded: larger than any peer takes.
    """
    if not path.is_file():
        raise NotFound(f"{path} is no regular file")
    try:
        return tuple(_chunk_hashes(path))
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error


def _chunk_hashes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        if os.fstat(source.fileno()).st_size > MODEL_BYTES:
            raise LimitExceeded(f"{path.name} is larger than {MODEL_BYTES} bytes, the limit for a model")
        while data := source.read(CHUNK_BYTES):
            yield chunk_hash(data)


class ModelSink:
    """Where a model is written as its verified chunks arrive, in any order; what an earlier attempt left is kept."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Take the room for all of it; StorageFull if there is none."""
        self.folder = folder
        self.manifest = manifest
        self.paths = tuple(folder / f"{index}.onnx" for index in range(len(manifest.files)))
        # A file without a chunk has nothing that could be waited for.
        self._hashes: dict[int, tuple[bytes, ...]] = {
            index: () for index, file in enumerate(manifest.files) if not file.size_bytes
        }
        self._begun = frozenset(index for index, path in enumerate(self.paths) if path.exists())
        try:
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            for path, file in zip(self.paths, manifest.files, strict=True):
                with path.open("ab") as target:
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

    def missing(self, file: int) -> list[int]:
        """Chunks of an expected file that are not on this disk yet; what is there is read and checked."""
        hashes = self._hashes[file]
        if file not in self._begun:
            return list(range(len(hashes)))
        with self.paths[file].open("rb") as source:
            return [index for index, expected in enumerate(hashes) if chunk_hash(source.read(CHUNK_BYTES)) != expected]

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
