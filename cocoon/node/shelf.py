"""The models of one COCOON_HOME.

    models/<id>/          public models: files, manifest, and `leased` beside one that only a lease brought
    pulling/<id>/         public models on their way here for the user; a broken pull goes on from there
    leased/<lease>/       models on their way here for a lease; private ones stay until it ends

What the user added or pulled stays until the user removes it. What leases brought
stays while there is room for it: the one that was unused longest goes first.

Purity: shell. Spec: docs/spec/models.md, rules MOD-2 to MOD-6, MOD-10 and MOD-11.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from cocoon.core.errors import LimitExceeded, ModelInUse, NotFound, PeerFault, StorageFull
from cocoon.core.ids import PACKAGE_FILE, ModelId
from cocoon.core.limits import LEASED_MODELS_BYTES, MANIFEST_BYTES
from cocoon.core.values import replace
from cocoon.node.models import HeldModel, ModelSink, hash_chunks, hash_file
from cocoon.node.packages import read_package
from cocoon.wire.manifest import Manifest, file_root, model_id, pack_manifest, unpack_manifest

_MANIFEST_FILE = "manifest"
#: Beside a model that no user asked for; its modification time is the last use.
_LEASED_MARK = "leased"
#: Paths and states of the files that were hashed.
_Seen = tuple[tuple[str, int, int, int], ...]


class ModelShelf:
    """Public models persist; files of the user are only remembered."""

    def __init__(
        self, home: Path, leased_limit_bytes: int = LEASED_MODELS_BYTES,
        dropped: Callable[[ModelId], object] = lambda model: None,
    ) -> None:
        """Clear away what a crash left, and read what is public.

        Args:
            dropped: Told of each public model that is here no more.
        """
        self._public_dir = home / "models"
        self._pulling_dir = home / "pulling"
        self._leased_dir = home / "leased"
        self._leased_limit_bytes = leased_limit_bytes
        self._dropped = dropped
        # A crash may have left private models of other people behind: they go first.
        shutil.rmtree(self._leased_dir, ignore_errors=True)
        self._seen: dict[_Seen, HeldModel] = {}
        self._uses: Counter[ModelId] = Counter()
        self._public: dict[ModelId, HeldModel] = dict(self._load_public())

    # --- what the user runs from where it lies -----------------------------

    def of_path(self, path: Path) -> HeldModel:
        """The model in a user's file or package; hashed again only if size, inode or mtime of a file changed."""
        key = _state_of(path)
        if key not in self._seen:
            if len(self._seen) >= 64:                   # oldest first; hashing again costs little
                self._seen.pop(next(iter(self._seen)))
            self._seen[key] = _read(path)
        return self._seen[key]

    # --- what is public ----------------------------------------------------

    def public(self) -> dict[ModelId, HeldModel]:
        """What this peer serves to anybody, and announces as far as it may: what the user wants goes first."""
        return dict(sorted(self._public.items(), key=lambda item: self.leased(item[0])))

    def find(self, model: ModelId) -> HeldModel | None:
        """A public model by id."""
        return self._public.get(model)

    def leased(self, model: ModelId) -> bool:
        """Whether a public model is here only because a lease brought it."""
        return self._mark(model).exists()

    def add_public(self, path: Path) -> HeldModel:
        """Copy a file, or a package, onto the shelf of public models."""
        source = _read(path)
        sink = self.sink(source.manifest, os.urandom(16))
        try:
            for file, hashes in enumerate(source.hashes):
                sink.expect(file, hashes)
                for index in range(len(hashes)):
                    sink.write(file, index, source.read_chunk(file, index))
            return self.keep(sink)
        finally:
            sink.discard()                              # it has left, if it came whole

    def sink(self, manifest: Manifest, name: bytes) -> ModelSink:
        """Where to write a model that arrives; ``name`` (a lease id) is nobody else's."""
        return ModelSink(self._leased_dir / name.hex(), manifest)

    def pull_sink(self, manifest: Manifest) -> ModelSink:
        """Where to write a model that the user pulls; it holds what an earlier attempt fetched."""
        return ModelSink(self._pulling_dir / model_id(manifest).hex(), manifest)

    def keep(self, sink: ModelSink) -> HeldModel:
        """Put a complete public model on the shelf until the user removes it.

        It moves there whole, and never onto one that is there: somebody may be loading that.

        Raises:
            StorageFull: the disk has no room for so much as its manifest.
        """
        arrived = sink.held()
        if (held := self._public.get(arrived.id)) is not None:
            sink.discard()
            self.own(arrived.id)
            return held
        return self._put(arrived, sink.folder, leased=False)

    def keep_leased(self, sink: ModelSink) -> HeldModel:
        """Put a complete public model, which only a lease asked for, on the shelf while there is room.

        Without room it stays where it is, and goes with its lease.
        """
        arrived = sink.held()
        if (held := self._public.get(arrived.id)) is not None:
            sink.discard()
            return held
        if not self._make_room(arrived.size_bytes):
            return arrived
        return self._put(arrived, sink.folder, leased=True)

    def _put(self, arrived: HeldModel, folder: Path, *, leased: bool) -> HeldModel:
        target = self._public_dir / arrived.id.hex()
        try:
            (folder / _MANIFEST_FILE).write_bytes(pack_manifest(arrived.manifest))
            if leased:
                (folder / _LEASED_MARK).touch()
            self._public_dir.mkdir(mode=0o700, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)   # not on the shelf, so damaged or half made
            os.replace(folder, target)
        except OSError as error:
            raise StorageFull(f"model {arrived.id.hex()[:16]} cannot be kept: {error.strerror}") from error
        held = self._public[arrived.id] = replace(arrived, paths=tuple(target / path.name for path in arrived.paths))
        return held

    def own(self, model: ModelId) -> None:
        """The user wants this model: it stays until the user removes it."""
        self._mark(model).unlink(missing_ok=True)

    def remove(self, model: ModelId) -> bool:
        """Delete a public model, and what a broken pull left of it.

        Returns:
            Whether it was on the shelf.

        Raises:
            NotFound: there is nothing of it here.
            ModelInUse: a lease runs it.
        """
        pulled = self._pulling_dir / model.hex()
        if self._uses[model]:
            raise ModelInUse(f"model {model.hex()[:16]} is run by {self._uses[model]} open leases")
        if model not in self._public and not pulled.exists():
            raise NotFound(f"model {model.hex()[:16]} is not held here")
        shutil.rmtree(pulled, ignore_errors=True)
        return self._drop(model)

    # --- leases ------------------------------------------------------------

    def use(self, model: ModelId) -> None:
        """A lease runs a model; it is not removed before ``leave``, as often as it is used."""
        self._uses[model] += 1
        if self.leased(model):
            os.utime(self._mark(model))

    def leave(self, model: ModelId) -> None:
        """A lease runs it no more."""
        self._uses[model] -= 1
        if not self._uses[model]:
            del self._uses[model]

    def forget_damaged(self, model: ModelId) -> None:
        """Take a model off the shelf whose bytes changed on this disk: the next lease fetches it anew."""
        self._drop(model)

    def _make_room(self, size_bytes: int) -> bool:
        """Whether a model of this size may stay; others that leases brought go for it, who was unused longest first."""
        # Of a copy: the user may be adding a model in another thread.
        leased = {model: held.size_bytes for model, held in self.public().items() if self.leased(model)}
        idle = sorted((model for model in leased if not self._uses[model]), key=self._last_use)
        if sum(leased.values()) - sum(map(leased.__getitem__, idle)) + size_bytes > self._leased_limit_bytes:
            return False
        while sum(leased.values()) + size_bytes > self._leased_limit_bytes:
            self._drop(oldest := idle.pop(0))
            del leased[oldest]
        return True

    def _last_use(self, model: ModelId) -> tuple[int, ModelId]:
        return self._mark(model).stat().st_mtime_ns, model

    def _mark(self, model: ModelId) -> Path:
        return self._public_dir / model.hex() / _LEASED_MARK

    def _drop(self, model: ModelId) -> bool:
        shutil.rmtree(self._public_dir / model.hex(), ignore_errors=True)
        self._dropped(model)
        return self._public.pop(model, None) is not None

    def _load_public(self) -> Iterator[tuple[ModelId, HeldModel]]:
        for path in sorted(self._public_dir.glob(f"*/{_MANIFEST_FILE}")):
            if (held := _load(path)) is not None:
                yield held.id, held
            elif (path.parent / _LEASED_MARK).exists():
                shutil.rmtree(path.parent, ignore_errors=True)


def _load(manifest_path: Path) -> HeldModel | None:
    """The model of a folder on the shelf; None if it is damaged: not served, and not in the way of a start."""
    if manifest_path.stat().st_size > MANIFEST_BYTES:
        return None
    try:
        manifest = unpack_manifest(manifest_path.read_bytes())
        paths = tuple(manifest_path.parent / f"{index}.onnx" for index in range(len(manifest.files)))
        hashes = tuple(map(hash_chunks, paths))
    except (PeerFault, NotFound, LimitExceeded):
        return None
    # A shelf that was edited by hand is not announced under the old name.
    model, roots = model_id(manifest), tuple(map(file_root, hashes))
    if model.hex() != manifest_path.parent.name or roots != tuple(file.root for file in manifest.files):
        return None
    return HeldModel(model, manifest, paths, hashes)


def _read(path: Path) -> HeldModel:
    return read_package(path) if path.is_dir() else hash_file(path)


def _state_of(path: Path) -> _Seen:
    """What changes when a file, or one of a package, is written to."""
    if (path / PACKAGE_FILE).is_file():
        return tuple(_file_state(file) for file in sorted(path.rglob("*")) if file.is_file())
    if not path.is_file():
        raise NotFound(f"{path} is no regular file, and no package")
    return (_file_state(path),)


def _file_state(path: Path) -> tuple[str, int, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from None
    return (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
