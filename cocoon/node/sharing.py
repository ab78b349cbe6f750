"""The shelf of models as the blob protocol sees it: a source to serve, a sink to fetch into.

Purity: shell. Spec: docs/spec/models.md, rules MOD-4 and MOD-5.
"""

from __future__ import annotations

from cocoon.core.errors import NotFound
from cocoon.core.ids import ModelId
from cocoon.core.values import Value
from cocoon.node.models import HeldModel, ModelShelf, ModelSink
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


class FetchedInto(Value):
    """Writes what ``fetch_model`` verified; the sink checks every chunk once more."""

    sink: ModelSink

    async def begin(self, manifest: Manifest) -> None:
        """The lease named the same manifest already."""

    async def missing(self, file: int, hashes: list[bytes]) -> list[int]:
        """All of them: a sink is made for one fetch."""
        self.sink.expect(file, tuple(hashes))
        return list(range(len(hashes)))

    async def write(self, file: int, index: int, data: bytes) -> None:
        """One chunk."""
        self.sink.write(file, index, data)
