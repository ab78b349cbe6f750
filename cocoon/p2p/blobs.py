"""Blobs: a model's files over ``/cocoon/blob/1``, every byte checked against its id.

The manifest must hash to the model id, the list of chunk hashes to the file's
root in the manifest, each chunk to its hash in the list. So a server can
refuse or stall, but not make a requester keep a wrong byte, and chunks may come
from several servers at once.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
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
from cocoon.core.values import Value
from cocoon.p2p.streams import PeerStream
from cocoon.wire.manifest import (
    Manifest,
    ModelFile,
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
T = TypeVar("T")
#: Hears of a holder that is asked no more, and why.
Lost = Callable[[PeerKey, CocoonError], None]


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


async def fetch_model(
    mesh: Streams, holders: Sequence[PeerKey], model: ModelId, sink: Sink, lost: Lost = lambda holder, error: None
) -> Manifest:
    """Fetch what ``sink`` lacks of ``model`` from ``holders``, several at once; call again to resume after an error.

    Args:
        lost: Told of each holder that is asked no more; another one gives what it owed.

    Raises:
        BadChunk: the last holder's manifest, hashes or chunk do not fit the model id; nothing of it reached the sink.
        NotFound: it does not have the model, or there are no holders. Unreachable, StreamClosed: it went, or said
            nothing for ``MODEL_STALL_NS``.
        StorageFull: the sink cannot take it.
    """
    fetch = _Fetch(mesh, model, sink, lost, dict.fromkeys(holders, 0))
    manifest = await fetch.ask(lambda stream: _fetch_manifest(stream, model))
    await sink.begin(manifest)
    for number, file in enumerate(manifest.files):
        await fetch.file(number, file)
    return manifest


@dataclass(slots=True)
class _Fetch:
    """One model on its way from those who hold it."""

    mesh: Streams
    model: ModelId
    sink: Sink
    lost: Lost
    #: Who is still asked, and over how many streams now.
    streams: dict[PeerKey, int]
    #: (first, count) of chunks that nobody was asked for yet.
    runs: deque[tuple[int, int]] = field(default_factory=deque)
    error: CocoonError = field(default_factory=lambda: NotFound("nobody holds this model"))
    sink_failed: bool = False

    async def ask(self, question: Callable[[PeerStream], Awaitable[T]]) -> T:
        """The first answer that holds; whoever gives none is asked no more."""
        for holder in tuple(self.streams):
            async with self._asking(holder):
                return await self._over_stream(holder, question)
        raise self.error

    async def file(self, number: int, file: ModelFile) -> None:
        """Hashes and chunks of one file, over at most ``BLOB_STREAMS`` streams."""
        count = chunk_count(file.size_bytes)
        hashes = await self.ask(lambda stream: _fetch_hashes(stream, self.model, number, count, file.root))
        chunks = _Chunks(number, file.size_bytes, hashes)
        self.runs.extend(_runs(await self.sink.missing(number, hashes)))
        while self.runs:                                # again for what the last of the holders at work left over
            if not self.streams:
                raise self.error
            with single_error():
                async with trio.open_nursery() as nursery:
                    for _ in range(min(BLOB_STREAMS, len(self.runs))):
                        nursery.start_soon(self._work, chunks)

    async def _work(self, chunks: _Chunks) -> None:
        """Keep one stream busy; when its holder fails, one to another holder."""
        while self.runs and self.streams:
            holder = min(self.streams, key=lambda peer: self.streams[peer])
            async with self._asking(holder):
                await self._over_stream(holder, partial(self._take, holder, chunks))

    async def _take(self, holder: PeerKey, chunks: _Chunks, stream: PeerStream) -> None:
        while self.runs and holder in self.streams:
            first, count = self.runs.popleft()
            end = first + count
            try:
                await stream.send(pack(ChunkRequest(model=self.model, file=chunks.file, first=first, count=count)))
                while first < end:
                    data = await _next_chunk(stream, chunks, first)
                    await self._write(chunks.file, first, data)
                    first += 1
            finally:
                if first < end:
                    self.runs.appendleft((first, end - first))

    async def _write(self, file: int, index: int, data: bytes) -> None:
        try:
            await self.sink.write(file, index, data)
        except CocoonError:
            self.sink_failed = True                     # ours: no other holder mends it
            raise

    async def _over_stream(self, holder: PeerKey, talk: Callable[[PeerStream], Awaitable[T]]) -> T:
        stream = await self.mesh.open_stream(holder, BLOB_PROTOCOL)
        try:
            return await talk(stream)
        finally:
            await stream.close()

    @asynccontextmanager
    async def _asking(self, holder: PeerKey) -> AsyncIterator[None]:
        """Count a stream to ``holder``; what it does wrong inside costs it its place."""
        self.streams[holder] += 1
        try:
            yield
        except CocoonError as error:
            if self.sink_failed:
                raise
            self.error = error
            if self.streams.pop(holder, None) is not None:
                self.lost(holder, error)
        else:
            if holder in self.streams:
                self.streams[holder] -= 1


class _Chunks(Value):
    """What the chunks of one file must be: its number, size, and hashes that were checked against its root."""

    file: int
    size_bytes: int
    hashes: list[bytes]


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


async def _next_chunk(stream: PeerStream, chunks: _Chunks, index: int) -> bytes:
    chunk = await _reply(stream, Chunk, _CHUNK_FRAME_BYTES)
    if (chunk.file, chunk.index) != (chunks.file, index):
        raise OutOfOrder(f"chunk {chunk.index} of file {chunk.file} came where {index} was due")
    check_chunk(chunk, chunks.size_bytes, chunks.hashes)
    return chunk.data


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
