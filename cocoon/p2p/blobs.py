"""Blobs: a model's files over ``/cocoon/blob/1``, every byte checked against its id.

The manifest must hash to the model id, the list of chunk hashes to the file's
root in the manifest, each chunk to its hash in the list. So a server can
refuse or stall, but not make a requester keep a wrong byte.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-9.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol, TypeVar

import trio

from cocoon.core.errors import BadChunk, CocoonError, NotFound, OutOfOrder, Unreachable, from_peer
from cocoon.core.groups import single_error
from cocoon.core.ids import ModelId, PeerKey
from cocoon.core.limits import (
    BLOB_CHUNKS_ASKED,
    BLOB_STREAMS,
    CHUNK_BYTES,
    CONTROL_FRAME_BYTES,
    MODEL_STALL_NS,
)
from cocoon.core.units import KIB, SECOND_NS
from cocoon.p2p.streams import PeerStream
from cocoon.wire.manifest import (
    Manifest,
    chunk_count,
    chunk_hash,
    file_root,
    model_id,
    unpack_manifest,
)
from cocoon.wire.messages import (
    Chunk,
    ChunkHashes,
    ChunkRequest,
    ManifestReply,
    ManifestRequest,
    Refusal,
    refusal,
)
from cocoon.wire.schema import Message, pack, unpack

BLOB_PROTOCOL = "/cocoon/blob/1"
_CHUNK_FRAME_BYTES = CHUNK_BYTES + KIB
M = TypeVar("M", bound=Message)


class Source(Protocol):
    """Where served models come from. Every method raises ``NotFound`` for what it does not have."""

    async def manifest(self, model: ModelId) -> bytes:
        """The packed manifest."""

    async def hashes(self, model: ModelId, file: int) -> list[bytes]:
        """BLAKE3 of each chunk of a file, 32 bytes each."""

    async def read(self, model: ModelId, file: int, index: int) -> bytes:
        """One chunk."""


class Sink(Protocol):
    """Where a fetched model goes. Called only with verified bytes, each chunk at most once."""

    async def begin(self, manifest: Manifest) -> None:
        """The verified manifest, before any chunk."""

    async def missing(self, file: int, hashes: list[bytes]) -> list[int]:
        """Indices of the chunks still to be fetched, ascending; what an earlier attempt wrote is left out."""

    async def write(self, file: int, index: int, data: bytes) -> None:
        """One verified chunk."""


class Streams(Protocol):
    """What a fetch needs of the mesh."""

    async def open_stream(self, peer: PeerKey, protocol: str) -> PeerStream: ...


class Serves(Protocol):
    """What serving needs of the mesh."""

    def serve(self, protocol: str, handler: Callable[[PeerStream], Awaitable[None]]) -> None: ...


# --- serving -------------------------------------------------------------------


def serve_blobs(mesh: Serves, source: Source) -> None:
    """Serve the models of ``source`` to every peer of the network, ``BLOB_STREAMS`` reads at a time."""
    limiter = trio.CapacityLimiter(BLOB_STREAMS)

    async def handler(stream: PeerStream) -> None:
        while True:
            await _answer(stream, source, limiter)

    mesh.serve(BLOB_PROTOCOL, handler)


async def _answer(stream: PeerStream, source: Source, limiter: trio.CapacityLimiter) -> None:
    request = await _request(stream)
    try:
        if isinstance(request, ManifestRequest):
            packed = await source.manifest(ModelId(request.model))
            await stream.send(pack(ManifestReply(manifest=packed)))
        else:
            await _send_chunks(stream, source, request, limiter)
    except NotFound as error:
        await stream.send(pack(refusal(error)))


async def _request(stream: PeerStream) -> ManifestRequest | ChunkRequest:
    with trio.move_on_after(MODEL_STALL_NS / SECOND_NS):
        return unpack(await stream.receive(CONTROL_FRAME_BYTES), ManifestRequest, ChunkRequest)
    raise Unreachable("a blob stream was idle for too long")


async def _send_chunks(
    stream: PeerStream, source: Source, request: ChunkRequest, limiter: trio.CapacityLimiter
) -> None:
    """Count 0 asks for the hashes of the whole file; otherwise the chunks follow, in order."""
    model = ModelId(request.model)
    hashes = await source.hashes(model, request.file)
    if request.count == 0:
        await stream.send(pack(ChunkHashes(file=request.file, hashes=b"".join(hashes))))
        return
    if request.count > BLOB_CHUNKS_ASKED or request.first + request.count > len(hashes):
        raise NotFound(f"chunks {request.first} to {request.first + request.count - 1} of {len(hashes)}")
    for index in range(request.first, request.first + request.count):
        async with limiter:             # not around the send: a slow reader must not hold up the others
            data = await source.read(model, request.file, index)
        await stream.send(pack(Chunk(file=request.file, index=index, data=data)))


# --- fetching ------------------------------------------------------------------


async def fetch_model(mesh: Streams, peer: PeerKey, model: ModelId, sink: Sink) -> Manifest:
    """Fetch what ``sink`` lacks of ``model`` from ``peer``; call again to resume after an error.

    Raises:
        BadChunk: manifest, hash list or chunk do not fit the model id; nothing of it reached the sink.
        NotFound: the peer does not have it. Unreachable, StreamClosed: no answer for ``MODEL_STALL_NS``.
    """
    async with AsyncExitStack() as stack:
        stream = await mesh.open_stream(peer, BLOB_PROTOCOL)
        stack.push_async_callback(stream.close)
        manifest = await _fetch_manifest(stream, model)
        await sink.begin(manifest)
        for number, file in enumerate(manifest.files):
            hashes = await _fetch_hashes(stream, model, number, chunk_count(file.size_bytes), file.root)
            wanted = await sink.missing(number, hashes)
            await _fetch_chunks(mesh, peer, model, number, file.size_bytes, hashes, wanted, sink)
    return manifest


async def fetch_manifest(mesh: Streams, peer: PeerKey, model: ModelId) -> Manifest:
    """Ask ``peer`` what ``model`` consists of; errors as for ``fetch_model``."""
    stream = await mesh.open_stream(peer, BLOB_PROTOCOL)
    try:
        return await _fetch_manifest(stream, model)
    finally:
        await stream.close()


async def _fetch_manifest(stream: PeerStream, model: ModelId) -> Manifest:
    reply = await _ask(stream, ManifestRequest(model=model), ManifestReply, CONTROL_FRAME_BYTES)
    manifest = unpack_manifest(reply.manifest)
    if model_id(manifest) != model:
        raise BadChunk(f"the manifest is not that of model {model.hex()[:16]}")
    return manifest


async def _fetch_hashes(
    stream: PeerStream, model: ModelId, file: int, count: int, root: bytes
) -> list[bytes]:
    request = ChunkRequest(model=model, file=file, first=0, count=0)
    reply = await _ask(stream, request, ChunkHashes, CONTROL_FRAME_BYTES)
    hashes = [reply.hashes[at : at + 32] for at in range(0, len(reply.hashes), 32)]
    if reply.file != file or len(hashes) != count or file_root(hashes) != root:
        raise BadChunk(f"the hashes of file {file} do not fit the manifest")
    return hashes


async def _fetch_chunks(
    mesh: Streams, peer: PeerKey, model: ModelId, file: int, size_bytes: int,
    hashes: list[bytes], wanted: list[int], sink: Sink,
) -> None:
    """Fetch ``wanted`` over at most ``BLOB_STREAMS`` streams, each asking for runs of neighbours."""
    runs = list(_runs(wanted))

    async def work() -> None:
        stream = await mesh.open_stream(peer, BLOB_PROTOCOL)
        try:
            while runs:
                first, count = runs.pop(0)
                await _fetch_run(stream, ChunkRequest(model=model, file=file, first=first, count=count),
                                 size_bytes, hashes, sink)
        finally:
            await stream.close()

    with single_error():
        async with trio.open_nursery() as nursery:
            for _ in range(min(BLOB_STREAMS, len(runs))):
                nursery.start_soon(work)


async def _fetch_run(
    stream: PeerStream, request: ChunkRequest, size_bytes: int, hashes: list[bytes], sink: Sink
) -> None:
    await stream.send(pack(request))
    for index in range(request.first, request.first + request.count):
        chunk = await _reply(stream, Chunk, _CHUNK_FRAME_BYTES)
        if (chunk.file, chunk.index) != (request.file, index):
            raise OutOfOrder(f"chunk {chunk.index} of file {chunk.file} came where {index} was due")
        check_chunk(chunk, size_bytes, hashes)
        await sink.write(chunk.file, index, chunk.data)


def check_chunk(chunk: Chunk, size_bytes: int, hashes: list[bytes]) -> None:
    """Refuse a chunk that is not the one of the manifest.

    Args:
        size_bytes: Of the whole file; every chunk but the last has ``CHUNK_BYTES``.
        hashes: Of the file's chunks, already checked against its root.

    Raises:
        BadChunk: wrong length or wrong bytes.
    """
    expected = min(CHUNK_BYTES, size_bytes - chunk.index * CHUNK_BYTES)
    if len(chunk.data) != expected or chunk_hash(chunk.data) != hashes[chunk.index]:
        raise BadChunk(f"chunk {chunk.index} of file {chunk.file} does not fit its hash")


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """(first, count) of neighbours, at most ``BLOB_CHUNKS_ASKED`` each."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and sum(runs[-1]) == index and runs[-1][1] < BLOB_CHUNKS_ASKED:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


async def _ask(stream: PeerStream, request: Message, expected: type[M], max_bytes: int) -> M:
    await stream.send(pack(request))
    return await _reply(stream, expected, max_bytes)


async def _reply(stream: PeerStream, expected: type[M], max_bytes: int) -> M:
    with trio.move_on_after(MODEL_STALL_NS / SECOND_NS):
        reply = unpack(await stream.receive(max_bytes), expected, Refusal)
        if isinstance(reply, Refusal):
            raise _refused(reply)
        return reply
    raise Unreachable(f"the peer sent nothing for {MODEL_STALL_NS // SECOND_NS} s")


def _refused(reply: Refusal) -> CocoonError:
    return from_peer(reply.code, reply.text)
