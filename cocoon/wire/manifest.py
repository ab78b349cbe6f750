"""Model manifests: which files make a model, and the id that follows from them.

The id of a model is the SHA-256 of its packed manifest, so equal files have
equal ids. A file is cut into chunks of 1 MiB, each hashed with BLAKE3; the file's
root is the Merkle root over the chunk hashes. A bare ``.onnx`` file gets the
implicit manifest: format "onnx", one file "model.onnx". A package declares more,
and whatever it declares is part of its id.

Purity: pure. Spec: docs/spec/wire.md, rules WIR-21 to WIR-23; models.md, rules MOD-7 and MOD-8.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Sequence

from blake3 import blake3

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.ids import ModelId
from cocoon.core.limits import CHUNK_BYTES, MANIFEST_BYTES, MODEL_BYTES, MODEL_FILES
from cocoon.core.units import UNIT_OF, ceil_div
from cocoon.core.values import Value
from cocoon.wire import declarations as d
from cocoon.wire import merkle, schema
from cocoon.wire.schema import Message, field, message
from cocoon.wire.types import U64, Each, Exactly, Line, Record, Word

_PATH_CHARS = 200
#: The file that runs, where a manifest names none.
MAIN_FILE = "model.onnx"
#: What every file system and every shell takes literally.
_PATH_ALPHABET = frozenset(string.ascii_letters + string.digits + "._+-/")


class ModelFile(Value):
    """One file of a model: relative path with "/", size, Merkle root over its chunk hashes."""

    path: str
    size_bytes: int
    root: bytes


_FILE = Record(ModelFile, path=Line(_PATH_CHARS), size_bytes=U64, root=Exactly(32))


@message(kind=50, version=1, name="manifest", max_body_bytes=MANIFEST_BYTES - schema.HEADER_BYTES)
class Manifest(Message):
    """The files of a model, ascending by path, what format they are in, and what its maker declares of it."""

    format: str = field(1, Word(16))
    files: tuple[ModelFile, ...] = field(2, Each(_FILE, most=MODEL_FILES, least=1))
    name: str | None = field(64, d.NAME, default=None)
    version: str | None = field(65, d.NAME, default=None)
    licence: str | None = field(66, d.LICENCE, default=None)
    kind: str | None = field(67, d.WORD, default=None)
    unit: str | None = field(68, d.WORD, default=None)
    inputs: tuple[d.End, ...] | None = field(69, d.ENDS, default=None)
    outputs: tuple[d.End, ...] | None = field(70, d.ENDS, default=None)
    before: tuple[str, ...] | None = field(71, d.STEPS, default=None)
    after: tuple[str, ...] | None = field(72, d.STEPS, default=None)
    joinable: d.Tolerance | None = field(73, d.TOLERANCE, default=None)
    determinism: str | None = field(74, d.WORD, default=None)
    main: str | None = field(75, Line(_PATH_CHARS), default=None)

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def speaks(self) -> bool:
        """Whether it is a decoder, which answers token by token (TOK-22)."""
        return self.kind == "generate"

    @property
    def sold_as(self) -> str:
        """The kind of task that calls, offers and leases name for it."""
        return self.kind if self.kind in UNIT_OF else "infer"

    @property
    def entry(self) -> int | None:
        """Which file runs: ``main``, else ``model.onnx``, else the only one; None if that names no file."""
        paths = [file.path for file in self.files]
        wanted = self.main or MAIN_FILE
        if wanted in paths:
            return paths.index(wanted)
        return 0 if len(paths) == 1 else None

    def flaw(self) -> str | None:
        """Paths are plain, unique and sorted; sizes fit a model; declarations are words that we know."""
        return self._files_flaw() or self._declared_flaw()

    def _files_flaw(self) -> str | None:
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            return "files are not in ascending order of path, each once"
        for file in self.files:
            if not is_plain_path(file.path):
                return f"{file.path!r:.60} is no plain relative path"
            if file.size_bytes == 0 and file.root != merkle.EMPTY_ROOT:
                return f"{file.path} is empty but its root is not the empty root"
        if (total := sum(file.size_bytes for file in self.files)) > MODEL_BYTES:
            return f"files of {total} bytes where at most {MODEL_BYTES} make a model"
        if self.main is not None and (self.main == MAIN_FILE or self.main not in paths):
            return f"main is left out for {MAIN_FILE}, and else names a file; {self.main!r:.60} does not"
        return None

    def _declared_flaw(self) -> str | None:
        return (
            d.text_flaw(name=self.name, version=self.version, licence=self.licence)
            or d.licence_flaw(self.licence)
            or d.word_flaw("kind", (self.kind,), d.KINDS)
            or d.word_flaw("unit", (self.unit,), d.UNITS)
            or d.word_flaw("determinism", (self.determinism,), d.DETERMINISM)
            or d.word_flaw("before", self.before or (), d.BEFORE)
            or d.word_flaw("after", self.after or (), d.AFTER)
            or d.ends_flaw(self.inputs)
            or d.ends_flaw(self.outputs)
        )


def is_plain_path(path: str) -> bool:
    """Whether ``path`` stays below its directory on every system: no "..", no hidden or empty part."""
    parts = path.split("/")
    return set(path) <= _PATH_ALPHABET and all(part and part[0] != "." for part in parts)


def implicit(size_bytes: int, chunk_hashes: Sequence[bytes]) -> Manifest:
    """The manifest of a bare ``.onnx`` file.

    Raises:
        UsageError: not one hash per chunk.
    """
    if len(chunk_hashes) != (count := chunk_count(size_bytes)):
        raise UsageError(f"{len(chunk_hashes)} hashes for the {count} chunks of {size_bytes} bytes")
    return Manifest(format="onnx", files=(ModelFile("model.onnx", size_bytes, file_root(chunk_hashes)),))


def pack_manifest(manifest: Manifest) -> bytes:
    """Canonical bytes, as they are hashed and sent."""
    return schema.pack(manifest)


def unpack_manifest(data: bytes) -> Manifest:
    """Read a manifest; the errors of ``schema.unpack``."""
    found = schema.unpack(data, Manifest)
    # The id is over all bytes, so two spellings of one manifest would be two models.
    if schema.pack(found) != data:
        raise Malformed("a manifest has no optional fields but those that we know")
    return found


def model_id(manifest: Manifest) -> ModelId:
    """SHA-256 of the packed manifest, 32 bytes."""
    return ModelId(hashlib.sha256(pack_manifest(manifest)).digest())


def chunk_count(size_bytes: int) -> int:
    """Chunks of a file of this size; none if it is empty."""
    return ceil_div(size_bytes, CHUNK_BYTES)


def chunk_hash(data: bytes) -> bytes:
    """BLAKE3 of one chunk, 32 bytes."""
    return blake3(data).digest()


def file_root(chunk_hashes: Sequence[bytes]) -> bytes:
    """Merkle root over a file's chunk hashes, 32 bytes."""
    return merkle.root(chunk_hashes)
