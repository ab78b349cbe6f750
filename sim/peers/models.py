"""Models of a simulated world: names and sizes; nobody looks inside.

Purity: pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cocoon.core.ids import ModelId
from cocoon.wire.manifest import Manifest, implicit, model_id, pack_manifest
from cocoon.wire.manifest import chunk_count as chunks_of


@dataclass(frozen=True, slots=True)
class Model:
    """A public model of one file."""

    number: int
    size_bytes: int
    manifest: Manifest = field(init=False)
    id: ModelId = field(init=False)
    packed: bytes = field(init=False)

    def __post_init__(self) -> None:
        chunks = [hashlib.sha256(f"{self.number}/{index}".encode()).digest() for index in range(self.chunks)]
        manifest = implicit(self.size_bytes, chunks)
        object.__setattr__(self, "manifest", manifest)
        object.__setattr__(self, "id", model_id(manifest))
        object.__setattr__(self, "packed", pack_manifest(manifest))

    @property
    def chunks(self) -> int:
        """Pieces in which it travels."""
        return chunks_of(self.size_bytes)
