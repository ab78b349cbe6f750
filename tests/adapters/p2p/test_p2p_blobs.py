"""Blob transfer over a real stream, with honest, forgetful and lying servers."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import trio

from cocoon.core.errors import BadChunk, Malformed, NotFound, OutOfOrder, StorageFull, StreamClosed, Unreachable
from cocoon.core.limits import BLOB_CHUNKS_ASKED, CHUNK_BYTES
from cocoon.core.values import replace
from cocoon.p2p import blobs
from cocoon.p2p.blobs import BLOB_PROTOCOL, fetch_model, serve_blobs
from cocoon.wire.manifest import (
    Manifest,
    ModelFile,
    chunk_hash,
    file_root,
    implicit,
    model_id,
    pack_manifest,
)
from cocoon.wire.messages import Chunk, ChunkRequest
from cocoon.wire.schema import pack
from tests.adapters.p2p.p2p_hosts import PATIENCE_S, mesh


def cut(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


@dataclass
class Model:
    """A model in memory that serves itself truthfully; tests replace one answer."""

    files: list[bytes]
    served: int = 0

    @property
    def manifest_object(self) -> Manifest:
        if len(self.files) == 1:
            return implicit(len(self.files[0]), [chunk_hash(c) for c in cut(self.files[0])])
        rows = tuple(
            ModelFile(f"part{n}.bin", len(d), file_root([chunk_hash(c) for c in cut(d)]))
            for n, d in enumerate(self.files)
        )
        return Manifest(format="onnx", files=rows)

    @property
    def id(self):
        return model_id(self.manifest_object)

    async def manifest(self, model):
        if model != self.id:
            raise NotFound("no such model")
        return pack_manifest(self.manifest_object)

    async def hashes(self, model, file):
        return [chunk_hash(c) for c in cut(self.files[file])]

    async def read(self, model, file, index):
        self.served += 1
        return cut(self.files[file])[index]


@dataclass
class Memory:
    """A sink that remembers; ``full`` stops it after so many chunks."""

    chunks: dict[tuple[int, int], bytes] = field(default_factory=dict)
    hashes: dict[int, list[bytes]] = field(default_factory=dict)
    begun: int = 0
    full: int | None = None

    async def begin(self, manifest):
        self.begun += 1

    async def missing(self, file, hashes):
        self.hashes[file] = hashes
        return [n for n in range(len(hashes)) if (file, n) not in self.chunks]

    async def write(self, file, index, data):
        if self.full is not None and len(self.chunks) >= self.full:
            raise StreamClosed("the sink broke off")
        assert (file, index) not in self.chunks
        self.chunks[file, index] = data

    def file(self, number):
        return b"".join(d for (f, _), d in sorted(self.chunks.items()) if f == number)


async def fetch(source, sink, wanted=None):
    manifest, _ = await fetch_from([source], sink, wanted or source.id)
    return manifest


async def fetch_from(sources, sink, wanted):
    """Fetch from a holder for each source; the manifest, and (number of the source, error) of each that was lost."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(mesh())
        holders, lost = [], []
        for source in sources:
            server = await stack.enter_async_context(mesh())
            serve_blobs(server, source)
            await client.connect(server.addresses()[0])
            holders.append(server.peer)
        with trio.fail_after(PATIENCE_S):
            manifest = await fetch_model(
                client, holders, wanted, sink, lambda holder, error: lost.append((holders.index(holder), error))
            )
        return manifest, lost


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 77])
async def test_a_model_arrives_whole(size):
    model, sink = Model([os.urandom(size)]), Memory()
    manifest = await fetch(model, sink)
    assert manifest == model.manifest_object and sink.file(0) == model.files[0]


async def test_a_model_of_several_files_arrives_whole():
    model, sink = Model([os.urandom(3 * CHUNK_BYTES + 5), b"", os.urandom(99)]), Memory()
    await fetch(model, sink)
    assert [sink.file(n) for n in range(3)] == model.files


async def test_more_chunks_than_one_request_may_ask_for_arrive_over_several_streams():
    model, sink = Model([bytes((2 * BLOB_CHUNKS_ASKED + 3) * CHUNK_BYTES)]), Memory()
    await fetch(model, sink)
    assert len(sink.chunks) == 2 * BLOB_CHUNKS_ASKED + 3


async def test_a_broken_transfer_is_resumed_where_it_stopped():
    model, sink = Model([os.urandom(6 * CHUNK_BYTES)]), Memory(full=2)
    with pytest.raises(StreamClosed):
        await fetch(model, sink)
    assert len(sink.chunks) == 2
    model.served, sink.full = 0, None
    await fetch(model, sink)
    assert model.served == 4 and sink.file(0) == model.files[0]


async def test_a_model_that_the_peer_does_not_have_is_not_found():
    with pytest.raises(NotFound):
        await fetch(Model([b"x"]), Memory(), wanted=bytes(32))


async def test_a_range_outside_the_file_is_refused_and_the_stream_goes_on():
    model = Model([os.urandom(CHUNK_BYTES + 1)])
    async with mesh() as server, mesh() as client:
        serve_blobs(server, model)
        await client.connect(server.addresses()[0])
        stream = await client.open_stream(server.peer, BLOB_PROTOCOL)
        for first, count in ((2, 1), (0, 3), (0, BLOB_CHUNKS_ASKED + 1)):
            request = ChunkRequest(model=model.id, file=0, first=first, count=count)
            with trio.fail_after(PATIENCE_S), pytest.raises(NotFound):
                await blobs._ask(stream, request, Chunk, 1 << 21)
        good = ChunkRequest(model=model.id, file=0, first=1, count=1)
        assert (await blobs._ask(stream, good, Chunk, 1 << 21)).data == model.files[0][CHUNK_BYTES:]


# --- lying servers --------------------------------------------------------------


class LiesAboutManifest(Model):
    async def manifest(self, model):
        return pack_manifest(Model([b"another"]).manifest_object)


class LiesAboutHashes(Model):
    async def hashes(self, model, file):
        true = await super().hashes(model, file)
        return [bytes(32), *true[1:]]


class LeavesOutAHash(Model):
    async def hashes(self, model, file):
        return (await super().hashes(model, file))[:-1]


class FlipsOneBit(Model):
    async def read(self, model, file, index):
        data = bytearray(await super().read(model, file, index))
        if index == 1:
            data[777] ^= 1
        return bytes(data)


class CutsAChunk(Model):
    async def read(self, model, file, index):
        return (await super().read(model, file, index))[:-1]


class SwapsChunks(Model):
    async def read(self, model, file, index):
        return await super().read(model, file, 1 - index)


class ServesAnotherFile(Model):
    """Hashes and chunks agree with each other, and not with the manifest."""

    async def hashes(self, model, file):
        return [chunk_hash(bytes(len(c))) for c in cut(self.files[file])]

    async def read(self, model, file, index):
        return bytes(len(cut(self.files[file])[index]))


class ServesAnotherModel(Model):
    """Everything agrees, and is not what was asked for."""

    def __init__(self, files):
        super().__init__([bytes(len(data)) for data in files])

    async def manifest(self, model):
        return pack_manifest(self.manifest_object)


LIARS = [
    ServesAnotherModel,
    ServesAnotherFile,
    LiesAboutManifest,
    LiesAboutHashes,
    LeavesOutAHash,
    FlipsOneBit,
    CutsAChunk,
    SwapsChunks,
]


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
async def test_a_lying_server_is_caught_and_nothing_false_reaches_the_sink(liar):
    honest, sink = Model([os.urandom(2 * CHUNK_BYTES)]), Memory()
    with pytest.raises(BadChunk):
        await fetch(liar(honest.files), sink, wanted=honest.id)
    for (file, index), data in sink.chunks.items():
        assert data == cut(honest.files[file])[index]


# --- several holders ------------------------------------------------------------


class LeavesInTheMiddle(Model):
    """Gives three chunks, and breaks off."""

    async def read(self, model, file, index):
        if self.served == 3:
            raise StreamClosed("gone")
        return await super().read(model, file, index)


class FlipsEveryBit(Model):
    async def read(self, model, file, index):
        self.served += 1
        return bytes(255 - byte for byte in cut(self.files[file])[index])


MANY = (3 * BLOB_CHUNKS_ASKED + 5) * CHUNK_BYTES


async def test_chunks_come_from_several_holders_at_once():
    files = [os.urandom(MANY)]
    sources, sink = [Model(files) for _ in range(3)], Memory()
    _, lost = await fetch_from(sources, sink, sources[0].id)
    assert sink.file(0) == files[0] and lost == []
    assert all(source.served for source in sources)
    assert sum(source.served for source in sources) == len(sink.chunks), "no chunk is asked for twice"


async def test_a_holder_that_leaves_and_one_that_lies_are_replaced_by_the_honest_one():
    """The last one needs to be alive and honest, no more."""
    files = [os.urandom(MANY)]
    gone, liar, honest, sink = LeavesInTheMiddle(files), FlipsEveryBit(files), Model(files), Memory()
    _, lost = await fetch_from([gone, liar, honest], sink, honest.id)
    assert sink.file(0) == files[0]
    assert sorted((number, error.code) for number, error in lost) == [(0, "stream_closed"), (1, "bad_chunk")]


async def test_a_fetch_fails_with_the_last_holder_and_keeps_what_was_true():
    files = [os.urandom(6 * CHUNK_BYTES)]
    sources, sink = [LeavesInTheMiddle(files), FlipsEveryBit(files)], Memory()
    with pytest.raises((StreamClosed, BadChunk)):
        await fetch_from(sources, sink, Model(files).id)
    assert all(data == cut(files[0])[index] for (_, index), data in sink.chunks.items())


async def test_nobody_holds_what_nobody_is_asked_for():
    with pytest.raises(NotFound):
        await fetch_from([], Memory(), bytes(32))


async def test_a_full_disk_is_no_holder_s_fault():
    """Whoever cannot write asks nobody else for what he cannot write either."""

    class Full(Memory):
        async def write(self, file, index, data):
            raise StorageFull("no room")

    files = [os.urandom(2 * CHUNK_BYTES)]
    sources = [Model(files), Model(files)]
    with pytest.raises(StorageFull):
        await fetch_from(sources, Full(), sources[0].id)
    assert min(source.served for source in sources) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda chunk: replace(chunk, index=chunk.index + 1), OutOfOrder),
        (lambda chunk: replace(chunk, file=1), OutOfOrder),
        (lambda chunk: None, Malformed),
    ],
    ids=["another index", "another file", "nonsense"],
)
async def test_a_reply_that_was_not_asked_for_is_refused(monkeypatch, change, error):
    true_pack = pack

    def lying_pack(message):
        if not isinstance(message, Chunk):
            return true_pack(message)
        changed = change(message)
        return b"\xc1 nonsense" if changed is None else true_pack(changed)

    monkeypatch.setattr(blobs, "pack", lying_pack)
    model, sink = Model([os.urandom(2 * CHUNK_BYTES)]), Memory()
    with pytest.raises(error):
        await fetch(model, sink)
    assert sink.chunks == {}


async def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(blobs, "MODEL_STALL_NS", 50_000_000)

    async def mute(stream):
        await trio.sleep_forever()

    async with mesh() as server, mesh() as client:
        server.serve(BLOB_PROTOCOL, mute)
        await client.connect(server.addresses()[0])
        with trio.fail_after(PATIENCE_S), pytest.raises(Unreachable):
            await fetch_model(client, [server.peer], bytes(32), Memory())
