"""Hostile bytes from a real libp2p peer, a raw socket and a local process: refused, typed, and nobody falls."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

import cocoon
from cocoon.config.network import parse_link
from cocoon.core.errors import (
    CocoonError,
    Malformed,
    NonCanonical,
    NotFound,
    PolicyRefusal,
    StreamClosed,
    TooLarge,
    UnknownKind,
    UnknownVersion,
    UsageError,
)
from cocoon.core.units import MIB
from cocoon.node.bids import CALL_PROTOCOL
from cocoon.node.clock import MonotonicClock
from cocoon.node.counter import OFFER_PROTOCOL
from cocoon.node.selling import LEASE_PROTOCOL
from cocoon.p2p.addresses import parse_peer
from cocoon.p2p.blobs import BLOB_PROTOCOL
from cocoon.p2p.book import AddressBook
from cocoon.p2p.host import Host, RawStream
from cocoon.p2p.links import BEAT_PROTOCOL
from cocoon.p2p.service import Mesh, MeshSettings, open_mesh
from cocoon.telemetry.log import get_logger
from cocoon.wire.codec import decode, encode
from cocoon.wire.framing import FrameParser, frame
from cocoon.wire.messages import Refusal, TrancheClose
from cocoon.wire.schema import pack, unpack
from tests.loopback.conftest import Settled
from tests.loopback.town import PATIENCE_S, Peer
from tests.loopback.verdict import all_up, good_task_runs, wait_log

GIB_2 = 1 << 31
#: Above what a peer takes for a few small messages, far below what was announced.
GROWTH_BYTES = 64 * MIB
SEED = 20261123


#: The kind of the first message of each protocol.
KINDS = {CALL_PROTOCOL: 70, OFFER_PROTOCOL: 4, LEASE_PROTOCOL: 9, BLOB_PROTOCOL: 40, BEAT_PROTOCOL: 1}


def bad_frames(protocol: str) -> dict[str, tuple[bytes, type[CocoonError]]]:
    """What a stranger may send as a first frame, and what it is."""
    kind = KINDS[protocol]
    noise = random.Random(SEED).randbytes(300)
    return {
        "2 GiB announced": (struct.pack(">I", GIB_2) + noise, TooLarge),
        "4 GiB announced": (b"\xff" * 4 + noise, TooLarge),
        "an unknown kind": (frame(encode([999, 1, {}])), UnknownKind),
        "a kind of another protocol": (frame(pack(TrancheClose(through=1))), UnknownKind),
        "an unknown version": (frame(encode([kind, 99, {}])), UnknownVersion),
        "random bytes": (frame(noise), Malformed),
        "nothing": (frame(b""), Malformed),
        "a second spelling": (frame(b"\x93\xcc\x04\x01\x80"), NonCanonical),
        "deep nesting": (frame(b"\x91" * 200), Malformed),
        "an endless array": (frame(b"\xdd\xff\xff\xff\xff"), TooLarge),
        "a map of the wrong fields": (frame(encode([kind, 1, {1: 7}])), Malformed),
    }


#: Cut inside the length, inside the payload, and after nothing at all.
TRUNCATED = [b"", b"\x00\x00", frame(bytes(100))[:40]]


@pytest.fixture(autouse=True)
def unharmed(settled: Settled, tmp_path: Path) -> Iterator[None]:
    """Peers stay up, keep their memory, and the next good task succeeds."""
    before = {peer.name: peak_bytes(peer) for peer in settled.town.peers}
    yield
    good_task_runs(settled.requester, tmp_path)
    all_up(settled.town)
    for peer in settled.town.peers:
        assert peak_bytes(peer) - before[peer.name] < GROWTH_BYTES


def peak_bytes(peer: Peer) -> int:
    """The most memory that the peer's own process ever held."""
    status = Path(f"/proc/{peer.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1_024


def address_of(peer: Peer) -> str:
    """Where a peer listens; a bootstrap has no control socket, but its link."""
    if (peer.home / "control.json").exists():
        return str(cocoon.connect(peer.home).status()["addresses"][0])
    return parse_link(peer.lines[0]).bootstraps[0]


@asynccontextmanager
async def stranger(settled: Settled) -> AsyncIterator[Mesh]:
    """A lawful member of the network, until it speaks."""
    network = parse_link(settled.town.link).id
    settings = MeshSettings(network=network, boot_id=os.urandom(8), sells=False)
    with trio.fail_after(PATIENCE_S):
        async with open_mesh(settings, os.urandom(32), AddressBook(), MonotonicClock(), get_logger("test")) as mesh:
            yield mesh


async def heard(stream: RawStream) -> bytes:
    """All that the other side says until it ends the stream or falls silent with a whole frame."""
    data = b""
    try:
        while not data or len(data) < 4 + int.from_bytes(data[:4], "big"):
            chunk = await stream.read(1 << 16)
            if not chunk:
                break
            data += chunk
    except StreamClosed:
        pass
    return data


@pytest.mark.parametrize("protocol", [CALL_PROTOCOL, OFFER_PROTOCOL, LEASE_PROTOCOL, BLOB_PROTOCOL])
async def test_a_bad_first_frame_is_refused_typed_and_logged(settled: Settled, protocol: str) -> None:
    victim = settled.provider
    async with stranger(settled) as mesh:
        address, peer = parse_peer(address_of(victim))
        for name, (data, error) in bad_frames(protocol).items():
            stream = await (await mesh.reach(peer, [address])).open(protocol)
            await stream.write(data)
            said = await heard(stream)
            if said:
                answer = unpack(said[4:], Refusal)
                assert answer.code == error.code, (name, answer)
            # A frame that is too large is answered by a reset: nothing after it can be understood.
            assert bool(said) == (protocol != BLOB_PROTOCOL and "announced" not in name), name
            await trio.to_thread.run_sync(wait_log, victim, f'"code": "{error.code}"')
            await stream.close()
        assert peer in mesh.connections(), "a bad frame costs its stream, not the connection"


@pytest.mark.parametrize("protocol", [CALL_PROTOCOL, OFFER_PROTOCOL, LEASE_PROTOCOL, BLOB_PROTOCOL])
async def test_a_frame_that_is_cut_off_ends_its_stream_only(settled: Settled, protocol: str) -> None:
    async with stranger(settled) as mesh:
        address, peer = parse_peer(address_of(settled.provider))
        connection = await mesh.reach(peer, [address])
        for data in TRUNCATED:
            closed, cut = await connection.open(protocol), await connection.open(protocol)
            if data:
                await closed.write(data)
                await cut.write(data)
            await cut.reset()
            await closed.close()
            said = await heard(closed)
            assert not said or unpack(said[4:], Refusal).code == StreamClosed.code
        assert peer in mesh.connections()


async def test_streams_that_never_speak_leave_room_for_others(settled: Settled) -> None:
    async with stranger(settled) as mesh:
        address, peer = parse_peer(address_of(settled.provider))
        connection = await mesh.reach(peer, [address])
        silent = [await connection.open(protocol) for protocol in (OFFER_PROTOCOL, LEASE_PROTOCOL) for _ in range(20)]
        offers = await trio.to_thread.run_sync(cocoon.connect(settled.requester.home).offers)
        assert len(offers) == 1
        for stream in silent:
            await stream.reset()


@pytest.mark.parametrize("name", ["provider", "requester", "bootstrap"])
async def test_a_bad_hello_ends_its_connection(settled: Settled, name: str) -> None:
    victim: Peer = getattr(settled, name)
    where = await trio.to_thread.run_sync(address_of, victim)
    for data, _ in bad_frames(BEAT_PROTOCOL).values():
        async with bare_host() as host:
            address, peer = parse_peer(where)
            connection = await host.dial(peer, address)
            stream = await connection.open(BEAT_PROTOCOL)
            await stream.write(data)
            with trio.fail_after(PATIENCE_S):
                await connection.closed.wait()


@asynccontextmanager
async def bare_host() -> AsyncIterator[Host]:
    """A host without our mesh above it: it says nothing by itself."""

    async def guard(_where: object, call: object) -> bool:
        return False                                    # it serves nothing

    host = Host(os.urandom(32), guard)
    async with host.run(("/ip4/127.0.0.1/tcp/0",)):
        yield host


def test_bytes_that_are_no_handshake_are_hung_up_on(settled: Settled) -> None:
    noise = random.Random(SEED)
    multistream = b"\x13/multistream/1.0.0\n" + b"\xff" * 99
    for data in (noise.randbytes(4_096), b"\xff" * 4_096, b"GET / HTTP/1.1\r\n\r\n", multistream):
        for peer in settled.town.peers:
            _, _, host, _, port = address_of(peer).split("/p2p/")[0].split("/")
            with socket.create_connection((host, int(port)), PATIENCE_S) as raw:
                raw.settimeout(PATIENCE_S)
                try:
                    raw.sendall(data)
                    raw.shutdown(socket.SHUT_WR)
                    while raw.recv(4_096):
                        pass
                except ConnectionError:
                    pass                                # hung up in the middle of it
                except OSError as error:
                    assert error.errno == errno.ENOTCONN, error     # hung up before we could stop talking


# --- the control socket --------------------------------------------------------


def ask(peer: Peer, data: bytes) -> dict[str, object]:
    """Send raw bytes to the control socket and return the first reply, or nothing if there is none."""
    with talking(peer, data, then_close=True) as replies:
        return next(replies, {})


@contextmanager
def talking(peer: Peer, data: bytes, *, then_close: bool = False) -> Iterator[Iterator[dict[str, object]]]:
    """Send raw bytes to the control socket; what is replied, until the peer hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.settimeout(PATIENCE_S)
        folder = os.open(peer.home, os.O_RDONLY)
        raw.connect(f"/proc/self/fd/{folder}/control.sock")
        os.close(folder)
        raw.sendall(data)
        if then_close:
            raw.shutdown(socket.SHUT_WR)
        yield _replies(raw)


def _replies(raw: socket.socket) -> Iterator[dict[str, object]]:
    parser = FrameParser(MIB)
    while chunk := raw.recv(65_536):
        for said in parser.feed(chunk):
            reply = decode(said, max_bytes=MIB, keys="str")
            assert isinstance(reply, dict)
            yield reply


def request(peer: Peer, verb: object = "status", args: object = None, **changes: object) -> bytes:
    """A request with the peer's own token, with changes."""
    token = json.loads((peer.home / "control.json").read_text())["token"]
    return frame(encode({"token": token, "verb": verb, "args": {} if args is None else args, **changes}, keys="str"))


def test_bad_bytes_on_the_control_socket_are_answered_typed(settled: Settled) -> None:
    peer = settled.requester
    run = {"model": "/etc/hostname", "units": 1, "max_price_nanoton": 0, "deadline_ms": 1_000}
    cases: list[tuple[bytes, type[CocoonError]]] = [
        (struct.pack(">I", GIB_2), TooLarge),
        (frame(random.Random(SEED).randbytes(300)), Malformed),
        (frame(b""), Malformed),
        (frame(encode([1, 2])), UsageError),
        (request(peer, token="wrong"), PolicyRefusal),
        (request(peer, token=7), PolicyRefusal),
        (request(peer, verb="format_disk"), UsageError),
        (request(peer, verb=["status"]), UsageError),
        (request(peer, args=[]), UsageError),
        (request(peer, "run", {}), UsageError),
        (request(peer, "run", {**run, "units": 1 << 40}), UsageError),
        (request(peer, "run", {**run, "model": "Z" * 64}), UsageError),
            (request(peer, "run", {**run, "model": "z" * 64}), NotFound),
        (request(peer, "run", {**run, "model": "\0/"}), CocoonError),
        (request(peer, "run", {**run, "deadline_ms": 0}), UsageError),
        (request(peer, "receipts_show", {"hash": "no hex"}), UsageError),
        (request(peer, "models_add", {"path": "/nowhere"}), CocoonError),
    ]
    for data, error in cases:
        reply = ask(peer, data)
        assert set(reply) == {"error"}, (data[:80], reply)
        found = reply["error"]
        assert isinstance(found, dict) and found["remedy"]
        assert found["code"] != CocoonError.code, (data[:80], found)
        if error is not CocoonError:
            assert found["code"] == error.code, (data[:80], found)


@pytest.mark.parametrize("unit", [
    {}, {"first": 1, "inputs": [b""]}, {"first": "0", "inputs": [b""]}, {"first": 0}, {"first": 0, "inputs": b""},
    {"first": 0, "inputs": []}, {"first": 0, "inputs": ["x"]}, {"first": 0, "inputs": [b"", 7]},
    {"first": 0, "inputs": [b"", b"", b""]}, {"unit": 0, "inputs": b""},
    {"shared_bytes": 64}, {"first": 0, "inputs": [[0, 1]]}, {"first": 0, "inputs": [b""], "rooms": [[0, 1]]},
    {"first": 0, "inputs": [b""], "rooms": []},
], ids=str)
def test_units_of_another_form_end_the_task_and_no_peer(settled: Settled, unit: dict[str, object]) -> None:
    peer = settled.requester
    run = {"model": "/etc/hostname", "units": 2, "max_price_nanoton": 0, "deadline_ms": 5_000}
    with talking(peer, request(peer, "run", run) + frame(encode(unit, keys="str"))) as replies:
        last = list(replies)[-1]
    found = last["error"]
    assert isinstance(found, dict) and found["code"] == UsageError.code
    assert re.search("due|room|descriptor", str(found["text"]))
    assert cocoon.connect(peer.home).status()["tasks_open"] == 0


def test_a_client_that_hangs_up_in_the_middle_is_forgotten(settled: Settled) -> None:
    peer = settled.requester
    for data in (b"", b"\x00\x00", request(peer)[:-3], request(peer, "offers")):
        ask(peer, data)
    assert cocoon.connect(peer.home).status()["tasks_open"] == 0
