"""Answers are bounded: each alone, and all that no client has taken yet."""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from contextlib import asynccontextmanager, nullcontext

import pytest
import trio
from pytoniq import LiteClient
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from cocoon.core.errors import LimitExceeded
from cocoon.core.limits import DEVNET_QUERIES
from cocoon.core.units import KIB
from cocoon.devnet import tl
from cocoon.devnet.adnl import ServerKey
from cocoon.devnet.clients import Hall
from cocoon.devnet.queries import Queries
from tests.adapters.devnet.test_chain import BORN_S, net_in

KEY = ServerKey.from_seed(b"\x07" * 32)
DATA = bytes(100 * KIB)
ZERO = {"workchain": 0, "shard": 0, "seqno": 1, "root_hash": bytes(32), "file_hash": bytes(32)}
ANSWER = tl.encode("liteServer.blockData", id=ZERO, data=DATA)
#: Room for this many of them.
FITTING = 3


class Client:
    """A lawful client on a stream in memory, which takes nothing that is not read."""

    def __init__(self, stream) -> None:
        self._lawful = LiteClient("127.0.0.1", 1, KEY.text)
        self._stream = stream

    async def greeted(self) -> None:
        await self._stream.send_all(self._lawful.handshake())
        assert await self._payload() == b""

    async def ask(self) -> None:
        asked = tl.encode("adnl.message.query", query_id=os.urandom(32), query=b"anything")
        body = os.urandom(32) + asked
        packet = struct.pack("<I", len(body) + 32) + body + hashlib.sha256(body).digest()
        await self._stream.send_all(self._lawful.encrypt(packet))
        await wait_all_tasks_blocked()

    async def answer(self) -> object:
        """Name of the next answer, or its error's code."""
        _, values = tl.decode_whole(await self._payload())
        name, told = tl.decode_whole(values["answer"])
        return told.get("code", name)

    async def _payload(self) -> bytes:
        length = struct.unpack("<I", self._lawful.decrypt(await self._exactly(4)))[0]
        return self._lawful.decrypt(await self._exactly(length))[32:-32]

    async def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += await self._stream.receive_some(length - len(data))
        return data


@asynccontextmanager
async def served():
    """Two clients of a hall whose every answer is ``ANSWER``."""

    async def ask(query: bytes) -> bytes:
        return ANSWER

    hall = Hall(KEY, ask, nullcontext)
    async with trio.open_nursery() as nursery:
        clients = []
        for _ in range(2):
            ours, theirs = lockstep_stream_pair()
            nursery.start_soon(hall.serve, theirs)
            clients.append(Client(ours))
            await clients[-1].greeted()
        yield clients
        nursery.cancel_scope.cancel()


async def test_what_nobody_takes_is_bounded_over_all_clients_and_beyond_it_they_hear_429(monkeypatch):
    monkeypatch.setattr("cocoon.devnet.clients.DEVNET_UNSENT_BYTES", FITTING * (len(ANSWER) + KIB))
    async with served() as (lazy, other):
        for _ in range(DEVNET_QUERIES):
            await lazy.ask()
        await other.ask()
        assert await other.answer() == 429
        told = Counter([await lazy.answer() for _ in range(DEVNET_QUERIES)])
        assert told == {"liteServer.blockData": FITTING, 429: DEVNET_QUERIES - FITTING}
        await other.ask()
        assert await other.answer() == "liteServer.blockData"


async def test_a_client_that_goes_away_gives_back_the_room_of_what_it_did_not_take(monkeypatch):
    monkeypatch.setattr("cocoon.devnet.clients.DEVNET_UNSENT_BYTES", FITTING * (len(ANSWER) + KIB))
    async with served() as (lazy, other):
        for _ in range(FITTING):
            await lazy.ask()
        await lazy._stream.aclose()
        await wait_all_tasks_blocked()
        await other.ask()
        assert await other.answer() == "liteServer.blockData"


class Large(Queries):
    """The real answers, but for one question."""

    def _time(self, values):
        return "liteServer.blockData", {"id": ZERO, "data": bytes(1 << 24)}


def test_an_answer_too_large_for_tl_is_refused_like_any_that_is_too_large(tmp_path):
    with net_in(tmp_path / "chain") as net:
        with pytest.raises(LimitExceeded, match="ask for less"):
            Large(net.chain, net.store, lambda: BORN_S).answer("liteServer.getTime", {})
