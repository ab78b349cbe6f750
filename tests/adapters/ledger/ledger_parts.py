"""A real devnet, the ledger's real parts over it, and a man in the middle who speaks ADNL with a key of his own."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from nacl.bindings import (
    crypto_scalarmult,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_keypair,
)

from cocoon.config.network import ChainFacts, Liteserver, format_key
from cocoon.devnet import tl
from cocoon.devnet.adnl import HANDSHAKE_BYTES, LENGTH_BYTES, ServerKey, Session
from cocoon.ledger.chain import Chain, open_chain
from cocoon.ledger.service import Ledger, open_ledger
from cocoon.ledger.signer.service import Caps, open_signer
from cocoon.node.clock import MonotonicClock, wall_ns
from cocoon.store.service import Journal, open_journal
from tests.adapters.devnet.devnet_process import Devnet

TON = 10**9
CAPS = Caps(10_000 * TON, 10_000 * TON)
PATIENCE_S = 60


def facts_of(devnet: Devnet) -> ChainFacts:
    """What a network file would say of this devnet."""
    return ChainFacts(devnet.genesis, 60, 60, False, devnet.faucet.hash_part)


def server_of(devnet: Devnet) -> str:
    return f"{devnet.host}:{devnet.port}:{devnet.key}"


@asynccontextmanager
async def chain_of(devnet: Devnet, *servers: str, genesis: bytes | None = None) -> AsyncIterator[Chain]:
    """A chain client; ``servers`` replace the devnet's own."""
    facts = facts_of(devnet)
    if genesis is not None:
        facts = ChainFacts(genesis, 60, 60)
    with trio.fail_after(PATIENCE_S):
        async with open_chain(facts, servers or (server_of(devnet),), MonotonicClock()) as chain:
            yield chain


@dataclass
class Peer:
    """The ledger's parts in one home."""

    ledger: Ledger
    chain: Chain
    journal: Journal


@asynccontextmanager
async def peer_of(devnet: Devnet, home: Path, *servers: str, caps: Caps = CAPS) -> AsyncIterator[Peer]:
    """A running ledger with journal, signer and chain of its own."""
    clock = MonotonicClock()
    home.mkdir(mode=0o700, exist_ok=True)
    async with (
        chain_of(devnet, *servers) as chain,
        open_journal(home / "journal.db", wall_ns) as journal,
        open_signer(home, caps) as signer,
        open_ledger(facts_of(devnet), chain, signer, journal, clock) as ledger,
    ):
        yield Peer(ledger, chain, journal)


#: Changes an answer (its TL name and values) to a question of that name, or swallows the question (None).
Spoil = Callable[[str, str, dict[str, Any]], tuple[str, dict[str, Any]] | None]


def honest(question: str, name: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name, values


@dataclass
class Middleman:
    """A liteserver with its own key that knows only what another one tells, and may lie."""

    upstream: Devnet
    spoil: Spoil = honest
    #: Answers a question himself instead of asking.
    answer: Callable[[str, dict[str, Any]], bytes | None] = lambda name, values: None
    asked: list[str] = field(default_factory=list)
    port: int = 0
    key: ServerKey = field(default_factory=lambda: ServerKey.from_seed(os.urandom(32)))

    @property
    def text(self) -> str:
        return f"127.0.0.1:{self.port}:{self.key.text}"

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(lambda task_status: trio.serve_tcp(
                self._client, 0, host="127.0.0.1", task_status=task_status
            ))
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    async def _client(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                session = Session(self.key, await exactly(stream, HANDSHAKE_BYTES), 1 << 20)
                await stream.send_all(session.seal(b""))
                await self._talk(stream, session)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # one side is gone, so the other is told by a closed connection

    async def _talk(self, stream: trio.SocketStream, session: Session) -> None:
        turn = trio.Lock()

        async def reply(payload: bytes) -> None:
            name, values = tl.decode_whole(payload)
            if name == "tcp.ping":
                said = tl.encode("tcp.pong", random_id=values["random_id"])
            else:
                answer = await self._ask(values["query"])
                said = tl.encode("adnl.message.answer", query_id=values["query_id"], answer=answer)
            async with turn:
                await stream.send_all(session.seal(said))

        async with trio.open_nursery() as nursery:
            try:
                while True:
                    length = session.length(await exactly(stream, LENGTH_BYTES))
                    nursery.start_soon(reply, session.open(await exactly(stream, length)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                nursery.cancel_scope.cancel()

    async def _ask(self, query: bytes) -> bytes:
        _, outer = tl.decode_whole(query)
        name, values, _ = tl.decode(outer["data"])
        self.asked.append(name)
        if (own := self.answer(name, values)) is not None:
            return own
        async with await _Upstream.connect(self.upstream) as upstream:  # one each: some wait for a block
            answered, found = tl.decode_whole(await upstream.ask(query))
        spoiled = self.spoil(name, answered, found)
        if spoiled is None:
            await trio.sleep_forever()
        answered, found = spoiled
        return tl.encode(answered, **found)


@asynccontextmanager
async def middleman_of(upstream: Devnet, **how: Any) -> AsyncIterator[Middleman]:
    """A running man in the middle."""
    middleman = Middleman(upstream, **how)
    async with trio.open_nursery() as nursery:
        await nursery.start(middleman.serve)
        yield middleman
        nursery.cancel_scope.cancel()


class _Upstream:
    """An ADNL client, as little of it as a middleman needs."""

    def __init__(self, stream: trio.SocketStream, chosen: bytes) -> None:
        self._stream = stream
        self._in = Cipher(AES(chosen[0:32]), CTR(chosen[64:80])).encryptor()
        self._out = Cipher(AES(chosen[32:64]), CTR(chosen[80:96])).encryptor()

    @classmethod
    async def connect(cls, devnet: Devnet) -> _Upstream:
        where = Liteserver(devnet.host, devnet.port, base64.b64decode(devnet.key))
        assert format_key(where.key) == devnet.key
        stream = await trio.open_tcp_stream(where.host, where.port)
        public, secret = crypto_sign_keypair()
        shared = crypto_scalarmult(
            crypto_sign_ed25519_sk_to_curve25519(secret), crypto_sign_ed25519_pk_to_curve25519(where.key)
        )
        chosen = os.urandom(160)
        digest = hashlib.sha256(chosen).digest()
        sealing = Cipher(AES(shared[:16] + digest[16:32]), CTR(digest[:4] + shared[20:32])).encryptor()
        name = hashlib.sha256(bytes.fromhex("c6b41348") + where.key).digest()
        await stream.send_all(name + public + digest + sealing.update(chosen))
        made = cls(stream, chosen)
        await made._receive()
        return made

    async def ask(self, query: bytes) -> bytes:
        number = int.from_bytes(os.urandom(8), "big").to_bytes(32, "big")
        payload = tl.encode("adnl.message.query", query_id=number, query=query)
        body = os.urandom(32) + payload
        packet = (len(body) + 32).to_bytes(4, "little") + body + hashlib.sha256(body).digest()
        await self._stream.send_all(self._out.update(packet))
        name, values = tl.decode_whole(await self._receive())
        assert name == "adnl.message.answer"
        return values["answer"]

    async def _receive(self) -> bytes:
        length = int.from_bytes(self._in.update(await exactly(self._stream, 4)), "little")
        return self._in.update(await exactly(self._stream, length))[32:-32]

    async def __aenter__(self) -> _Upstream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()


async def exactly(stream: trio.SocketStream, count: int) -> bytes:
    """The next ``count`` bytes.

    Raises:
        BrokenResourceError: the other side closed.
    """
    got = bytearray()
    while len(got) < count:
        if not (data := await stream.receive_some(count - len(got))):
            raise trio.BrokenResourceError("the connection ended")
        got += data
    return bytes(got)
