"""Clients that lie, stall and flood cost their own connection; a good one beside them is served."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import struct
from contextlib import ExitStack

import pytest
from pytoniq import LiteClient

from cocoon.core.limits import DEVNET_CLIENTS, DEVNET_HANDSHAKES, DEVNET_QUERIES, DEVNET_QUERY_BYTES
from cocoon.devnet import tl
from tests.adapters.devnet.devnet_process import PATIENCE_S, Devnet, client_of, running


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    with running(tmp_path_factory.mktemp("devnet") / "state") as running_devnet:
        yield running_devnet


class Raw:
    """A client that says whatever bytes it likes behind a lawful handshake."""

    def __init__(self, devnet: Devnet) -> None:
        self._lawful = LiteClient(devnet.host, devnet.port, devnet.key)
        self.socket = socket.create_connection((devnet.host, devnet.port), timeout=PATIENCE_S)
        self.socket.sendall(self._lawful.handshake())

    def send(self, data: bytes) -> None:
        """Encrypt and send; what lies in ``data`` may be anything."""
        self.socket.sendall(self._lawful.encrypt(data))

    def packet(self, payload: bytes) -> bytes:
        """A packet with lawful length and check."""
        body = os.urandom(32) + payload
        return struct.pack("<I", len(body) + 32) + body + hashlib.sha256(body).digest()

    def ask(self, query: bytes) -> None:
        """Send a query in its envelopes."""
        asked = tl.encode("liteServer.query", data=query)
        self.send(self.packet(tl.encode("adnl.message.query", query_id=os.urandom(32), query=asked)))

    def answer(self) -> tuple[str, dict]:
        """The next packet that is not the greeting."""
        while not (payload := self.payload()):
            pass
        _, values = tl.decode_whole(payload)
        return tl.decode_whole(values["answer"])

    def payload(self) -> bytes:
        """Of the next packet; that of the greeting is empty."""
        length = struct.unpack("<I", self._lawful.decrypt(self._exactly(4)))[0]
        return self._lawful.decrypt(self._exactly(length))[32:-32]

    def has_more(self) -> bool:
        """Whether anything arrived that was not read."""
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(PATIENCE_S)

    def is_closed(self) -> bool:
        """Wait until the server hangs up."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionError:
            pass
        return True

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            assert piece, "the server hung up"
            data += piece
        return data

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def serves(devnet: Devnet) -> bool:
    """Whether a newcomer is served."""

    async def run():
        async with client_of(devnet) as client:
            return (await client.get_time())["now"] > 0

    return asyncio.run(run())


BAD_PACKETS = {
    "a length of 4 GiB": struct.pack("<I", 0xFFFFFFFF),
    "a length above the bound": struct.pack("<I", DEVNET_QUERY_BYTES + 65),
    "a length without room for its checks": struct.pack("<I", 63),
    "a wrong check": struct.pack("<I", 100) + bytes(100),
}


@pytest.mark.parametrize("data", BAD_PACKETS.values(), ids=BAD_PACKETS.keys())
def test_a_broken_packet_ends_its_connection_only(devnet, data):
    with Raw(devnet) as bad:
        bad.send(data)
        assert bad.is_closed()
    assert serves(devnet)


@pytest.mark.parametrize("payload", [b"", b"abc", bytes(64), os.urandom(1000)], ids=["none", "short", "zeros", "noise"])
def test_a_payload_that_no_client_sends_ends_its_connection_only(devnet, payload):
    with Raw(devnet) as bad:
        bad.send(bad.packet(payload))
        assert bad.is_closed()
    assert serves(devnet)


def test_a_frame_that_is_cut_off_waits_for_nobody(devnet):
    with Raw(devnet) as bad:
        bad.send(struct.pack("<I", 1000) + bytes(10))
        assert serves(devnet)


@pytest.mark.parametrize("handshake", [bytes(256), os.urandom(256)], ids=["zeros", "noise"])
def test_a_handshake_for_another_server_is_hung_up_on(devnet, handshake):
    with socket.create_connection((devnet.host, devnet.port), timeout=PATIENCE_S) as bad:
        bad.sendall(handshake)
        assert bad.recv(1) == b""
    assert serves(devnet)


def test_a_handshake_with_a_changed_byte_is_hung_up_on(devnet):
    lawful = bytearray(LiteClient(devnet.host, devnet.port, devnet.key).handshake())
    lawful[-1] ^= 1
    with socket.create_connection((devnet.host, devnet.port), timeout=PATIENCE_S) as bad:
        bad.sendall(lawful)
        assert bad.recv(1) == b""


def test_garbage_in_a_query_is_answered_by_an_error(devnet):
    dice = random.Random(5)
    ids = {"id": {"workchain": 0, "shard": 0, "seqno": 1, "root_hash": bytes(32), "file_hash": bytes(32)}}
    far = {"id": {**ids["id"], "workchain": -(1 << 31), "seqno": -1}}
    somebody = {"workchain": 77, "id": bytes(32)}
    queries = [
        b"", b"\0", dice.randbytes(64), tl.encode("liteServer.getTime")[:3], tl.encode("liteServer.getTime") + b"\0",
        tl.encode("liteServer.getBlock", **ids), tl.encode("liteServer.getBlock", **far),
        tl.encode("liteServer.getState", **far), tl.encode("liteServer.getAllShardsInfo", **ids),
        tl.encode("liteServer.getAccountState", **ids, account=somebody),
        tl.encode("liteServer.getTransactions", count=1 << 31, account=somebody, lt=-1, hash=bytes(32)),
        tl.encode("liteServer.getTransactions", count=1, account={**somebody, "workchain": 0}, lt=1, hash=bytes(32)),
        tl.encode("liteServer.lookupBlock", mode=0, id={"workchain": 0, "shard": 0, "seqno": 1}),
        tl.encode("liteServer.lookupBlock", mode=2, id={"workchain": 9, "shard": 0, "seqno": 1}, lt=-(1 << 63)),
        tl.encode("liteServer.waitMasterchainSeqno", seqno=1, timeout_ms=1),
        tl.encode("liteServer.waitMasterchainSeqno", seqno=-5, timeout_ms=-5) + b"\xff" * 8,
        tl.encode("liteServer.getLibraries", library_list=[])[:4] + struct.pack("<I", 1 << 31),
        *(tl.encode("liteServer.sendMessage", body=dice.randbytes(size)) for size in (0, 1, 100, 60_000)),
        tl.encode("liteServer.sendMessage", body=bytes.fromhex("b5ee9c72") + b"\x04\x08" + b"\xff" * 40),
    ]
    with Raw(devnet) as bad:
        for query in queries:
            bad.ask(query)
            assert bad.answer()[0] == "liteServer.error", query[:40]
        bad.ask(tl.encode("liteServer.getTime"))
        assert bad.answer()[0] == "liteServer.currentTime"


def test_a_client_with_all_its_questions_open_is_read_no_further_and_another_one_is_served(devnet):
    far = tl.encode("liteServer.waitMasterchainSeqno", seqno=(1 << 31) - 1, timeout_ms=1 << 30)
    now = tl.encode("liteServer.getTime")
    with Raw(devnet) as bad, Raw(devnet) as almost:
        for client, open_questions in ((bad, DEVNET_QUERIES), (almost, DEVNET_QUERIES - 1)):
            for _ in range(open_questions):
                client.ask(far + now)
            client.ask(now)
        assert bad.payload() == b""
        assert almost.answer()[0] == "liteServer.currentTime"
        assert serves(devnet)
        assert not bad.has_more()


def test_more_connections_than_places_leave_room_for_a_client(devnet):
    with ExitStack() as stack:
        for _ in range(2 * DEVNET_HANDSHAKES):
            stack.enter_context(socket.create_connection((devnet.host, devnet.port), timeout=PATIENCE_S))
        assert serves(devnet)


def test_a_client_that_is_served_keeps_its_place_when_all_are_taken(devnet):
    with ExitStack() as stack:
        first = stack.enter_context(Raw(devnet))
        first.ask(tl.encode("liteServer.getTime"))
        assert first.answer()[0] == "liteServer.currentTime"
        others = [stack.enter_context(Raw(devnet)) for _ in range(DEVNET_CLIENTS)]
        assert others[-1].is_closed()
        first.ask(tl.encode("liteServer.getTime"))
        assert first.answer()[0] == "liteServer.currentTime"
