"""The user's words about models: add, pull, inspect, remove, name, and whatever a task names.

Purity: shell. Spec: docs/spec/control.md, rules CTL-12 and CTL-23; models.md, rules MOD-2, MOD-3, MOD-10 to MOD-12.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from cocoon.core.errors import CocoonError, LimitExceeded, LocalPeerLost, ModelInUse, NotFound, UsageError
from cocoon.core.ids import ModelId, PeerKey
from cocoon.core.limits import MODEL_FILE_BYTES, MODEL_HOLDERS, OFFER_NS
from cocoon.core.units import SECOND_NS
from cocoon.node.aliases import Aliases
from cocoon.node.args import Args, text_of
from cocoon.node.control import Caller, Verb
from cocoon.node.models import HeldModel
from cocoon.node.sharing import FetchedInto
from cocoon.node.shelf import ModelShelf
from cocoon.p2p.blobs import fetch_manifest, fetch_model
from cocoon.p2p.service import Mesh
from cocoon.telemetry.log import Log
from cocoon.wire.declarations import End
from cocoon.wire.licence import NO_LICENCE
from cocoon.wire.manifest import Manifest

_ID = re.compile("[0-9a-f]{64}")


@dataclass(slots=True)
class Library:
    """Finds, keeps and forgets models for local clients."""

    mesh: Mesh
    shelf: ModelShelf
    aliases: Aliases
    log: Log
    #: Whether this peer stores records in the DHT; one that only buys does not.
    announces: bool
    #: Whether this peer has bought a lease on a model that is still open.
    bought: Callable[[ModelId], bool]
    #: One pull at a time: it uses every stream that a fetch may have.
    pulls: trio.Lock = field(default_factory=trio.Lock)

    def verbs(self) -> dict[str, Verb]:
        """What a client may ask."""
        return {
            "models_add": self._add, "models_ls": self._list, "models_inspect": self._inspect,
            "models_file": self._file, "models_pull": self._pull, "models_rm": self._remove,
            "models_alias": self._alias,
        }

    async def find(self, text: str) -> tuple[HeldModel, bool]:
        """A file or package of the user (private), or a public model by id or alias: here, or as a holder describes it.

        Returns:
            The model, and whether it is private. One that is only described has no bytes: a provider fetches them from
            those who announce it.
        """
        if "/" in text:
            return await trio.to_thread.run_sync(self.shelf.of_path, Path(text)), True
        model = self._named(text)
        if (held := self.shelf.find(model)) is not None:
            return held, False
        for holder in await self.mesh.find_providers(model, MODEL_HOLDERS):
            try:
                with trio.move_on_after(OFFER_NS / SECOND_NS):
                    return HeldModel(model, await fetch_manifest(self.mesh, holder, model), (), ()), False
            except CocoonError as error:
                self._lost(model, holder, error)
        raise NotFound(f"nobody announces model {model.hex()}")

    def _named(self, text: str) -> ModelId:
        if _ID.fullmatch(text):
            return ModelId(bytes.fromhex(text))
        return self.aliases.find(text)

    # --- verbs -------------------------------------------------------------

    async def _add(self, caller: Caller, args: Args) -> dict[str, Any]:
        path, public = Path(text_of(args, "path")), args.get("public") is True
        held = await trio.to_thread.run_sync(self.shelf.add_public if public else self.shelf.of_path, path)
        announced = public and await self._announce(held.id)
        return {"model": held.id, "public": public, "announced": announced, "size_bytes": held.size_bytes}

    async def _file(self, caller: Caller, args: Args) -> dict[str, Any]:
        """The bytes of one file of a model that is at hand."""
        held, name = (await self.find(text_of(args, "model")))[0], text_of(args, "path")
        names = [file.path for file in held.manifest.files]
        if name not in names or not held.paths:
            raise NotFound(f"{name!r:.80} of model {held.id.hex()[:16]} is not here; `cocoon models pull` fetches it")
        file = names.index(name)
        if (size_bytes := held.manifest.files[file].size_bytes) > MODEL_FILE_BYTES:
            raise LimitExceeded(f"{name} has {size_bytes} bytes, a client reads up to {MODEL_FILE_BYTES}")
        for index in range(len(held.hashes_of(file))):
            data = await trio.to_thread.run_sync(held.read_chunk, file, index)
            await caller.say({"event": "chunk", "data": data})
        return {"size_bytes": size_bytes}

    async def _announce(self, model: ModelId) -> bool:
        """Announce what is served, as far as one peer may; whether that is done."""
        if not self.announces:
            return False
        try:
            await self.mesh.provide(model)
        except LimitExceeded:
            self.log.info("model_not_announced", model=model)
            return False
        return True

    async def _list(self, caller: Caller, args: Args) -> dict[str, Any]:
        return {"models": [
            {
                "model": held.id, "name": held.manifest.name or "", "version": held.manifest.version or "",
                "licence": held.manifest.licence or NO_LICENCE, "public": True, "size_bytes": held.size_bytes,
                "announced": self.mesh.announced(held.id), "leased": self.shelf.leased(held.id),
                "aliases": [name for name, model in self.aliases.all().items() if model == held.id],
            }
            for held in self.shelf.public().values()
        ]}

    async def _inspect(self, caller: Caller, args: Args) -> dict[str, Any]:
        found, private = await self.find(text_of(args, "model"))
        held = bool(found.paths)
        return {
            "model": found.id, "held": held, "public": not private,
            "announced": self.mesh.announced(found.id), "leased": held and not private and self.shelf.leased(found.id),
            "size_bytes": found.size_bytes, **described(found.manifest),
        }

    async def _pull(self, caller: Caller, args: Args) -> dict[str, Any]:
        """Fetch a public model and keep it; what an earlier pull left is not fetched again."""
        model = self._named(text_of(args, "model"))
        async with self.pulls:
            held = self.shelf.find(model)
            if held is None:
                held = await self._fetch(caller, model)
            self.shelf.own(model)
        return {"model": held.id, "size_bytes": held.size_bytes, "announced": await self._announce(model)}

    async def _fetch(self, caller: Caller, model: ModelId) -> HeldModel:
        holders = await self.mesh.find_providers(model, MODEL_HOLDERS)
        listens = True

        async def told(here_bytes: int) -> None:
            nonlocal listens
            if listens:
                try:
                    await caller.say({
                        "event": "pulled", "here_bytes": here_bytes, "total_bytes": into.sink.manifest.size_bytes,
                        "holders": len(holders),
                    })
                except LocalPeerLost:
                    listens = False                     # the pull goes on (CTL-5)

        into = FetchedInto(self.shelf.pull_sink, told)
        await fetch_model(
            self.mesh, holders, model, into, lambda holder, error: self._lost(model, holder, error)
        )
        return self.shelf.keep(into.sink)

    def _lost(self, model: ModelId, holder: PeerKey, error: CocoonError) -> None:
        self.log.info("model_fetch_failed", peer=holder, model=model, code=error.code)

    async def _remove(self, caller: Caller, args: Args) -> dict[str, Any]:
        model = self._named(text_of(args, "model"))
        if self.bought(model):
            raise ModelInUse(f"this peer has an open lease on model {model.hex()[:16]}")
        if self.pulls.locked():
            raise ModelInUse("a model is being pulled")
        return {"model": model, "removed": self.shelf.remove(model)}

    async def _alias(self, caller: Caller, args: Args) -> dict[str, Any]:
        """Set the name, or forget it (no model), and say what names there are."""
        if args.get("name") is not None:
            name = text_of(args, "name")
            if args.get("model") is None:
                self.aliases.remove(name)
            elif _ID.fullmatch(text := text_of(args, "model")):
                self.aliases.set(name, ModelId(bytes.fromhex(text)))
            else:
                raise UsageError(f"{text[:80]!r} is no model id of 64 hex digits")
        return {"aliases": [{"name": name, "model": model} for name, model in self.aliases.all().items()]}


def described(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says, for people and programs; what is not declared is left out, but for the licence."""
    declared = {
        "name": manifest.name, "version": manifest.version, "kind": manifest.kind, "unit": manifest.unit,
        "determinism": manifest.determinism, "before": manifest.before, "after": manifest.after,
        "inputs": manifest.inputs and [_end(end) for end in manifest.inputs],
        "outputs": manifest.outputs and [_end(end) for end in manifest.outputs],
        "joinable": manifest.joinable and {
            "relative_ppm": manifest.joinable.relative_ppm, "absolute_nano": manifest.joinable.absolute_nano,
        },
    }
    entry = manifest.entry
    return {
        "licence": manifest.licence or NO_LICENCE,
        **{key: value for key, value in declared.items() if value is not None},
        "main": "" if entry is None else manifest.files[entry].path,
        "files": [{"path": file.path, "size_bytes": file.size_bytes, "root": file.root} for file in manifest.files],
    }


def _end(end: End) -> dict[str, Any]:
    return {"name": end.name, "dtype": end.dtype, "axes": list(end.axes)}
