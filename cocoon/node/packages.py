"""Model packages: a directory of files with a manifest that says what they are.

    classifier/
        manifest.cocoon       the packed manifest
        model.onnx            and whatever else it names

Whoever reads one hashes every file of it, so a package that was edited after it
was made is refused.

Purity: shell. Spec: docs/spec/models.md, rule MOD-9.
"""

from __future__ import annotations

from pathlib import Path

from cocoon.core.errors import ModelRefused, NotFound, PeerFault
from cocoon.core.ids import PACKAGE_FILE
from cocoon.core.limits import MANIFEST_BYTES
from cocoon.node.models import HeldModel, hash_chunks
from cocoon.wire.manifest import file_root, model_id, unpack_manifest


def read_package(folder: Path) -> HeldModel:
    """The model in a package, every file of it hashed.

    Raises:
        NotFound: no package, or a file of it cannot be read.
        ModelRefused: the manifest is none, or its files are not those that were packed.
    """
    path = folder / PACKAGE_FILE
    try:
        with path.open("rb") as source:
            packed = source.read(MANIFEST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"{folder} is no package, {path.name}: {error.strerror}; see `cocoon models pack`") from None
    try:
        manifest = unpack_manifest(packed)
    except PeerFault as error:
        raise ModelRefused(f"{path} is no manifest: {error.text}") from None
    paths = tuple(folder / file.path for file in manifest.files)
    hashes = tuple(map(hash_chunks, paths))
    for file, found, path in zip(manifest.files, hashes, paths, strict=True):
        if path.stat().st_size != file.size_bytes or file_root(found) != file.root:
            raise ModelRefused(f"{path} is not the file that was packed; pack the model again")
    return HeldModel(model_id(manifest), manifest, paths, hashes)
