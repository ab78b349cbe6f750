"""A requester that plays by the rules except where a test makes it break them.

It lives in the test's own trio loop on a real mesh and talks to a real provider
process.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import trio

from cocoon.config.network import NetworkFile
from cocoon.core.errors import StreamClosed
from cocoon.core.ids import LeaseId, ModelId, PeerKey
from cocoon.core.limits import CHUNK_BYTES
from cocoon.core.values import replace
from cocoon.identity.keys import HPKE_SEED_BYTES, Identity, identity_of
from cocoon.node.bids import CALL_PROTOCOL
from cocoon.node.clock import MonotonicClock
from cocoon.node.link import WorkLink
from cocoon.node.proposal import LEASE_PROTOCOL
from cocoon.p2p.book import AddressBook
from cocoon.p2p.service import Mesh, MeshSettings, open_mesh
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.hpke import seal_keys
from cocoon.privacy.link import LinkKeys, SealedReader, SealedWriter, session_keys
from cocoon.scheduler.selection import Quote
from cocoon.scheduler.verification import Called, verify_bid, verify_offer
from cocoon.telemetry.log import get_logger
from cocoon.wire.manifest import chunk_hash, implicit, model_id, pack_manifest
from cocoon.wire.market import NO_MODEL, BidReply, Call, Decline
from cocoon.wire.messages import (
    Chunk,
    ChunkHashes,
    KeyBox,
    Lease,
    LeaseAccept,
    LeaseClose,
    LeaseOpen,
    ModelOffer,
    ModelReady,
    ModelWant,
    OfferReply,
    ReceiptIssued,
    Refusal,
    RunFailure,
    RunRequest,
    RunResult,
)
from cocoon.wire.schema import Message, pack, unpack
from cocoon.wire.signing import Signed, open_signed, sign
from cocoon.wire.tensors import encode_tensors
from tests.attack.matrix import Lie
from tests.loopback.town import PATIENCE_S
from tests.models import adder_model
from tests.vectors.spelling import kind_of

_HEARD = (ModelWant, ModelReady, RunResult, RunFailure, ReceiptIssued, Refusal, LeaseClose)
SALT = bytes(16)
ADDER = adder_model()
INPUTS = encode_tensors({"x": np.arange(3, dtype=np.float32)})
M = TypeVar("M", bound=Message)


def chunks_of(model: bytes) -> list[bytes]:
    """A model's bytes, chunk by chunk."""
    return [model[start : start + CHUNK_BYTES] for start in range(0, len(model), CHUNK_BYTES)]


def manifest_of(model: bytes) -> bytes:
    """The packed manifest of a bare model file."""
    return pack_manifest(implicit(len(model), [chunk_hash(chunk) for chunk in chunks_of(model)]))


def id_of(model: bytes) -> ModelId:
    """The id under which a lease names a bare model file."""
    return model_id(implicit(len(model), [chunk_hash(chunk) for chunk in chunks_of(model)]))


@dataclass
class Deal:
    """An open lease, from the requester's side."""

    stream: PeerStream
    writer: SealedWriter
    link: WorkLink
    lease: Signed[Lease]
    accept: LeaseAccept
    #: Everything the provider said on the link.
    heard: list[Message] = field(default_factory=list)

    async def say(self, message: Message) -> None:
        """Send a message, whatever it is."""
        await self.link.send(message)

    async def hear(self, *kinds: type[Message]) -> Any:
        """The next message of one of these kinds; others are passed over."""
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    message = await self.link.receive(*_HEARD)
                except StreamClosed:
                    message = None
                assert message is not None, f"the provider hung up after {self.heard}"
                self.heard.append(message)
                if isinstance(message, kinds):
                    return message

    async def last_word(self) -> str:
        """The code with which the provider ends the lease."""
        code: str = (await self.hear(LeaseClose)).code
        return code

    async def deliver(self, model: bytes = ADDER) -> None:
        """Name the model, send what is asked for, wait until it is loaded."""
        await self.say(ModelOffer(manifest=manifest_of(model)))
        if isinstance(await self.hear(ModelWant, ModelReady), ModelReady):
            return
        chunks = chunks_of(model)
        await self.say(ChunkHashes(file=0, hashes=b"".join(map(chunk_hash, chunks))))
        for index, chunk in enumerate(chunks):
            await self.say(Chunk(file=0, index=index, data=chunk))
        await self.hear(ModelReady)

    async def run(self, number: int, inputs: bytes = INPUTS) -> RunResult | RunFailure:
        """Ask for one run and hear what became of it."""
        await self.say(RunRequest(number=number, salt=SALT, inputs=inputs))
        found: RunResult | RunFailure = await self.hear(RunResult, RunFailure)
        assert found.number == number
        return found

    async def part(self) -> None:
        """End the lease in peace."""
        await self.say(LeaseClose(code="released"))
        await self.last_word()
        await self.stream.close()


def opening_of(lease: bytes, keybox: bytes, voucher: bytes = b"", signature: bytes = b"") -> LeaseOpen:
    """The first frame of a lease stream; without a voucher the lane is new, or there is none."""
    return LeaseOpen(lease=lease, keybox=keybox, voucher=voucher, signature=signature)


@dataclass
class Customer:
    """A stranger with a key, on the provider's network."""

    mesh: Mesh
    identity: Identity
    network: NetworkFile
    provider: PeerKey

    def call(self, **changes: Any) -> Call:
        """A lawful call for runs of a private model, except for ``changes``."""
        lawful = Call(
            network=self.network.id, nonce=os.urandom(16), kind="infer", model=NO_MODEL, model_bytes=1 << 10, units=10,
            deadline_ms=60_000, tier=0,
        )
        return replace(lawful, **changes)

    async def answer(self, call: Call) -> BidReply | Decline | Refusal:
        """What the provider says to ``call``."""
        stream = await self.mesh.open_stream(self.provider, CALL_PROTOCOL)
        await stream.send(pack(call))
        with trio.fail_after(PATIENCE_S):
            said = unpack(await stream.receive(), BidReply, Decline, Refusal)
        await stream.close()
        return said

    async def quote(self, **changes: Any) -> Quote:
        """The provider's bid for a lawful call except for ``changes``, verified: good for one lease."""
        call = self.call(**changes)
        said = await self.answer(call)
        assert isinstance(said, BidReply), said
        offer = OfferReply(offer=said.offer, keys=said.keys, profile=said.profile, warm=b"")
        return verify_bid(said, Called.of(call), verify_offer(offer, self.network.id, self.provider), 0)

    def lease(self, quote: Quote, model: bytes = ADDER, **changes: Any) -> Signed[Lease]:
        """A lawful lease under ``quote``, except for ``changes``."""
        offer, terms = quote.offer, quote.terms
        lawful = Lease(
            network=self.network.id, nonce=os.urandom(16), requester=self.identity.key, provider=self.provider,
            bid=quote.digest, model=id_of(model), private=True, kind="infer", setup_nanoton=terms.setup_nanoton,
            prices=terms.prices, ceiling_nanoton=0, max_runs=100, duration_s=600, escrow=bytes(32), lane=0,
            run_ms=offer.max_run_ms, tranche_nanoton=0, owner=bytes(32), lane_key=bytes(32), index=0, close_delay_s=0,
            network_tag=0,
        )
        return sign(replace(lawful, **changes), self.identity)

    def keybox(self, quote: Quote, lease: Signed[Lease], keys: LinkKeys) -> Signed[KeyBox]:
        """The link's keys, sealed to the provider for ``lease``."""
        box = seal_keys(
            quote.sealing_key, LeaseId(lease.digest), keys, sender=self.identity.key, receiver=self.provider
        )
        return sign(KeyBox(lease=lease.digest, box=box), self.identity)

    def lying(self, signed: Signed[M], lie: Lie) -> Signed[M]:
        """``signed`` with the lie in it, signed again."""
        value = lie.twist(getattr(signed.message, lie.field))
        return sign(replace(signed.message, **{lie.field: value}), self.identity)

    async def send(self, opening: bytes) -> tuple[PeerStream, bytes]:
        """Send the first frame of a lease stream; the stream and the answer."""
        stream = await self.mesh.open_stream(self.provider, LEASE_PROTOCOL)
        await stream.send(opening)
        with trio.fail_after(PATIENCE_S):
            return stream, await stream.receive()

    async def refused(self, opening: bytes) -> str:
        """The code with which the provider refuses the first frame."""
        stream, answer = await self.send(opening)
        await stream.close()
        assert kind_of(answer) == Refusal.shape.kind, "the proposal was accepted"
        return unpack(answer, Refusal).code

    async def open(self, quote: Quote, lease: Signed[Lease]) -> Deal:
        """Agree on a lease, new or resumed, under fresh link keys."""
        keys = LinkKeys.from_bytes(os.urandom(64))
        opening = opening_of(lease.pack(), self.keybox(quote, lease, keys).pack())
        with trio.fail_after(PATIENCE_S):
            while True:
                stream, answer = await self.send(pack(opening))
                if kind_of(answer) != Refusal.shape.kind:
                    break
                # The link before may still be closing on the other side; anything else is a refusal.
                assert unpack(answer, Refusal).code == "replayed", unpack(answer, Refusal)
        accept = open_signed(answer, LeaseAccept, signer=self.provider).message
        session = session_keys(keys, accept.nonce, LeaseId(lease.digest))
        writer = SealedWriter(session.to_provider)
        return Deal(stream, writer, WorkLink(stream, writer, SealedReader(session.to_requester)), lease, accept)


def stranger() -> Identity:
    """A new identity."""
    return identity_of(os.urandom(32), os.urandom(HPKE_SEED_BYTES), 0)


@asynccontextmanager
async def customer(
    network: NetworkFile, identity: Identity | None = None, *, announces: bool = False
) -> AsyncIterator[Customer]:
    """A stranger (or ``identity``) connected to the founder of ``network``, for the length of the block."""
    identity = identity or stranger()
    settings = MeshSettings(network=network.id, boot_id=os.urandom(8), dht_server=announces)
    async with open_mesh(settings, identity.seed, AddressBook(), MonotonicClock(), get_logger("hostile")) as mesh:
        provider = await mesh.connect(network.bootstraps[0])
        yield Customer(mesh, identity, network, provider)
