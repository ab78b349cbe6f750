"""Models of a simulated world: names and sizes; nobody looks inside.

Purity: pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cocoon.core.ids import ModelId
from cocoon.core.units import UnitKind
from cocoon.core.values import replace
from cocoon.scheduler.selection import RUNS, Measure
from cocoon.wire.manifest import Manifest, implicit, model_id, pack_manifest
from cocoon.wire.manifest import chunk_count as chunks_of

#: That a run of a decoder is billed for at most.
RUN_TOKENS = 64


def most_units(unit: int) -> int:
    """The most that any run is billed for."""
    return RUN_TOKENS if unit == UnitKind.OUTPUT_TOKEN else 1


def counted_units(unit: int, inputs: bytes) -> int:
    """What a run of these inputs is billed for: of a decoder anything up to the most, the same for both sides."""
    return 1 if unit != UnitKind.OUTPUT_TOKEN else 1 + hashlib.sha256(inputs).digest()[0] % RUN_TOKENS


@dataclass(frozen=True, slots=True)
class Model:
    """A public model of one file."""

    number: int
    size_bytes: int
    is_decoder: bool = False
    manifest: Manifest = field(init=False)
    id: ModelId = field(init=False)
    packed: bytes = field(init=False)

    def __post_init__(self) -> None:
        chunks = [hashlib.sha256(f"{self.number}/{index}".encode()).digest() for index in range(self.chunks)]
        manifest = replace(implicit(self.size_bytes, chunks), kind="generate" if self.is_decoder else None)
        object.__setattr__(self, "manifest", manifest)
        object.__setattr__(self, "id", model_id(manifest))
        object.__setattr__(self, "packed", pack_manifest(manifest))

    @property
    def measure(self) -> Measure:
        """How its runs are billed."""
        return Measure(int(UnitKind.OUTPUT_TOKEN), RUN_TOKENS) if self.is_decoder else RUNS

    @property
    def chunks(self) -> int:
        """Pieces in which it travels."""
        return chunks_of(self.size_bytes)
