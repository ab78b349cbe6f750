"""Write the golden vectors anew: ``python -m tests.vectors.make``.

Only for a protocol change that is meant: bytes that moved break every older peer.

Purity: shell (writes files).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cocoon.wire.commitment import commit
from cocoon.wire.manifest import model_id, pack_manifest
from cocoon.wire.schema import digest
from cocoon.wire.tensors import encode_tensors
from tests.vectors import samples

HERE = Path(__file__).resolve().parent


def all_vectors() -> dict[str, Any]:
    """What each file holds, from the code as it is now."""
    return {
        "messages": {
            name: {
                "kind": msg.shape.kind,
                "version": msg.shape.version,
                "digest": digest(msg).hex(),
                "packed": samples.packed(msg).hex(),
            }
            for name, msg in samples.MESSAGES.items()
        },
        "judged": {
            **{f"voucher_{name}": _cell(voucher) for name, voucher in samples.VOUCHERS.items()},
            "statement": _cell(samples.STATEMENT),
        },
        "manifests": {
            name: {"packed": pack_manifest(manifest).hex(), "model_id": model_id(manifest).hex()}
            for name, manifest in samples.MANIFESTS.items()
        },
        "tensors": {name: encode_tensors(tensors).hex() for name, tensors in samples.TENSORS.items()},
        "commitments": {
            name: {"alg": (made := commit(samples.SALT, payload)).alg, "hash": made.hash.hex()}
            for name, payload in samples.PAYLOADS.items()
        },
    }


def _cell(judged: Any) -> dict[str, str]:
    return {"data": judged.pack().hex(), "hash": judged.hash().hex()}


def text(vectors: Any) -> str:
    """One file's content."""
    return json.dumps(vectors, indent=1) + "\n"


if __name__ == "__main__":
    for name, vectors in all_vectors().items():
        (HERE / f"{name}.json").write_text(text(vectors), encoding="utf-8")
