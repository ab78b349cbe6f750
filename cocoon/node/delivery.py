"""How the model of one lease comes to its provider, and what of it goes with the lease.

Purity: shell. Spec: docs/spec/leases.md, rules LEA-4 and LEA-9; models.md, rules MOD-4, MOD-6 and MOD-13.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from cocoon.core.errors import (
    BadChunk,
    CocoonError,
    KindRefused,
    LimitExceeded,
    ModelRefused,
    StorageFull,
    Unavailable,
    wrong,
)
from cocoon.core.ids import LeaseId, ModelId, PeerKey
from cocoon.core.limits import MODEL_HOLDERS
from cocoon.core.machine import Event
from cocoon.node.means import Shop
from cocoon.node.models import HeldModel, ModelSink
from cocoon.node.sharing import FetchedInto
from cocoon.p2p.blobs import fetch_model
from cocoon.scheduler import sale
from cocoon.wire.manifest import Manifest, chunk_count, model_id
from cocoon.wire.messages import Lease, ModelWant
from cocoon.wire.schema import Message


class Delivery:
    """The model of one lease. What happens is told to the lease's machine as its events."""

    def __init__(
        self, shop: Shop, lease: Lease, lease_id: LeaseId, post: Callable[[Event], Awaitable[object]],
        say: Callable[[Message], None], flush: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Args:
            say: Lets one message leave with the next ``flush``.
        """
        self._shop = shop
        self._lease = lease
        self._id = lease_id
        self._model = ModelId(lease.model)
        self._post = post
        self._say = say
        self._flush = flush
        self._manifest: Manifest | None = None
        self._sink: ModelSink | None = None
        self._missing: set[tuple[int, int]] = set()
        self._held: HeldModel | None = None
        self._is_used = False

    def discard(self) -> None:
        """The lease is over: delete what is not on the shelf, let go of what is."""
        if self._sink is not None:
            self._sink.discard()                        # a public model has left it by now, if it came whole and fits
        if self._is_used:
            self._is_used = False
            self._shop.shelf.leave(self._model)

    async def name(self, manifest: Manifest) -> None:
        """The requester says what the leased model is; refuse it now, or have it fetched or loaded."""
        if model_id(manifest) != self._model:
            raise wrong("model", "the manifest is not that of the leased model")
        if manifest.sold_as != self._lease.kind:
            raise KindRefused(f"a model sold as {manifest.sold_as!r} on a lease of {self._lease.kind!r}")
        if (refusal := self._shop.bids.licence_refusal(manifest)) is not None:
            raise refusal
        if manifest.entry is None:
            raise ModelRefused(f"none of the model's {len(manifest.files)} files is named to run")
        if manifest.size_bytes == 0:
            raise ModelRefused("the model is empty")    # no chunk of it would ever come
        if manifest.size_bytes > self._shop.terms.max_model_bytes:
            limit = self._shop.terms.max_model_bytes
            raise LimitExceeded(f"the model has {manifest.size_bytes} bytes, this provider takes {limit}")
        self._manifest = manifest
        if not self._lease.private and (held := self._shop.shelf.find(self._model)) is not None:
            self._use(held)
        await self._post(sale.ModelNamed(self._held is not None, manifest.speaks))

    def expect(self, file: int, hashes: bytes) -> None:
        """The requester sent the chunk hashes of a file."""
        self._expecting().expect(file, tuple(hashes[at : at + 32] for at in range(0, len(hashes), 32)))

    async def store(self, file: int, index: int, data: bytes) -> None:
        """The requester sent a chunk."""
        if (file, index) not in self._missing:
            # Taken before it is asked for, it would make a model with holes look complete.
            raise BadChunk(f"chunk {index} of file {file} came that nobody asked for")
        sink = self._expecting()
        sink.write(file, index, data)
        self._missing.discard((file, index))
        if self._missing:
            await self._post(sale.ModelProgressed())
        else:
            await self._fetched(sink)

    async def fetch(self) -> None:
        """Get the model: a public one from those who announce it, else from the requester."""
        manifest = self._manifest
        assert manifest is not None                     # FetchModel follows ModelNamed
        try:
            sink = self._sink = self._shop.shelf.sink(manifest, self._id)
            if not self._lease.private and await self._fetch_public(sink):
                await self._fetched(sink)
                return
        except CocoonError as error:
            await self._post(sale.LeaseBroke(error.code, error.text))
            return
        counts = [chunk_count(file.size_bytes) for file in manifest.files]
        self._missing = {(file, index) for file, count in enumerate(counts) for index in range(count)}
        for file, count in enumerate(counts):
            if count:
                self._say(ModelWant(file=file, first=0, count=count))
        await self._flush()

    async def verified(self) -> HeldModel:
        """The model to load, after every byte of the model was read once more.

        Raises:
            Unavailable: the bytes changed on this disk; the next lease fetches them anew.
        """
        assert self._held is not None                   # LoadModel follows ModelFetched or a held model
        try:
            await trio.to_thread.run_sync(self._held.verify)
        except CocoonError as error:
            self._shop.log.warning("model_damaged", model=self._model, code=error.code)
            if self._is_used:
                self._shop.shelf.forget_damaged(self._model)
            raise Unavailable("the model was damaged on this provider's disk") from error
        return self._held

    def _expecting(self) -> ModelSink:
        if self._sink is None:
            raise BadChunk("chunks came that nobody asked for")
        return self._sink

    def _use(self, held: HeldModel) -> None:
        self._held = held
        if not self._is_used and self._shop.shelf.find(held.id) is held:
            self._is_used = True
            self._shop.shelf.use(held.id)

    async def _fetched(self, sink: ModelSink) -> None:
        if self._lease.private:
            self._held = sink.held()
        else:
            self._use(self._shop.shelf.keep_leased(sink))
        await self._post(sale.ModelFetched())

    async def _fetch_public(self, sink: ModelSink) -> bool:
        """Try the peers that announce the model; the requester is asked if none gives it."""
        mesh = self._shop.mesh

        def lost(holder: PeerKey, error: CocoonError) -> None:
            self._shop.log.info("model_fetch_failed", peer=holder, model=self._model, code=error.code)

        async def told(here_bytes: int) -> None:
            await self._post(sale.ModelProgressed())

        holders = await mesh.find_providers(self._model, MODEL_HOLDERS)
        try:
            await fetch_model(mesh, holders, self._model, FetchedInto(lambda manifest: sink, told), lost)
        except StorageFull:
            raise
        except CocoonError:
            return False                                # each holder's part in it was logged
        return True
