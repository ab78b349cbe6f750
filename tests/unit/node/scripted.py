"""Parts of a node without disk, network or chain: journal and streams in memory, providers that a test scripts.

All of it lives on trio's clock alone, so that ``autojump_clock`` moves everything.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from cocoon.core.errors import Duplicate, StorageFull, StreamClosed
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.units import SECOND_NS
from cocoon.identity.keys import Identity, identity_of
from cocoon.ledger.escrow import EscrowBirth
from cocoon.ledger.lanes import LanePromised, LaneStage, LeaseReserved
from cocoon.node.asking import Directory
from cocoon.node.counter import OfferCounter
from cocoon.node.link import WorkLink
from cocoon.node.means import Purse
from cocoon.node.money import EscrowSeen
from cocoon.node.regard import Regard
from cocoon.node.stock import Terms
from cocoon.node.treasury import Treasury
from cocoon.p2p.streams import PeerStream
from cocoon.p2p.waits import Waits
from cocoon.privacy.hpke import open_keys
from cocoon.privacy.link import SealedReader, SealedWriter, session_keys
from cocoon.store.chain import Entry
from cocoon.store.service import Row
from cocoon.wire.messages import KeyBox, Lease, LeaseAccept, LeaseOpen
from cocoon.wire.schema import unpack
from cocoon.wire.signing import Signed, open_signed, sign
from tests.unit.ledger.parties import BIRTH, LANE_OWNER
from tests.unit.scheduler.builders import NETWORK, PROFILE


class Clock:
    """trio's clock in nanoseconds."""

    def now_ns(self) -> int:
        return int(trio.current_time() * SECOND_NS)


class Heard:
    """A logger that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    debug = warning = error = info

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        self.info(event, code=error.code, text=error.text, **fields)  # type: ignore[attr-defined]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.lines if name == event]


@dataclass
class Memory:
    """A journal as ``store.service.Journal`` is one; ``full`` appends fail first, as on a full disk.

    ``flushed`` rows are durable.
    """

    rows: list[Entry] = field(default_factory=list)
    full: int = 0
    low: bool = False
    flushed: int = 0

    async def append(self, kind: str, body: bytes, unique: bytes | None = None) -> int:
        return (await self.append_many([Row(kind, body, unique)]))[0]

    async def append_many(self, rows: Sequence[Row]) -> list[int]:
        seqs = self.write(rows)
        await self.flush()
        return seqs

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()
        self.flushed = len(self.rows)

    def write(self, rows: Sequence[Row]) -> list[int]:
        if self.full:
            self.full -= 1
            raise StorageFull("the disk is full")
        if any(row.unique is not None and self.find(row.unique) for row in rows):
            raise Duplicate("it is there")
        for row in rows:
            self.rows.append(Entry(len(self.rows) + 1, row.kind, row.body, row.unique, bytes(32)))
        return [entry.seq for entry in self.rows[len(self.rows) - len(rows):]]

    def entries(self, kind: str | None = None, after: int = 0) -> Iterator[Entry]:
        return (entry for entry in tuple(self.rows) if entry.seq > after and kind in (None, entry.kind))

    def find(self, unique: bytes) -> Entry | None:
        return next((entry for entry in self.rows if entry.unique == unique), None)

    def under(self, prefix: bytes) -> Iterator[Entry]:
        found = [entry for entry in self.rows if (entry.unique or b"").startswith(prefix) and entry.unique]
        return iter(sorted(found, key=lambda entry: entry.unique or b""))

    def last_under(self, prefix: bytes) -> Entry | None:
        return next(reversed(list(self.under(prefix))), None)


class Raw:
    """One end of a connection in memory, as ``p2p.streams.Bytes``."""

    def __init__(self, end: trio.StapledStream) -> None:
        self._end = end
        self._waits = Waits()

    def wake(self) -> None:
        self._waits.end()

    async def read_into(self, room: memoryview) -> int:
        raise AssertionError("no long frame is expected here")

    async def read(self, most: int) -> bytes:
        try:
            return bytes(await self._waits.until(lambda: self._end.receive_some(most)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise StreamClosed("the other side is gone") from None

    async def write(self, *pieces: bytes) -> None:
        try:
            await self._waits.until(lambda: self._end.send_all(b"".join(pieces)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise StreamClosed("the other side is gone") from None

    async def close(self) -> None:
        await self._end.send_stream.aclose()

    async def reset(self) -> None:
        await self._end.aclose()


def connected(here: PeerKey, there: PeerKey) -> tuple[PeerStream, PeerStream]:
    """Both ends of a stream: the one of ``here``, which speaks to ``there``, and the other."""
    mine, other = trio.testing.memory_stream_pair()
    return PeerStream(there, Raw(mine)), PeerStream(here, Raw(other))


Handler = Callable[[PeerStream], Awaitable[None]]


@dataclass
class Streets:
    """A mesh of one peer: streams to providers whose handlers a test wrote."""

    peer: PeerKey
    nursery: trio.Nursery
    handlers: dict[tuple[PeerKey, str], Handler] = field(default_factory=dict)

    async def open_stream(self, peer: PeerKey, protocol: str) -> PeerStream:
        mine, other = connected(self.peer, peer)
        self.nursery.start_soon(self._serve, self.handlers[peer, protocol], other)
        return mine

    async def _serve(self, handler: Handler, stream: PeerStream) -> None:
        try:
            await handler(stream)
        except StreamClosed:
            pass
        await stream.close()


def identity(number: int) -> Identity:
    """Keys that differ by ``number``."""
    return identity_of(bytes([number]) * 32, bytes([number]) * 96, 1)


class Provider:
    """Gives offers, agrees to every lease, and then says on the link what a test wants."""

    def __init__(self, keys: Identity, talk: Callable[[WorkLink], Awaitable[None]], **terms: Any) -> None:
        self.keys = keys
        self.counter = OfferCounter(lambda: keys, NETWORK, bytes(8), Terms(**terms), PROFILE, Clock())
        self._talk = talk

    def settle_in(self, streets: Streets) -> None:
        """Be found there."""
        streets.handlers[self.keys.key, "/cocoon/offer/1"] = self.counter._answer
        streets.handlers[self.keys.key, "/cocoon/lease/1"] = self._lease

    async def _lease(self, stream: PeerStream) -> None:
        opening = unpack(await stream.receive(), LeaseOpen)
        lease, keybox = open_signed(opening.lease, Lease), open_signed(opening.keybox, KeyBox)
        lease_id = LeaseId(lease.digest)
        keys = open_keys(self.keys.hpke, lease_id, keybox.message.box, sender=stream.peer, receiver=self.keys.key)
        again = bool(lease.message.lane)
        accept = LeaseAccept(lease=lease.digest, keybox=keybox.digest, nonce=os.urandom(32), resumed=again)
        await stream.send(sign(accept, self.keys).pack())
        session = session_keys(keys, accept.nonce, lease_id)
        reader, writer = SealedReader(session.to_provider), SealedWriter(session.to_requester)
        await self._talk(WorkLink(stream, writer, reader))


def treasury_of(journal: Memory, nursery: trio.Nursery, log: Heard) -> Treasury:
    """A treasury over an escrow that is not on chain yet."""
    async def look_soon(address: bytes) -> EscrowSeen:
        return EscrowSeen(None, 0, 1_000, 1)

    money = SimpleNamespace(
        birth=EscrowBirth(BIRTH.owner, LANE_OWNER.key, BIRTH.network_tag, BIRTH.index, BIRTH.close_delay_s),
        lane_key=LANE_OWNER, network_tag=BIRTH.network_tag, look_soon=look_soon,
    )
    return Treasury(money, journal, nursery, log, 1_000)  # type: ignore[arg-type]


def reserve(treasury: Treasury, lane: int, provider: PeerKey, lease: Signed[Lease]) -> None:
    """A lane of ours with an open lease on it, as the journal of an earlier moment has it."""
    treasury.book.record(LanePromised(lane, provider, bytes(32), bytes(32), 1_000_000, 1_000_000))
    treasury.book.lanes[lane].stage = LaneStage.OPEN
    treasury.book.record(LeaseReserved(lane, LeaseId(lease.digest), lease.message.ceiling_nanoton))


def purse_of(keys: Identity, streets: Streets, nursery: trio.Nursery) -> Purse:
    """What a requester buys with."""
    journal, log = Memory(), Heard()
    return Purse(
        identity=keys, network=NETWORK, mesh=streets, journal=journal, clock=Clock(), log=log,  # type: ignore[arg-type]
        regard=Regard(journal, Clock(), log, lambda: 0),  # type: ignore[arg-type]
        directory=Directory(streets, NETWORK),  # type: ignore[arg-type]
        market=None,  # type: ignore[arg-type]
        lease_idle_ns=60 * SECOND_NS, direct_links=True, tranche_nanoton=500,
        treasury=treasury_of(journal, nursery, log),
    )
