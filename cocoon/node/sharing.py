"""The shelf of models as the blob protocol sees it: a source to serve, a sink to fetch into.

Purity: shell. Spec: docs/spec/models.md, rules MOD-4, MOD-5 and MOD-10.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from cocoon.core.errors import NotFound
from cocoon.core.ids import ModelId
from cocoon.core.limits import CHUNK_BYTES
from cocoon.core.values import Value
from cocoon.node.models import HeldModel, ModelSink
from cocoon.node.shelf import ModelShelf
from cocoon.wire.manifest import Manifest, pack_manifest


class ServedFrom(Value):
    """Public models only; a private one does not exist for anybody else."""

    shelf: ModelShelf

    async def manifest(self, model: ModelId) -> bytes:
        """The packed manifest."""
        return pack_manifest(self._held(model).manifest)

    async def hashes(self, model: ModelId, file: int) -> list[bytes]:
        """Chunk hashes of one file."""
        return list(self._held(model).hashes_of(file))

    async def read(self, model: ModelId, file: int, index: int) -> bytes:
        """One chunk."""
        return self._held(model).read_chunk(file, index)

    def _held(self, model: ModelId) -> HeldModel:
        if (held := self.shelf.find(model)) is None:
            raise NotFound(f"model {model.hex()[:16]} is not served here")
        return held


class FetchedInto:
    """Writes what ``fetch_model`` verified, and tells how much is here; the sink checks every chunk once more."""

    def __init__(self, open_sink: Callable[[Manifest], ModelSink], told: Callable[[int], Awaitable[None]]) -> None:
        """Empty.

        Args:
            told: Called with the bytes that are here, after each chunk.
        """
        self._open_sink = open_sink
        self._told = told
        self._here_bytes = 0
        self.sink: ModelSink

    async def begin(self, manifest: Manifest) -> None:
        """Take the room for all of it."""
        self.sink = self._open_sink(manifest)

    async def missing(self, file: int, hashes: list[bytes]) -> list[int]:
        """What an earlier attempt did not leave on the disk."""
        self.sink.expect(file, tuple(hashes))
        missing = await trio.to_thread.run_sync(self.sink.missing, file)
        size_bytes = self.sink.manifest.files[file].size_bytes
        self._here_bytes += size_bytes - sum(min(CHUNK_BYTES, size_bytes - index * CHUNK_BYTES) for index in missing)
        return missing

    async def write(self, file: int, index: int, data: bytes) -> None:
        """One chunk."""
        self.sink.write(file, index, data)
        self._here_bytes += len(data)
        await self._told(self._here_bytes)
